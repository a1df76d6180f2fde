//! Host and path to a route, most specific first.
#[path = "route/edits.rs"]
mod edits;

pub use edits::{Edits, HeaderEdits, Line, Template, TemplateError, Variable};

use crate::{
    access::{AccessConfig, Guard},
    relay::RelayConfig,
    upstream::Upstream,
};
use std::{cmp::Reverse, sync::Arc, time::Duration};

/// A route as configured: complete, typed, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Its identity in logs, metrics and reload.
    pub name: String,
    pub host: HostPattern,
    /// A prefix that matches on segment borders; `/` matches everything. Never ends in `/` but for `/` itself.
    pub path: String,
    /// Whether the backend sees the path without the prefix.
    pub strip_prefix: bool,
    /// Name of the upstream pool.
    pub upstream: String,
    pub host_header: HostHeader,
    /// Who may open a session from a browser (lower-case `scheme://host[:port]`, or `null`). `None`: anyone.
    pub origins: Option<Vec<String>>,
    pub http: PlainHttp,
    pub options: RouteOptions,
}

/// Which hosts a route serves. Names are lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Any,
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name that ends so.
    Wildcard(String),
}

/// Which `Host` the backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    Client,
    Upstream,
}

/// What becomes of requests that ask for no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// 426.
    Refuse,
    /// They go to the backends, too.
    Proxy,
}

/// Every key of `[defaults]`, as it stands for one route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteOptions {
    pub relay: Arc<RelayConfig>,
    pub compression: Compression,
    /// For resolving a backend's name and its TCP connection (and TLS, for `wss`), per backend tried.
    pub connect: Duration,
    /// For the whole opening handshake: TLS, the client's request head, and the backend's 101, each.
    pub handshake: Duration,
    /// Bytes of a request or response head.
    pub header: usize,
    /// Sessions at a time from one address (IPv6: one /64). `None`: no limit.
    pub sessions_per_address: Option<u32>,
    pub headers: Arc<HeaderEdits>,
    /// Who may open sessions.
    pub access: Arc<AccessConfig>,
    /// Plain HTTP: how long a backend may say nothing, before its answer and within it. `None`: for ever.
    pub response: Option<Duration>,
    /// Plain HTTP: how long a client's connection may wait for its next request.
    pub keep_alive: Duration,
}

/// What happens to permessage-deflate offers (RFC 7692).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Pass,
    Strip,
}

/// A route at run time, shared by all workers.
pub struct Route {
    pub config: Arc<RouteConfig>,
    pub upstream: Arc<Upstream>,
    /// Who may come in.
    pub guard: Arc<Guard>,
}

impl AsRef<RouteConfig> for Route {
    fn as_ref(&self) -> &RouteConfig {
        &self.config
    }
}

impl AsRef<RouteConfig> for RouteConfig {
    fn as_ref(&self) -> &RouteConfig {
        self
    }
}

/// All routes, most specific first: exact hosts before wildcards (longer ones first) before any host, and among equal
/// hosts the longer path first. The first route that matches host and path is taken, so a path that an exact host
/// does not serve may still be served by a route for any host.
///
/// Generic so that `check` can ask for the order without running upstreams.
pub struct Router<R = Route> {
    routes: Vec<Arc<R>>,
}

impl<R: AsRef<RouteConfig>> Router<R> {
    /// Equally specific routes keep the order they are given in.
    #[must_use]
    pub fn new(routes: Vec<R>) -> Self {
        let mut routes: Vec<Arc<R>> = routes.into_iter().map(Arc::new).collect();
        routes.sort_by_key(|route| specificity((**route).as_ref()));
        Self { routes }
    }

    /// The route for a host (lower case, without port, brackets and trailing dot) and a path as received (without query).
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<R>> {
        self.routes.iter().find(|route| {
            let config = (***route).as_ref();
            config.host.matches(host) && remainder(&config.path, path).is_some()
        })
    }

