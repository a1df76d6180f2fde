//! The parsers of opening handshakes, and what must hold of whatever they make of a head.
#[path = "../../src/handshake/admission.rs"]
mod admission;
#[path = "../../src/handshake/crowd.rs"]
mod crowd;
#[path = "../../src/handshake/forwarded.rs"]
mod forwarded;
#[path = "../../src/handshake/head.rs"]
pub mod head;
#[path = "../../src/handshake/headers.rs"]
mod headers;
#[path = "../../src/handshake/hops.rs"]
mod hops;
#[path = "../../src/handshake/names.rs"]
pub mod names;
#[path = "../../src/handshake/request.rs"]
mod request;
#[path = "../../src/handshake/response.rs"]
mod response;
#[path = "../../src/handshake/spelling.rs"]
pub mod spelling;

use crate::{
    listener::{Peer, trust::Trust},
    route::{Compression, HostHeader, HostPattern, PlainHttp, RouteConfig, RouteOptions, Router},
    upstream::switching::{Answer, read},
};
use forwarded::{Provenance, request_id};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use ipnet::IpNet;
use request::UpgradeRequest;
use std::net::IpAddr;

/// Headers of one hop: never passed on.
const OF_ONE_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// A request head as hyper would give it to us; `None` if it would not.
#[must_use]
pub fn read_request(bytes: &[u8]) -> Option<http::request::Parts> {
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut room);
    head.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(head.method?.as_bytes()).ok()?;
    parts.uri = head.path?.parse::<Uri>().ok()?;
    parts.version = if head.version? == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers = read_headers(head.headers)?;
    Some(parts)
}

/// A response head as hyper would give it to us.
#[must_use]
pub fn read_response(bytes: &[u8]) -> Option<http::response::Parts> {
    let mut room = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Response::new(&mut room);
    head.parse(bytes).ok().filter(httparse::Status::is_complete)?;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = http::StatusCode::from_u16(head.code?).ok()?;
    parts.headers = read_headers(head.headers)?;
    Some(parts)
}

fn read_headers(lines: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(HeaderName::from_bytes(line.name.as_bytes()).ok()?, HeaderValue::from_bytes(line.value).ok()?);
    }
    Some(headers)
}

/// A request from `peer` as it goes to a backend, if it is a handshake.
pub fn request(head: http::request::Parts, has_body: bool, peer: &Peer, trusted: &[IpNet], compression: Compression) {
    let provenance = Provenance::find(peer, &Trust { proxies: trusted.to_vec(), ..Trust::default() }, &head.headers);
    let came = head.headers.clone();
    let request = match UpgradeRequest::parse(head, has_body) {
        Ok(request) => request,
        Err(refusal) => {
            assert!(refusal.status().is_client_error(), "{refusal:?}");
            assert!(!refusal.cause().is_empty());
            assert_eq!(refusal.response().status(), refusal.status());
            return;
        }
    };
    assert!(!has_body);
    assert_eq!(request.host, request.host.to_ascii_lowercase());
    assert!(!request.host.is_empty() && !request.host.contains(['@', '/', ' ', ']']), "host {:?}", request.host);
    assert_eq!(request.key.len(), 24);
    assert_eq!(request.origin.is_some(), came.contains_key("origin"));
    let path = request.target.path().to_owned();
    assert!(path.starts_with('/') && !climbs(&path), "path {path:?}");

    let routes = routes(compression);
    let router = Router::new(routes);
    let route = router.find(&request.host, &path);
    let Some(route) = route else { panic!("the route for any host and path was not found for {path:?}") };
    let authority = request.authority.clone();
    let mut head = request.into_upstream(route);
    provenance.tell(&mut head.headers, &authority);
    let id = request_id(&mut head.headers);
    check_passed_on(&head, &id, route);
    check_provenance(&head.headers, &came, &provenance, peer, trusted);
}

fn check_passed_on(head: &http::request::Parts, id: &str, route: &RouteConfig) {
    let headers = &head.headers;
    for name in OF_ONE_HOP {
        assert!(!headers.contains_key(name), "{name} passes");
    }
    for name in ["sec-websocket-key", "sec-websocket-version", "content-length"] {
        assert!(!headers.contains_key(name), "{name} passes");
    }
    assert!(!id.is_empty() && !id.contains(['\r', '\n', ' ']));
    assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
    assert_eq!(headers.get_all("host").iter().count(), 1);
    assert!(head.uri.path().starts_with('/'), "{}", head.uri);
    let deflate_only = headers::members(headers, &http::header::SEC_WEBSOCKET_EXTENSIONS).all(headers::is_deflate);
    assert!(
        deflate_only
            && (route.options.compression == Compression::Pass || !headers.contains_key("sec-websocket-extensions"))
    );
}

