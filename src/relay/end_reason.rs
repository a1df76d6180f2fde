//! Why a session ended, and what each leg is told: one table.

use super::side::{PerSide, Side};
use crate::protocol::close::{CloseCode, CloseFrame};
use std::collections::BTreeMap;

/// Why a session ended. The first cause is the reason; what follows changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndReason {
    /// The client sent a close frame.
    ClientClosed,
    /// The backend sent a close frame.
    UpstreamClosed,
    /// The client's stream ended without a close frame.
    ClientGone,
    /// The backend's stream ended without a close frame.
    UpstreamGone,
    /// The client missed a deadline, or its TCP gave up.
    ClientUnresponsive,
    /// The backend missed a deadline, or its TCP gave up.
    UpstreamUnresponsive,
    /// The client broke the protocol or a limit.
    ClientViolation,
    /// The backend broke the protocol or a limit.
    UpstreamViolation,
    /// The client does not take what waits for it, or leaves a frame unfinished.
    ClientStalled,
    /// The backend does not take what waits for it, or leaves a frame unfinished.
    UpstreamStalled,
    /// No data frame either way for `timeouts.idle`.
    Idle,
    /// Older than `timeouts.max_age`.
    MaxAge,
    /// The gateway drains.
    Draining,
    /// A rule of the operator's.
    Policy,
    /// An operator ended it.
    Terminated,
    /// A bug of ours.
    Internal,
}

/// Who is to blame for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Nobody: sessions end.
    Nobody,
    Side(Side),
    Gateway,
}

/// How loudly an end is logged: clients vanish every day, backends should not, and bugs never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// What a leg is told by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// It ended it itself: the other side's answer crosses, or its own code is echoed.
    Echo,
    /// Nobody is there.
    Nothing,
    Close(CloseFrame),
    /// A close frame if it can be said at once, and a reset.
    CloseAndReset(CloseFrame),
    /// A close frame if nothing waits before it and a border comes in time, and a reset.
    CloseIfRoom(CloseFrame),
    /// The code and words of the violation.
    Violation,
    Reset,
}

/// One line of the table.
struct Line {
    label: &'static str,
    blame: Blame,
    severity: Severity,
    client: Tell,
    upstream: Tell,
}

const fn close(code: CloseCode, reason: &'static str) -> Tell {
    Tell::Close(CloseFrame { code: Some(code), reason })
}

const fn reset(code: CloseCode, reason: &'static str) -> Tell {
    Tell::CloseAndReset(CloseFrame { code: Some(code), reason })
}

const fn line(label: &'static str, blame: Blame, severity: Severity, client: Tell, upstream: Tell) -> Line {
    Line { label, blame, severity, client, upstream }
}

impl EndReason {
    /// Every reason, in the order of the table.
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

    /// The table: label, who is to blame, how loudly it is logged, what the client is told, what the backend is told.
    ///
    /// 1012 rather than 1011 when a backend is lost, because clients come back: widely used ones take 1011 as
    /// final and 1012 as "reconnect".
    const fn line(self) -> Line {
        use Blame::{Gateway, Nobody};
        use CloseCode as Code;
        use Severity::{Error, Info, Warning};
        const CLIENT: Blame = Blame::Side(Side::Downstream);
        const UPSTREAM: Blame = Blame::Side(Side::Upstream);
        match self {
            Self::ClientClosed => line("client_closed", Nobody, Info, Tell::Echo, Tell::Echo),
            Self::UpstreamClosed => line("upstream_closed", Nobody, Info, Tell::Echo, Tell::Echo),
            Self::ClientGone => {
                line("client_gone", CLIENT, Info, Tell::Nothing, close(Code::GOING_AWAY, "client connection lost"))
            }
            Self::UpstreamGone => line(
                "upstream_gone",
                UPSTREAM,
                Warning,
                close(Code::SERVICE_RESTART, "upstream connection lost"),
                Tell::Nothing,
            ),
            Self::ClientUnresponsive => line(
                "client_unresponsive",
                CLIENT,
                Info,
                reset(Code::GOING_AWAY, "keepalive ping timeout"),
                close(Code::GOING_AWAY, "client keepalive timeout"),
            ),
            Self::UpstreamUnresponsive => line(
                "upstream_unresponsive",
                UPSTREAM,
                Warning,
                close(Code::SERVICE_RESTART, "upstream keepalive timeout"),
                reset(Code::INTERNAL, "keepalive ping timeout"),
            ),
            Self::ClientViolation => line(
                "client_violation",
                CLIENT,
                Warning,
                Tell::Violation,
                close(Code::GOING_AWAY, "client protocol error"),
            ),
            Self::UpstreamViolation => line(
                "upstream_violation",
                UPSTREAM,
                Warning,
                close(Code::INTERNAL, "upstream protocol error"),
                Tell::Violation,
            ),
            Self::ClientStalled => line(
                "client_stalled",
                CLIENT,
                Info,
                Tell::CloseIfRoom(CloseFrame { code: Some(Code::TRY_AGAIN), reason: "too slow" }),
                close(Code::GOING_AWAY, "client too slow"),
            ),
            Self::UpstreamStalled => {
                line("upstream_stalled", UPSTREAM, Warning, close(Code::TRY_AGAIN, "upstream too slow"), Tell::Reset)
            }
            Self::Idle => line(
                "idle",
                Nobody,
                Info,
                close(Code::GOING_AWAY, "idle timeout"),
                close(Code::GOING_AWAY, "idle timeout"),
            ),
            Self::MaxAge => line(
                "max_age",
                Nobody,
                Info,
                close(Code::SERVICE_RESTART, "session age limit"),
                close(Code::GOING_AWAY, "session age limit"),
            ),
            Self::Draining => {
                line("draining", Nobody, Info, close(Code::GOING_AWAY, "draining"), close(Code::GOING_AWAY, "draining"))
            }
            Self::Policy => {
                line("policy", CLIENT, Warning, close(Code::POLICY, "policy"), close(Code::GOING_AWAY, "policy"))
            }
            Self::Terminated => line(
                "terminated",
                Nobody,
                Info,
                close(Code::GOING_AWAY, "terminated"),
                close(Code::GOING_AWAY, "terminated"),
            ),
            Self::Internal => line(
                "internal",
                Gateway,
                Error,
                close(Code::INTERNAL, "internal error"),
                close(Code::INTERNAL, "internal error"),
            ),
        }
    }

