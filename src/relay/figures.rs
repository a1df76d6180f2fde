//! What is known of a session while it runs.

use super::{Relay, Side};
use crate::protocol::leg::Input;
use std::time::{Duration, Instant};

/// One leg of a running session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegFigures {
    /// Of the newest answered ping of ours.
    pub round_trip: Option<Duration>,
    /// How long our newest ping is unanswered, if it is.
    pub unanswered: Option<Duration>,
    /// Since the last byte from this leg's peer.
    pub silence: Duration,
    /// Bytes that wait for this leg's transport.
    pub outbox: u64,
    /// Bytes on the wire, headers too, from this leg's peer and to it; what waits is not counted.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Data messages from this leg's peer.
    pub messages_received: u64,
    pub pings_sent: u32,
    pub pongs_received: u32,
    /// It is not read, because the other leg does not take what came, or because its peer sent over its rate.
    pub paused: bool,
}

impl Relay {
    /// The figures of one leg at `now`.
    #[must_use]
    pub fn figures(&self, side: Side, now: Instant) -> LegFigures {
        let (leg, now) = (&self.legs[side], self.clock.moment(now));
        LegFigures {
            round_trip: leg.heartbeat.round_trip(),
            unanswered: leg.heartbeat.asked().map(|asked| now - asked),
            silence: now - leg.heartbeat.heard(),
            outbox: leg.outbox.len() as u64,
            bytes_received: leg.received,
            bytes_sent: leg.outbox.taken(),
            messages_received: leg.scanner.messages(),
            pings_sent: leg.heartbeat.sent(),
            pongs_received: leg.heartbeat.answered(),
            paused: leg.input == Input::Open && !self.wants_read(side),
        }
    }
}
