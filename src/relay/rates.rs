//! Rates: how much a side may send a second. One that sends more is slowed down, by not being read, or ended.

use super::{MessageLimits, OverRate, PerSide, Relay, RelayConfig, Side};
use crate::protocol::{
    frame::Opcode,
    moment::Moment,
    rate::{Allowance, Rate},
    violation::Violation,
};

/// Bytes that a side whose messages are counted is asked for at once: what it sent too early waits in the gateway's memory.
const COUNTED_READ: usize = 16 * 1024;

/// What only sessions have to keep whose route sets `timeouts.idle` or a rate.
#[derive(Debug)]
pub(super) struct Bounds {
    /// When a data frame last passed.
    pub(super) last_data: Moment,
    senders: PerSide<Sender>,
}

/// What one side has sent, by its rates.
#[derive(Clone, Copy, Debug)]
struct Sender {
    messages: Allowance,
    bytes: Allowance,
    /// It is not read until then.
    slowed: Option<Moment>,
    /// It has not been read since then.
    unread: Option<Moment>,
}

/// What may pass of what begins at a frame border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passage {
    Free,
    /// It waits, and its side is slowed down.
    Later,
    Never(Violation),
}

impl MessageLimits {
    fn has_rate(&self) -> bool {
        self.messages_per_second.is_some() || self.bytes_per_second.is_some()
    }
}

impl Bounds {
    /// What a session that runs by `config` keeps.
    pub(super) fn new(config: &RelayConfig, now: Moment) -> Option<Box<Self>> {
        let wanted =
            config.timeouts.idle.is_some() || Side::BOTH.into_iter().any(|side| config.limits[side].has_rate());
        let sender = Sender { messages: Allowance::new(now), bytes: Allowance::new(now), slowed: None, unread: None };
        wanted.then(|| Box::new(Self { last_data: now, senders: PerSide { downstream: sender, upstream: sender } }))
    }

    /// The leg of a side is read, or no longer.
    pub(super) fn reading(&mut self, side: Side, reading: bool, now: Moment) {
        let sender = &mut self.senders[side];
        match (reading, sender.unread) {
            (false, None) => sender.unread = Some(now),
            (true, Some(since)) => {
                sender.unread = None;
                sender.messages.credit(now - since, now);
                sender.bytes.credit(now - since, now);
            }
            (false, Some(_)) | (true, None) => {}
        }
    }

    /// When a side that is slowed down is read again.
    pub(super) fn next_due(&self) -> Option<Moment> {
        Side::BOTH.into_iter().filter_map(|side| self.senders[side].slowed).min()
    }
}

impl Relay {
    /// Whether this leg is not read for a while, because its peer sent over its rate.
    #[inline]
    #[must_use]
    pub fn slowed(&self, side: Side) -> bool {
        let slowed = |bounds: &Bounds| bounds.senders[side].slowed.is_some();
        self.bounds.as_deref().is_some_and(slowed) && self.ending.is_none()
    }

    /// How many bytes this leg may be asked for now, at least one.
    #[inline]
    #[must_use]
    pub fn most(&self, side: Side, now: Moment) -> usize {
        self.bounds.as_deref().map_or(usize::MAX, |bounds| self.most_within(bounds, side, now))
    }

    #[cold]
    fn most_within(&self, bounds: &Bounds, side: Side, now: Moment) -> usize {
        let limits = &self.config.limits[side];
        if limits.over_rate == OverRate::Close || self.ending.is_some() {
            return usize::MAX;
        }
        let counted = limits.messages_per_second.map_or(usize::MAX, |_| COUNTED_READ);
        let room = limits.bytes_per_second.map_or(u64::MAX, |rate| bounds.senders[side].bytes.room(rate, now));
        usize::try_from(room).unwrap_or(usize::MAX).clamp(1, counted)
    }

    /// Bytes arrived on a leg that may have a rate.
    pub(super) fn spend_bytes(&mut self, side: Side, count: usize, now: Moment) {
        let limits = self.config.limits[side];
        let (Some(bounds), Some(rate), None) = (&mut self.bounds, limits.bytes_per_second, &self.ending) else {
            return;
        };
        let bytes = &mut bounds.senders[side].bytes;
        bytes.take(rate, count as u64, now);
        if limits.over_rate == OverRate::Slow && bytes.room(rate, now) == 0 {
            let until = bytes.ready_at(rate);
            self.slow(side, until, now);
        }
    }

    /// Whether single frames of this side are counted.
    #[inline]
    pub(super) fn counts_messages(&self, side: Side) -> bool {
        self.bounds.is_some() && self.config.limits[side].messages_per_second.is_some() && self.ending.is_none()
    }

    /// A message, or a control frame that counts as one, passed.
    pub(super) fn spend_message(&mut self, side: Side, now: Moment) {
        let rate = self.config.limits[side].messages_per_second;
        if let (Some(bounds), Some(rate)) = (&mut self.bounds, rate) {
            bounds.senders[side].messages.take(rate, 1, now);
        }
    }

