//! Writes one line per session: its verdict, with a sentence on what to do about it.
use super::{access::AccessLog, mass::MassEnds};
use crate::{
    config::LogSessions,
    pacing::MANY,
    relay::{EndReason, Severity, Side},
    session::verdict::Verdict,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::Level;

/// The events of sessions, so that a filter can route them (`log.level = "warn,pulsegate::session=info"`).
pub const TARGET: &str = "pulsegate::session";

/// Where the sessions of all workers have their verdicts written.
#[derive(Debug)]
pub struct VerdictLog {
    sessions: Mutex<LogSessions>,
    access: Option<Arc<AccessLog>>,
    mass: Mutex<MassEnds>,
}

impl VerdictLog {
    #[must_use]
    pub fn new(sessions: LogSessions, access: Option<Arc<AccessLog>>) -> Self {
        Self { sessions: Mutex::new(sessions), access, mass: Mutex::new(MassEnds::default()) }
    }

    /// From now on these are written.
    pub fn select(&self, sessions: LogSessions) {
        *self.sessions.lock().unwrap_or_else(PoisonError::into_inner) = sessions;
    }

    /// Writes the verdict if `log.sessions` wants it, to the access log too, and counts it among the ends of its backend.
    pub fn write(&self, verdict: &Verdict, now: Instant) {
        let sessions = *self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted(sessions, verdict) {
            write_line(verdict);
        }
        if let Some(access) = &self.access {
            access.end(verdict);
        }
        let many = {
            let mut mass = self.mass.lock().unwrap_or_else(PoisonError::into_inner);
            mass.count(now, &verdict.backend, verdict.reason)
        };
        if many {
            tracing::error!(
                target: TARGET,
                reason = verdict.reason.label(),
                upstream.name = verdict.upstream,
                upstream.backend = verdict.backend,
                "more than {MANY} sessions of backend {} ended by {} within a second",
                verdict.backend,
                verdict.reason.label(),
            );
        }
    }
}

/// Whether a log that takes these sessions takes this verdict.
pub(super) fn wanted(sessions: LogSessions, verdict: &Verdict) -> bool {
    match sessions {
        LogSessions::All => true,
        LogSessions::Abnormal => abnormal(verdict),
        LogSessions::Off => false,
    }
}

/// Whether something went wrong: the reason says so, or a leg had to be cut.
fn abnormal(verdict: &Verdict) -> bool {
    verdict.reason.is_fault() || Side::BOTH.into_iter().any(|side| verdict.legs[side].cut)
}

/// What a reason means and where to look, in one sentence.
#[must_use]
pub const fn hint(reason: EndReason) -> &'static str {
    match reason {
        EndReason::ClientClosed => "the client closed the session with a close frame",
        EndReason::UpstreamClosed => {
            "the backend closed the session with a close frame; its code is the backend's reason"
        }
        EndReason::ClientGone => {
            "the client's connection ended without a close frame: a closed tab, a lost network or a killed app"
        }
        EndReason::UpstreamGone => {
            "the backend's connection ended without a close frame: look for a crash, a restart or a proxy's idle limit"
        }
        EndReason::ClientUnresponsive => {
            "the client answered no ping within heartbeat.client.ping_timeout: it lost its network or its process is frozen"
        }
        EndReason::UpstreamUnresponsive => {
            "the backend answered no ping within heartbeat.upstream.ping_timeout: its host is gone or its process is frozen"
        }
        EndReason::ClientViolation => "the client sent what RFC 6455 or limits.client forbids; the cause names it",
        EndReason::UpstreamViolation => "the backend sent what RFC 6455 or limits.upstream forbids; the cause names it",
        EndReason::ClientStalled => {
            "the client did not take what waited for it, or left a frame unfinished, for timeouts.stall"
        }
        EndReason::UpstreamStalled => {
            "the backend did not take what waited for it, or left a frame unfinished, for timeouts.stall"
        }
        EndReason::Idle => "no data crossed either way for timeouts.idle",
        EndReason::MaxAge => "the session reached timeouts.max_age",
        EndReason::Draining => "the gateway was told to stop and ended its sessions, as gateway.drain says",
        EndReason::Policy => "a rule of the gateway forbids this session; the cause names it",
        EndReason::Terminated => "an operator ended this session",
        EndReason::Internal => "a bug in the gateway ended this session and no other; please report it with the cause",
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with three digits behind the point: round trips on a local network are shorter than one.
pub(super) fn fine_millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A field that is not known (no close frame came, no ping was answered) is left out of the line.
fn write_line(verdict: &Verdict) {
    let (client, upstream) = (&verdict.legs[Side::Downstream], &verdict.legs[Side::Upstream]);
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                target: TARGET,
                $level,
                session = &*verdict.id,
                route = verdict.route,
                reason = verdict.reason.label(),
                first = verdict.first.map_or("gateway", Side::label),
                cause = verdict.cause.as_deref(),
                duration_ms = millis(verdict.duration),
                client.address = &*verdict.client.to_string(),
                client.user_agent = verdict.user_agent.as_deref(),
                client.origin = verdict.origin.as_deref(),
                client.code_received = client.code_received,
                client.code_sent = client.code_sent,
                client.told_after_ms = verdict.told_after.map(millis),
                client.cut = client.cut,
                client.bytes = client.bytes_received,
                client.messages = client.messages_received,
                client.pings = client.pings_sent,
                client.pongs = client.pongs_received,
                client.round_trip_ms = client.last_round_trip.map(fine_millis),
                client.silence_ms = millis(client.silence),
                upstream.name = verdict.upstream,
                upstream.backend = verdict.backend,
                upstream.local_port = verdict.local_port,
                upstream.code_received = upstream.code_received,
                upstream.code_sent = upstream.code_sent,
                upstream.cut = upstream.cut,
                upstream.bytes = upstream.bytes_received,
                upstream.messages = upstream.messages_received,
                upstream.pings = upstream.pings_sent,
                upstream.pongs = upstream.pongs_received,
                upstream.round_trip_ms = upstream.last_round_trip.map(fine_millis),
                upstream.silence_ms = millis(upstream.silence),
                hint = hint(verdict.reason),
                "session ended: {}",
                verdict.reason.label(),
            )
        };
    }
    match verdict.reason.severity() {
        Severity::Error => line!(Level::ERROR),
        Severity::Warning => line!(Level::WARN),
        Severity::Info => line!(Level::INFO),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        relay::PerSide,
        session::{ClientAddress, verdict::LegVerdict},
    };
    use std::{
        io::{self, Write},
        sync::Arc,
    };

    pub(in crate::log) fn verdict(reason: EndReason) -> Verdict {
        let client = LegVerdict {
            code_received: Some(1000),
            code_sent: None,
            cut: false,
            bytes_received: 120,
            messages_received: 3,
            pings_sent: 7,
            pongs_received: 6,
            last_round_trip: Some(Duration::from_micros(1_234)),
            silence: Duration::from_secs(41),
        };
        Verdict {
            id: "0123abcd".into(),
            route: "chat".into(),
            upstream: "pool".into(),
            backend: "ws://10.0.0.1:8000".into(),
            local_port: Some(40_001),
            client: ClientAddress::Ip([203, 0, 113, 7].into()),
            user_agent: Some("Mozilla \"5.0\"".into()),
            origin: None,
            duration: Duration::from_millis(61_500),
            reason,
            first: Some(Side::Downstream),
            told_after: Some(Duration::from_millis(2_500)),
            cause: None,
            legs: PerSide { downstream: client, upstream: LegVerdict::default() },
        }
    }

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(write: impl FnOnce()) -> String {
        let memory = Memory::default();
        let sink = memory.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || sink.clone()).finish();
        tracing::subscriber::with_default(subscriber, write);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_verdict_is_one_line_with_every_known_field() {
        let log = VerdictLog::new(LogSessions::All, None);
        let text = logged(|| log.write(&verdict(EndReason::UpstreamGone), Instant::now()));
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            r#""level":"WARN""#,
            r#""target":"pulsegate::session""#,
            r#""session":"0123abcd""#,
            r#""route":"chat""#,
            r#""reason":"upstream_gone""#,
            r#""first":"client""#,
            r#""duration_ms":61500"#,
            r#""client.address":"203.0.113.7""#,
            r#""client.user_agent":"Mozilla \"5.0\"""#,
            r#""client.code_received":1000"#,
            r#""client.told_after_ms":2500"#,
            r#""client.cut":false"#,
            r#""client.bytes":120"#,
            r#""client.messages":3"#,
            r#""client.pings":7"#,
            r#""client.pongs":6"#,
            r#""client.round_trip_ms":1.234"#,
            r#""client.silence_ms":41000"#,
            r#""upstream.name":"pool""#,
            r#""upstream.backend":"ws://10.0.0.1:8000""#,
            r#""upstream.local_port":40001"#,
            r#""hint":"the backend's connection ended"#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("code_sent") && !text.contains("origin"), "unknown fields are left out: {text}");
    }

    #[test]
    fn sessions_abnormal_writes_only_what_went_wrong() {
        let log = VerdictLog::new(LogSessions::Abnormal, None);
        assert_eq!(logged(|| log.write(&verdict(EndReason::ClientClosed), Instant::now())), "");
        assert_ne!(logged(|| log.write(&verdict(EndReason::ClientGone), Instant::now())), "");
        let mut cut = verdict(EndReason::Draining);
        cut.legs.upstream.cut = true;
        assert_ne!(logged(|| log.write(&cut, Instant::now())), "");
    }

    #[test]
    fn sessions_off_still_tells_when_a_whole_backend_goes() {
        let log = VerdictLog::new(LogSessions::Off, None);
        let now = Instant::now();
        let text = logged(|| (0..300).for_each(|_| log.write(&verdict(EndReason::UpstreamGone), now)));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("ERROR") && text.contains("more than 100 sessions"), "{text}");
    }

    #[test]
    fn every_reason_has_its_own_one_sentence_hint() {
        let hints: std::collections::BTreeSet<_> = EndReason::ALL.into_iter().map(hint).collect();
        assert_eq!(hints.len(), EndReason::ALL.len());
        assert!(hints.iter().all(|hint| !hint.ends_with('.') && !hint.contains(". ")));
    }
}
