//! What a route asks of its relays.

use super::{
    end_reason::CloseCodes,
    side::{PerSide, Side},
};
use crate::protocol::{heartbeat::HeartbeatConfig, rate::Rate};
use std::{sync::Arc, time::Duration};

/// What a route asks of its relays. `None` is `"off"` throughout.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayConfig {
    pub heartbeat: PerSide<HeartbeatConfig>,
    pub pings: Pings,
    pub utf8: Utf8,
    pub timeouts: RelayTimeouts,
    pub limits: PerSide<MessageLimits>,
    /// Bytes a second below which a side, averaged over `timeouts.stall`, is stalled.
    pub pace: Option<u64>,
    /// Codes said instead of the default ones, per end reason.
    pub close_codes: CloseCodes,
}

/// What happens to the peers' own pings and pongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pings {
    /// They cross to the other leg untouched.
    Forward,
    /// The gateway answers them on their leg; nothing crosses.
    Answer,
}

/// Whether text messages are checked to be UTF-8 (RFC 6455 section 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Utf8 {
    Check,
    Pass,
}

/// Times that bound a session.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayTimeouts {
    /// For a closing handshake, and for the TCP end after it.
    pub close: Duration,
    /// For a receiver that does not take what waits, or a sender that leaves a frame unfinished.
    pub stall: Option<Duration>,
    /// Without data frames either way.
    pub idle: Option<Duration>,
    /// From the 101 on.
    pub max_age: Option<Duration>,
}

/// Limits on what one side may send, sizes in bytes of payload on the wire. Reaching one is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageLimits {
    pub message: Option<u64>,
    pub frame: Option<u64>,
    /// Frames of one message, fewer than `u16::MAX`.
    pub fragments: Option<u16>,
    /// Messages and control frames; pongs to our own pings do not count.
    pub messages_per_second: Option<Rate>,
    /// Bytes of frames, with their headers.
    pub bytes_per_second: Option<Rate>,
    pub over_rate: OverRate,
}

/// What happens to a side that sends over its rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverRate {
    /// It is not read for a while.
    #[default]
    Slow,
    /// The session ends, as `policy`.
    Close,
}

impl RelayConfig {
    /// What a session that runs by these settings takes from newer ones: heartbeat, timeouts and limits. What its peers
    /// have seen of it stays: how pings cross, whether text is checked, which codes are said, what becomes of who sends too much.
    #[must_use]
    pub fn renewed(&self, newer: &Arc<Self>) -> Arc<Self> {
        let Self { heartbeat, pings: _, utf8: _, timeouts, limits, pace, close_codes: _ } = &**newer;
        let mut limits = *limits;
        for side in Side::BOTH {
            // What waits because it was slowed down would else end it.
            limits[side].over_rate = self.limits[side].over_rate;
        }
        if (newer.pings, newer.utf8, &newer.close_codes, newer.limits)
            == (self.pings, self.utf8, &self.close_codes, limits)
        {
            return Arc::clone(newer);
        }
        Arc::new(Self {
            heartbeat: heartbeat.clone(),
            timeouts: timeouts.clone(),
            limits,
            pace: *pace,
            pings: self.pings,
            utf8: self.utf8,
            close_codes: self.close_codes.clone(),
        })
    }
}
