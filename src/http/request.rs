//! A plain HTTP request, parsed once into what may pass to a backend (RFC 9110, RFC 9112).
use super::framing::Ambiguity;
use crate::{
    handshake::{
        headers::{HopByHop, has_token, pass, retain},
        request::{authority, backend_target, check_path, host_name, origin, rooted},
        response::Refusal,
    },
    route::RouteConfig,
};
use http::{
    Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING},
    request::Parts,
    uri::PathAndQuery,
};

/// `Host` is set by itself, and what a client expects of its next hop is that hop's to give.
static NOT_PASSED: [HeaderName; 2] = [HOST, EXPECT];
/// Room for the headers that are set for a backend.
const ADDED: usize = 12;

/// A request whose target, host and length are clear.
#[derive(Debug)]
pub(crate) struct PlainRequest {
    /// For matching: lower case, without port, brackets and trailing dot.
    pub(crate) host: String,
    /// As the client named us, port included.
    pub(crate) authority: HeaderValue,
    /// Path and query as received.
    pub(crate) target: PathAndQuery,
    pub(crate) origin: Option<String>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// How its body ends.
    pub(crate) encoding: Encoding,
    /// hyper keeps the spelling of header names here.
    extensions: Extensions,
}

/// How the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// By its `Content-Length`, or there is none.
    Length,
    /// By its last chunk.
    Chunked,
}

impl PlainRequest {
    /// # Errors
    /// The first rule that the request breaks.
    pub(crate) fn parse(head: Parts, ambiguity: Option<Ambiguity>) -> Result<Self, Refusal> {
        let Parts { method, uri, version, headers, mut extensions, .. } = head;
        match ambiguity {
            Some(Ambiguity::TwoLengths) => {
                return Err(Refusal::Malformed("the request has both a Content-Length and a Transfer-Encoding"));
            }
            Some(Ambiguity::Unclear) => {
                return Err(Refusal::Malformed("the request follows one whose length is not clear"));
            }
            None => {}
        }
        if [Method::CONNECT, Method::TRACE].contains(&method) {
            return Err(Refusal::Tunnel);
        }
        let encoding = encoding(version, &headers)?;
        if headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Refusal::Expectation);
        }
        let authority = authority(&uri, &headers)?;
        let host = host_name(&authority)?;
        let target = uri.path_and_query().ok_or(Refusal::Malformed("the request names no path")).and_then(rooted)?;
        check_path(target.path())?;
        let origin = origin(&headers)?;
        extensions.remove::<hyper::upgrade::OnUpgrade>();
        Ok(Self { host, authority, target, origin, method, headers, encoding, extensions })
    }

    /// What the backend is asked, but for the headers of its own hop. `Host` comes first (RFC 9110 section 7.2).
    pub(crate) fn into_upstream(self, route: &RouteConfig) -> Parts {
        let Self { target, headers: came, authority, method, encoding, extensions, .. } = self;
        let hop_by_hop = HopByHop::of(&came);
        let trailers = has_token(&came, &TE, "trailers");
        let announced: Vec<HeaderValue> = came.get_all(TRAILER).iter().cloned().collect();
        let mut headers = HeaderMap::with_capacity(came.len() + ADDED);
        headers.insert(HOST, authority);
        // A length cannot be meant for this hop alone, whatever `Connection` says.
        let passes = |name: &HeaderName| *name == CONTENT_LENGTH || !hop_by_hop.has(name);
        pass(came, &mut headers, |name| !NOT_PASSED.contains(name) && passes(name));
        match encoding {
            Encoding::Length => {}
            Encoding::Chunked => {
                headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                for names in announced {
                    headers.append(TRAILER, names);
                }
            }
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("TE"));
        }
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = method;
        head.uri = Uri::from(backend_target(&target, route));
        head.headers = headers;
        head.extensions = extensions;
        head
    }
}

/// Leaves of the trailers that are announced those that may pass: what a client may not say in a header it may not say behind
/// its body either, and hyper sends none that is not announced.
pub(crate) fn announce(headers: &mut HeaderMap, passes: impl Fn(&HeaderName) -> bool) {
    let lines = headers.get_all(TRAILER).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let names = lines.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    let (passing, hidden): (Vec<_>, Vec<_>) = names.partition(passes);
    if hidden.is_empty() {
        return;
    }
    let passing: Vec<&str> = passing.iter().map(HeaderName::as_str).collect();
    match HeaderValue::from_str(&passing.join(", ")).ok().filter(|value| !value.is_empty()) {
        Some(value) => drop(headers.insert(TRAILER, value)),
        None => retain(headers, |name| *name != TRAILER),
    }
}

