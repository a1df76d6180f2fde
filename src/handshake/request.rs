//! The client's opening handshake, parsed once into what is valid (RFC 6455 section 4.2.1).
use super::{
    headers::{HopByHop, has_token, is_deflate, members, pass, retain},
    response::Refusal,
};
use crate::route::{Compression, RouteConfig};
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::{Authority, PathAndQuery},
};

/// Headers of this hop's handshake, and `Host`, which is set by itself.
static NOT_PASSED: [HeaderName; 5] = [HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, CONTENT_LENGTH, EXPECT];
/// What a plain request is told where none is wanted; it names the key that would let it through.
pub(crate) const NO_UPGRADE: &str = "this is a WebSocket endpoint, and the request has no `Upgrade: websocket`; plain HTTP passes only on a \
    route with http = \"proxy\"";
/// Room for the headers that are set for a backend: its handshake's, and what it is told of the client.
const ADDED: usize = 12;

/// A request for a WebSocket that keeps the rules of RFC 6455.
#[derive(Debug)]
pub(super) struct UpgradeRequest {
    /// For matching: lower case, without port, brackets and trailing dot.
    pub(super) host: String,
    /// As the client named us, port included.
    pub(super) authority: HeaderValue,
    /// Path and query as received.
    pub(super) target: PathAndQuery,
    /// The client's `Sec-WebSocket-Key`.
    pub(super) key: HeaderValue,
    pub(super) origin: Option<String>,
    pub(super) headers: HeaderMap,
    /// The spelling of header names is kept here.
    extensions: Extensions,
}

impl UpgradeRequest {
    /// # Errors
    /// The first rule that the request breaks.
    pub(super) fn parse(head: Parts, has_body: bool) -> Result<Self, Refusal> {
        let Parts { method, uri, version, headers, mut extensions, .. } = head;
        if method != Method::GET && has_token(&headers, &UPGRADE, "websocket") {
            return Err(Refusal::Method);
        }
        check_upgrade(version, &headers)?;
        if has_body || headers.contains_key(TRANSFER_ENCODING) {
            return Err(Refusal::Malformed("a WebSocket handshake has no body"));
        }
        let authority = authority(&uri, &headers)?;
        let host = host_name(&authority)?;
        let target = uri.path_and_query().ok_or(Refusal::Malformed("the request names no path")).and_then(rooted)?;
        check_path(target.path())?;
        let key = key(&headers)?;
        let origin = origin(&headers)?;
        if headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().any(|line| line.to_str().is_err()) {
            return Err(Refusal::Malformed("the Sec-WebSocket-Extensions header is not valid"));
        }
        // hyper's handle for its own way to upgrade; we take the connection apart instead.
        extensions.remove::<hyper::upgrade::OnUpgrade>();
        Ok(Self { host, authority, target, key, origin, headers, extensions })
    }

    /// What the backend is asked, but for the headers of its own hop. `Host` comes first (RFC 9110 section 7.2).
    pub(super) fn into_upstream(self, route: &RouteConfig) -> Parts {
        let Self { target, headers: came, authority, extensions, .. } = self;
        let hop_by_hop = HopByHop::of(&came);
        let mut headers = HeaderMap::with_capacity(came.len() + ADDED);
        headers.insert(HOST, authority);
        pass(came, &mut headers, |name| !NOT_PASSED.contains(name) && !hop_by_hop.has(name));
        offer_extensions(&mut headers, route.options.compression);
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.uri = Uri::from(backend_target(&target, route));
        head.headers = headers;
        head.extensions = extensions;
        head
    }
}

fn check_upgrade(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    if version != Version::HTTP_11 {
        return Err(Refusal::NotAnUpgrade(
            "WebSockets need HTTP/1.1; a proxy in front must speak it too (nginx: proxy_http_version 1.1)",
        ));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(Refusal::NotAnUpgrade(NO_UPGRADE));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refusal::NotAnUpgrade("the request has no `Connection: Upgrade`"));
    }
    match only(headers, &SEC_WEBSOCKET_VERSION) {
        Ok(Some(version)) if version == "13" => Ok(()),
        Ok(_) | Err(_) => Err(Refusal::Version),
    }
}

/// The one value of a header, if it is there.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(()) } else { Ok(first) }
}

