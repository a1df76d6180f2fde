//! A small HTTP client for one service: connections that are kept, and a new one when none is ready.
use super::forward::Service;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::{
    fmt, io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

/// Connections that are kept while nothing is asked.
const KEPT: usize = 64;
/// How long one is: below the five seconds after which common servers close theirs, so that a question seldom meets its end. What lies
/// between may forget it without a word, and the question would wait in vain.
const IDLE: Duration = Duration::from_secs(4);
/// Bytes of the head of an answer.
const HEAD: usize = 64 << 10;

type Sender = SendRequest<Empty<Bytes>>;

/// Why a service could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("connecting to it failed: {0}")]
    Connect(io::Error),
    #[error("the TLS handshake with it failed: {0}")]
    Tls(io::Error),
    #[error("{what}: {0}", what = fault(.0))]
    Http(#[from] hyper::Error),
    #[error("it cannot be asked: {0}")]
    Request(#[from] http::Error),
}

fn fault(error: &hyper::Error) -> &'static str {
    if error.is_parse() { "it does not speak HTTP/1.1" } else { "it ended the connection" }
}

impl AskError {
    /// Whether it answered, and what it said makes no sense.
    pub(super) fn is_nonsense(&self) -> bool {
        match self {
            Self::Http(error) => error.is_parse(),
            Self::Connect(_) | Self::Tls(_) | Self::Request(_) => false,
        }
    }
}

/// Shared by all workers. A connection is driven on the worker that opened it.
pub(super) struct Client {
    tls: Option<TlsConnector>,
    /// With the time when each was asked last, the latest behind.
    idle: Mutex<Vec<(Sender, Instant)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// `tls` for a service that speaks it.
    pub(super) fn new(tls: Option<TlsConnector>) -> Self {
        Self { tls, idle: Mutex::default() }
    }

    /// One request, one answer. A kept connection may end at this very moment: then it is asked once more on a new one.
    pub(super) async fn get(&self, service: &Service, headers: HeaderMap) -> Result<Response<Incoming>, AskError> {
        if let Some(sender) = self.kept()
            && let Ok(answer) = self.send(sender, service, headers.clone()).await
        {
            return Ok(answer);
        }
        let sender = self.connect(service).await?;
        self.send(sender, service, headers).await
    }

    async fn send(
        &self,
        mut sender: Sender,
        service: &Service,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, AskError> {
        let mut request = Request::builder().uri(service.target.as_str()).body(Empty::new())?;
        *request.headers_mut() = headers;
        let answer = sender.send_request(request).await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push((sender, Instant::now()));
        }
        Ok(answer)
    }

    /// One whose last answer has been read. Those that have ended or were idle for long are dropped, and those still at it, which end
    /// by themselves.
    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        while let Some((sender, _)) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self, service: &Service) -> Result<Sender, AskError> {
        let host = service.authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = service.authority.port_u16().unwrap_or(if service.tls { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await.map_err(AskError::Connect)?;
        tcp.set_nodelay(true).map_err(AskError::Connect)?;
        let Some(connector) = self.tls.as_ref().filter(|_| service.tls) else { return shake(tcp).await };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| AskError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        shake(connector.connect(name, tcp).await.map_err(AskError::Tls)?).await
    }
}

async fn shake(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender, AskError> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(HEAD).handshake::<_, Empty<Bytes>>(TokioIo::new(io)).await?;
    // Ends with its sender, once its last answer was read; who reads that has a deadline.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an access.forward service ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::uri::PathAndQuery;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::yield_now,
        time::{advance, pause, resume},
    };

    #[tokio::test]
    async fn a_connection_is_used_again_unless_it_was_idle_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string().parse().unwrap();
        let service = Service { tls: false, authority, target: PathAndQuery::from_static("/"), ca: None };
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let client = Client::new(None);
        for (idle, connections) in [(Duration::ZERO, 1), (Duration::ZERO, 1), (IDLE, 2), (Duration::ZERO, 2)] {
            pause();
            advance(idle).await;
            resume();
            client.get(&service, HeaderMap::new()).await.unwrap();
            assert_eq!(accepted.load(Relaxed), connections);
            while !client.idle.lock().unwrap().iter().all(|(sender, _)| sender.is_ready()) {
                yield_now().await;
            }
        }
    }
}
