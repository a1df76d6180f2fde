//! A client whose backend is lost may have to wait its turn to hear of it, so that many do not come back at once.

use super::{EndReason, Relay, Side};
use crate::protocol::{leg::Output, moment::Moment};
use std::time::{Duration, Instant};

/// When the client of a session that ends is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientTurn {
    /// At once, unless it is held.
    Free,
    /// Then, or when something else ends the session.
    Held(Moment),
    /// Its turn came then.
    Came(Moment),
}

impl Relay {
    /// Whether the backend has been lost and the client can wait to be told. Nothing crosses any more; what the client still
    /// sends is read and discarded, as after any other end of a backend.
    #[must_use]
    pub fn farewell_can_wait(&self) -> bool {
        let due = matches!(self.legs.downstream.output, Output::Due { .. });
        due && self.ending.as_ref().is_some_and(|ending| {
            let lost = matches!(ending.reason, EndReason::UpstreamGone | EndReason::UpstreamUnresponsive);
            lost && ending.turn == ClientTurn::Free
        })
    }

    /// Why the session ends, if it does; known before the codes are.
    #[must_use]
    pub fn ends_by(&self) -> Option<EndReason> {
        self.ending.as_ref().map(|ending| ending.reason)
    }

    /// The client is told at `until`, sooner if anything else ends the session: its own close frame, its loss, an order, a
    /// violation. For once, and only if its farewell can wait.
    pub fn hold_farewell(&mut self, until: Instant) {
        if !self.farewell_can_wait() {
            return;
        }
        let (until, close) = (self.clock.moment(until), self.config.timeouts.close);
        let Some(ending) = &mut self.ending else { return };
        if until <= ending.at {
            ending.turn = ClientTurn::Came(ending.at);
        } else {
            ending.turn = ClientTurn::Held(until);
            if let Output::Due { by, .. } = &mut self.legs.downstream.output {
                *by = until + close;
            }
        }
    }

    /// Whether this leg's close frame waits for its turn.
    pub(super) fn waits_its_turn(&self, side: Side) -> bool {
        side == Side::Downstream && self.turn_at().is_some()
    }

    /// When the client's turn comes, if it waits.
    pub(super) fn turn_at(&self) -> Option<Moment> {
        let ClientTurn::Held(until) = self.ending.as_ref()?.turn else { return None };
        matches!(self.legs.downstream.output, Output::Due { .. }).then_some(until)
    }

    /// The client's turn has come, if it waits for it.
    pub(super) fn take_turn(&mut self, now: Moment) {
        if self.turn_at().is_none() {
            return;
        }
        if let Some(ending) = &mut self.ending {
            ending.turn = ClientTurn::Came(now);
        }
        if let Output::Due { by, .. } = &mut self.legs.downstream.output {
            *by = now + self.config.timeouts.close;
        }
    }

    /// How long the client waited, if it was made to.
    pub(super) fn told_after(&self) -> Option<Duration> {
        let ending = self.ending.as_ref()?;
        let ClientTurn::Came(at) = ending.turn else { return None };
        Some(at - ending.at).filter(|waited| !waited.is_zero())
    }
}