    /// The name in configuration, logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.line().label
    }

    /// Who is to blame.
    #[must_use]
    pub const fn blame(self) -> Blame {
        self.line().blame
    }

    /// How loudly it is logged.
    #[must_use]
    pub const fn severity(self) -> Severity {
        self.line().severity
    }

    /// Whether something went wrong, whoever did it.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        !matches!(self.line().blame, Blame::Nobody)
    }

    /// What `side` is told by default.
    pub(crate) const fn tell(self, side: Side) -> Tell {
        match side {
            Side::Downstream => self.line().client,
            Side::Upstream => self.line().upstream,
        }
    }
}

/// What a leg is told when a session ends, as an operator sets it.
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

impl CloseCodes {
    /// Whether an operator set what `side` is told.
    pub(crate) fn sets(&self, reason: EndReason, side: Side) -> bool {
        self.0.get(&reason).is_some_and(|set| set[side].is_some())
    }

    /// What `side` is told when a session ends for `reason`.
    pub(crate) fn tell(&self, reason: EndReason, side: Side) -> Tell {
        let default = reason.tell(side);
        match (self.0.get(&reason).and_then(|set| set[side]), default) {
            (None, _) => default,
            (Some(_), Tell::Echo | Tell::Nothing) => default,
            (Some(Farewell::Cut), _) => Tell::Reset,
            (Some(Farewell::Code(code)), Tell::Close(frame)) => Tell::Close(CloseFrame { code: Some(code), ..frame }),
            (Some(Farewell::Code(code)), Tell::CloseAndReset(frame)) => {
                Tell::CloseAndReset(CloseFrame { code: Some(code), ..frame })
            }
            (Some(Farewell::Code(code)), Tell::CloseIfRoom(frame)) => {
                Tell::CloseIfRoom(CloseFrame { code: Some(code), ..frame })
            }
            (Some(Farewell::Code(code)), Tell::Violation | Tell::Reset) => {
                Tell::Close(CloseFrame { code: Some(code), reason: "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_in_the_words_of_the_configuration() {
        let mut labels: Vec<_> = EndReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), EndReason::ALL.len());
    }

    #[test]
    fn an_operator_replaces_a_code_and_keeps_the_words() {
        let mut codes = CloseCodes::default();
        let set = PerSide { downstream: CloseCode::new(1014).map(Farewell::Code), upstream: None };
        codes.0.insert(EndReason::UpstreamGone, set);
        let told = codes.tell(EndReason::UpstreamGone, Side::Downstream);
        let frame = CloseFrame { code: CloseCode::new(1014), reason: "upstream connection lost" };
        assert_eq!(told, Tell::Close(frame));
        assert_eq!(codes.tell(EndReason::UpstreamGone, Side::Upstream), Tell::Nothing);
    }
}
