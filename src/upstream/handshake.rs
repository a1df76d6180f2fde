//! The opening handshake with a backend: we are the client (RFC 6455 section 4.1).
use super::{Backend, BackendAddress, verify::verify};
use crate::{handshake::spelling::Spelled, route::HostHeader, transport::Stream};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
    request::Parts,
};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{future::poll_fn, pin::pin, sync::Arc};
use tungstenite::handshake::client::generate_key;

/// The least that hyper takes as its largest buffer.
pub(crate) const LEAST_BUFFER: usize = 8 * 1024;

/// Names that the gateway writes where its own `Host` stands.
const NAMES_AND_HOST: &[&str] = &[
    "Host",
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "Forwarded",
    "X-Real-IP",
    "X-Request-Id",
];
/// And where the client's `Host` crosses.
const NAMES: &[&str] = NAMES_AND_HOST.split_at(1).1;

/// Why a handshake came to no answer that could pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The connection ended, or what came was no HTTP.
    #[error("{}", told(source))]
    Http { source: hyper::Error },
    /// The answer must not pass (RFC 6455 section 4.1, or a 2xx).
    #[error("bad handshake: {cause}")]
    Bad { cause: String },
    #[error("the path cannot be asked for: {source}")]
    Request { source: http::uri::InvalidUri },
}

/// What a backend answered.
pub(crate) enum Shaken {
    Accepted { stream: Stream, early: Vec<u8>, head: http::response::Parts },
    Refused(Response<Incoming>),
}

/// A request as it goes to one backend.
pub(crate) struct Asking {
    request: Request<Empty<Bytes>>,
    names: &'static [&'static str],
    /// Names that the route writes.
    more: Arc<[Box<str>]>,
    key: String,
    /// What the answer may choose from.
    offered: HeaderMap,
}

impl Asking {
    /// Has header names written so, too.
    pub(crate) fn spelled(self, more: &Arc<[Box<str>]>) -> Self {
        Self { more: Arc::clone(more), ..self }
    }
}

/// Makes the request for one backend out of what crosses from the client.
///
/// # Errors
/// The base path and the request's path make no valid path together.
pub(crate) fn request(backend: &Backend, mut head: Parts, host: HostHeader) -> Result<Asking, HandshakeError> {
    let key = generate_key();
    let headers = &mut head.headers;
    let (host, names) = match (host, headers.get(HOST)) {
        (HostHeader::Client, Some(_)) => (None, NAMES),
        (HostHeader::Client, None) | (HostHeader::Upstream, _) => (Some(backend.host()), NAMES_AND_HOST),
    };
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).expect("base64 is a header value"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    let offered = offers(headers);
    head.uri = path(backend.base_path(), &head.uri).map_err(|source| HandshakeError::Request { source })?;
    head.method = Method::GET;
    head.version = Version::HTTP_11;
    Ok(Asking { request: Request::from_parts(head, Empty::new()), names, more: Arc::default(), key, offered })
}

/// The headers in which an answer may choose.
fn offers(headers: &HeaderMap) -> HeaderMap {
    let mut offers = HeaderMap::new();
    for name in [SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS] {
        for value in headers.get_all(&name) {
            offers.append(name.clone(), value.clone());
        }
    }
    offers
}

/// The backend's base path before the request's path and query; `/` asks for the base path as it is written.
pub(super) fn path(base: &str, uri: &Uri) -> Result<Uri, http::uri::InvalidUri> {
    let asked = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    match (base.trim_end_matches('/'), asked.strip_prefix('/')) {
        ("", _) if uri.path_and_query().is_some() && uri.scheme().is_none() => Ok(uri.clone()),
        ("", _) => asked.parse(),
        (_, Some(query)) if query.is_empty() || query.starts_with('?') => format!("{base}{query}").parse(),
        (base, _) => format!("{base}{asked}").parse(),
    }
}

/// Asks over a fresh stream. Dropping the future closes the stream.
pub(crate) async fn shake(stream: Stream, asking: Asking, header: usize) -> Result<Shaken, HandshakeError> {
    let Asking { request, names, more, key, offered } = asking;
    let (io, speller) = Spelled::new(stream, names);
    speller.arm_with(more);
    let failed = |source| HandshakeError::Http { source };
    let (mut sender, mut connection) = http1::Builder::new()
        .preserve_header_case(true)
        .writev(false)
        .max_header_size(header)
        .max_buf_size(header.max(LEAST_BUFFER))
        .handshake::<_, Empty<Bytes>>(TokioIo::new(io))
        .await
        .map_err(failed)?;
    let mut response = pin!(sender.send_request(request));
    let (response, done) = tokio::select! {
        biased;
        response = &mut response => (response, None),
        // It is done only after it has handed over a response or an error.
        done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => (response.await, Some(done)),
    };
    let response = response.map_err(failed)?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return refused(response, done.is_none().then_some(connection));
    }
    match done {
        Some(done) => done,
        None => poll_fn(|cx| connection.poll_without_shutdown(cx)).await,
    }
    .map_err(failed)?;
    verify(response.headers(), &key, &offered).map_err(|cause| HandshakeError::Bad { cause })?;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    Ok(Shaken::Accepted { stream, early: parts.read_buf.to_vec(), head: response.into_parts().0 })
}

type Connection = http1::Connection<TokioIo<Spelled<Stream>>, Empty<Bytes>>;

/// Passes a refusal on; its body streams in a task that ends with the response.
fn refused(response: Response<Incoming>, connection: Option<Connection>) -> Result<Shaken, HandshakeError> {
    let status = response.status();
    if status.is_success() {
        let cause = format!("it answered {status} where a WebSocket server answers 101 Switching Protocols");
        return Err(HandshakeError::Bad { cause });
    }
    if let Some(connection) = connection {
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a backend's refusal ended early");
            }
        });
    }
    Ok(Shaken::Refused(response))
}

/// hyper's errors in an operator's words.
pub(crate) fn told(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "it closed the connection before its answer was complete".to_owned();
    }
    if error.is_parse_too_large() {
        return "the head of its answer is larger than limits.header".to_owned();
    }
    if error.is_parse() {
        return format!("its answer is not HTTP/1.1: {error}");
    }
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("the connection broke: {source}"))
}

impl Backend {
    /// Its base path; `/` if it has none.
    pub(super) fn base_path(&self) -> &str {
        match &self.address {
            BackendAddress::Tcp { path, .. } | BackendAddress::Service { path, .. } => path,
            BackendAddress::Unix(_) | BackendAddress::Echo => "/",
        }
    }

    /// The `Host` it knows itself by; `localhost` where it has no name (RFC 9110 section 7.2 wants one).
    pub(super) fn host(&self) -> HeaderValue {
        let host = match &self.address {
            BackendAddress::Tcp { .. } | BackendAddress::Service { .. } => self.address.authority(),
            BackendAddress::Unix(_) | BackendAddress::Echo => "localhost".to_owned(),
        };
        HeaderValue::from_str(&host).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_base_path_comes_first() {
        for (base, asked, sent) in [
            ("/", "/chat?room=1", "/chat?room=1"),
            ("/", "/", "/"),
            ("/api", "/chat", "/api/chat"),
            ("/api/", "/chat?x", "/api/chat?x"),
            ("/api", "/", "/api"),
            ("/api/", "/?x", "/api/?x"),
            ("/api", "//a", "/api//a"),
        ] {
            assert_eq!(path(base, &asked.parse().unwrap()).unwrap().to_string(), sent);
        }
    }
}
