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
        let session = if self.ending.is_none() { [self.age_limit, self.idle_limit()] } else { [self.turn_at(), None] };
        let legs = Side::BOTH.map(|side| self.leg_timeout(side));
        session.into_iter().chain(legs).flatten().min().map(|at| self.clock.instant(at))
    }

    fn leg_timeout(&self, side: Side) -> Option<Moment> {
        let leg = &self.legs[side];
        let heartbeat = leg.heartbeat.poll_timeout(&self.config.heartbeat[side]);
        if leg.is_calm() {
            return heartbeat;
        }
        let receiver = leg.receiver.poll_timeout(self.pace());
        let sender = if self.ending.is_none() { leg.sender.poll_timeout(self.pace()) } else { None };
        [heartbeat, receiver, sender, self.closing_timeout(side)].into_iter().flatten().min()
    }

    fn idle_limit(&self) -> Option<Moment> {
        self.config.timeouts.idle.map(|idle| self.last_data + idle)
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
        self.last_data = now;
    }
}