/// What the backend is told of the client is ours, or comes from a peer that is believed.
fn check_provenance(told: &HeaderMap, came: &HeaderMap, provenance: &Provenance, peer: &Peer, trusted: &[IpNet]) {
    let believes = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let address = peer.address.map(|address| address.ip().to_canonical());
    for name in told.keys() {
        assert!(!name.as_str().contains('_') || !name.as_str().replace('_', "-").starts_with("x-forwarded-"), "{name}");
    }
    for name in ["x-forwarded-for", "x-real-ip", "forwarded"] {
        assert!(told.get_all(name).iter().count() <= 1, "several {name}");
    }
    if let Some(address) = address.filter(|address| !believes(*address)) {
        assert_eq!(provenance.client.ip(), Some(address));
        assert_eq!(told["x-forwarded-for"], address.to_string());
        assert_eq!(told["x-real-ip"], address.to_string());
        assert_eq!(told["x-forwarded-proto"], if peer.tls { "https" } else { "http" });
        assert!(!told.contains_key("cf-connecting-ip") && !told.contains_key("true-client-ip"));
    }
    if address.is_none_or(believes) && !came.contains_key("x-forwarded-for") && !came.contains_key("forwarded") {
        assert_eq!(provenance.client, address.into());
    }
}

/// A backend's 101 as it goes to the client.
pub fn response(head: http::response::Parts, key: &[u8]) {
    let Ok(key) = HeaderValue::from_bytes(key) else { return };
    let deflate = response::grants_deflate(&head);
    let answer = response::switching(head, &key);
    let headers = answer.headers();
    assert_eq!(answer.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
    assert!(!headers.contains_key("content-length") && !headers.contains_key("transfer-encoding"));
    assert!(!deflate || headers.contains_key("sec-websocket-extensions"));
}

/// What is made of the first bytes of a client's connection.
pub fn first(bytes: &[u8], most: usize) {
    let Some(head::Head { request, names, length }) = head::read(&bytes.to_vec().into(), most) else { return };
    let (head, ()) = request.into_parts();
    let expected = read_request(bytes).expect("it is a request");
    assert!(length <= most && bytes[..length].ends_with(b"\n"));
    assert_eq!((&head.method, &head.uri, head.version), (&expected.method, &expected.uri, expected.version));
    assert_eq!(format!("{:?}", head.headers), format!("{:?}", expected.headers));
    assert!(head.headers.contains_key("upgrade"));
    for name in ["content-length", "transfer-encoding", "expect"] {
        assert!(!head.headers.contains_key(name), "{name} is hyper's to judge");
    }
    let mut search = names.search();
    assert!(head.headers.keys().all(|name| name.as_str().len() > 255 || search.find(name.as_ref()).is_some()));
}

/// What is made of a backend's answer of which `first` bytes come before the others.
pub fn answer(bytes: &[u8], first: usize) {
    const MOST: usize = 512;
    let expected = read_response(bytes).filter(|head| head.status == http::StatusCode::SWITCHING_PROTOCOLS);
    let first = first.min(bytes.len());
    let answer = match read(bytes[..first].to_vec(), 0, MOST) {
        Answer::Incomplete(mut answer) => {
            assert_eq!(answer, bytes[..first]);
            answer.extend_from_slice(&bytes[first..]);
            read(answer, first, MOST)
        }
        Answer::Other(read) => {
            assert_eq!(read, bytes[..first]);
            return;
        }
        Answer::Switching { head, early } => {
            let behind = [&early, &bytes[first..]].concat();
            Answer::Switching { head, early: behind.into() }
        }
    };
    match answer {
        Answer::Incomplete(read) => assert!(read == bytes && bytes.len() <= MOST && expected.is_none()),
        Answer::Other(read) => assert_eq!(read, bytes),
        Answer::Switching { head, early } => {
            let expected = expected.expect("it is a 101");
            assert!(bytes.starts_with(b"HTTP/1.1 101") && bytes.ends_with(&early));
            assert!(bytes.len() - early.len() <= MOST);
            assert_eq!(format!("{:?}", head.headers), format!("{:?}", expected.headers));
        }
    }
}

/// Token lists, element by element.
pub fn lists(text: &str) {
    for separator in [',', ';'] {
        let parts: Vec<&str> = headers::split(text, separator).collect();
        assert!(parts.iter().all(|part| !part.is_empty() && part.trim_matches([' ', '\t']) == *part));
        // What was split off whole stays whole.
        assert!(parts.iter().all(|part| headers::split(part, separator).count() <= 1 || text.contains('"')));
        let letters = |text: &str| text.chars().filter(|c| *c != separator && *c != ' ' && *c != '\t').count();
        assert_eq!(parts.iter().map(|part| letters(part)).sum::<usize>(), letters(text));
    }
}

/// Whether a backend might read this path as one outside its own folder.
fn climbs(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    plain.contains('\\') || plain.split('/').map(|name| name.split(';').next()).any(|name| name == Some(".."))
}

fn routes(compression: Compression) -> Vec<RouteConfig> {
    let route = |host, path: &str, strip_prefix| RouteConfig {
        name: path.into(),
        host,
        path: path.into(),
        strip_prefix,
        upstream: "u".into(),
        host_header: HostHeader::Client,
        origins: Some(vec!["https://example.com".into()]),
        http: PlainHttp::Refuse,
        options: RouteOptions { compression, ..RouteOptions::default() },
    };
    vec![
        route(HostPattern::Any, "/", false),
        route(HostPattern::Any, "/chat", true),
        route(HostPattern::Wildcard(".example.com".into()), "/a/b", true),
        route(HostPattern::Exact("example.com".into()), "/", false),
    ]
}
