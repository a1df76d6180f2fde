//! The one record of how a session ended.
use super::{ClientAddress, Facts};
use crate::protocol::leg::Output;
use crate::relay::{EndReason, Outcome, PerSide, Relay, Side};
use std::{num::NonZeroU16, time::Duration};

/// How a session ended: who first, how, with which codes and counts. `session` makes it, once; `log` writes it.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub id: Box<str>,
    pub route: String,
    pub upstream: String,
    pub backend: String,
    pub local_port: Option<u16>,
    pub client: ClientAddress,
    pub user_agent: Option<Box<str>>,
    pub origin: Option<Box<str>>,
    pub duration: Duration,
    pub reason: EndReason,
    /// The side that caused the end; `None`: the gateway.
    pub first: Option<Side>,
    /// How long the client was made to wait its turn to be told, because its backend lost many.
    pub told_after: Option<Duration>,
    /// What was wrong, for violations and errors (never payload).
    pub cause: Option<String>,
    pub legs: PerSide<LegVerdict>,
}

/// One leg's part of the verdict.
#[derive(Clone, Debug, Default)]
pub struct LegVerdict {
    /// The close code received: 1005 for a close frame without one, `None` for no close frame.
    pub code_received: Option<u16>,
    /// The close code sent: 1005 for a close frame without one, `None` for no close frame.
    pub code_sent: Option<u16>,
    /// Ended by reset because no close frame could be said.
    pub cut: bool,
    /// What arrived from this leg's peer, in bytes on the wire (headers too), and data messages.
    pub bytes_received: u64,
    pub messages_received: u64,
    /// Our own heartbeat on this leg.
    pub pings_sent: u32,
    pub pongs_received: u32,
    pub last_round_trip: Option<Duration>,
    /// Time since the last byte from this leg's peer, when the end began.
    pub silence: Duration,
}

impl Verdict {
    /// The verdict on a session whose codes are known.
    pub(super) fn of(facts: &Facts, relay: &Relay, outcome: Outcome, duration: Duration) -> Self {
        let backend = facts.lease.backend();
        let leg = |side: Side| LegVerdict::of(relay, side, outcome.silence[side]);
        Self {
            id: facts.id.clone(),
            route: facts.route.name.clone(),
            upstream: backend.upstream.clone(),
            backend: backend.name.clone(),
            local_port: facts.local_port.map(NonZeroU16::get),
            client: facts.client,
            user_agent: facts.user_agent.clone(),
            origin: facts.origin.clone(),
            duration,
            reason: outcome.reason,
            first: outcome.first,
            told_after: outcome.told_after,
            cause: outcome.violation.map(|violation| violation.explain().to_owned()),
            legs: PerSide { downstream: leg(Side::Downstream), upstream: leg(Side::Upstream) },
        }
    }
}

impl LegVerdict {
    /// What is known of one leg now. `silence`: since its peer's last byte.
    pub(super) fn of(relay: &Relay, side: Side, silence: Duration) -> Self {
        let leg = relay.leg(side);
        Self {
            code_received: leg.close_received,
            code_sent: leg.close_sent(),
            cut: leg.output == Output::Cut,
            bytes_received: leg.received,
            messages_received: leg.scanner.messages(),
            pings_sent: leg.heartbeat.sent(),
            pongs_received: leg.heartbeat.answered(),
            last_round_trip: leg.heartbeat.round_trip(),
            silence,
        }
    }
}
