//! From a name to an open WebSocket, step by step: what each step took and told.
use super::{
    ProbeOptions, Target,
    secure::{self, Secure, TlsFacts, TrustError},
    wire::Wire,
};
use crate::{
    route::HostHeader,
    transport::{Socket, Stream},
    upstream::{
        Backend, BackendAddress, DialError, HandshakeError, Resolver, Shaken, TcpDialer, connect_unix, request,
        secured, shake,
    },
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{HOST, LOCATION, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL},
};
use std::{net::SocketAddr, time::Duration};
use tokio::time::{Instant, timeout};

/// Bytes of a response head that are read.
const HEADER: usize = 64 * 1024;
/// Headers that tell who stands on the path.
const TELLING: [&str; 14] = [
    "server",
    "via",
    "x-powered-by",
    "alt-svc",
    "cf-ray",
    "x-amz-cf-id",
    "x-amzn-trace-id",
    "x-azure-ref",
    "x-cache",
    "x-envoy-upstream-service-time",
    "x-served-by",
    "fly-request-id",
    "x-vercel-id",
    "x-request-id",
];
/// Browsers offer it so.
const DEFLATE: HeaderValue = HeaderValue::from_static("permessage-deflate; client_max_window_bits");

/// What was found on the way to an open WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// The addresses of the name and the time to learn them; nothing for a literal address or a Unix socket.
    pub resolved: Option<(Vec<SocketAddr>, Duration)>,
    /// The address that took the connection.
    pub peer: String,
    pub connect: Duration,
    pub tls: Option<(TlsFacts, Duration)>,
    /// From the request to its 101.
    pub handshake: Duration,
    pub subprotocol: Option<String>,
    pub extensions: Option<String>,
    /// Headers that tell who stands on the path.
    pub headers: Vec<(String, String)>,
}

