//! Two legs and the rules between them: what crosses, what ends a session, which codes are said. Sans-IO.
pub mod end_reason;
use crate::protocol::heartbeat::HeartbeatConfig;
pub use end_reason::{CloseCodes, EndReason, Farewell};
use std::time::Duration;

/// A place: towards the client (downstream) or towards the backends (upstream).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Downstream,
    Upstream,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::Downstream, Self::Upstream];

    /// The opposite place.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }

    /// The word used in configuration, logs, metrics and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Downstream => "client",
            Self::Upstream => "upstream",
        }
    }
}

/// One value for each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSide<T> {
    pub downstream: T,
    pub upstream: T,
}

impl<T> std::ops::Index<Side> for PerSide<T> {
    type Output = T;
    fn index(&self, side: Side) -> &T {
        match side {
            Side::Downstream => &self.downstream,
            Side::Upstream => &self.upstream,
        }
    }
}

impl<T> std::ops::IndexMut<Side> for PerSide<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Downstream => &mut self.downstream,
            Side::Upstream => &mut self.upstream,
        }
    }
}

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

/// Limits on what one side may send, in bytes of payload on the wire. Reaching one is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageLimits {
    pub message: Option<u64>,
    pub frame: Option<u64>,
}
