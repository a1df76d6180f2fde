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
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// Connections that are kept while nothing is asked.
const KEPT: usize = 64;
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
    idle: Mutex<Vec<Sender>>,
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
            idle.push(sender);
        }
        Ok(answer)
    }

    /// One whose last answer has been read. Those that have ended are dropped, and those still at it, which end by themselves.
    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
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
