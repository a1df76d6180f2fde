//! What the client is answered: the 101 made from the backend's, the backend's own refusal, or ours.
use super::{
    admission::Denied,
    headers::{HopByHop, is_deflate, members, pass, remove_hop_by_hop},
};
use crate::{
    access::{
        NotLetIn,
        rates::{Counted, TooMany},
    },
    metrics::HandshakeResult,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    response::Parts,
};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use std::borrow::Cow;
use tungstenite::handshake::derive_accept_key;

/// A text of ours, or what a backend streams.
pub(super) type Body = Either<Full<Bytes>, Incoming>;

/// Seconds after which a client that was turned away for now may come back.
const RETRY_SECONDS: u32 = 5;

/// Why the gateway itself refuses a handshake.
#[derive(Debug)]
pub(crate) enum Refusal {
    Method,
    /// A method that no proxy passes on.
    Tunnel,
    /// An `Expect` that is not known.
    Expectation,
    NotAnUpgrade(&'static str),
    Version,
    Malformed(&'static str),
    NoRoute,
    Origin,
    /// The route's guard does not let the client in.
    Entry(NotLetIn),
    /// Too many came of late.
    Rate(TooMany),
    Denied(Denied),
    /// The backends of the route gave no WebSocket: 502, 503 or 504, and the cause for the log.
    Upstream {
        status: StatusCode,
        cause: String,
    },
    /// A plain request came to no answer: the status, and the cause for the log.
    Exchange {
        status: StatusCode,
        cause: String,
    },
    /// Too many handshakes are in flight.
    Overloaded,
    TimedOut,
    /// A bug of ours.
    Internal,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Method | Self::Tunnel => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::NotAnUpgrade(_) | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Origin | Self::Entry(NotLetIn::Address) => StatusCode::FORBIDDEN,
            Self::Entry(NotLetIn::Credentials(_)) => StatusCode::UNAUTHORIZED,
            Self::Entry(NotLetIn::Failed { status, .. }) => *status,
            Self::Rate(TooMany { one_address: true, .. }) => StatusCode::TOO_MANY_REQUESTS,
            Self::Rate(TooMany { one_address: false, .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(Denied::Address) => StatusCode::TOO_MANY_REQUESTS,
            Self::Denied(Denied::Draining | Denied::Full | Denied::Memory | Denied::Connections) | Self::Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Upstream { status, .. } | Self::Exchange { status, .. } => *status,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a handshake is counted as that is refused so; `None`: it is none.
    pub(super) fn result(&self) -> Option<HandshakeResult> {
        let result = match self {
            Self::Method | Self::Tunnel => HandshakeResult::Method,
            Self::NotAnUpgrade(_) => HandshakeResult::NotAnUpgrade,
            Self::Version => HandshakeResult::Version,
            Self::Malformed(_) | Self::Expectation => HandshakeResult::Malformed,
            Self::NoRoute => HandshakeResult::NoRoute,
            Self::Origin => HandshakeResult::Origin,
            Self::Entry(NotLetIn::Address) => HandshakeResult::AddressDenied,
            Self::Entry(NotLetIn::Credentials(_)) => HandshakeResult::Credentials,
            Self::Entry(NotLetIn::Failed { .. }) => HandshakeResult::AuthFailed,
            Self::Rate(TooMany { one_address: true, .. }) => HandshakeResult::AddressRate,
            Self::Rate(TooMany { one_address: false, .. }) => HandshakeResult::Rate,
            Self::Denied(Denied::Draining) => HandshakeResult::Draining,
            Self::Denied(Denied::Full | Denied::Connections) => HandshakeResult::Full,
            Self::Denied(Denied::Memory) => HandshakeResult::Memory,
            Self::Denied(Denied::Address) => HandshakeResult::AddressLimit,
            Self::Upstream { status: StatusCode::GATEWAY_TIMEOUT, .. } => HandshakeResult::BackendTimeout,
            Self::Upstream { status: StatusCode::SERVICE_UNAVAILABLE, .. } => HandshakeResult::NoBackend,
            Self::Upstream { .. } => HandshakeResult::BackendFailed,
            Self::Exchange { .. } => return None,
            Self::Overloaded => HandshakeResult::Overloaded,
            Self::TimedOut => HandshakeResult::Timeout,
            Self::Internal => HandshakeResult::Internal,
        };
        Some(result)
    }

    /// For the log; names settings and backends.
    pub(super) fn cause(&self) -> Cow<'static, str> {
        let text = match self {
            Self::Upstream { cause, .. } | Self::Exchange { cause, .. } => return Cow::Owned(cause.clone()),
            Self::Origin => "the origin is not among the route's `origins`",
            Self::Entry(NotLetIn::Failed { cause, .. }) => return Cow::Owned(cause.clone()),
            Self::Entry(NotLetIn::Credentials(_)) => "no name with its password of the route's `access.basic`",
            Self::Entry(NotLetIn::Address) => {
                "the address is not let in by the route's `access.allow` and `access.deny`"
            }
            Self::Rate(TooMany { counted, one_address, .. }) => rate_cause(*counted, *one_address),
            Self::Denied(Denied::Draining) => "the gateway is draining",
            Self::Denied(Denied::Full) => "as many sessions are open as `gateway.max_sessions` allows",
            Self::Denied(Denied::Connections) => {
                "as many clients ask plain HTTP as `gateway.max_http_connections` allows"
            }
            Self::Denied(Denied::Memory) => "the outboxes hold nearly `gateway.memory_limit`",
            Self::Denied(Denied::Address) => "the address has `limits.sessions_per_address` sessions open on the route",
            Self::Overloaded => "too many opening handshakes wait for their backends",
            Self::TimedOut => "the backends did not answer in time",
            Self::Internal => "a bug in the gateway: the handshake panicked",
            Self::Method
            | Self::Tunnel
            | Self::Expectation
            | Self::NotAnUpgrade(_)
            | Self::Version
            | Self::Malformed(_)
            | Self::NoRoute => self.sentence(),
        };
        Cow::Borrowed(text)
    }

    /// For the client; tells nothing of what lies behind the gateway.
    fn sentence(&self) -> &'static str {
        match self {
            Self::Method => "a WebSocket is opened with GET",
            Self::Tunnel => "CONNECT and TRACE are not passed on",
            Self::Expectation => "no other expectation than 100-continue is met here",
            Self::NotAnUpgrade(what) | Self::Malformed(what) => what,
            Self::Version => "only version 13 of the WebSocket protocol (RFC 6455) is spoken here",
            Self::NoRoute => "no route serves this host and path",
            Self::Origin => "pages of this origin may not connect here",
            Self::Entry(NotLetIn::Address) => "this address may not connect here",
            Self::Entry(NotLetIn::Credentials(_)) => "a name and its password are needed here",
            Self::Entry(NotLetIn::Failed { .. }) => "whether you may connect cannot be found out; try again later",
            Self::Rate(TooMany { one_address: true, .. }) => {
                "too many attempts to connect from this address; try again later"
            }
            Self::Rate(TooMany { one_address: false, .. }) => {
                "too many clients connect at this moment; try again later"
            }
            Self::Denied(Denied::Draining) => "the gateway is about to stop; connect again",
            Self::Denied(Denied::Full | Denied::Memory | Denied::Connections) | Self::Overloaded => {
                "the gateway is full; try again later"
            }
            Self::Denied(Denied::Address) => "too many connections from this address; close one or try again later",
            Self::Exchange { status: StatusCode::REQUEST_TIMEOUT, .. } => "the request came too slowly",
            Self::Exchange { status: StatusCode::BAD_REQUEST, .. } => "the request was not complete",
            Self::Exchange { status: StatusCode::BAD_GATEWAY, .. } => "the backend cannot be reached or gave no answer",
            Self::Upstream { status: StatusCode::GATEWAY_TIMEOUT, .. }
            | Self::Exchange { status: StatusCode::GATEWAY_TIMEOUT, .. }
            | Self::TimedOut => "the backend did not answer in time",
            Self::Upstream { status: StatusCode::SERVICE_UNAVAILABLE, .. } | Self::Exchange { .. } => {
                "no backend is available; try again later"
            }
            Self::Upstream { .. } => "the backend cannot be reached or does not speak WebSocket",
            Self::Internal => "the gateway failed; its log says why",
        }
    }

    /// After how many seconds the client may come back. Those that came together are sent back apart, unless one address is meant.
    fn retry_seconds(&self) -> u32 {
        match self {
            Self::Rate(TooMany { wait, one_address, .. }) => {
                let wait = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
                if *one_address { wait } else { wait.saturating_add(fastrand::u32(0..RETRY_SECONDS)) }
            }
            Self::Method
            | Self::Tunnel
            | Self::Expectation
            | Self::NotAnUpgrade(_)
            | Self::Version
            | Self::Malformed(_)
            | Self::NoRoute
            | Self::Origin
            | Self::Entry(_)
            | Self::Denied(_)
            | Self::Upstream { .. }
            | Self::Exchange { .. }
            | Self::Overloaded
            | Self::TimedOut
            | Self::Internal => RETRY_SECONDS,
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let text = format!("{}\n", self.sentence());
        let mut response = Response::new(Either::Left(Full::from(text)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Self::Entry(NotLetIn::Credentials((name, challenge))) = self {
            headers.insert(name, challenge.clone());
        }
        match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                let websocket = matches!(self, Self::Method);
                let allowed = if websocket { "GET" } else { "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS" };
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from(self.retry_seconds()));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        response
    }
}

fn rate_cause(counted: Counted, one_address: bool) -> &'static str {
    match (counted, one_address) {
        (Counted::Handshakes, true) => "the address is above `gateway.rates.handshakes_per_address`",
        (Counted::Handshakes, false) => "there are more handshakes than `gateway.rates.handshakes` allows",
        (Counted::Sessions, true) => "the address is above `gateway.rates.sessions_per_address`",
        (Counted::Sessions, false) => "there are more new sessions than `gateway.rates.sessions` allows",
    }
}

/// What a balancer is told that asks whether new sessions are wanted.
pub(super) fn healthy(ready: bool) -> Response<Body> {
    let (status, text) =
        if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") };
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Our 101: what the backend said in its own, for this client's key. The extensions may carry hyper's spelling of the header names.
pub(super) fn switching(mut head: Parts, key: &HeaderValue) -> Response<Body> {
    let came = std::mem::take(&mut head.headers);
    let hop_by_hop = HopByHop::of(&came);
    let mut headers = HeaderMap::with_capacity(came.len() + 3);
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    pass(came, &mut headers, |name| *name != SEC_WEBSOCKET_ACCEPT && *name != CONTENT_LENGTH && !hop_by_hop.has(name));
    head.headers = headers;
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, Either::Left(Full::default()))
}

/// Whether a backend's 101 agrees to permessage-deflate.
pub(super) fn grants_deflate(head: &Parts) -> bool {
    members(&head.headers, &SEC_WEBSOCKET_EXTENSIONS).any(is_deflate)
}

/// A backend's own refusal, body included.
pub(super) fn passed_on(response: Response<Incoming>) -> Response<Body> {
    let mut response = response.map(Either::Right);
    remove_hop_by_hop(response.headers_mut());
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        // Each hop says it for itself (RFC 9110 section 15.5.22).
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    *response.version_mut() = http::Version::HTTP_11;
    response
}

/// The names in our own answers that hyper would write in lower case.
pub(super) static SPELLINGS: &[&str] = &[
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Version",
    "Retry-After",
    "Allow",
    "Date",
    "WWW-Authenticate",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::headers::tests::headers, *};
    use http::header::WWW_AUTHENTICATE;
    use std::time::Duration;

    fn backend_head(lines: &[(&str, &str)]) -> Parts {
        let mut response = Response::new(());
        *response.headers_mut() = headers(lines);
        response.into_parts().0
    }

    #[test]
    fn our_101_answers_the_clients_key_and_keeps_the_backends_headers() {
        let head = backend_head(&[
            ("upgrade", "WebSocket"),
            ("connection", "upgrade, x-hop"),
            ("sec-websocket-accept", "for our key, not the client's"),
            ("x-hop", "1"),
            ("content-length", "0"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("sec-websocket-protocol", "v2"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ]);
        assert!(grants_deflate(&head));
        let response = switching(head, &HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(response.status(), 101);
        let mut lines: Vec<_> =
            response.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "connection: Upgrade",
                "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
                "sec-websocket-extensions: permessage-deflate",
                "sec-websocket-protocol: v2",
                "set-cookie: a=b",
                "set-cookie: c=d",
                "upgrade: websocket",
            ]
        );
    }

    #[test]
    fn no_deflate_unless_the_backend_says_so() {
        assert!(!grants_deflate(&backend_head(&[])));
        assert!(!grants_deflate(&backend_head(&[("sec-websocket-extensions", "foo")])));
    }

    #[test]
    fn refusals_say_what_would_be_right() {
        let rate = |one_address| {
            Refusal::Rate(TooMany { counted: Counted::Sessions, one_address, wait: Duration::from_millis(2500) })
        };
        let realm = HeaderValue::from_static("Basic realm=\"chat\"");
        let failed = |status| Refusal::Entry(NotLetIn::Failed { status, cause: "10.0.0.1: it answered 500".into() });
        let upstream = |status| Refusal::Upstream { status, cause: "10.0.0.1: connection refused".into() };
        for (refusal, status, names) in [
            (Refusal::Method, 405, &[ALLOW][..]),
            (Refusal::Expectation, 417, &[]),
            (Refusal::Denied(Denied::Connections), 503, &[RETRY_AFTER]),
            (Refusal::NotAnUpgrade("why"), 426, &[UPGRADE, CONNECTION]),
            (Refusal::Version, 426, &[UPGRADE, SEC_WEBSOCKET_VERSION]),
            (Refusal::Malformed("why"), 400, &[]),
            (Refusal::NoRoute, 404, &[]),
            (Refusal::Origin, 403, &[]),
            (Refusal::Entry(NotLetIn::Address), 403, &[]),
            (Refusal::Entry(NotLetIn::Credentials((WWW_AUTHENTICATE, realm.clone()))), 401, &[WWW_AUTHENTICATE]),
            (failed(StatusCode::BAD_GATEWAY), 502, &[]),
            (failed(StatusCode::SERVICE_UNAVAILABLE), 503, &[RETRY_AFTER]),
            (rate(true), 429, &[RETRY_AFTER]),
            (rate(false), 503, &[RETRY_AFTER]),
            (Refusal::Denied(Denied::Address), 429, &[RETRY_AFTER]),
            (Refusal::Denied(Denied::Full), 503, &[RETRY_AFTER]),
            (Refusal::Denied(Denied::Memory), 503, &[RETRY_AFTER]),
            (Refusal::Denied(Denied::Draining), 503, &[RETRY_AFTER]),
            (upstream(StatusCode::BAD_GATEWAY), 502, &[]),
            (upstream(StatusCode::SERVICE_UNAVAILABLE), 503, &[RETRY_AFTER]),
            (upstream(StatusCode::GATEWAY_TIMEOUT), 504, &[]),
            (Refusal::Overloaded, 503, &[RETRY_AFTER]),
            (Refusal::TimedOut, 504, &[]),
            (Refusal::Internal, 500, &[]),
        ] {
            let response = refusal.response();
            assert_eq!(response.status(), status, "{refusal:?}");
            for name in names {
                assert!(response.headers().contains_key(name), "{refusal:?}: {name}");
            }
            assert!(!refusal.sentence().contains("10.0.0.1"), "{refusal:?} tells the client of a backend");
            assert!(!refusal.cause().is_empty());
        }
        assert_eq!(Refusal::NotAnUpgrade("why").response().headers()[UPGRADE], "websocket");
        assert_eq!(rate(true).response().headers()[RETRY_AFTER], "3");
        assert!((3..8).contains(&rate(false).retry_seconds()));
    }
}
