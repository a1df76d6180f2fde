//! Why a session ended, and what each leg is told: the table of DESIGN section 6, once.
use super::PerSide;
use crate::protocol::close::CloseCode;
use std::collections::BTreeMap;

/// Why a session ended. The first cause is the reason; what follows changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    ClientClosed,
    UpstreamClosed,
    ClientGone,
    UpstreamGone,
    ClientUnresponsive,
    UpstreamUnresponsive,
    ClientViolation,
    UpstreamViolation,
    ClientStalled,
    UpstreamStalled,
    Idle,
    MaxAge,
    Draining,
    Policy,
    Terminated,
    Internal,
}

impl EndReason {
    pub const ALL: [Self; 16] = [
        Self::ClientClosed,
        Self::UpstreamClosed,
        Self::ClientGone,
        Self::UpstreamGone,
        Self::ClientUnresponsive,
        Self::UpstreamUnresponsive,
        Self::ClientViolation,
        Self::UpstreamViolation,
        Self::ClientStalled,
        Self::UpstreamStalled,
        Self::Idle,
        Self::MaxAge,
        Self::Draining,
        Self::Policy,
        Self::Terminated,
        Self::Internal,
    ];

    /// The name in configuration, logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::ClientGone => "client_gone",
            Self::UpstreamGone => "upstream_gone",
            Self::ClientUnresponsive => "client_unresponsive",
            Self::UpstreamUnresponsive => "upstream_unresponsive",
            Self::ClientViolation => "client_violation",
            Self::UpstreamViolation => "upstream_violation",
            Self::ClientStalled => "client_stalled",
            Self::UpstreamStalled => "upstream_stalled",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::Draining => "draining",
            Self::Policy => "policy",
            Self::Terminated => "terminated",
            Self::Internal => "internal",
        }
    }
}

/// What a leg is told when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// A close frame with this code.
    Code(CloseCode),
    /// None: the leg is reset, as byte proxies do.
    Cut,
}

/// The farewells an operator set, by end reason; one not listed has its default.
///
/// A code in `gateway.toml` (`close_codes = { upstream_gone = 1014 }`) is what the *client* is told,
/// but for reasons whose client leg is dead (`client_gone`, `client_unresponsive`, `client_stalled`):
/// there it is what the backend is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloseCodes(pub BTreeMap<EndReason, PerSide<Option<Farewell>>>);