    /// The routes in the order in which they are tried.
    pub fn matching_order(&self) -> impl Iterator<Item = &Arc<R>> {
        self.routes.iter()
    }
}

fn specificity(route: &RouteConfig) -> (u8, Reverse<usize>, Reverse<usize>) {
    let (rank, length) = match &route.host {
        HostPattern::Exact(_) => (0, 0),
        HostPattern::Wildcard(suffix) => (1, suffix.len()),
        HostPattern::Any => (2, 0),
    };
    (rank, Reverse(length), Reverse(route.path.len()))
}

/// What follows `prefix` in `path` if it matches on a segment border: empty, or starting with `/`.
fn remainder<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl HostPattern {
    /// Whether a host (lower case, without port, brackets and trailing dot) is one of these. A wildcard stands for one
    /// label or more, as nginx reads it.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.trim_start_matches('[').trim_end_matches(']') == host,
            Self::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

impl RouteConfig {
    /// The path that the backend sees, for a path that this route matches; never empty.
    #[must_use]
    pub fn backend_path<'a>(&self, path: &'a str) -> &'a str {
        if !self.strip_prefix {
            return path;
        }
        match remainder(&self.path, path) {
            None => path,
            Some("") => "/",
            Some(rest) => rest,
        }
    }

    /// Whether a page of this origin may open a session (RFC 6455 section 10.2). A request without an Origin header
    /// comes from no browser and may; an opaque origin (`null`) may only if it is listed.
    #[must_use]
    pub fn allows_origin(&self, origin: Option<&str>) -> bool {
        let (Some(allowed), Some(origin)) = (&self.origins, origin) else { return true };
        let origin = normal_origin(origin);
        allowed.iter().any(|one| normal_origin(one) == origin)
    }
}

