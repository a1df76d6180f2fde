//! Accepts connections and brings them to their opening handshake.
pub mod accept;
pub mod bind;
pub mod tls;
use socket2::{SockRef, TcpKeepalive};
use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::net::TcpStream;

/// Unsent bytes that a socket may hold before it stops being writable: enough to keep a path busy, little enough that
/// a ping is not buried behind seconds of data.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// TCP's own keepalive is the backstop for legs without a heartbeat deadline. It starts late and lasts long (13 minutes in
/// all), so that it neither wakes sleeping devices between their pings nor ends sessions whose operator switched deadlines off.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_PROBES: u32 = 8;

/// Sets the socket options that every leg wants: `TCP_NODELAY`, `TCP_NOTSENT_LOWAT` and `SO_KEEPALIVE`.
///
/// # Errors
/// Those of `setsockopt`, as when the peer is already gone.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Who connected to us, before any header is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None` on a Unix socket. IPv4 even if it came through a dual-stack IPv6 socket.
    pub address: Option<SocketAddr>,
    /// Whether the listener speaks TLS.
    pub tls: bool,
}

impl fmt::Display for ListenAddress {
    /// As written in `gateway.toml`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A `[[listener]]` as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    pub address: ListenAddress,
    pub tls: Option<ListenerTls>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Certificates of a TLS listener; the first is the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
}

/// PEM files, absolute or relative to the working directory (already joined with the folder of `gateway.toml`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