/// Who the client thinks we are: the authority of an absolute target, which stands above `Host` (RFC 9112 section 3.2.2).
pub(crate) fn authority(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let host = match only(headers, &HOST) {
        Ok(Some(host)) => host,
        Ok(None) => return Err(Refusal::Malformed("the request has no Host header")),
        Err(()) => return Err(Refusal::Malformed("the request has several Host headers")),
    };
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => Ok(host.clone()),
        (Some("http" | "https" | "ws" | "wss"), Some(authority)) => HeaderValue::from_str(authority.as_str())
            .map_err(|_| Refusal::Malformed("the authority of the request's target is not valid")),
        (Some(_), _) | (None, Some(_)) => Err(Refusal::Malformed("the request's target is not a path")),
    }
}

pub(crate) fn host_name(authority: &HeaderValue) -> Result<String, Refusal> {
    let invalid = Refusal::Malformed("the Host header is not valid");
    let Ok(authority) = Authority::try_from(authority.as_bytes()) else { return Err(invalid) };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    // A user name has no place here (RFC 9110 section 4.2.4).
    if name.is_empty() || authority.as_str().contains('@') { Err(invalid) } else { Ok(name.to_ascii_lowercase()) }
}

/// Paths are matched as received, so one that a backend might read differently is refused: dot segments, encoded slashes
/// and backslashes, with or without path parameters (`/..;/`).
pub(crate) fn check_path(path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') {
        return Err(Refusal::Malformed("the request's target is not a path"));
    }
    if !path.contains(['\\', '%']) && !path.contains("/.") {
        return Ok(());
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains('\\') || lower.contains("%5c") {
        return Err(Refusal::Malformed("the path holds a backslash"));
    }
    if lower.contains("%2f") {
        return Err(Refusal::Malformed("the path holds an encoded slash"));
    }
    let dots = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default().replace("%2e", ".");
        name == "." || name == ".."
    };
    if lower.split('/').any(dots) {
        return Err(Refusal::Malformed("the path holds a dot segment"));
    }
    Ok(())
}