/// Lower case and without the scheme's default port (RFC 6454 section 6).
fn normal_origin(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let default_port = match origin.split_once("://") {
        Some(("http" | "ws", _)) => ":80",
        Some(("https" | "wss", _)) => ":443",
        Some(_) | None => return origin,
    };
    origin.strip_suffix(default_port).map(str::to_owned).unwrap_or(origin)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        protocol::heartbeat::{HeartbeatConfig, HeartbeatKind, Liveness},
        relay::{CloseCodes, PerSide, Pings, RelayTimeouts, Utf8},
    };

    /// A route with short timeouts, for tests.
    pub(crate) fn route(host: HostPattern, path: &str) -> RouteConfig {
        let beat = HeartbeatConfig {
            ping_interval: None,
            ping_timeout: None,
            jitter: 0.0,
            kind: HeartbeatKind::Ping,
            liveness: Liveness::Traffic,
            path_idle_limit: None,
        };
        let relay = RelayConfig {
            heartbeat: PerSide { downstream: beat.clone(), upstream: beat },
            pings: Pings::Forward,
            utf8: Utf8::Check,
            timeouts: RelayTimeouts { close: Duration::from_secs(1), stall: None, idle: None, max_age: None },
            limits: PerSide::default(),
            pace: None,
            close_codes: CloseCodes::default(),
        };
        RouteConfig {
            name: format!("{host:?}{path}"),
            host,
            path: path.into(),
            strip_prefix: false,
            upstream: "pool".into(),
            host_header: HostHeader::Client,
            origins: None,
            http: PlainHttp::Refuse,
            options: RouteOptions {
                relay: Arc::new(relay),
                compression: Compression::Pass,
                connect: Duration::from_secs(1),
                handshake: Duration::from_secs(1),
                header: 16 * 1024,
                sessions_per_address: None,
                headers: Arc::default(),
                access: Arc::default(),
                response: None,
                keep_alive: Duration::from_secs(1),
            },
        }
    }

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.into())
    }

    fn wildcard(name: &str) -> HostPattern {
        HostPattern::Wildcard(name.into())
    }

    fn found(router: &Router<RouteConfig>, host: &str, path: &str) -> Option<String> {
        router.find(host, path).map(|route| route.name.clone())
    }

    #[test]
    fn most_specific_first() {
        let router = Router::new(vec![
            route(HostPattern::Any, "/"),
            route(HostPattern::Any, "/chat"),
            route(wildcard(".example.com"), "/"),
            route(wildcard(".eu.example.com"), "/"),
            route(exact("chat.example.com"), "/"),
            route(exact("chat.example.com"), "/chat/room"),
            route(exact("chat.example.com"), "/chat"),
        ]);
        let order: Vec<(HostPattern, String)> =
            router.matching_order().map(|route| (route.host.clone(), route.path.clone())).collect();
        let expected = [
            (exact("chat.example.com"), "/chat/room"),
            (exact("chat.example.com"), "/chat"),
            (exact("chat.example.com"), "/"),
            (wildcard(".eu.example.com"), "/"),
            (wildcard(".example.com"), "/"),
            (HostPattern::Any, "/chat"),
            (HostPattern::Any, "/"),
        ];
        assert_eq!(order, expected.map(|(host, path)| (host, path.to_owned())));
        let name = |host: HostPattern, path: &str| Some(route(host, path).name);
        assert_eq!(found(&router, "chat.example.com", "/chat/room/1"), name(exact("chat.example.com"), "/chat/room"));
        assert_eq!(found(&router, "a.eu.example.com", "/chat"), name(wildcard(".eu.example.com"), "/"));
        assert_eq!(found(&router, "a.b.example.com", "/"), name(wildcard(".example.com"), "/"));
        assert_eq!(found(&router, "example.com", "/chat"), name(HostPattern::Any, "/chat"));
    }

    #[test]
    fn prefixes_match_on_segment_borders() {
        let router = Router::new(vec![route(HostPattern::Any, "/chat")]);
        for path in ["/chat", "/chat/", "/chat/room"] {
            assert!(found(&router, "x", path).is_some(), "{path}");
        }
        for path in ["/", "/chatter", "/Chat", "/a/chat", "//chat", "/%63hat"] {
            assert!(found(&router, "x", path).is_none(), "{path}");
        }
    }

    #[test]
    fn hosts_without_a_match_find_nothing() {
        let router = Router::new(vec![route(exact("[::1]"), "/"), route(wildcard(".example.com"), "/")]);
        assert!(found(&router, "::1", "/").is_some());
        assert!(found(&router, "example.com", "/").is_none());
        assert!(found(&router, "badexample.com", "/").is_none());
    }

    #[test]
    fn strip_prefix_leaves_a_path() {
        let mut config = route(HostPattern::Any, "/chat");
        assert_eq!(config.backend_path("/chat/room"), "/chat/room");
        config.strip_prefix = true;
        assert_eq!(config.backend_path("/chat/room"), "/room");
        assert_eq!(config.backend_path("/chat"), "/");
        assert_eq!(config.backend_path("/chat/"), "/");
        config.path = "/".into();
        assert_eq!(config.backend_path("/chat"), "/chat");
    }

    #[test]
    fn origins_compare_without_case_and_default_port() {
        let mut config = route(HostPattern::Any, "/");
        assert!(config.allows_origin(Some("https://anyone.example")));
        config.origins = Some(vec!["https://example.com".into(), "http://dev.example:8080".into()]);
        for origin in
            [None, Some("https://example.com"), Some("HTTPS://Example.com:443"), Some("http://dev.example:8080")]
        {
            assert!(config.allows_origin(origin), "{origin:?}");
        }
        for origin in ["http://example.com", "https://example.com:8443", "https://example.com.evil.net", "null", ""] {
            assert!(!config.allows_origin(Some(origin)), "{origin}");
        }
        config.origins = Some(vec!["null".into()]);
        assert!(config.allows_origin(Some("null")));
    }
}
