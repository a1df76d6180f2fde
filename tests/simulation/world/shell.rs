//! The shell that drives the relay as a session does, and looks at it after every turn.
use super::{Event, World};
use crate::{
    check,
    network::{Sends, Socket},
    peer::Condition,
    scenario::Micros,
};
use pulsegate::{
    protocol::leg::Input,
    relay::{Loss, PerSide, Side, Wish},
};
use std::time::Instant;

/// What an outbox may hold: one read, held bytes before it, a few control frames.
const OUTBOX_MAX: usize = 65_536 + 138 + 4 * 131;
/// Timer calls at one instant that lead to nothing else.
const SPINS_MAX: usize = 12;

impl World {
    /// The gateway's task is polled.
    pub(super) fn turn(&mut self) -> Result<(), String> {
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
                self.relay.arrived(side, count, self.relay.moment(now));
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
            let step = self.relay.receive(side, rest, self.relay.moment(now));
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
