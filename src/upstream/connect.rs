//! A connected stream to one backend.
use super::{
    Backend, BackendAddress, Ends, ProxyVersion, announcement::announcement, echo, resolve::Resolver, tcp::TcpDialer,
    tls::server_name,
};
use crate::{
    metrics::DialFailure,
    protocol::heartbeat::{HeartbeatConfig, HeartbeatKind},
    transport::{Backstop, Socket, Stream},
};
use socket2::{Domain, SockAddr, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

/// Why a backend could not be dialled, and at which step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("`{host}` does not resolve: {source}")]
    Resolve { host: String, source: io::Error },
    #[error("connecting to {address} failed: {source}{}", advice(source))]
    Connect { address: String, source: io::Error },
    #[error("cannot dial from {from}: {source}; `source` lists addresses of this machine")]
    Source { from: IpAddr, source: io::Error },
    #[error("no address of `source` is an {} one, as {address} is", if address.is_ipv4() { "IPv4" } else { "IPv6" })]
    NoSource { address: SocketAddr },
    #[error(
        "no {} address of this machine leads to {address}: give it one, or leave this address out of the backends",
        if address.is_ipv4() { "IPv4" } else { "IPv6" }
    )]
    NoWay { address: SocketAddr },
    #[error("the TLS handshake with {address} failed: {source}{}", tls_advice(source))]
    Tls { address: String, source: io::Error },
    #[error("no {step} within {}", super::seconds(*within))]
    Timeout { step: &'static str, within: Duration },
}

impl DialError {
    pub(super) fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            Self::Resolve { .. }
            | Self::Source { .. }
            | Self::NoSource { .. }
            | Self::NoWay { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// Whether we lack descriptors, ports, memory or addresses: no fault of the backend.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::Connect { source, .. } => is_shortage(source) || is_unavailable(source),
            Self::Source { .. } | Self::NoSource { .. } | Self::NoWay { .. } => true,
            Self::Resolve { .. } | Self::Tls { .. } | Self::Timeout { .. } => false,
        }
    }

    /// Whether that lasts, and hinders us from dialling this backend, though maybe no other.
    pub(super) fn has_no_way(&self) -> bool {
        match self {
            Self::NoSource { .. } | Self::NoWay { .. } => true,
            Self::Source { source, .. } => !is_shortage(source),
            Self::Connect { .. } | Self::Resolve { .. } | Self::Tls { .. } | Self::Timeout { .. } => false,
        }
    }

    /// Whether another address of ours might do.
    pub(super) fn is_of_the_source(&self) -> bool {
        match self {
            Self::Connect { source, .. } => is_unavailable(source),
            Self::Source { .. } | Self::NoSource { .. } => true,
            Self::NoWay { .. } | Self::Resolve { .. } | Self::Tls { .. } | Self::Timeout { .. } => false,
        }
    }

    /// What it is counted as.
    pub(super) fn label(&self) -> DialFailure {
        match self {
            Self::Resolve { .. } => DialFailure::Resolve,
            Self::Connect { .. } => DialFailure::Connect,
            Self::Source { .. } | Self::NoSource { .. } | Self::NoWay { .. } => DialFailure::Own,
            Self::Tls { .. } => DialFailure::Tls,
            Self::Timeout { .. } => DialFailure::ConnectTimeout,
        }
    }

    /// The step at which it failed, for `check --connect`.
    pub(super) fn step(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Connect { .. } | Self::Source { .. } | Self::NoSource { .. } | Self::NoWay { .. } => "connect",
            Self::Tls { .. } => "TLS handshake",
            Self::Timeout { step, .. } => step,
        }
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Of a connect: every port towards the address is in use, or no address of ours leads there.
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

/// A stream and our own port on it, if it has one.
pub(super) struct Dialled {
    pub(super) stream: Stream,
    pub(super) local_port: Option<u16>,
}

/// What one pool dials with.
pub(super) struct Dialer {
    pub(super) resolver: Resolver,
    pub(super) tcp: TcpDialer,
    pub(super) tls: Option<TlsConnector>,
    /// The name in the certificate of `wss` backends, if it is not their host.
    pub(super) server_name: Option<String>,
    pub(super) proxy_protocol: Option<ProxyVersion>,
}

impl Dialer {
    /// Resolves, connects, tells of the client at its `ends` where the pool wants that, and, for `wss`, shakes hands, all within
    /// `within`. A TCP socket gets the `backstop`, if any.
    pub(super) async fn dial(
        &self,
        backend: &Backend,
        within: Duration,
        backstop: Option<Backstop>,
        ends: Option<&Ends>,
    ) -> Result<Dialled, DialError> {
        let deadline = Instant::now() + within;
        let preface = announcement(self.proxy_protocol, ends);
        match &backend.address {
            BackendAddress::Tcp { tls, .. } | BackendAddress::Service { tls, .. } => {
                let tcp = self.connect(backend, (deadline, within), backstop).await?;
                let local_port = tcp.local_addr().ok().map(|address| address.port());
                let socket = begun(Socket::Tcp(tcp), &preface, &backend.name, deadline, within).await?;
                let stream = match &self.tls {
                    Some(connector) if *tls => {
                        let name = self.server_name.as_deref().unwrap_or(backend.address.service_domain());
                        Box::pin(secured(connector, name, socket, deadline, within)).await?
                    }
                    Some(_) | None => Stream::Plain(socket),
                };
                Ok(Dialled { stream, local_port })
            }
            BackendAddress::Unix(path) => {
                let socket =
                    begun(Socket::Unix(connect_unix(path)?), &preface, &backend.name, deadline, within).await?;
                Ok(Dialled { stream: Stream::Plain(socket), local_port: None })
            }
            BackendAddress::Echo => {
                Ok(Dialled { stream: Stream::Plain(Socket::Memory(echo::start())), local_port: None })
            }
        }
    }

