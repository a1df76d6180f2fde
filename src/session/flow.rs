//! Bytes through a session: reads, relays, writes.

use super::{
    appetite::{Appetite, LITTLE},
    drive::{Now, Progress, Session, TURN_OTHERS, Writing},
    early::Early,
};
use crate::{
    relay::{Loss, PerSide, Side},
    transport::Transport,
};
use std::{
    io,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Instant,
};

/// So many bytes for each of them, on average, are few.
const FEW_BYTES: usize = 256;
/// Room before a chunk for the bytes held back from the one before: the longest control frame less one byte.
const HELD: usize = 2 + 4 + 125;

impl Session {
    /// One round: what waits goes out, what arrived comes in, our own control frames follow. A leg that is `dry` had
    /// nothing to read in an earlier round of this turn, and wakes us when it has.
    pub(super) fn relay_once(&mut self, dry: &mut PerSide<bool>, cx: &mut Context<'_>, now: Now) -> Progress {
        let mut progress = false;
        for side in Side::BOTH {
            progress |= self.write_waiting(side, cx, now.instant);
        }
        self.send_controls(cx, now.instant);
        for side in Side::BOTH {
            if !dry[side] && self.relay.wants_read(side) {
                let read = self.read(side, cx, now);
                // Known at once after most reads, so that nobody needs to be asked once more.
                dry[side] = !read || (self.relay.wants_read(side) && self.legs[side].drained(cx));
                progress |= read;
            }
        }
        progress
    }

    pub(super) fn read(&mut self, side: Side, cx: &mut Context<'_>, now: Now) -> Progress {
        let context = Rc::clone(&self.context);
        let mut scratch = context.scratch.borrow_mut();
        let super::Scratch { chunk, cipher, company } = &mut *scratch;
        let leg = &mut self.legs[side];
        let bite = company.leaves(now.instant, context.outboxes.load(Ordering::Relaxed));
        let most = leg.appetite.most(bite).min(chunk.len() - HELD);
        if let Some(early) = &mut leg.early {
            let (taken, fresh) = early.take(&mut chunk[HELD..HELD + most]);
            if early.is_empty() {
                leg.early = None;
            }
            let others = self.relay_chunk(side, chunk, taken, fresh, cx, now);
            self.legs[side].appetite = if others >= TURN_OTHERS { Appetite::Wary } else { Appetite::Calm };
            return true;
        }
        let Some(transport) = &mut leg.transport else { return false };
        let most = transport.gives(most).min(self.relay.most(side, now.moment));
        match transport.poll_read(cx, &mut chunk[HELD..HELD + most], cipher) {
            Poll::Pending => false,
            Poll::Ready(Ok(0)) => {
                self.lose(side, Loss::End, now.instant);
                true
            }
            Poll::Ready(Ok(length)) => {
                if length > LITTLE {
                    leg.monologue.end();
                } else if leg.monologue.heard(|| self.relay.silence_at(side, now.moment)) {
                    transport.acknowledge_later();
                }
                let little = length <= LITTLE && leg.appetite == Appetite::Modest;
                let others = self.relay_chunk(side, chunk, length, length, cx, now);
                // Heartbeats of idle sessions are in no hurry.
                if little && others == 0 {
                    company.came(now.instant);
                }
                // One alone is a heartbeat's.
                self.legs[side].appetite = if others as usize > 1 + length / FEW_BYTES {
                    Appetite::Wary
                } else {
                    Appetite::after(length, most, self.relay.outbox(side.other()).is_empty())
                };
                true
            }
            Poll::Ready(Err(error)) => {
                self.lose(side, loss(&error), now.instant);
                true
            }
        }
    }

    /// Relays `length` bytes that stand at `HELD` in `chunk`; the last `fresh` of them have just arrived. Answers how many
    /// control frames and fragments became whole.
    pub(super) fn relay_chunk(
        &mut self,
        side: Side,
        chunk: &mut [u8],
        length: usize,
        fresh: usize,
        cx: &mut Context<'_>,
        now: Now,
    ) -> u32 {
        let held = self.relay.held(side);
        let mut at = HELD - held;
        if held > 0 {
            self.relay.take_held(side, &mut chunk[at..HELD]);
        }
        self.relay.arrived(side, fresh, now.moment);
        let before = self.relay.leg(side).scanner.tally();
        let end = HELD + length;
        while at < end {
            let step = self.relay.receive(side, &chunk[at..end], now.moment);
            if !step.pass.is_empty() {
                self.facts.meter.passed(side.other(), step.passed);
                self.send(side.other(), &chunk[at + step.pass.start..at + step.pass.end], cx, now.instant);
            }
            at += step.used;
            self.send_controls(cx, now.instant);
            // Its rate is used up, or this turn is long enough.
            let others = || self.relay.leg(side).scanner.tally().since(before).others();
            if step.used == 0 || at < end && others() >= TURN_OTHERS {
                self.set_aside(side, &chunk[at..end]);
                break;
            }
        }
        let tally = self.relay.leg(side).scanner.tally().since(before);
        self.facts.meter.received(side, fresh, tally);
        self.tell_heartbeat(side);
        tally.others()
    }

