//! Every key of `gateway.toml`, by the table it stands in.

/// A table of the file and the keys it may have.
#[derive(Debug)]
pub(super) struct Place {
    /// As it is written in the file.
    pub(super) title: &'static str,
    pub(super) keys: &'static [&'static str],
}

pub(super) const ROOT: Place = Place {
    title: "the top level",
    keys: &["gateway", "log", "access_log", "admin", "defaults", "listener", "route", "upstream"],
};
pub(super) const GATEWAY: Place = Place {
    title: "[gateway]",
    keys: &[
        "workers",
        "max_sessions",
        "max_http_connections",
        "memory_limit",
        "trusted_proxies",
        "client_address",
        "pid_file",
        "upgrade_timeout",
        "drain",
        "rates",
        "watch",
    ],
};
pub(super) const DRAIN: Place =
    Place { title: "[gateway] drain", keys: &["delay", "spread", "rate", "order", "timeout", "code"] };
pub(super) const RATES: Place = Place {
    title: "[gateway] rates",
    keys: &["handshakes", "handshakes_per_address", "sessions", "sessions_per_address"],
};
pub(super) const LOG: Place = Place { title: "[log]", keys: &["level", "format", "sessions"] };
pub(super) const ACCESS_LOG: Place = Place { title: "[access_log]", keys: &["path", "format", "sessions", "every"] };
pub(super) const ADMIN: Place = Place { title: "[admin]", keys: &["address", "token_file", "hosts"] };
pub(super) const DEFAULTS: Place = Place {
    title: "[defaults]",
    keys: &["pings", "compression", "utf8", "heartbeat", "timeouts", "limits", "access", "close_codes", "headers"],
};
pub(super) const HEARTBEAT: Place = Place { title: "heartbeat", keys: &["client", "upstream"] };
pub(super) const HEARTBEAT_SIDE: Place = Place {
    title: "heartbeat.client or heartbeat.upstream",
    keys: &["ping_interval", "ping_timeout", "jitter", "kind", "liveness", "path_idle_limit"],
};
pub(super) const TIMEOUTS: Place = Place {
    title: "timeouts",
    keys: &["connect", "handshake", "close", "stall", "idle", "max_age", "response", "keep_alive"],
};
pub(super) const LIMITS: Place =
    Place { title: "limits", keys: &["client", "upstream", "pace", "header", "sessions_per_address"] };
pub(super) const ACCESS: Place = Place { title: "access", keys: &["allow", "deny", "basic", "forward"] };
pub(super) const BASIC: Place =
    Place { title: "access.basic", keys: &["file", "realm", "user_header", "authorization"] };
pub(super) const FORWARD: Place = Place { title: "access.forward", keys: &["url", "timeout", "copy_headers", "ca"] };
pub(super) const LIMITS_SIDE: Place = Place {
    title: "limits.client or limits.upstream",
    keys: &["message", "frame", "fragments", "messages_per_second", "bytes_per_second", "over_rate"],
};
pub(super) const CLOSE_CODES: Place = Place {
    title: "close_codes",
    keys: &[
        "client_gone",
        "upstream_gone",
        "client_unresponsive",
        "upstream_unresponsive",
        "client_violation",
        "upstream_violation",
        "client_stalled",
        "upstream_stalled",
        "idle",
        "max_age",
        "draining",
        "policy",
        "terminated",
        "internal",
    ],
};
pub(super) const LISTENER: Place =
    Place { title: "[[listener]]", keys: &["address", "tls", "health", "proxy_protocol"] };
pub(super) const LISTENER_TLS: Place =
    Place { title: "tls of a [[listener]]", keys: &["certificate", "key", "certificates", "min_version", "clients"] };
pub(super) const LISTENER_CLIENTS: Place =
    Place { title: "tls.clients of a [[listener]]", keys: &["ca", "crl", "verify"] };
pub(super) const CERTIFICATE: Place =
    Place { title: "tls.certificates of a [[listener]]", keys: &["certificate", "key"] };
pub(super) const ROUTE: Place = Place {
    title: "[[route]]",
    keys: &[
        "name",
        "host",
        "path",
        "strip_prefix",
        "upstream",
        "host_header",
        "origins",
        "http",
        "pings",
        "compression",
        "utf8",
        "heartbeat",
        "timeouts",
        "limits",
        "access",
        "close_codes",
        "headers",
    ],
};
pub(super) const HEADERS: Place = Place { title: "headers", keys: &["request", "response"] };
pub(super) const HEADERS_WAY: Place =
    Place { title: "headers.request or headers.response", keys: &["set", "add", "remove"] };
pub(super) const UPSTREAM: Place = Place {
    title: "[upstream.NAME]",
    keys: &[
        "servers",
        "balance",
        "hash",
        "sticky",
        "fail_timeout",
        "slow_start",
        "check",
        "tls",
        "source",
        "max_dials",
        "retry_budget",
        "retry_backoff",
        "resolve",
        "resolver",
        "proxy_protocol",
    ],
};
pub(super) const CHECK: Place = Place {
    title: "check of an [upstream.NAME]",
    keys: &["kind", "interval", "timeout", "path", "host", "rise", "fall"],
};
pub(super) const SERVER: Place =
    Place { title: "servers of an [upstream.NAME]", keys: &["url", "weight", "backup", "max_sessions"] };
pub(super) const STICKY: Place =
    Place { title: "sticky of an [upstream.NAME]", keys: &["cookie", "path", "max_age", "same_site", "secret_file"] };
pub(super) const UPSTREAM_TLS: Place =
    Place { title: "tls of an [upstream.NAME]", keys: &["ca", "certificate", "key", "server_name"] };

/// All tables; where a key stands in several, the one to name comes first.
pub(super) const PLACES: [&Place; 29] = [
    &ROOT,
    &GATEWAY,
    &DRAIN,
    &RATES,
    &LOG,
    &ACCESS_LOG,
    &LISTENER,
    &LISTENER_TLS,
    &LISTENER_CLIENTS,
    &ADMIN,
    &UPSTREAM,
    &UPSTREAM_TLS,
    &SERVER,
    &STICKY,
    &CHECK,
    &DEFAULTS,
    &ROUTE,
    &HEARTBEAT_SIDE,
    &TIMEOUTS,
    &LIMITS_SIDE,
    &LIMITS,
    &ACCESS,
    &BASIC,
    &FORWARD,
    &CLOSE_CODES,
    &HEARTBEAT,
    &CERTIFICATE,
    &HEADERS_WAY,
    &HEADERS,
];

#[cfg(test)]
mod tests {
    use super::{super::suggest::unknown, *};

    #[test]
    fn close_codes_are_named_by_end_reason() {
        use crate::relay::EndReason;
        let relayed = [EndReason::ClientClosed.label(), EndReason::UpstreamClosed.label()];
        let labels: Vec<&str> =
            EndReason::ALL.iter().map(|reason| reason.label()).filter(|label| !relayed.contains(label)).collect();
        assert_eq!(CLOSE_CODES.keys, labels);
        assert!(relayed.iter().all(|label| unknown(&CLOSE_CODES, label).help.contains("untouched")));
    }
}