    async fn connect(
        &self,
        backend: &Backend,
        (deadline, within): (Instant, Duration),
        backstop: Option<Backstop>,
    ) -> Result<TcpStream, DialError> {
        if let Some(at) = backend.at {
            return self.tcp.connect(&[at], deadline, within, backstop).await;
        }
        let BackendAddress::Tcp { host, port, .. } = &backend.address else {
            let source = io::Error::new(io::ErrorKind::NotFound, backend.unresolved());
            return Err(DialError::Resolve { host: backend.name.clone(), source });
        };
        let addresses = Box::pin(timeout_at(deadline, self.resolver.resolve(host, *port)))
            .await
            .map_err(|_| DialError::Timeout { step: "answer of the name resolver", within })?
            .map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
        let connected = self.tcp.connect(&addresses, deadline, within, backstop).await;
        if connected.is_err() {
            self.resolver.forget(host);
        }
        connected
    }
}

/// A socket on which the `preface` was said.
async fn begun(
    mut socket: Socket,
    preface: &[u8],
    to: &str,
    deadline: Instant,
    within: Duration,
) -> Result<Socket, DialError> {
    if preface.is_empty() {
        return Ok(socket);
    }
    timeout_at(deadline, socket.write_all(preface))
        .await
        .map_err(|_| DialError::Timeout { step: "end of the PROXY header", within })?
        .map_err(|source| DialError::Connect { address: to.to_owned(), source })?;
    Ok(socket)
}

/// TCP's own keepalive, where no heartbeat finds out that a backend is gone.
pub(super) fn backstop(heartbeat: &HeartbeatConfig) -> Option<Backstop> {
    let judged =
        heartbeat.ping_interval.is_some() && heartbeat.ping_timeout.is_some() && heartbeat.kind == HeartbeatKind::Ping;
    (!judged).then_some(Backstop::Backends)
}

/// A Unix socket is connected at once, or not at all: nothing to wait for.
pub(crate) fn connect_unix(path: &Path) -> Result<UnixStream, DialError> {
    let connected = || {
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        UnixStream::from_std(socket.into())
    };
    connected().map_err(|source| DialError::Connect { address: format!("unix:{}", path.display()), source })
}

pub(crate) async fn secured(
    connector: &TlsConnector,
    host: &str,
    socket: Socket,
    deadline: Instant,
    within: Duration,
) -> Result<Stream, DialError> {
    let failed = |source| DialError::Tls { address: host.to_owned(), source };
    let name = server_name(host).map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let tls = timeout_at(deadline, connector.connect(name, socket))
        .await
        .map_err(|_| DialError::Timeout { step: "TLS handshake", within })?
        .map_err(failed)?;
    Ok(Stream::ClientTls(Box::new(tls)))
}

/// What an operator can do about an error whose own words do not say it.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            "; every local port towards this address is in use: list more addresses of this machine in the upstream's \
             `source`, widen net.ipv4.ip_local_port_range, or give the backend more addresses"
        }
        Some(libc::EMFILE) => "; this process is at its descriptor limit: raise LimitNOFILE (ulimit -n)",
        Some(libc::ENFILE) => "; the system is at its descriptor limit: raise fs.file-max",
        Some(_) | None => "",
    }
}

/// The same for what rustls says of a backend.
fn tls_advice(error: &io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; if its authority is your own, name its PEM file: tls = { ca = \"ca.pem\" }"
        }
        Some(Error::InvalidMessage(_)) => "; it does not seem to speak TLS: is it a ws:// backend?",
        Some(_) | None => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_leg_without_a_heartbeat_deadline_needs_tcps_keepalive() {
        let judged = crate::route::RouteOptions::default().relay.heartbeat.upstream.clone();
        assert_eq!(backstop(&judged), None);
        for unjudged in [
            HeartbeatConfig { ping_interval: None, ..judged.clone() },
            HeartbeatConfig { ping_timeout: None, ..judged.clone() },
            HeartbeatConfig { kind: HeartbeatKind::Pong, ..judged },
        ] {
            assert_eq!(backstop(&unjudged), Some(Backstop::Backends));
        }
    }

    #[test]
    fn exhausted_ports_are_explained_and_are_not_the_backends_fault() {
        let source = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        let error = DialError::Connect { address: "10.0.0.1:80".into(), source };
        assert!(error.is_ours() && !error.has_no_way());
        assert!(error.to_string().contains("`source`") && error.to_string().contains("ip_local_port_range"), "{error}");
    }
    #[test]
    fn what_cannot_be_dialled_for_long_is_told_from_what_is_short_just_now() {
        let from = "192.0.2.1".parse().unwrap();
        let source = |code| DialError::Source { from, source: io::Error::from_raw_os_error(code) };
        assert!(source(libc::EADDRNOTAVAIL).has_no_way() && !source(libc::EMFILE).has_no_way());
        let no_way = DialError::NoWay { address: "[2001:db8::1]:80".parse().unwrap() };
        assert!(no_way.is_ours() && no_way.has_no_way() && no_way.to_string().contains("no IPv6 address"), "{no_way}");
    }
}
