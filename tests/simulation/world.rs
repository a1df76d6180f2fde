//! The virtual clock, the events, and the shell that drives the relay as a session does.
use crate::{
    check,
    network::{Link, Packet, Sends, Socket},
    peer::{Condition, Ending, Peer},
    scenario::{Fate, Micros, S, Scenario},
};
use fastrand::Rng;
use pulsegate::{
    protocol::{heartbeat::Seed, leg::Input},
    relay::{EndReason, Loss, Outcome, PerSide, Pings, Relay, Side, Wish},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// What an outbox may hold: one read, held bytes before it, a few control frames.
const OUTBOX_MAX: usize = 65_536 + 138 + 4 * 131;
/// After a machine's pause, when its peers' packets come again.
const RESENT_AFTER: Micros = 200_000;
/// Timer calls at one instant that lead to nothing else.
const SPINS_MAX: usize = 12;

#[derive(Clone, Debug)]
enum Event {
    Packet(Side, Packet),
    Peer(Side),
    Gateway,
    Resumes,
    Drain,
    Cut,
    GivenUp(Side),
    /// By now this silent side must have ended the session; `true`: if nothing came between.
    Found(Side, bool),
    Over,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) relay: Relay,
    pub(crate) peers: PerSide<Peer>,
    pub(crate) links: PerSide<Link>,
    pub(crate) now: Micros,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) ended_at: Option<Micros>,
    /// All that was read from each side.
    pub(crate) read: PerSide<Vec<u8>>,
    pub(crate) deaf: PerSide<bool>,
    pub(crate) drained: bool,
    pub(crate) cut: bool,
    /// Something kept the detection of a silent side from running straight.
    hindered: PerSide<bool>,
    crossed: PerSide<usize>,
    codes: PerSide<(Option<u16>, Option<u16>)>,
    base: Instant,
    rng: Rng,
    events: BTreeMap<(Micros, u64), Event>,
    order: u64,
    timer: Option<Micros>,
    peer_wakes: PerSide<Option<Micros>>,
    paused_until: Option<Micros>,
    write_failed: PerSide<bool>,
    told_lost: PerSide<bool>,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, base: Instant, trace: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::new(&mut rng);
        if trace {
            eprintln!("{scenario:#?}");
        }
        let mut fresh = || Seed { secret: rng.u64(..), jitter: rng.u64(..) };
        let seeds = PerSide { downstream: fresh(), upstream: fresh() };
        let crossing = scenario.config.pings == Pings::Forward;
        let mut peer =
            |side: Side| Peer::new(side, scenario.peers[side].clone(), seeds[side].secret, crossing, rng.fork());
        let peers = PerSide { downstream: peer(Side::Downstream), upstream: peer(Side::Upstream) };
        let links = PerSide {
            downstream: Link::new(scenario.paths.downstream.clone()),
            upstream: Link::new(scenario.paths.upstream.clone()),
        };
        let relay = Relay::new(Arc::new(scenario.config.clone()), false, seeds, base);
        let mut world = Self {
            scenario,
            relay,
            peers,
            links,
            now: 0,
            outcome: None,
            ended_at: None,
            read: PerSide::default(),
            deaf: PerSide::default(),
            drained: false,
            cut: false,
            hindered: PerSide::default(),
            crossed: PerSide::default(),
            codes: PerSide::default(),
            base,
            rng,
            events: BTreeMap::new(),
            order: 0,
            timer: None,
            peer_wakes: PerSide::default(),
            paused_until: None,
            write_failed: PerSide::default(),
            told_lost: PerSide::default(),
            trace,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let scenario = self.scenario.clone();
        self.at(scenario.drain_at, Event::Drain);
        if let Some(after) = scenario.cut_after {
            self.at(scenario.drain_at + after, Event::Cut);
        }
        if let Some((at, long)) = scenario.pause {
            self.at(at, Event::Resumes);
            self.at(at + long, Event::Resumes);
        }
        let timeouts = &scenario.config.timeouts;
        let stall = timeouts.stall.unwrap_or_default().as_micros() as Micros;
        let paused = scenario.pause.map_or(0, |(_, long)| long);
        self.at(
            scenario.drain_at + 6 * timeouts.close.as_micros() as Micros + 3 * stall + 60 * S + paused,
            Event::Over,
        );
        for side in Side::BOTH {
            self.at(0, Event::Peer(side));
            let fate_at = scenario.peers[side].fate_at;
            if let Fate::TimesOut(after) = scenario.peers[side].fate {
                self.at(fate_at + after, Event::GivenUp(side));
            }
            if let Some((straight, hindered)) = check::bounds(&scenario, side) {
                self.at(fate_at + straight, Event::Found(side, true));
                self.at(fate_at + hindered + paused, Event::Found(side, false));
            }
        }
        self.at(0, Event::Gateway);
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.order += 1;
        self.events.insert((when.max(self.now), self.order), event);
    }

    fn clock(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now as f64 / S as f64, what());
        }
    }

    /// Runs until the session is over and the peers have seen all of it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while let Some(((when, _), event)) = self.events.pop_first() {
            self.now = when;
            let late = matches!(event, Event::Over | Event::Found(..) | Event::Gateway | Event::Drain);
            if self.relay.is_done() && late {
                continue;
            }
            if self.relay.is_done() && when > self.ended_at.unwrap_or(0) + 600 * S {
                break;
            }
            self.happens(event).map_err(|error| format!("at {:.6} s: {error}", when as f64 / S as f64))?;
        }
        if !self.relay.is_done() {
            return Err("the session never ended".to_owned());
        }
        check::at_the_end(self, self.codes)
    }

    /// When packets that reach the gateway's machine now are taken in, if it is paused as a whole.
    fn postponed(&self) -> Option<Micros> {
        let (at, long) = self.scenario.pause.filter(|_| self.scenario.kernel_paused)?;
        let back = at + long + RESENT_AFTER;
        (at <= self.now && self.now <= back).then_some(back + 1)
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Packet(side, packet) if packet.is_for_gateway() && self.postponed().is_some() => {
                let later = self.postponed().unwrap_or(self.now);
                self.at(later, Event::Packet(side, packet));
                return Ok(());
            }
            Event::Packet(side, packet) => return self.arrives(side, packet),
            Event::Peer(side) => {
                if self.peer_wakes[side].is_some_and(|at| at <= self.now) {
                    self.peer_wakes[side] = None;
                }
                return self.peer(side);
            }
            Event::Gateway => self.timer = None,
            Event::Resumes => match self.paused_until {
                None => {
                    self.note(|| "gateway paused".to_owned());
                    self.hindered = PerSide { downstream: true, upstream: true };
                    self.paused_until = self.scenario.pause.map(|(at, long)| at + long);
                    return Ok(());
                }
                Some(_) => {
                    self.note(|| "gateway resumes".to_owned());
                    self.paused_until = None;
                    let now = self.clock();
                    self.relay.resume(now);
                }
            },
            Event::Drain => {
                self.note(|| "drain".to_owned());
                let now = self.clock();
                self.drained = true;
                self.relay.end(EndReason::Draining, None, now);
            }
            Event::Cut => {
                self.note(|| "cut".to_owned());
                let now = self.clock();
                self.cut = true;
                self.relay.cut(EndReason::Draining, now);
                self.turn()?;
                return if self.relay.is_done() || self.paused_until.is_some() {
                    Ok(())
                } else {
                    Err("not over after a cut".to_owned())
                };
            }
            Event::GivenUp(side) if self.peers[side].condition == Condition::Vanished => {
                self.links[side].loss = Some(Loss::TimedOut);
            }
            Event::GivenUp(_) => {}
            Event::Found(side, straight) => {
                // A closed window without `timeouts.stall`, or a frame that trickles in between without
                // `limits.pace`, is nobody's to judge.
                let config = &self.scenario.config;
                let unjudged = straight || config.timeouts.stall.is_none() || config.pace.is_none();
                if self.ended_at.is_none() && !(self.hindered[side] && unjudged) {
                    return Err(format!("{side:?} has been silent for too long and nobody noticed"));
                }
                return Ok(());
            }
            Event::Over => return Err("not over long after the drain began".to_owned()),
        }
        self.turn()
    }

    fn arrives(&mut self, side: Side, packet: Packet) -> Result<(), String> {
        let now = self.now;
        let mut sends = Sends::new();
        let link = &mut self.links[side];
        match packet {
            Packet::ToPeer(bytes) => {
                if matches!(self.peers[side].condition, Condition::Runs | Condition::Frozen) {
                    link.reached_peer(&bytes, now, &mut sends);
                    self.at(now, Event::Peer(side));
                }
            }
            Packet::EndToPeer(ending) => {
                if self.peers[side].condition == Condition::Runs {
                    self.note(|| format!("{side:?}: peer sees {ending:?}"));
                    // What came before the end is read before it.
                    self.drain_peer(side)?;
                    self.peers[side].ended(ending)?;
                    self.at(now, Event::Peer(side));
                }
            }
            Packet::Acknowledged(count) => link.acknowledged(count, now),
            Packet::ToGateway(bytes) => link.reached_gateway(&bytes, now, &mut sends),
            Packet::EndToGateway(Ending::Fin) => link.loss = link.loss.or(Some(Loss::End)),
            Packet::EndToGateway(Ending::Rst) => {
                link.loss = Some(Loss::Failed);
                link.broken = true;
            }
        }
        self.post(side, sends);
        self.turn()
    }

    /// A peer that is about to see the end of the stream reads up to it.
    fn drain_peer(&mut self, side: Side) -> Result<(), String> {
        let deaf = self.peers[side].fated && matches!(self.peers[side].plan.fate, Fate::Deaf(_));
        if deaf {
            return Ok(());
        }
        let bytes: Vec<u8> = self.links[side].at_peer.drain(..).collect();
        self.peer_receives(side, &bytes)
    }

    fn peer_receives(&mut self, side: Side, bytes: &[u8]) -> Result<(), String> {
        let expected = std::mem::take(&mut self.peers[side.other()].log);
        let from = self.crossed[side.other()];
        let crossed = self.peers[side].receives(bytes, &expected[from..], self.now);
        self.peers[side.other()].log = expected;
        self.crossed[side.other()] += crossed?;
        Ok(())
    }

    /// The process of a peer has its turn.
    fn peer(&mut self, side: Side) -> Result<(), String> {
        let now = self.now;
        let (count, again) = self.peers[side].reads(self.links[side].at_peer.len(), now);
        if count > 0 {
            let bytes: Vec<u8> = self.links[side].at_peer.drain(..count).collect();
            self.peer_receives(side, &bytes)?;
        }
        self.note(|| {
            format!(
                "{side:?}: peer has {} to read, reads {count}, {} to send, {:?}",
                self.links[side].at_peer.len(),
                self.peers[side].outgoing.len(),
                self.peers[side].last_own_ping
            )
        });
        self.peers[side].act(now);
        let mut sends = Sends::new();
        let (peer, link) = (&mut self.peers[side], &mut self.links[side]);
        if peer.condition == Condition::Runs {
            link.pump_back(&mut peer.outgoing, peer.wants, now, &mut self.rng, &mut sends);
            if peer.wants == Some(Ending::Rst) {
                peer.condition = Condition::Closed;
            }
        }
        if matches!(peer.condition, Condition::Runs | Condition::Frozen) {
            link.pump(now, &mut self.rng, &mut sends);
        }
        let wake = [peer.next(), again].into_iter().flatten().min();
        self.post(side, sends);
        if let Some(wake) = wake
            && self.peer_wakes[side].is_none_or(|at| wake < at)
        {
            self.peer_wakes[side] = Some(wake);
            self.at(wake, Event::Peer(side));
        }
        Ok(())
    }

    fn post(&mut self, side: Side, sends: Sends) {
        for (when, packet) in sends {
            self.at(when, Event::Packet(side, packet));
        }
    }

    /// The gateway's task is polled.
    fn turn(&mut self) -> Result<(), String> {
        if self.paused_until.is_some() {
            return Ok(());
        }
        let mut spins = 0;
        while !self.relay.is_done() {
            let mut busy = false;
            for side in Side::BOTH {
                busy |= self.flush(side);
                busy |= self.reads(side);
            }
            self.controls();
            self.pump();
            for side in Side::BOTH {
                self.taken(side);
                busy |= self.wishes(side);
            }
            self.look()?;
            if busy {
                spins = 0;
                continue;
            }
            if self.relay.poll_timeout().is_none_or(|at| at > self.clock()) {
                break;
            }
            self.note(|| {
                format!(
                    "timer {:?}",
                    Side::BOTH.map(|side| self.links[side].sample(self.now, self.peers[side].condition))
                )
            });
            spins += 1;
            if spins > SPINS_MAX {
                return Err("the timer is due for ever".to_owned());
            }
            self.on_timeout();
        }
        self.rest()
    }

    fn on_timeout(&mut self) {
        let (now, answers) = (self.clock(), self.scenario.answers);
        let (links, peers, at) = (&self.links, &self.peers, self.now);
        self.relay.on_timeout(now, answers, |side| Some(links[side].sample(at, peers[side].condition)));
    }

    /// After a turn: what is open to view must be in order.
    fn look(&mut self) -> Result<(), String> {
        if self.relay.is_ending() && self.ended_at.is_none() {
            self.note(|| "ends".to_owned());
            self.ended_at = Some(self.now);
        }
        for side in Side::BOTH {
            let waiting = self.relay.outbox(side).len();
            if waiting > OUTBOX_MAX {
                return Err(format!("{side:?}: {waiting} bytes in the outbox"));
            }
            self.deaf[side] |= self.relay.leg(side).input == Input::Deaf;
            while let Some(event) = self.relay.take_event(side) {
                self.note(|| format!("{side:?}: {event:?}"));
            }
        }
        if let Some(outcome) = self.relay.outcome() {
            let code = |side| (self.relay.leg(side).close_received, self.relay.leg(side).close_sent());
            let codes = PerSide { downstream: code(Side::Downstream), upstream: code(Side::Upstream) };
            match self.outcome {
                None => {
                    self.note(|| format!("{outcome:?} {codes:?}"));
                    check::reason(self, outcome)?;
                    (self.outcome, self.codes) = (Some(outcome), codes);
                }
                Some(before) if before != outcome || self.codes != codes => {
                    return Err(format!(
                        "the verdict changed: {before:?} {:?}, then {outcome:?} {codes:?}",
                        self.codes
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The kernels send what they may.
    fn pump(&mut self) {
        for side in Side::BOTH {
            let mut sends = Sends::new();
            let alive = matches!(self.peers[side].condition, Condition::Runs | Condition::Frozen);
            if alive || self.links[side].socket == Socket::Open {
                self.links[side].pump(self.now, &mut self.rng, &mut sends);
            }
            self.post(side, sends);
        }
    }

    fn rest(&mut self) -> Result<(), String> {
        self.pump();
        for side in Side::BOTH {
            // A window may have opened.
            if self.peers[side].condition == Condition::Runs && !self.peers[side].outgoing.is_empty() {
                self.at(self.now + self.links[side].path.latency, Event::Peer(side));
            }
            let busy = !self.relay.outbox(side).is_empty()
                || !self.links[side].idle()
                || self.relay.leg(side.other()).scanner.unfinished();
            if busy {
                self.hindered = PerSide { downstream: true, upstream: true };
            }
        }
        // What a layer held back may have gone now.
        if Side::BOTH.iter().any(|side| self.relay.waits_for_transport(*side) && self.links[*side].flushed()) {
            for side in Side::BOTH {
                self.taken(side);
                self.wishes(side);
            }
            self.look()?;
        }
        if self.relay.is_done() && self.outcome.is_none() {
            return Err("over without an outcome".to_owned());
        }
        if let Some(at) = self.relay.poll_timeout() {
            let at = (at.saturating_duration_since(self.base).as_nanos().div_ceil(1000) as Micros).max(self.now);
            if self.timer.is_none_or(|armed| at < armed) {
                self.timer = Some(at);
                self.at(at, Event::Gateway);
            }
        }
        Ok(())
    }

    fn send(&mut self, side: Side, bytes: &[u8]) {
        if bytes.is_empty() || self.links[side].socket != Socket::Open {
            return;
        }
        let now = self.clock();
        if self.links[side].broken {
            self.write_failed[side] = true;
            self.relay.unwritable(side, now);
            return;
        }
        let direct = if self.relay.outbox(side).is_empty() { self.links[side].write(bytes) } else { 0 };
        if direct > 0 {
            self.relay.sent(side, direct);
        }
        if direct < bytes.len() {
            self.relay.queue(side, &bytes[direct..], now);
        }
        self.taken(side);
    }

    fn flush(&mut self, side: Side) -> bool {
        let now = self.clock();
        let outbox = self.relay.outbox(side);
        if outbox.is_empty() {
            return false;
        }
        if self.links[side].broken {
            self.write_failed[side] = true;
            self.relay.unwritable(side, now);
            return true;
        }
        let count = self.links[side].write(outbox.waiting());
        if count > 0 {
            self.relay.took(side, count, now);
        }
        self.taken(side);
        count > 0
    }

    fn controls(&mut self) {
        let now = self.clock();
        for side in Side::BOTH {
            loop {
                let rng = &mut self.rng;
                let Some(frame) = self.relay.take_control(side, now, || rng.u32(..).to_ne_bytes()) else { break };
                self.note(|| format!("{side:?}: own control frame {:02x?}", &frame.bytes()[..2]));
                self.send(side, frame.bytes());
            }
        }
    }

    fn reads(&mut self, side: Side) -> bool {
        let now = self.clock();
        let link = &mut self.links[side];
        let mut busy = false;
        if link.socket != Socket::Closed && self.relay.wants_read(side) {
            if !link.at_gateway.is_empty() {
                let count = link.at_gateway.len().min(self.scenario.read_size);
                let mut chunk = vec![0; 139 + count];
                let held = self.relay.take_held(side, &mut chunk);
                chunk.truncate(held + count);
                for (target, byte) in chunk[held..].iter_mut().zip(link.at_gateway.drain(..count)) {
                    *target = byte;
                }
                self.read[side].extend_from_slice(&chunk[held..]);
                self.relay.arrived(side, count, now);
                self.deliver(side, &chunk, now);
                busy = true;
            } else if let Some(loss) = link.loss.filter(|_| !self.told_lost[side]) {
                self.note(|| format!("{side:?}: lost, {loss:?}"));
                self.told_lost[side] = true;
                self.relay.lost(side, loss, now);
                busy = true;
            }
        }
        if std::mem::take(&mut self.write_failed[side]) && !self.told_lost[side] {
            self.note(|| format!("{side:?}: write failed"));
            self.told_lost[side] = true;
            self.relay.lost(side, Loss::Failed, now);
            busy = true;
        }
        busy
    }

    fn deliver(&mut self, side: Side, chunk: &[u8], now: Instant) {
        self.note(|| format!("{side:?}: {} bytes", chunk.len()));
        let mut rest = chunk;
        while !rest.is_empty() {
            self.controls();
            let step = self.relay.receive(side, rest, now);
            self.send(side.other(), &rest[step.pass]);
            rest = &rest[step.used..];
        }
        self.controls();
    }

    fn taken(&mut self, side: Side) {
        if self.links[side].flushed() && self.relay.waits_for_transport(side) {
            let sample = self.links[side].sample(self.now, self.peers[side].condition);
            let now = self.clock();
            self.relay.on_taken(side, now, || Some(sample));
        }
    }

    fn wishes(&mut self, side: Side) -> bool {
        let (now, at) = (self.clock(), self.now);
        let mut sends = Sends::new();
        let wish = self.relay.wish(side);
        match wish {
            Wish::Keep => return false,
            Wish::ShutDown => {
                if !self.links[side].flushed() || !self.relay.outbox(side).is_empty() {
                    return false;
                }
                self.links[side].shut_down();
                self.relay.shut_down(side, now);
            }
            Wish::Drop => {
                self.links[side].close(at, &mut sends);
                self.relay.finished(side);
            }
            Wish::Reset => {
                self.links[side].reset(at, &mut sends);
                self.relay.finished(side);
            }
        }
        self.note(|| format!("{side:?}: {wish:?}"));
        self.post(side, sends);
        true
    }
}