    /// Whether a side that is ended for it has no message left.
    pub(super) fn is_over(&self, side: Side, now: Moment) -> bool {
        let MessageLimits { messages_per_second, over_rate, .. } = self.config.limits[side];
        let spent = |rate, bounds: &Bounds| bounds.senders[side].messages.room(rate, now) == 0;
        over_rate == OverRate::Close
            && messages_per_second.zip(self.bounds.as_deref()).is_some_and(|(rate, bounds)| spent(rate, bounds))
    }

    /// Whether a side may be ended for what it sends too much.
    #[inline]
    #[must_use]
    pub fn may_close_over_rate(&self) -> bool {
        self.bounds.is_some()
            && Side::BOTH.into_iter().any(|side| self.config.limits[side].over_rate == OverRate::Close)
    }

    /// The gateway itself was paused: what came meanwhile comes all at once.
    pub(super) fn resume_rates(&mut self, now: Moment) {
        let Some(bounds) = &mut self.bounds else { return };
        for side in Side::BOTH.into_iter().filter(|side| self.config.limits[*side].over_rate == OverRate::Close) {
            bounds.senders[side].messages.resume(now);
            bounds.senders[side].bytes.resume(now);
        }
    }

    /// What may pass of a chunk whose next byte is `next`, which may stand at a frame border.
    #[inline]
    pub(super) fn passage(&mut self, side: Side, next: u8, now: Moment) -> Passage {
        if self.bounds.is_none() || self.ending.is_some() {
            Passage::Free
        } else {
            self.passage_by_rates(side, next, now)
        }
    }

    #[cold]
    fn passage_by_rates(&mut self, side: Side, next: u8, now: Moment) -> Passage {
        let limits = self.config.limits[side];
        let border = !self.legs[side].scanner.inside_frame();
        let Some(bounds) = &mut self.bounds else { return Passage::Free };
        let sender = &bounds.senders[side];
        let spent = |rate: Rate| border && sender.messages.room(rate, now) == 0;
        match (limits.over_rate, limits.messages_per_second.filter(|rate| spent(*rate))) {
            (OverRate::Close, _) if limits.bytes_per_second.is_some() && sender.bytes.overdrawn(now) => {
                Passage::Never(Violation::TooManyBytes)
            }
            // What does not count, or only its content says whether it does, is judged when it is known.
            (OverRate::Close, Some(_)) if begins_what_counts(next) => Passage::Never(Violation::TooManyMessages),
            (OverRate::Slow, Some(rate)) => {
                let until = sender.messages.ready_at(rate);
                self.slow(side, until, now);
                Passage::Later
            }
            (OverRate::Close, Some(_)) | (OverRate::Close | OverRate::Slow, None) => Passage::Free,
        }
    }

    /// This leg is not read until then.
    fn slow(&mut self, side: Side, until: Moment, now: Moment) {
        if let Some(bounds) = &mut self.bounds {
            let slowed = &mut bounds.senders[side].slowed;
            *slowed = Some(slowed.map_or(until, |earlier| earlier.max(until)));
            self.pause(side, true, now);
            // Its answers wait behind what came too early. But one that has left is found by writing to it.
            self.legs[side].heartbeat.ask_again(&self.config.heartbeat[side], now);
        }
    }

    /// Reads on where a side has been slowed down for long enough.
    pub(super) fn release(&mut self, now: Moment) {
        for side in Side::BOTH {
            let Some(bounds) = &mut self.bounds else { return };
            let slowed = &mut bounds.senders[side].slowed;
            if slowed.is_some_and(|until| until <= now) {
                *slowed = None;
                if self.has_room_for(side) {
                    self.pause(side, false, now);
                }
            }
        }
    }

    /// The route's rates, or `timeouts.idle`, changed: nobody waits by the old ones.
    pub(super) fn limit_rates(&mut self, now: Moment) {
        let fresh = Bounds::new(&self.config, now);
        if let (Some(bounds), Some(_)) = (&mut self.bounds, &fresh) {
            for side in Side::BOTH {
                let sender = &mut bounds.senders[side];
                sender.messages.forgive(now);
                sender.bytes.forgive(now);
                sender.slowed = sender.slowed.map(|_| now);
            }
        } else if let (Some(bounds), None) = (&mut self.bounds, &fresh) {
            // Read again at once, before there is nothing left that says so.
            for side in Side::BOTH {
                bounds.senders[side].slowed = bounds.senders[side].slowed.map(|_| now);
            }
            self.release(now);
            self.bounds = None;
        } else {
            self.bounds = fresh;
        }
    }
}

/// Whether a frame of this first byte begins what counts as a message, whatever else is in it (RFC 6455 section 5.2).
fn begins_what_counts(first: u8) -> bool {
    let opcode = first & 0xf;
    [Opcode::Text, Opcode::Binary, Opcode::Ping].into_iter().any(|counts| counts.bits() == opcode)
}
