//! The shell that a relay is written for, with two transports whose every whim the fuzzer decides.
use crate::{
    protocol::heartbeat::{Answers, PathSample, Seed},
    relay::{EndReason, Loss, Outcome, PerSide, Pings, Relay, RelayConfig, Side, Wish},
    wire::{Item, Wire},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The largest read. Small, so that chunk borders are common.
pub const READ: usize = 1024;
/// What a scanner holds back at most.
const HELD: usize = 138;
/// Control frames of the gateway's own that may wait: a ping, a pong and a close, each of 131 bytes at most.
const CONTROLS: usize = 3 * 131;
/// Turns in which no time passes, before the relay is called spinning.
const SPIN: usize = 16;

/// The peer of one leg, and the pipe to it.
#[derive(Debug)]
pub struct Transport {
    /// Sent by the peer, not read yet.
    pub incoming: Vec<u8>,
    /// What follows that.
    pub loss: Option<Loss>,
    /// Writes fail.
    pub broken: bool,
    /// Bytes that the transport would take now.
    pub room: usize,
    /// It took bytes that it has not passed on itself (TLS).
    pub holding: bool,
    lost: bool,
    state: State,
    /// What the peer gets.
    pub sent: Wire,
    /// What the relay got from it, up to the first mistake.
    pub received: Wire,
    mistaken: bool,
    /// Bytes at the beginning of what comes in that the relay has been told of already.
    told: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    ShutDown,
    Closed,
}

impl Transport {
    fn new(side: Side, deflate: bool) -> Self {
        let client = side == Side::Downstream;
        Self {
            incoming: Vec::new(),
            loss: None,
            broken: false,
            room: 4096,
            holding: false,
            lost: false,
            state: State::Open,
            sent: Wire::new(!client, deflate),
            received: Wire::new(client, deflate),
            mistaken: false,
            told: 0,
        }
    }
}

/// A relay, its transports and its time.
#[derive(Debug)]
pub struct Shell {
    pub relay: Relay,
    pub now: Instant,
    pub transports: PerSide<Transport>,
    /// What TCP would say if asked.
    pub path: Option<PathSample>,
    pub answers: Answers,
    config: Arc<RelayConfig>,
    began: Instant,
    reason: Option<EndReason>,
    outcome: Option<Outcome>,
}

impl Shell {
    #[must_use]
    pub fn new(config: RelayConfig, deflate: bool, jitter: u64) -> Self {
        let now = Instant::now();
        let config = Arc::new(config);
        let seeds = PerSide {
            downstream: Seed { secret: secret(Side::Downstream), jitter },
            upstream: Seed { secret: secret(Side::Upstream), jitter: !jitter },
        };
        Self {
            relay: Relay::new(Arc::clone(&config), deflate, seeds, now),
            now,
            transports: PerSide {
                downstream: Transport::new(Side::Downstream, deflate),
                upstream: Transport::new(Side::Upstream, deflate),
            },
            path: None,
            answers: Answers::Proven,
            config,
            began: now,
            reason: None,
            outcome: None,
        }
    }

    /// Time since the start, for messages.
    fn clock(&self) -> Duration {
        self.now - self.began
    }

    /// One turn of the loop: reads, writes and obeys, until nothing moves.
    pub fn turn(&mut self) {
        for side in Side::BOTH {
            self.controls();
            self.read(side);
        }
        for side in Side::BOTH {
            self.write(side);
            self.taken(side);
        }
        self.controls();
        for side in Side::BOTH {
            self.taken(side);
        }
        for side in Side::BOTH {
            self.obey(side);
        }
        self.check();
    }

    /// Lets time pass; the relay's timers run when they are due.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut turns = 0;
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at <= until) {
            turns = if at > self.now { 0 } else { turns + 1 };
            assert!(turns < SPIN, "the relay spins at {:?}: {:#?}", self.clock(), self.relay);
            self.now = self.now.max(at);
            self.timers();
        }
        self.now = until;
        self.turn();
    }

    /// The timers run late.
    pub fn oversleep(&mut self, time: Duration) {
        self.now += time;
        if time > Duration::from_secs(1) {
            self.relay.resume(self.now);
        }
        self.timers();
    }

    fn timers(&mut self) {
        let path = self.path;
        self.relay.on_timeout(self.now, self.answers, |_| path);
        self.turn();
    }

    fn read(&mut self, side: Side) {
        if !self.relay.wants_read(side) || self.transports[side].lost {
            return;
        }
        let transport = &mut self.transports[side];
        assert!(transport.state != State::Closed, "a closed transport is to be read");
        if transport.incoming.is_empty() {
            if let Some(loss) = transport.loss {
                transport.lost = true;
                transport.broken |= loss != Loss::End;
                self.relay.lost(side, loss, self.now);
            }
            return;
        }
        let length = transport.incoming.len().min(READ);
        let fresh = length.saturating_sub(transport.told);
        let mut chunk = vec![0; HELD + length];
        let held = self.relay.take_held(side, &mut chunk);
        assert!(held <= HELD);
        let transport = &mut self.transports[side];
        chunk.truncate(held);
        chunk.extend(transport.incoming.drain(..length));
        transport.told -= length - fresh;
        let new = held + length - fresh;
        transport.mistaken = transport.mistaken || transport.received.push(&chunk[new..]).is_err();
        self.relay.arrived(side, fresh, self.relay.moment(self.now));
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            self.controls();
            let step = self.relay.receive(side, rest, self.relay.moment(self.now));
            if step.used == 0 && self.relay.slowed(side) {
                // It comes again, before what is still to come.
                let transport = &mut self.transports[side];
                transport.told += rest.len();
                transport.incoming.splice(0..0, rest.iter().copied());
                break;
            }
            assert!(step.used > 0 && step.pass.end <= step.used, "{step:?} of {}", rest.len());
            self.send(side.other(), &rest[step.pass]);
            rest = &rest[step.used..];
        }
        self.controls();
    }

    fn controls(&mut self) {
        for side in Side::BOTH {
            let mut count = 0;
            while let Some(control) = self.relay.take_control(side, self.now, || [0x5a, 0, 0xff, 7]) {
                count += 1;
                assert!(count <= 3, "control frames without end: {control:?}");
                self.send(side, control.bytes());
            }
        }
    }

    fn send(&mut self, side: Side, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let transport = &mut self.transports[side];
        assert!(transport.state == State::Open, "bytes for a transport that is {:?}", transport.state);
        let mut rest = bytes;
        if self.relay.outbox(side).is_empty() && !transport.broken {
            let taken = transport.room.min(bytes.len());
            transport.take(&bytes[..taken]);
            self.relay.sent(side, taken);
            rest = &bytes[taken..];
        }
        self.relay.queue(side, rest, self.now);
        if self.transports[side].broken {
            self.unwritable(side);
        }
    }

    fn write(&mut self, side: Side) {
        let outbox = self.relay.outbox(side);
        let most = READ + HELD + CONTROLS;
        assert!(outbox.len() <= most, "{} bytes wait: more than a read and three control frames", outbox.len());
        if outbox.is_empty() {
            return;
        }
        let transport = &mut self.transports[side];
        if transport.broken {
            self.unwritable(side);
            return;
        }
        let taken = transport.room.min(outbox.len());
        transport.take(&outbox.waiting()[..taken]);
        if taken > 0 {
            self.relay.took(side, taken, self.now);
        }
    }

    fn unwritable(&mut self, side: Side) {
        self.relay.unwritable(side, self.now);
        if self.relay.wants_read(side) && !self.transports[side].lost {
            self.transports[side].lost = true;
            self.relay.lost(side, Loss::Failed, self.now);
        }
    }

    fn taken(&mut self, side: Side) {
        if self.relay.waits_for_transport(side) && !self.transports[side].holding {
            let path = self.path;
            self.relay.on_taken(side, self.now, || path);
        }
    }

    fn obey(&mut self, side: Side) {
        match self.relay.wish(side) {
            Wish::Keep => {}
            Wish::ShutDown => {
                if self.relay.outbox(side).is_empty() && !self.transports[side].holding {
                    self.transports[side].state = State::ShutDown;
                    self.relay.shut_down(side, self.now);
                }
            }
            Wish::Drop | Wish::Reset => {
                self.transports[side].state = State::Closed;
                self.relay.finished(side);
            }
        }
    }

    /// What holds at any time.
    fn check(&mut self) {
        for side in Side::BOTH {
            let (sent, source) = (&self.transports[side].sent, &self.transports[side.other()].received);
            assert!(source.data.starts_with(&sent.data), "data frames to the {} changed", side.label());
            self.controls_cross(side);
            if let Some(Item::Close(payload)) = sent.items.last() {
                assert!(may_close(payload), "a close frame that nobody may send: {}", payload.escape_ascii());
            }
        }
        let outcome = self.relay.outcome();
        assert!(self.outcome.is_none() || self.outcome == outcome, "{:?} became {outcome:?}", self.outcome);
        self.outcome = outcome;
        if let Some(outcome) = outcome {
            assert_eq!(*self.reason.get_or_insert(outcome.reason), outcome.reason);
        }
        assert!(!self.relay.is_done() || outcome.is_some(), "done, and nobody knows why");
        assert!(outcome.is_none() || self.relay.is_ending());
    }

    /// The peers' own pings and pongs cross in order, and no others than theirs.
    fn controls_cross(&self, side: Side) {
        let (sent, source) = (&self.transports[side].sent, &self.transports[side.other()].received);
        if self.config.pings == Pings::Answer {
            return;
        }
        let foreign = |item: &&Item| match item {
            Item::Ping(payload) | Item::Pong(payload) => !payload.starts_with(&secret(side).to_be_bytes()),
            Item::Text(_) | Item::Binary(_) | Item::Compressed(_) | Item::Close(_) => false,
        };
        let mut came = source.items.iter();
        for item in sent.items.iter().filter(foreign) {
            assert!(came.any(|source| source == item), "{item:?} crossed to the {}, unsent", side.label());
        }
    }

    /// Ends the session, if nothing has, and sees that it is over in time whatever the transports do from here on.
    pub fn end(&mut self) {
        self.relay.end(EndReason::Draining, None, self.now);
        self.turn();
        let timeouts = &self.config.timeouts;
        // A close frame to be said, to be taken, to be answered, the end of TCP: each leg may wait for the other one's.
        let patience = 4 * timeouts.close + 6 * timeouts.stall.unwrap_or(timeouts.close) + Duration::from_secs(1);
        let began = self.now;
        let mut turns = 0;
        while !self.relay.is_done() {
            turns += 1;
            let Some(at) = self.relay.poll_timeout() else { panic!("it never ends: {:#?}", self) };
            assert!(turns < 1000 && at < began + patience, "not over within {patience:?}: {:#?}", self);
            self.now = self.now.max(at);
            self.timers();
        }
        assert!(self.relay.poll_timeout().is_none_or(|at| at > self.now), "done, but a timer is due");
    }
}

impl Transport {
    fn take(&mut self, bytes: &[u8]) {
        self.room -= bytes.len();
        if let Err(wrong) = self.sent.push(bytes) {
            panic!("the peer is sent {wrong}: {:?} then {}", self.sent, bytes.escape_ascii());
        }
    }
}

/// Whether a close frame may hold this (RFC 6455 sections 5.5.1 and 7.4, and the codes registered since).
fn may_close(payload: &[u8]) -> bool {
    let [high, low, reason @ ..] = payload else { return payload.is_empty() };
    let code = u16::from_be_bytes([*high, *low]);
    let registered = (1000..=1014).contains(&code) && !(1004..=1006).contains(&code);
    (registered || (3000..=4999).contains(&code)) && std::str::from_utf8(reason).is_ok()
}

/// Marks the gateway's own pings on a leg.
#[must_use]
pub fn secret(side: Side) -> u64 {
    match side {
        Side::Downstream => 0x7075_6c73_6567_0001,
        Side::Upstream => 0x7075_6c73_6567_0002,
    }
}