    /// Keeps what came over its sender's rate until the leg is read again, or what is too much for one turn until the next.
    #[cold]
    fn set_aside(&mut self, side: Side, rest: &[u8]) {
        let early = &mut self.legs[side].early;
        match early {
            Some(early) => early.put_back(rest),
            None => *early = Some(Early::told(rest)),
        }
    }

    #[inline]
    pub(super) fn send_controls(&mut self, cx: &mut Context<'_>, now: Instant) {
        if Side::BOTH.into_iter().any(|side| self.relay.has_control(side)) {
            self.send_due_controls(cx, now);
        }
    }

    #[cold]
    fn send_due_controls(&mut self, cx: &mut Context<'_>, now: Instant) {
        for side in Side::BOTH {
            while let Some(frame) = self.relay.take_control(side, now, rand::random) {
                self.facts.meter.controlled(side);
                self.send(side, frame.bytes(), cx, now);
            }
        }
    }

    /// Sends bytes: straight from where they are, as far as the transport takes them; the rest waits.
    pub(super) fn send(&mut self, side: Side, bytes: &[u8], cx: &mut Context<'_>, now: Instant) {
        if !matches!(self.legs[side].writing, Writing::Works) {
            return;
        }
        let mut rest = bytes;
        if self.relay.outbox(side).is_empty() {
            while !rest.is_empty() {
                let Some(transport) = &mut self.legs[side].transport else { return };
                match transport.poll_write(cx, rest) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(taken)) => {
                        self.legs[side].monologue.end();
                        self.relay.sent(side, taken);
                        self.facts.meter.sent(side, taken);
                        rest = &rest[taken..];
                    }
                    Poll::Ready(Err(error)) => return self.fail(side, &error, now),
                }
            }
        }
        if !rest.is_empty() {
            self.relay.queue(side, rest, now);
        }
        self.note_taken(side, now);
    }

    #[inline]
    pub(super) fn write_waiting(&mut self, side: Side, cx: &mut Context<'_>, now: Instant) -> Progress {
        let mut progress = false;
        let leg = &self.legs[side];
        let held_back = leg.transport.as_ref().is_some_and(Transport::holds_back);
        if self.relay.outbox(side).is_empty() && !held_back && !self.relay.waits_for_transport(side) {
            return false;
        }
        if !matches!(leg.writing, Writing::Works) {
            return false;
        }
        while !self.relay.outbox(side).is_empty() {
            let Some(transport) = &mut self.legs[side].transport else { return progress };
            match transport.poll_write(cx, self.relay.outbox(side).waiting()) {
                Poll::Pending => break,
                Poll::Ready(Ok(taken)) => {
                    self.legs[side].monologue.end();
                    self.relay.took(side, taken, now);
                    self.facts.meter.sent(side, taken);
                    progress = true;
                }
                Poll::Ready(Err(error)) => {
                    self.fail(side, &error, now);
                    return true;
                }
            }
        }
        let Some(transport) = &mut self.legs[side].transport else { return progress };
        if transport.holds_back()
            && let Poll::Ready(Err(error)) = transport.poll_flush(cx)
        {
            self.fail(side, &error, now);
            return true;
        }
        self.note_taken(side, now);
        progress
    }

    /// Tells the relay what the transport has taken, if it waits to know.
    #[inline]
    pub(super) fn note_taken(&mut self, side: Side, now: Instant) {
        if !self.relay.waits_for_transport(side) {
            return;
        }
        let Some(transport) = &self.legs[side].transport else { return };
        if !transport.holds_back() {
            self.relay.on_taken(side, now, || transport.sample());
            self.tell_heartbeat(side);
        }
    }

    /// Writing failed. What the peer sent before is still read, for a close frame may be among it: as far as it can be
    /// relayed at once.
    pub(super) fn fail(&mut self, side: Side, error: &io::Error, now: Instant) {
        self.legs[side].writing = Writing::Failed(loss(error));
        self.relay.unwritable(side, now);
    }

    /// `drained`: nothing is left to be read just now.
    pub(super) fn lose_failed(&mut self, drained: bool, now: Instant) -> Progress {
        let mut progress = false;
        for side in Side::BOTH {
            if let Writing::Failed(loss) = self.legs[side].writing
                && (drained || !self.relay.wants_read(side))
            {
                self.legs[side].writing = Writing::Over;
                self.lose(side, loss, now);
                progress = true;
            }
        }
        progress
    }
}

/// What a transport's error means for the session.
fn loss(error: &io::Error) -> Loss {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut, UnexpectedEof};
    let kind = error.kind();
    if matches!(kind, TimedOut | HostUnreachable | NetworkUnreachable) {
        Loss::TimedOut
    } else if kind == UnexpectedEof {
        Loss::End
    } else {
        Loss::Failed
    }
}
