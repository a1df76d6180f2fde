//! The head of a client's request for a session, read from bytes; and headers of any head.
use super::{
    headers::has_token,
    names::{Names, Record},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE},
};
use httparse::{ParserConfig, Status};
use std::mem::MaybeUninit;

/// As many as hyper takes.
pub(crate) const MOST_HEADERS: usize = 100;
/// Where a body may follow, hyper is to judge.
static OF_BODIES: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT];

/// A request for a session.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) request: Request<()>,
    /// Of its headers, as they came.
    pub(crate) names: Names,
    /// How many bytes it takes.
    pub(crate) length: usize,
}

/// Reads a request, with the parser that hyper has, too. Its head may have `most` bytes.
///
/// `None`: it is not whole, or asks for no session, or there is anything about it that is left to hyper's judgement.
pub(crate) fn read(bytes: &Bytes, most: usize) -> Option<Head> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let read = ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, bytes, &mut room);
    let Ok(Status::Complete(length)) = read else { return None };
    let target = parsed.path.filter(|target| target.starts_with('/'))?;
    if parsed.method != Some("GET") || parsed.version != Some(1) || length > most {
        return None;
    }
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).ok()?;
    let headers = headers(bytes, parsed.headers)?;
    if OF_BODIES.iter().any(|name| headers.contains_key(name)) || !has_token(&headers, &UPGRADE, "websocket") {
        return None;
    }
    *request.headers_mut() = headers;
    let mut names = Record::default();
    parsed.headers.iter().for_each(|line| names.note(line.name.as_bytes()));
    Some(Head { request, names: names.names(), length })
}

/// The headers that the parser found in `bytes`, of which they stay a part.
pub(crate) fn headers(bytes: &Bytes, lines: &[httparse::Header<'_>]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).ok()?);
    }
    Some(headers)
}