/// hyper has refused lengths that contradict each other or are no numbers, and encodings that do not end in `chunked`. Any other
/// encoding than that alone is one that backends may read differently (RFC 9112 section 6.1).
fn encoding(version: Version, headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(line) = lines.next() else { return Ok(Encoding::Length) };
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(Refusal::Malformed("the request has both a Content-Length and a Transfer-Encoding"));
    }
    if version != Version::HTTP_11 || lines.next().is_some() || !line.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::Malformed("the request has a Transfer-Encoding other than chunked"));
    }
    Ok(Encoding::Chunked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::route::{HostPattern, tests::route};
    use http::Request;

    fn head(method: &str, target: &str, lines: &[(&str, &str)]) -> Parts {
        let builder = Request::builder().method(method).uri(target).header("Host", "gate.test");
        let builder = lines.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn status(method: &str, target: &str, lines: &[(&str, &str)]) -> u16 {
        PlainRequest::parse(head(method, target, lines), None).map_or_else(|refusal| refusal.status().as_u16(), |_| 200)
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for (method, target, lines, expected) in [
            ("GET", "/", &[][..], 200),
            ("DELETE", "/a?x=%2f", &[], 200),
            ("POST", "/", &[("Transfer-Encoding", "Chunked")], 200),
            ("POST", "/", &[("Transfer-Encoding", "gzip, chunked")], 400),
            ("POST", "/", &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], 400),
            ("POST", "/", &[("Transfer-Encoding", "chunked"), ("Content-Length", "3")], 400),
            ("POST", "/", &[("Expect", "100-Continue")], 200),
            ("POST", "/", &[("Expect", "wonders")], 417),
            ("TRACE", "/", &[], 405),
            ("GET", "/a/../b", &[], 400),
            ("GET", "/a%2fb", &[], 400),
            ("GET", "/", &[("Host", "b.test")], 400),
        ] {
            assert_eq!(status(method, target, lines), expected, "{method} {target} {lines:?}");
        }
        for ambiguity in [Ambiguity::TwoLengths, Ambiguity::Unclear] {
            let refusal = PlainRequest::parse(head("GET", "/", &[]), Some(ambiguity)).unwrap_err();
            assert_eq!(refusal.status(), 400);
        }
    }

    #[test]
    fn headers_of_one_hop_stay_and_lengths_cross() {
        let lines = [
            ("Connection", "keep-alive, X-Hop, Content-Length"),
            ("X-Hop", "1"),
            ("Keep-Alive", "5"),
            ("Upgrade", "h2c"),
            ("TE", "trailers, deflate"),
            ("Expect", "100-continue"),
            ("Content-Length", "3"),
            ("Cookie", "a=b"),
        ];
        let request = PlainRequest::parse(head("PUT", "/files?x", &lines), None).unwrap();
        let head = request.into_upstream(&route(HostPattern::Any, "/"));
        assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("PUT", "/files?x"));
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "cookie", "host", "te"]);
        assert_eq!(head.headers[CONNECTION], "TE");
    }

    #[test]
    fn a_chunked_body_stays_chunked_with_its_trailers_announced() {
        let lines = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")];
        let request = PlainRequest::parse(head("GET", "/", &lines), None).unwrap();
        let head = request.into_upstream(&route(HostPattern::Any, "/"));
        assert_eq!(head.headers[TRANSFER_ENCODING], "chunked");
        assert_eq!(head.headers[TRAILER], "X-Sum");
    }

    #[test]
    fn only_trailers_that_may_pass_stay_announced() {
        let announced = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(TRAILER, line.parse().unwrap());
            }
            announce(&mut headers, |name| !name.as_str().contains("user"));
            let left: Vec<_> = headers.get_all(TRAILER).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
            left
        };
        assert_eq!(announced(&["X-Sum", "X-Other"]), ["X-Sum", "X-Other"]);
        assert_eq!(announced(&["X-Sum, X-USER", "x_user , X-Other"]), ["x-sum, x-other"]);
        assert!(announced(&["X-User"]).is_empty());
    }
}
