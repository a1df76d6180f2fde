//! What a backend is asked: a client's request, made ours (RFC 6455 section 4.1).
use super::{Backend, BackendAddress, handshake::HandshakeError};
use crate::{handshake::names::Names, route::HostHeader};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
    request::Parts,
};
use std::sync::Arc;
use tungstenite::handshake::client::generate_key;

/// Names that the gateway writes where its own `Host` stands.
const NAMES_AND_HOST: &[&str] =
    &["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "X-Request-Id"];
/// And where the client's `Host` crosses.
const NAMES: &[&str] = NAMES_AND_HOST.split_at(1).1;
/// The handshake's own headers.
static HANDSHAKE: [HeaderName; 4] = [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION];
/// Room for a usual head: most take a single piece of memory.
const USUAL: usize = 1024;

/// A request as it goes to one backend.
pub(crate) struct Asking {
    pub(super) target: Uri,
    headers: HeaderMap,
    /// The client's spelling of them.
    came: Names,
    names: &'static [&'static str],
    /// Names that the route writes.
    more: Arc<[Box<str>]>,
    pub(super) key: String,
    /// What the answer may choose from.
    pub(super) offered: HeaderMap,
}

impl Asking {
    /// Has header names written so, too.
    pub(crate) fn spelled(self, more: &Arc<[Box<str>]>) -> Self {
        Self { more: Arc::clone(more), ..self }
    }

    /// The request, as it is sent. Header names keep the client's case; those that stand wholly in lower case, and the gateway
    /// writes too, are spelled as usual: old backends and devices compare bytes.
    pub(super) fn written(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(USUAL);
        let target = self.target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        [b"GET ", target.as_bytes(), b" HTTP/1.1\r\n"].into_iter().for_each(|part| head.extend_from_slice(part));
        let mut search = self.came.search();
        for (name, value) in self.headers.iter().filter(|(name, _)| !HANDSHAKE.contains(name)) {
            let came = search.find(name.as_ref()).unwrap_or(name.as_ref());
            let spelled = if came.iter().any(u8::is_ascii_uppercase) { came } else { self.ours(came) };
            head.extend_from_slice(spelled);
            head.extend_from_slice(if value.is_empty() { b":" } else { b": " });
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ");
        head.extend_from_slice(self.key.as_bytes());
        head.extend_from_slice(b"\r\nSec-WebSocket-Version: 13\r\n\r\n");
        head
    }

    /// A name as the gateway spells it, if it writes such.
    fn ours<'a>(&'a self, name: &'a [u8]) -> &'a [u8] {
        let mut ours = self.more.iter().map(|name| &**name).chain(self.names.iter().copied());
        ours.find(|ours| ours.as_bytes().eq_ignore_ascii_case(name)).map_or(name, str::as_bytes)
    }
}

/// Makes the request for one backend out of what crosses from the client.
///
/// # Errors
/// The base path and the request's path make no valid path together.
pub(crate) fn request(backend: &Backend, head: Parts, host: HostHeader) -> Result<Asking, HandshakeError> {
    let Parts { uri, mut headers, mut extensions, .. } = head;
    let (host, names) = match (host, headers.get(HOST)) {
        (HostHeader::Client, Some(_)) => (None, NAMES),
        (HostHeader::Client, None) | (HostHeader::Upstream, _) => (Some(backend.host()), NAMES_AND_HOST),
    };
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    let (key, offered) = (generate_key(), offers(&headers));
    let target = path(backend.base_path(), &uri).map_err(|source| HandshakeError::Request { source })?;
    let came = extensions.remove().unwrap_or_default();
    Ok(Asking { target, headers, came, names, more: Arc::default(), key, offered })
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