/// Why there is no open WebSocket, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A step before HTTP failed.
    #[error("{cause}{}", also(advice))]
    Dial { cause: String, advice: &'static str },
    /// It answered, with something else than an open WebSocket.
    #[error("the handshake was answered {status}{}{}", headers(told), also(advice))]
    Refused { status: StatusCode, told: Vec<(String, String)>, advice: String },
    #[error("the handshake failed: {cause}{}", also(advice))]
    Handshake { cause: String, advice: &'static str },
}

fn also(advice: impl AsRef<str>) -> String {
    if advice.as_ref().is_empty() { String::new() } else { format!("\n  {}", advice.as_ref()) }
}

fn headers(told: &[(String, String)]) -> String {
    told.iter().fold(String::new(), |all, (name, value)| format!("{all}\n  {name}: {value}"))
}

/// Opens WebSockets to one service, as often as asked.
pub(super) struct Dialer {
    pub(super) target: Target,
    backend: Backend,
    resolver: Resolver,
    tcp: TcpDialer,
    secure: Option<Secure>,
    headers: HeaderMap,
    within: Duration,
}

impl Dialer {
    pub(super) fn new(target: &Target, options: &ProbeOptions) -> Result<Self, TrustError> {
        let mut headers = HeaderMap::new();
        if let Some(origin) = &options.origin {
            headers.insert(ORIGIN, origin.clone());
        }
        for protocol in &options.subprotocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, protocol.clone());
        }
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, DEFLATE);
        for (name, value) in &options.headers {
            if name == HOST || name == SEC_WEBSOCKET_EXTENSIONS {
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        Ok(Self {
            target: target.clone(),
            backend: Backend::new("probe", target.address.clone()),
            resolver: Resolver::default(),
            tcp: TcpDialer::default(),
            secure: if target.tls() { Some(Secure::new(&options.trust)?) } else { None },
            headers,
            within: options.within,
        })
    }

    /// Every step that leads to an open WebSocket, each at most as long as the options allow.
    pub(super) async fn open(&self) -> Result<(Wire, Opened), OpenFailure> {
        let (stream, resolved, peer, connect) = match &self.target.address {
            BackendAddress::Tcp { host, port, .. } => self.tcp(host, *port).await?,
            BackendAddress::Unix(path) => {
                let start = Instant::now();
                let socket = connect_unix(path).map_err(|error| dial_failure(&error))?;
                (Socket::Unix(socket), None, self.target.address.to_string(), start.elapsed())
            }
            BackendAddress::Service { .. } | BackendAddress::Echo => return Err(self.late("connection")),
        };
        let (stream, tls) = self.secured(stream).await?;
        let start = Instant::now();
        let shaken = timeout(self.within, shake(stream, self.asking()?, HEADER)).await;
        let shaken = shaken.map_err(|_| OpenFailure::Handshake {
            cause: format!("no answer within {}", seconds(self.within)),
            advice: "something listens there, but it does not answer HTTP: is it the right port?",
        })?;
        let (stream, early, head) = match shaken {
            Ok(Shaken::Accepted { stream, early, head }) => (stream, early, head),
            Ok(Shaken::Refused(response)) => return Err(self.refused(response.status(), response.headers())),
            Err(error) => return Err(self.no_answer(&error)),
        };
        let opened = Opened {
            resolved,
            peer,
            connect,
            tls,
            handshake: start.elapsed(),
            subprotocol: joined(&head.headers, SEC_WEBSOCKET_PROTOCOL.as_str()),
            extensions: joined(&head.headers, SEC_WEBSOCKET_EXTENSIONS.as_str()),
            headers: telling(&head.headers),
        };
        Ok((Wire::new(stream, early), opened))
    }

    async fn tcp(
        &self,
        host: &str,
        port: u16,
    ) -> Result<(Socket, Option<(Vec<SocketAddr>, Duration)>, String, Duration), OpenFailure> {
        let start = Instant::now();
        let addresses = timeout(self.within, self.resolver.resolve(host, port))
            .await
            .map_err(|_| self.late("answer of the name resolver"))?
            .map_err(|source| dial_failure(&DialError::Resolve { host: host.to_owned(), source }))?;
        let literal = matches!(addresses[..], [one] if host.trim_matches(['[', ']']) == one.ip().to_string());
        let resolved = (!literal).then(|| (addresses.clone(), start.elapsed()));
        let start = Instant::now();
        let connected = self.tcp.connect(&addresses, start + self.within, self.within, None).await;
        let tcp = connected.map_err(|error| dial_failure(&error))?;
        let peer = tcp.peer_addr().map_or_else(|_| host.to_owned(), |address| address.to_string());
        Ok((Socket::Tcp(tcp), resolved, peer, start.elapsed()))
    }

    async fn secured(&self, socket: Socket) -> Result<(Stream, Option<(TlsFacts, Duration)>), OpenFailure> {
        let (Some(secure), BackendAddress::Tcp { host, .. }) = (&self.secure, &self.target.address) else {
            return Ok((Stream::Plain(socket), None));
        };
        let start = Instant::now();
        let stream = secured(&secure.connector, host, socket, start + self.within, self.within)
            .await
            .map_err(|error| dial_failure(&error))?;
        let facts = match &stream {
            Stream::ClientTls(tls) => Some((secure.facts(tls.get_ref().1), start.elapsed())),
            Stream::Plain(_) | Stream::ServerTls(_) => None,
        };
        Ok((stream, facts))
    }

    fn asking(&self) -> Result<crate::upstream::Asking, OpenFailure> {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.headers = self.headers.clone();
        head.uri = http::Uri::from(self.target.asked.clone());
        request(&self.backend, head, HostHeader::Client).map_err(|error| self.no_answer(&error))
    }

    fn late(&self, step: &'static str) -> OpenFailure {
        dial_failure(&DialError::Timeout { step, within: self.within })
    }

    fn no_answer(&self, error: &HandshakeError) -> OpenFailure {
        let advice = match error {
            HandshakeError::Http { .. } | HandshakeError::Io { .. } if !self.target.tls() => {
                "what listens there may speak TLS (try wss://) or no HTTP at all"
            }
            HandshakeError::Bad { cause } if cause.starts_with("it answered") => {
                "an ordinary web page answers: is the path right, and does every proxy in front pass Upgrade and Connection on?"
            }
            HandshakeError::Http { .. }
            | HandshakeError::Io { .. }
            | HandshakeError::Bad { .. }
            | HandshakeError::Request { .. } => "",
        };
        OpenFailure::Handshake { cause: error.to_string(), advice }
    }

    /// A refusal, with what most often lies behind its status.
    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> OpenFailure {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let advice = match (status.as_u16(), location) {
            (300..=399, Some(to)) => {
                let to = to.replacen("http", "ws", 1);
                format!("WebSocket clients do not follow redirects: probe {to}, and have clients use it")
            }
            (400, _) => "it takes the request for malformed: it may want a subprotocol (--subprotocol), or a header (-H)".into(),
            (401, _) => "it wants credentials: -H \"Authorization: Bearer …\" or -H \"Cookie: …\"".into(),
            (403, _) if !self.headers.contains_key(ORIGIN) => {
                "it forbids this client: it may want the origin of its page (--origin https://…), credentials (-H), or another address"
                    .into()
            }
            (403, _) => "it forbids this client: another origin, credentials (-H), or a firewall".into(),
            (404, _) => "nothing is served at this path and host: is the path right, and does the name lead to this service?".into(),
            (405, _) => "it takes no GET there: is the path right?".into(),
            (426, _) => {
                "it did not see an upgrade: a proxy in front dropped it (nginx: proxy_http_version 1.1, and pass Upgrade and \
                 Connection on), or it wants another version"
                    .into()
            }
            (429, _) => "it limits how often this address may ask: wait, and ask again".into(),
            (431, _) => "the headers are too large for it".into(),
            (500..=599, _) => "the service, or a proxy in front of it, is in trouble: see its log".into(),
            (_, _) => String::new(),
        };
        let mut told = telling(headers);
        told.extend(
            ["location", "www-authenticate", "retry-after", "upgrade", "sec-websocket-version"]
                .into_iter()
                .filter_map(|name| Some((name.to_owned(), joined(headers, name)?))),
        );
        OpenFailure::Refused { status, told, advice }
    }
}

fn dial_failure(error: &DialError) -> OpenFailure {
    let advice = match error {
        DialError::Resolve { .. } => "is the name right, and known to the resolver of this machine?",
        DialError::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens on this port"
        }
        DialError::Connect { .. } | DialError::Source { .. } | DialError::NoSource { .. } | DialError::NoWay { .. } => {
            ""
        }
        DialError::Tls { source, .. } => secure::advice(source),
        DialError::Timeout { .. } => "a firewall that drops silently looks like this",
    };
    // The words for a gateway.toml have no place here.
    let cause = match error {
        DialError::Tls { address, source } => format!("the TLS handshake with {address} failed: {source}"),
        DialError::Resolve { .. }
        | DialError::Connect { .. }
        | DialError::Source { .. }
        | DialError::NoSource { .. }
        | DialError::NoWay { .. }
        | DialError::Timeout { .. } => error.to_string(),
    };
    OpenFailure::Dial { cause, advice }
}

fn telling(headers: &HeaderMap) -> Vec<(String, String)> {
    TELLING.iter().filter_map(|name| Some(((*name).to_owned(), joined(headers, name)?))).collect()
}

/// All lines of a header, as text that may be printed.
fn joined(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<String> =
        headers.get_all(name).iter().map(|line| line.as_bytes().escape_ascii().to_string()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