/// 16 bytes in base64 (RFC 6455 section 4.1, item 7). The unused bits of the last character may be anything, as most decoders have it.
fn key(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let key = match only(headers, &SEC_WEBSOCKET_KEY) {
        Ok(Some(key)) => key,
        Ok(None) => return Err(Refusal::Malformed("the request has no Sec-WebSocket-Key")),
        Err(()) => return Err(Refusal::Malformed("the request has several Sec-WebSocket-Key headers")),
    };
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key.as_bytes().split_at_checked(22) {
        Some((digits, b"==")) if digits.iter().all(alphabet) => Ok(key.clone()),
        Some(_) | None => Err(Refusal::Malformed("the Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

pub(crate) fn origin(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    match only(headers, &ORIGIN) {
        Ok(None) => Ok(None),
        Ok(Some(origin)) => match origin.to_str() {
            Ok(origin) => Ok(Some(origin.to_owned())),
            Err(_) => Err(Refusal::Malformed("the Origin header is not valid")),
        },
        Err(()) => Err(Refusal::Malformed("the request has several Origin headers")),
    }
}

/// The target with a path: an absolute one may do without (RFC 9112 section 3.2.1), a request line may not.
pub(crate) fn rooted(target: &PathAndQuery) -> Result<PathAndQuery, Refusal> {
    match target.as_str() {
        // An empty target calls itself "/" too, but would be written as nothing.
        "/" => Some(PathAndQuery::from_static("/")),
        text if text.starts_with('/') => Some(target.clone()),
        text if text.starts_with('?') => format!("/{text}").parse().ok(),
        _ => None,
    }
    .ok_or(Refusal::Malformed("the path does not begin with a slash"))
}

/// Leaves the offers of permessage-deflate, untouched, or none: what we do not know, we do not let through.
fn offer_extensions(headers: &mut HeaderMap, compression: Compression) {
    let wanted = |offer: &&str| compression == Compression::Pass && is_deflate(offer);
    let mut offers = 0;
    let all_pass = members(headers, &SEC_WEBSOCKET_EXTENSIONS).inspect(|_| offers += 1).all(|offer| wanted(&offer));
    // A line without any offer says nothing, and does not pass either.
    if all_pass && offers > 0 {
        return;
    }
    let offers: Vec<&str> = members(headers, &SEC_WEBSOCKET_EXTENSIONS).filter(wanted).collect();
    let kept = HeaderValue::from_str(&offers.join(", ")).ok().filter(|kept| !kept.is_empty());
    match kept {
        Some(kept) => drop(headers.insert(SEC_WEBSOCKET_EXTENSIONS, kept)),
        None => retain(headers, |name| *name != SEC_WEBSOCKET_EXTENSIONS),
    }
}

/// The path that the route wants the backend to see, and the client's query.
pub(crate) fn backend_target(target: &PathAndQuery, route: &RouteConfig) -> PathAndQuery {
    let path = route.backend_path(target.path());
    if path.len() == target.path().len() {
        return target.clone();
    }
    let text = match target.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    // A suffix of a valid path that starts with a slash is valid.
    PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::route::{HostPattern, tests::route};
    use http::{Request, StatusCode};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// A good handshake with some lines added, or replaced, or (empty value) left out.
    fn request(target: &str, lines: &[(&str, &str)]) -> Parts {
        let mut all = vec![
            ("Host", "gate.test"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        all.retain(|(name, _)| !lines.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)));
        all.extend(lines.iter().filter(|(_, value)| !value.is_empty()));
        let builder = all.into_iter().fold(Request::get(target), |builder, (name, value)| builder.header(name, value));
        builder.body(()).unwrap().into_parts().0
    }

    fn parse(target: &str, lines: &[(&str, &str)]) -> Result<UpgradeRequest, StatusCode> {
        UpgradeRequest::parse(request(target, lines), false).map_err(|refusal| refusal.status())
    }

    fn upstream(route: &RouteConfig, target: &str, lines: &[(&str, &str)]) -> Parts {
        parse(target, lines).unwrap().into_upstream(route)
    }

    #[test]
    fn a_handshake_as_in_the_rfc() {
        let request = parse("/chat?x=1", &[("Origin", "http://example.com")]).unwrap();
        assert_eq!((request.host.as_str(), request.target.as_str()), ("gate.test", "/chat?x=1"));
        assert_eq!(request.origin.as_deref(), Some("http://example.com"));
        assert_eq!(request.key, KEY);
    }

    #[test]
    fn token_lists_as_found_in_the_wild() {
        for lines in [
            &[("Connection", "keep-alive, Upgrade")][..],
            &[("Connection", "keep-alive,\tUpgrade")],
            &[("Connection", "keep-alive"), ("Connection", "upgrade")],
            &[("Upgrade", "WebSocket")],
            &[("Upgrade", "websocket, h2c")],
        ] {
            assert!(parse("/", lines).is_ok(), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_upgrade_is_426() {
        for lines in [
            [("Upgrade", "")],
            [("Upgrade", "h2c")],
            [("Connection", "")],
            [("Connection", "keep-alive")],
            [("Sec-WebSocket-Version", "")],
            [("Sec-WebSocket-Version", "8")],
            [("Sec-WebSocket-Version", "13, 8")],
        ] {
            assert_eq!(parse("/", &lines).unwrap_err(), StatusCode::UPGRADE_REQUIRED, "{lines:?}");
        }
        let mut old = request("/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(UpgradeRequest::parse(old, false).unwrap_err().status(), StatusCode::UPGRADE_REQUIRED);
    }

    #[test]
    fn other_methods_are_405() {
        let mut post = request("/", &[]);
        post.method = Method::POST;
        assert_eq!(UpgradeRequest::parse(post, false).unwrap_err().status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn malformed_handshakes_are_400() {
        for lines in [
            &[("Host", "")][..],
            &[("Host", "a.test"), ("Host", "b.test")],
            &[("Host", "user@gate.test")],
            &[("Host", "gate test")],
            &[("Sec-WebSocket-Key", "")],
            &[("Sec-WebSocket-Key", "c2hvcnQ=")],
            &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZSE=")],
            &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ*==")],
            &[("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)],
            &[("Transfer-Encoding", "chunked")],
            &[("Origin", "http://a.test"), ("Origin", "http://b.test")],
            &[("Sec-WebSocket-Extensions", "mux\u{fc}")],
        ] {
            assert_eq!(parse("/", lines).unwrap_err(), StatusCode::BAD_REQUEST, "{lines:?}");
        }
        let body = UpgradeRequest::parse(request("/", &[("Content-Length", "3")]), true).unwrap_err();
        assert_eq!(body.status(), StatusCode::BAD_REQUEST);
        assert!(parse("/", &[("Content-Length", "0")]).is_ok());
    }

    #[test]
    fn ambiguous_paths_are_400() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/.",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a/%2e/",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/a/..;x=1/b",
            "/a/.;/b",
        ] {
            assert_eq!(parse(path, &[]).unwrap_err(), StatusCode::BAD_REQUEST, "{path}");
        }
        for path in ["/", "/a//b", "/a/...", "/a/..b", "/a%20b", "/a?x=../..", "/a?x=%2f\\", "/.well-known/x"] {
            assert!(parse(path, &[]).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_target_without_a_path_means_the_root() {
        for (target, asked) in [
            ("http://gate.test", "/"),
            ("http://gate.test/", "/"),
            ("http://gate.test?x=1", "/?x=1"),
            ("ws://gate.test:#x", "/"),
        ] {
            let head = upstream(&route(HostPattern::Any, "/"), target, &[]);
            assert_eq!(head.uri.to_string(), asked, "{target}");
        }
    }

    #[test]
    fn the_host_of_an_absolute_target_stands_above_host() {
        let request = parse("http://Other.Test:81/chat?x", &[]).unwrap();
        assert_eq!((request.host.as_str(), request.target.as_str()), ("other.test", "/chat?x"));
        assert_eq!(request.authority, "Other.Test:81");
        let head = request.into_upstream(&route(HostPattern::Any, "/"));
        assert_eq!(head.headers.iter().next().unwrap(), (&HOST, &HeaderValue::from_static("Other.Test:81")));
        assert_eq!(parse("ftp://gate.test/", &[]).unwrap_err(), StatusCode::BAD_REQUEST);
        assert_eq!(parse("gate.test:80", &[]).unwrap_err(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn host_names_are_brought_to_one_form() {
        for (line, name) in [("Gate.Test:8080", "gate.test"), ("gate.test.", "gate.test"), ("[::1]:80", "::1")] {
            assert_eq!(parse("/", &[("Host", line)]).unwrap().host, name);
        }
    }

    #[test]
    fn what_belongs_to_the_hop_does_not_cross() {
        let head = upstream(
            &route(HostPattern::Any, "/"),
            "/chat?x=1",
            &[
                ("Connection", "Upgrade, X-Hop"),
                ("X-Hop", "1"),
                ("Content-Length", "0"),
                ("Cookie", "a=b"),
                ("Sec-WebSocket-Protocol", "v2, v1"),
            ],
        );
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cookie", "host", "sec-websocket-protocol"]);
        assert_eq!((head.method, head.uri.to_string().as_str()), (Method::GET, "/chat?x=1"));
    }

    #[test]
    fn strip_prefix_keeps_the_query() {
        let mut route = route(HostPattern::Any, "/chat");
        route.strip_prefix = true;
        assert_eq!(upstream(&route, "/chat/room?x=1", &[]).uri, "/room?x=1");
        assert_eq!(upstream(&route, "/chat?x=1", &[]).uri, "/?x=1");
    }

    #[test]
    fn only_deflate_is_offered_and_only_if_the_route_lets_it_pass() {
        let mut route = route(HostPattern::Any, "/");
        let offered = |route: &RouteConfig, lines: &[(&str, &str)]| -> Vec<String> {
            let head = upstream(route, "/", lines);
            head.headers
                .get_all(SEC_WEBSOCKET_EXTENSIONS)
                .iter()
                .map(|line| line.to_str().unwrap().to_owned())
                .collect()
        };
        let name = "Sec-WebSocket-Extensions";
        let two = [(name, "permessage-deflate;client_max_window_bits"), (name, "permessage-deflate")];
        assert_eq!(offered(&route, &two), [two[0].1, two[1].1]);
        let mixed = [(name, "x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=\"10\"")];
        assert_eq!(offered(&route, &mixed), ["permessage-deflate; server_max_window_bits=\"10\""]);
        assert!(offered(&route, &[(name, "mux, foo")]).is_empty());
        assert!(offered(&route, &[(name, " ,")]).is_empty(), "an empty list");
        route.options.compression = Compression::Strip;
        assert!(offered(&route, &two).is_empty());
    }
}
