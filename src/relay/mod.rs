//! Two legs and the rules between them: what crosses, what ends a session, which codes are said. Sans-IO.
//!
//! The shell that drives a relay answers level-triggered questions, in any order, until `is_done`:
//! `wants_read`, `take_control`, `outbox`, `waits_for_transport`, `wish`, `poll_timeout`.

mod closing;
mod configure;
mod control;
mod crossing;
mod deadlines;
pub mod end_reason;
mod figures;
mod patience;
mod rates;
pub mod settings;
pub mod side;
mod turn;

pub use closing::{Loss, Outcome, Wish};
pub use crossing::Step;
pub use end_reason::{Blame, CloseCodes, EndReason, Farewell, Severity};
pub use figures::LegFigures;
pub use settings::{MessageLimits, OverRate, Pings, RelayConfig, RelayTimeouts, Utf8};
pub use side::{PerSide, Side};

use crate::protocol::{
    Role,
    frame::ControlFrame,
    heartbeat::{HeartbeatEvent, PathSample, Seed},
    leg::{Finish, Input, Leg, Output},
    moment::{Clock, Moment},
    outbox::Outbox,
    violation::Violation,
};
use closing::Ending;
use rates::Bounds;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Two legs and the rules between them. Within, times are moments of its clock. They go in and out as instants, but where a frame
/// passes: there the shell reads the clock once a turn, and tells the moment.
#[derive(Debug)]
pub struct Relay {
    config: Arc<RelayConfig>,
    clock: Clock,
    legs: PerSide<Leg>,
    ending: Option<Box<Ending>>,
    /// When the session grows too old.
    age_limit: Option<Moment>,
    /// Boxed: few routes ask for what it keeps.
    bounds: Option<Box<Bounds>>,
    /// permessage-deflate was agreed end to end.
    deflate: bool,
}

impl Relay {
    /// A relay whose two opening handshakes are done. `deflate`: permessage-deflate was agreed end to end.
    #[must_use]
    pub fn new(config: Arc<RelayConfig>, deflate: bool, seeds: PerSide<Seed>, now: Instant) -> Self {
        let clock = Clock::new(now);
        let now = clock.moment(now);
        let leg = |side: Side| Leg::new(role(side), &config.heartbeat[side], seeds[side], now);
        let legs = PerSide { downstream: leg(Side::Downstream), upstream: leg(Side::Upstream) };
        // Up to a tenth earlier, so that sessions opened together do not come back together.
        let shortening = (seeds.downstream.jitter >> 11) as f64 / (1u64 << 53) as f64 / 10.0;
        let age_limit = config.timeouts.max_age.map(|age| now + age.mul_f64(1.0 - shortening));
        let bounds = Bounds::new(&config, now);
        Self { config, clock, legs, ending: None, age_limit, bounds, deflate }
    }

