//! What a session tells: its heartbeats to who watches, its verdict once.

use super::{
    census::Figures,
    drive::Session,
    verdict::{LegVerdict, Verdict},
};
use crate::{
    protocol::{heartbeat::HeartbeatEvent, moment::Moment},
    relay::{PerSide, Side},
};
use std::time::{Duration, Instant};

impl Session {
    /// Answers the census that asks.
    #[cold]
    pub(super) fn tell_figures(&self, now: Instant) {
        let leg = |side| self.relay.figures(side, now);
        let legs = PerSide { downstream: leg(Side::Downstream), upstream: leg(Side::Upstream) };
        let age = now.saturating_duration_since(self.started());
        self.membership.answer(Figures { age, ending: self.relay.is_ending(), legs });
    }

    #[inline]
    pub(super) fn tell_heartbeat(&mut self, side: Side) {
        if let Some(event) = self.relay.take_event(side) {
            self.heartbeat_event(side, event);
        }
    }

    #[cold]
    pub(super) fn heartbeat_event(&mut self, side: Side, event: HeartbeatEvent) {
        let timeout = self.relay.config().heartbeat[side].ping_timeout;
        self.facts.meter.heartbeat(side, event, timeout);
        let backend = self.facts.lease.backend();
        match (side, event) {
            (Side::Upstream, HeartbeatEvent::Answered { .. }) => backend.prove(),
            (Side::Upstream, HeartbeatEvent::Unproven) => {
                if backend.warn_once() {
                    tracing::warn!(
                        backend = %backend.name,
                        upstream = %backend.upstream,
                        session = %self.facts.id,
                        "the backend does not answer pings: its sessions are kept as long as its TCP acknowledges, so a \
                         frozen one is not noticed; heartbeat.upstream.liveness = \"pong\" would end them, \
                         heartbeat.upstream.kind = \"pong\" asks for no answer"
                    );
                }
            }
            (Side::Upstream, HeartbeatEvent::Missed) => {
                let heartbeat = &self.relay.config().heartbeat.upstream;
                backend.session_missed(heartbeat.missed_within());
            }
            (Side::Upstream, HeartbeatEvent::Sent | HeartbeatEvent::AnsweredLate) | (Side::Downstream, _) => {}
        }
        if let Some(observer) = &self.context.heartbeat {
            observer(&self.facts.id, side, event);
        }
    }

    /// When this session is to be written while it runs, if ever.
    pub(super) fn account_due(&self) -> Option<Instant> {
        let account = self.context.account.as_ref().filter(|_| !self.relay.is_ending())?;
        self.relay.started().checked_add(account.every.saturating_mul(self.facts.accounts.get().saturating_add(1)))
    }

    /// Writes how it does, once for all the times that were missed.
    #[cold]
    pub(super) fn give_account(&mut self, now: Instant) {
        let Some(account) = &self.context.account else { return };
        let age = now.saturating_duration_since(self.relay.started());
        let times = age.as_nanos() / account.every.as_nanos().max(1);
        self.facts.accounts.set(u32::try_from(times).unwrap_or(u32::MAX));
        let leg = |side| LegVerdict::of(&self.relay, side, self.relay.silence(side, now));
        let legs = PerSide { downstream: leg(Side::Downstream), upstream: leg(Side::Upstream) };
        (account.write)(&self.facts, &legs, age);
    }

    pub(super) fn report(&mut self) {
        let Some(outcome) = self.relay.outcome() else { return };
        self.reported = true;
        let backend = self.facts.lease.backend();
        let heartbeat = &self.relay.leg(Side::Upstream).heartbeat;
        let right_after = |asked: Moment| outcome.at - asked < Duration::from_secs(1);
        if outcome.first == Some(Side::Upstream)
            && !backend.proven()
            && heartbeat.sent() == 1
            && heartbeat.asked().is_some_and(right_after)
        {
            tracing::warn!(
                backend = %backend.name,
                session = %self.facts.id,
                "the backend ended the session right after its first ping; if it cannot bear pings, set \
                 heartbeat.upstream.ping_interval = \"off\""
            );
        }
        let verdict = Verdict::of(&self.facts, &self.relay, outcome, self.relay.started().elapsed());
        let meter = &self.facts.meter;
        meter.ended(verdict.reason, verdict.duration);
        for side in Side::BOTH {
            meter.closed(side, verdict.legs[side].code_received, verdict.legs[side].code_sent);
        }
        backend.session_ended(verdict.reason, verdict.duration);
        (self.context.report)(verdict);
    }
}
