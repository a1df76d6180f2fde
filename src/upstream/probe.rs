//! Asks one backend for a sign of life: dial, handshake, one ping (`pulsegate check --connect`).
use super::{
    Backend, CheckConfig, CheckKind, Upstream,
    asking::request,
    connect::Dialled,
    handshake::{HandshakeError, Shaken, shake},
    seconds,
};
use crate::{route::HostHeader, transport::Stream};
use futures_util::{SinkExt, StreamExt};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tungstenite::{
    Message,
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

/// Bytes of a response head that a probe reads.
const HEADER: usize = 16 * 1024;
const BUFFER: usize = 4 * 1024;

/// What a probe found; its `Display` is one line for an operator.
#[derive(Debug)]
pub struct Probe {
    pub backend: Arc<Backend>,
    pub outcome: Outcome,
}

/// How far a probe came.
#[derive(Debug)]
pub enum Outcome {
    /// It answers: time to a connection (TLS too), from there to the 101, and from the ping to its pong.
    Answers { connect: Duration, handshake: Duration, ping: Duration },
    /// It runs, but has no WebSocket for whoever asks so. `unwell`: it says itself that it does not work (5xx).
    Refuses { step: &'static str, cause: String, unwell: bool },
    /// It failed at a step, for this cause.
    Failed { step: &'static str, cause: String },
}

impl Probe {
    /// Whether it answered the ping.
    #[must_use]
    pub fn answers(&self) -> bool {
        match self.outcome {
            Outcome::Answers { .. } => true,
            Outcome::Refuses { .. } | Outcome::Failed { .. } => false,
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.backend.name;
        match &self.outcome {
            Outcome::Answers { connect, handshake, ping } => {
                write!(
                    f,
                    "{name} answers: connected in {connect:.1?}, 101 after {handshake:.1?}, pong after {ping:.1?}"
                )
            }
            Outcome::Refuses { step, cause, .. } | Outcome::Failed { step, cause } => {
                write!(f, "{name} fails at {step}: {cause}")
            }
        }
    }
}

/// Probes the backend at `index` of [`Upstream::backends`]; each step may take `within`. Needs a local runtime.
pub async fn probe(upstream: &Upstream, index: usize, within: Duration) -> Probe {
    let backend = Arc::clone(&upstream.backends()[index]);
    let check = CheckConfig { timeout: within, ..CheckConfig::new(CheckKind::WebSocket) };
    let outcome = Box::pin(answers(upstream, &backend, &check)).await;
    Probe { backend, outcome }
}

/// The same for a path and a host of one's own.
pub(super) async fn answers(upstream: &Upstream, backend: &Backend, check: &CheckConfig) -> Outcome {
    match steps(upstream, backend, check).await {
        Ok(outcome) => outcome,
        Err((step, cause)) => Outcome::Failed { step, cause },
    }
}

async fn steps(upstream: &Upstream, backend: &Backend, check: &CheckConfig) -> Result<Outcome, (&'static str, String)> {
    let within = check.timeout;
    let start = Instant::now();
    let dialled = upstream.dialer.dial(backend, within, None, None).await;
    let Dialled { stream, .. } = dialled.map_err(|error| (error.step(), error.to_string()))?;
    let connect = start.elapsed();

    let start = Instant::now();
    let stream = match handshake(backend, stream, check).await.map_err(|cause| ("handshake", cause))? {
        Shook::Hands(stream) => stream,
        Shook::Head { cause, unwell } => return Ok(Outcome::Refuses { step: "handshake", cause, unwell }),
    };
    let handshake = start.elapsed();

    let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
    let (stream, early) = stream;
    let mut socket = WebSocketStream::from_partially_read(stream, early, Role::Client, Some(config)).await;
    let start = Instant::now();
    timeout(within, ping(&mut socket))
        .await
        .map_err(|_| ("ping", never_pongs(within)))?
        .map_err(|cause| ("ping", cause))?;
    let ping = start.elapsed();

    // Its answer was what we came for; a close that fails changes nothing.
    timeout(within, leave(&mut socket)).await.ok();
    Ok(Outcome::Answers { connect, handshake, ping })
}

/// What came of a handshake.
enum Shook {
    Hands((Stream, Vec<u8>)),
    /// An answer of HTTP, but no WebSocket.
    Head {
        cause: String,
        unwell: bool,
    },
}

async fn handshake(backend: &Backend, stream: Stream, check: &CheckConfig) -> Result<Shook, String> {
    let within = check.timeout;
    let path = check.path.as_str();
    let asked = http::Request::get(path).body(()).map_err(|error| error.to_string())?;
    let (mut head, ()) = asked.into_parts();
    head.headers.insert(http::header::HOST, check.host.clone().unwrap_or_else(|| backend.host()));
    let request = request(backend, head, HostHeader::Client).map_err(|error| error.to_string())?;
    let shaken = timeout(within, shake(stream, request, HEADER))
        .await
        .map_err(|_| format!("no answer to the handshake within {}", seconds(within)))?;
    match shaken {
        Ok(Shaken::Accepted { stream, early, .. }) => Ok(Shook::Hands((stream, early))),
        Ok(Shaken::Refused(response)) => Ok(Shook::Head {
            cause: format!(
                "it runs, but answers {} to a handshake on {}; sessions ask for their own path",
                response.status(),
                if path == "/" { backend.base_path() } else { path },
            ),
            unwell: response.status().is_server_error(),
        }),
        Err(error @ HandshakeError::Bad { .. }) => Ok(Shook::Head { cause: error.to_string(), unwell: false }),
        Err(error @ (HandshakeError::Http { .. } | HandshakeError::Io { .. } | HandshakeError::Request { .. })) => {
            Err(error.to_string())
        }
    }
}

async fn ping(socket: &mut WebSocketStream<Stream>) -> Result<(), String> {
    let secret = fastrand::u64(..).to_be_bytes().to_vec();
    socket.send(Message::Ping(secret.clone().into())).await.map_err(|error| error.to_string())?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Pong(payload))) if payload[..] == secret[..] => return Ok(()),
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                return Err(format!(
                    "it closes with {code} instead of a pong; if pings upset it, set heartbeat.upstream.ping_interval = \"off\""
                ));
            }
            Some(Ok(
                Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
            )) => {}
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("it ended the connection instead of a pong".to_owned()),
        }
    }
}

/// Closes and waits for the backend's close frame and its end.
async fn leave(socket: &mut WebSocketStream<Stream>) {
    let bye = CloseFrame { code: CloseCode::Normal, reason: "probe".into() };
    if socket.close(Some(bye)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

fn never_pongs(within: Duration) -> String {
    format!(
        "it accepts a handshake, but sent no pong within {}; sessions work, and pings keep them alive, but only TCP tells \
         whether it still lives (heartbeat.upstream.ping_timeout = \"off\" says so in gateway.toml)",
        seconds(within)
    )
}