    /// When it was made.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.clock.start()
    }

    /// One leg's counts, for verdicts and metrics.
    #[must_use]
    pub fn leg(&self, side: Side) -> &Leg {
        &self.legs[side]
    }

    /// Time since the last byte of this leg's peer.
    #[must_use]
    pub fn silence(&self, side: Side, now: Instant) -> Duration {
        self.silence_at(side, self.clock.moment(now))
    }

    /// The same on the relay's clock.
    #[must_use]
    pub fn silence_at(&self, side: Side, now: Moment) -> Duration {
        now - self.legs[side].heartbeat.heard()
    }

    /// Whether this leg should be read. What may not cross because the other leg does not take it is not read,
    /// so TCP carries the backpressure to its sender.
    #[inline]
    #[must_use]
    pub fn wants_read(&self, side: Side) -> bool {
        let leg = &self.legs[side];
        if matches!(leg.finish, Finish::Drop | Finish::Reset | Finish::Done) {
            return false;
        }
        match leg.input {
            Input::Open => self.has_room_for(side) && !self.slowed(side),
            Input::Closed { eof } => !eof,
            Input::Deaf => true,
            Input::Ended => false,
        }
    }

    /// Whether what comes on this leg is taken by the other one, or discarded.
    #[inline]
    fn has_room_for(&self, side: Side) -> bool {
        let other = &self.legs[side.other()];
        !other.accepts_data() || other.outbox.is_empty()
    }

    /// How many bytes are held back from the last chunk of this leg.
    #[inline]
    #[must_use]
    pub fn held(&self, side: Side) -> usize {
        self.legs[side].scanner.held().len()
    }

    /// Copies the bytes held back to the start of `chunk`, which must go on with what arrived after them.
    #[inline]
    pub fn take_held(&mut self, side: Side, chunk: &mut [u8]) -> usize {
        self.legs[side].scanner.take_held(chunk)
    }

    /// `fresh` bytes arrived on this leg; `receive` is told next what they are.
    #[inline]
    pub fn arrived(&mut self, side: Side, fresh: usize, now: Moment) {
        let leg = &mut self.legs[side];
        leg.received += fresh as u64;
        // After the end began no heartbeat runs, and the silence before it is on record. What was set aside is no sign of life.
        if self.ending.is_none() && fresh > 0 {
            leg.heartbeat.on_bytes(&self.config.heartbeat[side], now);
        }
        leg.sender.moved(fresh);
        if self.bounds.is_some() {
            self.spend_bytes(side, fresh, now);
        }
    }

    /// Whether there is a control frame of ours for this leg, whose outgoing stream stands at a frame border; its time may not
    /// have come.
    #[inline]
    #[must_use]
    pub fn has_control(&self, side: Side) -> bool {
        self.legs[side].control_waits() && !self.inside_frame(side) && !self.waits_its_turn(side)
    }

    /// The next control frame of ours for this leg; it must be sent before anything else.
    #[inline]
    pub fn take_control(&mut self, side: Side, now: Instant, key: impl FnOnce() -> [u8; 4]) -> Option<ControlFrame> {
        if !self.has_control(side) {
            return None;
        }
        self.legs[side].take_control(&self.config.heartbeat[side], self.clock.moment(now), key)
    }

    /// Whether this leg's outgoing stream stands inside a frame of the other leg's peer.
    fn inside_frame(&self, side: Side) -> bool {
        self.legs[side.other()].scanner.inside_frame()
    }

    /// What this leg's transport has not taken yet.
    #[inline]
    #[must_use]
    pub fn outbox(&self, side: Side) -> &Outbox {
        &self.legs[side].outbox
    }

    /// The transport took bytes at once that never waited.
    #[inline]
    pub fn sent(&mut self, side: Side, count: usize) {
        let leg = &mut self.legs[side];
        leg.outbox.passed(count);
        leg.receiver.passed(count);
    }

    /// The transport did not take these bytes: they wait, and the other leg is not read meanwhile.
    pub fn queue(&mut self, side: Side, bytes: &[u8], now: Instant) {
        let now = self.clock.moment(now);
        let leg = &mut self.legs[side];
        if bytes.is_empty() || matches!(leg.output, Output::Cut | Output::Gone) {
            return;
        }
        leg.outbox.push(bytes);
        leg.receiver.run(now);
        self.pause(side.other(), true, now);
    }

    /// The transport took bytes that waited.
    pub fn took(&mut self, side: Side, count: usize, now: Instant) {
        let now = self.clock.moment(now);
        let leg = &mut self.legs[side];
        leg.outbox.take(count);
        leg.receiver.moved(count);
        if leg.outbox.is_empty() {
            if let Output::Queued { since, .. } = &mut leg.output {
                *since = now;
            }
            leg.receiver.rest(now);
            self.pause(side.other(), false, now);
        }
    }

    /// Reading of a leg stops or goes on: time in which it is not read is nobody's silence and nobody's slowness.
    fn pause(&mut self, side: Side, paused: bool, now: Moment) {
        if !paused && self.slowed(side) {
            return;
        }
        if let Some(bounds) = &mut self.bounds
            && self.config.limits[side].over_rate == OverRate::Close
        {
            bounds.reading(side, !paused, now);
        }
        let leg = &mut self.legs[side];
        leg.heartbeat.reading(!paused, now);
        if paused {
            leg.sender.rest(now);
        } else if leg.scanner.unfinished() && leg.input == Input::Open {
            leg.sender.run(now);
        }
    }

    /// Whether `on_taken` has something to find out.
    #[inline]
    #[must_use]
    pub fn waits_for_transport(&self, side: Side) -> bool {
        self.legs[side].waits_for_transport()
    }

    /// The transport took more of the outgoing stream, and holds nothing back itself.
    pub fn on_taken(&mut self, side: Side, now: Instant, sample: impl FnOnce() -> Option<PathSample>) {
        let now = self.clock.moment(now);
        self.legs[side].on_taken(&self.config.heartbeat[side], now, sample);
        self.settle(side, now);
    }

    /// What the heartbeat of a leg has to tell since the last call.
    pub fn take_event(&mut self, side: Side) -> Option<HeartbeatEvent> {
        self.legs[side].heartbeat.take_event()
    }

    fn violated(&mut self, side: Side, violation: Violation, now: Moment) {
        self.legs[side].input = Input::Deaf;
        self.take_turn(now);
        self.end_with(Ending::by_violation(side, violation, now), None, now);
        self.source_lost(side, now);
        self.settle(side, now);
    }
}

/// Who we are on a leg.
const fn role(side: Side) -> Role {
    match side {
        Side::Downstream => Role::Server,
        Side::Upstream => Role::Client,
    }
}

#[cfg(test)]
mod playbooks;
#[cfg(test)]
mod size_tests;
