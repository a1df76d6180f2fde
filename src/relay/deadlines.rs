//! What a relay waits for: when something is due, and what is done then.

use super::{EndReason, Ending, Relay, Side};
use crate::protocol::{
    heartbeat::{Answers, PathSample},
    moment::Moment,
    pace::Pace,
};
use std::time::Instant;

impl Relay {
    /// When `on_timeout` has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due().map(|at| self.instant(at))
    }

    /// The same on the relay's own clock: cheaper, for who asks after every turn.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        let mut first = self.leg_timeout(Side::Downstream);
        let mut by = |at: Option<Moment>| first = sooner(first, at);
        by(self.leg_timeout(Side::Upstream));
        if self.ending.is_none() {
            by(self.age_limit);
            if let Some(bounds) = &self.bounds {
                by(bounds.next_due());
                by(self.idle_limit());
            }
        } else {
            by(self.turn_at());
        }
        first
    }

    /// An instant on the relay's clock.
    #[inline]
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        self.clock.moment(instant)
    }

    /// What is on the relay's clock as an instant.
    #[inline]
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.clock.instant(moment)
    }

    #[inline]
    fn leg_timeout(&self, side: Side) -> Option<Moment> {
        let leg = &self.legs[side];
        let heartbeat = leg.heartbeat.poll_timeout(&self.config.heartbeat[side]);
        if leg.is_calm() { heartbeat } else { self.busy_leg_timeout(side, heartbeat) }
    }

    /// Out of the way of the turns that leave nothing behind: most.
    #[cold]
    fn busy_leg_timeout(&self, side: Side, heartbeat: Option<Moment>) -> Option<Moment> {
        let leg = &self.legs[side];
        let receiver = leg.receiver.poll_timeout(self.pace());
        let sender = if self.ending.is_none() { leg.sender.poll_timeout(self.pace()) } else { None };
        [heartbeat, receiver, sender, self.closing_timeout(side)].into_iter().flatten().min()
    }

    fn idle_limit(&self) -> Option<Moment> {
        Some(self.bounds.as_ref()?.last_data + self.config.timeouts.idle?)
    }

    fn pace(&self) -> Pace {
        Pace { window: self.config.timeouts.stall, floor: self.config.pace }
    }

    /// Does what is due. `answers` says whether the backend ever answered a ping; `sample` asks TCP.
    pub fn on_timeout(&mut self, now: Instant, answers: Answers, mut sample: impl FnMut(Side) -> Option<PathSample>) {
        let now = self.clock.moment(now);
        if self.age_limit.is_some_and(|at| at <= now) {
            self.end_with(Ending::by_gateway(EndReason::MaxAge, now), None, now);
        } else if self.idle_limit().is_some_and(|at| at <= now) {
            self.end_with(Ending::by_gateway(EndReason::Idle, now), None, now);
        }
        if self.turn_at().is_some_and(|at| at <= now) {
            self.take_turn(now);
        }
        self.release(now);
        for side in Side::BOTH {
            // First, so that a farewell that is decided on now gets the turn that follows to be said.
            self.closing_due(side, now);
            let answers = if side == Side::Downstream { Answers::Proven } else { answers };
            let (config, leg) = (&self.config.heartbeat[side], &mut self.legs[side]);
            if leg.heartbeat.on_timeout(config, answers, now, || sample(side)).is_err() {
                self.unresponsive(side, now);
            }
            self.judge_pace(side, now);
        }
    }

    fn judge_pace(&mut self, side: Side, now: Moment) {
        let pace = self.pace();
        let leg = &mut self.legs[side];
        let blocked = leg.heartbeat.blocked().zip(pace.window).is_some_and(|(long, window)| long >= window);
        let receiver = leg.receiver.stalled(pace, now) || blocked;
        if receiver || (self.ending.is_none() && leg.sender.stalled(pace, now)) {
            self.stalled(side, now);
        }
    }

    /// The gateway itself was paused for a while: that is nobody's silence.
    pub fn resume(&mut self, now: Instant) {
        let now = self.clock.moment(now);
        for side in Side::BOTH {
            let leg = &mut self.legs[side];
            leg.heartbeat.resume(now);
            leg.receiver.restart(now);
            leg.sender.restart(now);
        }
        self.resume_closing(now);
        if let Some(bounds) = &mut self.bounds {
            bounds.last_data = now;
        }
        self.resume_rates(now);
    }
}

/// The earlier of two; one that is not there never comes.
#[inline]
fn sooner(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
