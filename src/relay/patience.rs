//! How long each step of a closing may take.

use super::{Relay, Side};
use crate::protocol::{
    leg::{Finish, Output},
    moment::Moment,
};

impl Relay {
    /// When the closing of this leg has taken too long.
    pub(super) fn closing_timeout(&self, side: Side) -> Option<Moment> {
        let leg = &self.legs[side];
        let close = self.config.timeouts.close;
        match (leg.finish, &leg.output) {
            (Finish::ShutDown { until } | Finish::Linger { until }, _) => Some(until),
            (Finish::Open, Output::Due { by, .. }) => Some(*by),
            (Finish::Open, Output::Sent { at, .. }) => Some(*at + close),
            (Finish::Open, Output::Queued { since, .. }) if leg.reset_after_close => Some(*since),
            // `timeouts.stall` judges while the close frame waits; without one, it gets as long as an answer.
            (Finish::Open, Output::Queued { since, .. }) if self.config.timeouts.stall.is_none() => {
                Some(*since + close)
            }
            // Nothing waits here, but the transport holds it back itself (TLS).
            (Finish::Open, Output::Queued { since, .. }) if leg.outbox.is_empty() => {
                self.config.timeouts.stall.map(|stall| *since + stall)
            }
            (Finish::Open, Output::Gone) => self.ending.as_ref().map(|ending| ending.patient_from + close),
            (
                Finish::Open | Finish::Drop | Finish::Reset | Finish::Done,
                Output::Open
                | Output::Due { .. }
                | Output::Queued { .. }
                | Output::Sent { .. }
                | Output::Cut
                | Output::Gone,
            ) => None,
        }
    }

    /// The gateway itself was paused: whoever is to answer, or to take a close frame, has its whole time again.
    pub(super) fn resume_closing(&mut self, now: Moment) {
        let Some(ending) = &mut self.ending else { return };
        ending.patient_from = now;
        let until = now + self.config.timeouts.close;
        for side in Side::BOTH {
            let leg = &mut self.legs[side];
            match &mut leg.output {
                // A dead leg is told at once or not at all.
                Output::Due { by, .. } if *by > ending.at => *by = until.max(*by),
                Output::Queued { since, .. } if !leg.reset_after_close => *since = now,
                Output::Sent { at, .. } => *at = now,
                Output::Due { .. } | Output::Queued { .. } | Output::Open | Output::Cut | Output::Gone => {}
            }
            match &mut leg.finish {
                Finish::ShutDown { until: by } | Finish::Linger { until: by } => *by = until,
                Finish::Open | Finish::Drop | Finish::Reset | Finish::Done => {}
            }
        }
    }

    /// A closing handshake, or the end of TCP behind it, took too long.
    pub(super) fn closing_due(&mut self, side: Side, now: Moment) {
        if self.closing_timeout(side).is_none_or(|at| at > now) {
            return;
        }
        match self.legs[side].output {
            Output::Due { .. } | Output::Queued { .. } => self.abandon(side, Output::Cut, now),
            Output::Open | Output::Sent { .. } | Output::Cut | Output::Gone => {
                self.legs[side].finish = Finish::Drop;
                self.source_lost(side, now);
            }
        }
    }
}
