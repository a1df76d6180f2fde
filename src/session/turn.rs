//! A session that loses its transports: the client of a backend that loses many at once waits its turn to hear of it.

use super::drive::Session;
use crate::{
    pacing::Turn,
    relay::{EndReason, Loss, Side},
};
use std::time::Instant;

impl Session {
    /// A transport was lost.
    pub(super) fn lose(&mut self, side: Side, loss: Loss, now: Instant) {
        self.relay.lost(side, loss, now);
        self.queue_up(now);
    }

    /// Has the client wait its turn, if its backend was just lost. Asked before anything can be told.
    pub(super) fn queue_up(&mut self, now: Instant) {
        if !self.relay.farewell_can_wait() {
            return;
        }
        let (backend, pace) = (self.facts.lease.backend(), self.context.farewells.get());
        let missed = self.relay.ends_by() == Some(EndReason::UpstreamUnresponsive);
        let until = match backend.turn(now, pace, missed) {
            Turn::Now => now,
            Turn::First => {
                let sessions = backend.sessions();
                tracing::warn!(
                    upstream = %backend.upstream,
                    backend = %backend.name,
                    sessions,
                    "a backend loses many sessions at once; clients are told one by one within {:?}, so that they do not all \
                     come back at once",
                    pace.time(sessions)
                );
                now
            }
            Turn::At(until) => until,
        };
        self.relay.hold_farewell(until);
    }
}
