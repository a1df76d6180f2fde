//! One leg: what it says itself, when its heartbeat calls the peer silent, and that its timers come to rest.
#![no_main]
use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pulsegate_fuzz::{
    protocol::{
        Role,
        close::{CloseCode, CloseFrame},
        heartbeat::{Answers, HeartbeatConfig, HeartbeatEvent, HeartbeatKind, Liveness, Seed},
        leg::{Leg, Output},
        moment::Moment,
    },
    settings,
    wire::{Item, Wire},
};

const SECRET: u64 = 0x7075_6c73_6567_6174;
/// Timeouts at one instant, before the leg is called spinning.
const SPIN: usize = 8;

fuzz_target!(|bytes: &[u8]| {
    // An input that ends early is no finding.
    run(&mut Unstructured::new(bytes)).ok();
});

struct Bench {
    config: HeartbeatConfig,
    leg: Leg,
    now: Moment,
    /// What the peer gets.
    sent: Wire,
    /// The transport takes what is sent.
    takes: bool,
    /// The leg is read.
    reads: bool,
}

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let config = settings::heartbeat(u)?;
    let role = if u.arbitrary()? { Role::Server } else { Role::Client };
    let now = Moment::START;
    let seed = Seed { secret: SECRET, jitter: u.arbitrary()? };
    let leg = Leg::new(role, &config, seed, now);
    let sent = Wire::new(role == Role::Client, false);
    let mut bench = Bench { config, leg, now, sent, takes: true, reads: true };
    while !u.is_empty() {
        bench.act(u)?;
        bench.emit();
    }
    Ok(())
}

impl Bench {
    fn act(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=13u8)? {
            0..=2 => self.pass(u)?,
            3 => self.leg.heartbeat.on_bytes(&self.config, self.now),
            4 | 5 => self.pong(u)?,
            6 => self.leg.heartbeat.on_app_ping(self.leg.outbox.position(), self.now),
            7 => self.taken(u)?,
            8 => self.takes ^= true,
            9 => {
                self.reads ^= true;
                self.leg.heartbeat.reading(self.reads, self.now);
            }
            10 => {
                self.now += settings::millis(u)?;
                self.leg.heartbeat.resume(self.now);
            }
            11 => {
                let length = u.int_in_range(0..=125)?.min(u.len());
                self.leg.answer(u.bytes(length)?);
            }
            12 => {
                let waiting = self.leg.outbox.len();
                if waiting > 0 {
                    self.leg.outbox.take(u.int_in_range(1..=waiting)?);
                }
            }
            _ => {
                if self.leg.output == Output::Open && u.ratio(1, 8)? {
                    let frame = CloseFrame { code: CloseCode::new(u.arbitrary()?), reason: "fuzz" };
                    self.leg.quiet();
                    self.leg.output = Output::Due { frame: Box::new(frame.saying(None)), by: self.now };
                }
            }
        }
        Ok(())
    }

    /// Time passes; timers run when they are due, and come to rest.
    fn pass(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let until = self.now + settings::millis(u)?;
        let answers = if u.arbitrary()? { Answers::Proven } else { Answers::Unproven };
        let path = settings::path(u)?;
        let mut turns = 0;
        while let Some(at) = self.leg.heartbeat.poll_timeout(&self.config).filter(|at| *at <= until) {
            turns = if at > self.now { 0 } else { turns + 1 };
            assert!(turns < SPIN, "the heartbeat spins: {:#?}", self.leg.heartbeat);
            self.now = self.now.max(at);
            if self.leg.heartbeat.on_timeout(&self.config, answers, self.now, || path).is_err() {
                self.silent();
            }
            self.emit();
        }
        self.now = until;
        Ok(())
    }

    /// The peer was called silent: it must have been.
    fn silent(&mut self) {
        let config = &self.config;
        assert_eq!(config.kind, HeartbeatKind::Ping, "keepalive without detection judged a peer");
        let Some(timeout) = config.ping_timeout else { panic!("judged with ping_timeout = \"off\"") };
        assert!(self.reads, "a leg that is not read was called silent");
        if config.liveness == Liveness::Traffic {
            let quiet = self.now - self.leg.heartbeat.heard();
            assert!(quiet >= timeout, "called silent after {quiet:?}");
        }
        self.leg.heartbeat.stop();
    }

    /// A pong, to any of our pings or to none.
    fn pong(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let sent: Vec<&Vec<u8>> = self
            .sent
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Ping(payload) => Some(payload),
                Item::Text(_) | Item::Binary(_) | Item::Compressed(_) | Item::Pong(_) | Item::Close(_) => None,
            })
            .collect();
        let own = !sent.is_empty() && u.ratio(3, 4)?;
        let payload = if own { (*u.choose(&sent)?).clone() } else { u.arbitrary::<[u8; 12]>()?.to_vec() };
        let forged = payload.starts_with(&SECRET.to_be_bytes());
        self.leg.heartbeat.on_bytes(&self.config, self.now);
        let swallowed = self.leg.heartbeat.on_pong(&self.config, &payload, self.now);
        assert!(swallowed == own || forged, "{} swallowed: {swallowed}", payload.escape_ascii());
        Ok(())
    }

    fn taken(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let path = settings::path(u)?;
        let before = self.leg.heartbeat.sent();
        if self.leg.waits_for_transport() {
            self.leg.on_taken(&self.config, self.now, || path);
        }
        let left = self.leg.heartbeat.sent() - before;
        assert!(left <= 1);
        if left == 1 {
            assert_eq!(self.leg.heartbeat.take_event(), Some(HeartbeatEvent::Sent));
        }
        Ok(())
    }

    /// Puts what the leg has to say into its stream.
    fn emit(&mut self) {
        let mut count = 0;
        while let Some(control) = self.leg.take_control(&self.config, self.now, || [0x5a, 0, 0xff, 7]) {
            count += 1;
            assert!(count <= 3, "control frames without end");
            if let Err(wrong) = self.sent.push(control.bytes()) {
                panic!("the peer is sent {wrong}: {control:?} after {:?}", self.sent.items);
            }
            if self.takes && self.leg.outbox.is_empty() {
                self.leg.outbox.passed(control.bytes().len());
            } else {
                self.leg.outbox.push(control.bytes());
            }
        }
        assert!(self.leg.outbox.len() <= 3 * 131);
        assert!(self.sent.at_border());
    }
}
