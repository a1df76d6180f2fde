//! The names of all figures, with their labels: one line each of what `docs/metrics.md` explains.
use super::text::{Family, Kind};

const ROUTE: &[&str] = &["route", "upstream"];
const LEG: &[&str] = &["route", "upstream", "side"];
const FLOW: &[&str] = &["route", "upstream", "side", "direction"];
const BACKEND: &[&str] = &["upstream", "backend"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

pub(super) static SESSIONS_OPEN: Family =
    gauge("pulsegate_sessions_open", ROUTE, "Sessions whose TCP connections are open.");
pub(super) static SESSIONS_LIMIT: Family =
    gauge("pulsegate_sessions_limit", &[], "Sessions that may be open at a time.");
pub(super) static SESSIONS_STARTED: Family =
    counter("pulsegate_sessions_started", ROUTE, "Sessions that began: both opening handshakes succeeded.");
pub(super) static SESSIONS_ENDED: Family = counter(
    "pulsegate_sessions_ended",
    &["route", "upstream", "reason", "side"],
    "Sessions that ended, by end reason and the side that caused it.",
);
pub(super) static SESSION_DURATION: Family =
    histogram("pulsegate_session_duration_seconds", ROUTE, "How long sessions lasted, observed at their end.");
pub(super) static CLOSE_CODES: Family = counter(
    "pulsegate_session_close_codes",
    &["route", "upstream", "side", "direction", "code"],
    "Close codes received from and sent to each side by sessions that ended.",
);

pub(super) static HANDSHAKES: Family =
    counter("pulsegate_handshakes", &["route", "result"], "Opening handshakes that came to an end, by result.");
pub(super) static HANDSHAKE_DURATION: Family = histogram(
    "pulsegate_handshake_duration_seconds",
    &["route"],
    "Time from a client's request head to its 101, of handshakes that succeeded.",
);
pub(super) static REQUESTS: Family = counter(
    "pulsegate_http_requests",
    &["route", "upstream", "result"],
    "Plain HTTP requests that are over, by what became of them.",
);
pub(super) static REQUESTS_OPEN: Family =
    gauge("pulsegate_http_requests_open", ROUTE, "Plain HTTP requests that are on their way.");
pub(super) static RESPONSES: Family = counter(
    "pulsegate_http_responses",
    &["route", "upstream", "status"],
    "Answers to plain HTTP requests, by class of status.",
);
pub(super) static REQUEST_DURATION: Family = histogram(
    "pulsegate_http_request_duration_seconds",
    ROUTE,
    "Time from a plain request's head to the head of its answer.",
);
pub(super) static REQUEST_BYTES: Family = counter(
    "pulsegate_http_body_bytes",
    &["route", "upstream", "direction"],
    "Bytes of the bodies of plain requests received from, and of answers sent to, clients.",
);
pub(super) static TLS_HANDSHAKES: Family =
    counter("pulsegate_tls_handshakes", &["result"], "TLS handshakes with clients, by result.");
pub(super) static TLS_HANDSHAKE_DURATION: Family = histogram(
    "pulsegate_tls_handshake_duration_seconds",
    &[],
    "Time that TLS handshakes with clients took, of those that succeeded.",
);
pub(super) static CERTIFICATE_EXPIRY: Family = gauge(
    "pulsegate_certificate_expiry_timestamp_seconds",
    &["file"],
    "When the certificate that listeners show expires, in seconds since 1970.",
);

pub(super) static TRAFFIC_BYTES: Family =
    counter("pulsegate_traffic_bytes", FLOW, "Bytes of WebSocket frames on a leg, headers included, TLS not.");
pub(super) static FRAMES: Family = counter("pulsegate_frames", FLOW, "Whole frames on a leg, control frames included.");
pub(super) static MESSAGES: Family = counter("pulsegate_messages", FLOW, "Whole data messages on a leg.");

pub(super) static PINGS_SENT: Family = counter("pulsegate_heartbeats_sent", LEG, "Pings of the gateway that left.");
pub(super) static PINGS_ANSWERED: Family =
    counter("pulsegate_heartbeats_answered", LEG, "Pongs to pings of the gateway, late ones included.");
pub(super) static PINGS_LATE: Family =
    counter("pulsegate_heartbeats_late", LEG, "Pongs that came after ping_timeout, or after the next ping had left.");
pub(super) static PINGS_MISSED: Family = counter(
    "pulsegate_heartbeats_missed",
    LEG,
    "Deadlines that passed without a sign of life, each the end of a session.",
);
pub(super) static PINGS_UNPROVEN: Family =
    counter("pulsegate_heartbeats_unproven", LEG, "Pings that a peer's TCP acknowledged, and which it never answered.");
pub(super) static ROUND_TRIP: Family =
    histogram("pulsegate_round_trip_seconds", LEG, "Time from a ping of the gateway to its pong.");

pub(super) static OUTBOX_BYTES: Family =
    gauge("pulsegate_outbox_bytes", LEG, "Bytes that wait because a side does not take them.");
pub(super) static OUTBOX_LIMIT: Family =
    gauge("pulsegate_outbox_limit_bytes", &[], "Bytes that may wait before new sessions are refused.");
pub(super) static OUTBOX_STALLS: Family =
    counter("pulsegate_outbox_stalls", LEG, "Times that bytes began to wait because a side did not take them.");
pub(super) static SESSIONS_PAUSED: Family = gauge(
    "pulsegate_sessions_paused",
    LEG,
    "Sessions in which this side is not read because the other side does not take what comes.",
);
pub(super) static SESSIONS_SLOWED: Family = counter(
    "pulsegate_sessions_slowed",
    LEG,
    "Times that this side was not read for a while because it sent over its rate.",
);

pub(super) static BACKEND_UP: Family =
    gauge("pulsegate_backend_up", BACKEND, "Whether a backend works: 1, or 0 while others are tried before it.");
pub(super) static BACKEND_SESSIONS: Family =
    gauge("pulsegate_backend_sessions", BACKEND, "Sessions on a backend, handshakes under way included.");
pub(super) static BACKEND_SESSIONS_ENDED: Family = counter(
    "pulsegate_backend_sessions_ended",
    &["upstream", "backend", "reason"],
    "Sessions on a backend that ended, by end reason.",
);
pub(super) static BACKEND_DIALS: Family =
    counter("pulsegate_backend_dials", BACKEND, "Opening handshakes that were tried with a backend.");
pub(super) static BACKEND_DIAL_ERRORS: Family = counter(
    "pulsegate_backend_dial_errors",
    &["upstream", "backend", "cause"],
    "Opening handshakes with a backend that failed, by cause.",
);

pub(super) static BACKEND_EJECTIONS: Family = counter(
    "pulsegate_backend_ejections",
    &["upstream", "backend", "cause"],
    "Times that a backend was found not to work, by cause.",
);
pub(super) static BACKEND_REQUESTS: Family =
    gauge("pulsegate_backend_http_requests", BACKEND, "Plain HTTP requests that a backend works on.");

pub(super) static DRAINING: Family = gauge("pulsegate_draining", &[], "Whether the gateway drains: 1, or 0.");
pub(super) static DRAIN_TOLD: Family =
    counter("pulsegate_drain_sessions_told", ROUTE, "Sessions that a drain told to end.");
pub(super) static DRAIN_CUT: Family = counter(
    "pulsegate_drain_sessions_cut",
    ROUTE,
    "Sessions that a drain cut before their closing handshakes were over.",
);
pub(super) static RELOADS: Family =
    counter("pulsegate_reloads", &["result"], "Reloads of the configuration, by result.");
pub(super) static LAST_RELOAD: Family = gauge(
    "pulsegate_last_reload_success_timestamp_seconds",
    &[],
    "When the configuration was last read without mistakes, in seconds since 1970.",
);
pub(super) static GENERATION: Family =
    gauge("pulsegate_generation", &[], "The number of this process in a row of upgrades; the first is 1.");

pub(super) static WORKER_BUSY: Family =
    counter("pulsegate_worker_busy_seconds", &["worker"], "Time that a worker spent working rather than waiting.");
pub(super) static WORKER_SESSIONS: Family =
    gauge("pulsegate_worker_sessions", &["worker"], "Sessions that are open on a worker.");
pub(super) static WORKER_PAUSES: Family = counter(
    "pulsegate_worker_pauses",
    &["worker"],
    "Times that a worker stood still for over a second: stopped, or starved of processor time.",
);
pub(super) static BUILD: Family =
    Family { name: "pulsegate_build", kind: Kind::Info, labels: &["version"], help: "What runs here; the value is 1." };
pub(super) static START_TIME: Family =
    gauge("process_start_time_seconds", &[], "When the gateway started, in seconds since 1970.");
pub(super) static CPU: Family = counter("process_cpu_seconds", &[], "Processor time of the process.");
pub(super) static RESIDENT: Family =
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is resident.");
pub(super) static OPEN_DESCRIPTORS: Family = gauge("process_open_fds", &[], "Descriptors that are open.");
pub(super) static MAX_DESCRIPTORS: Family = gauge("process_max_fds", &[], "Descriptors that may be open.");
