//! Accepts connections and brings them to their opening handshake.
pub mod accept;
pub mod bind;
pub mod handover;
pub mod inherited;
pub mod proxy_protocol;
pub mod spread;
pub mod tls;
pub mod trust;
use crate::transport::TlsFacts;
use proxy_protocol::ProxyProtocol;
use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

/// Who connected to us, before any header is believed.
#[derive(Clone, Debug)]
pub struct Peer {
    /// `None` on a Unix socket. IPv4 even if it came through a dual-stack IPv6 socket. Once a PROXY header was read, the
    /// address that it names.
    pub address: Option<SocketAddr>,
    /// Where it connected to, likewise, if anybody is to be told.
    pub local: Option<SocketAddr>,
    /// Whether the listener speaks TLS, or a proxy in front did.
    pub tls: bool,
    /// What the listener tells balancers, if it does.
    pub health: Option<Arc<Health>>,
    /// What it has to begin with.
    pub proxy_protocol: ProxyProtocol,
    /// The VPC endpoint that a PROXY header named.
    pub vpc_endpoint: Option<Box<str>>,
    /// What its TLS handshake told, once there was one.
    pub tls_facts: Option<Arc<TlsFacts>>,
}

impl Peer {
    /// Of a listener without PROXY protocol and readiness.
    #[must_use]
    pub const fn new(address: Option<SocketAddr>, tls: bool) -> Self {
        let proxy_protocol = ProxyProtocol::Off;
        Self { address, local: None, tls, health: None, proxy_protocol, vpc_endpoint: None, tls_facts: None }
    }
}

/// Tells at one path of a listener whether new sessions are wanted.
pub struct Health {
    pub path: Arc<str>,
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("path", &self.path).finish_non_exhaustive()
    }
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
    /// The path at which it tells balancers whether new sessions are wanted. `None`: it does not.
    pub health: Option<Arc<str>>,
    pub proxy_protocol: ProxyProtocol,
}

impl ListenerConfig {
    /// One without TLS and all else that can be configured.
    #[must_use]
    pub const fn plain(address: ListenAddress) -> Self {
        Self { address, tls: None, health: None, proxy_protocol: ProxyProtocol::Off }
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl ListenAddress {
    /// Port 0: the kernel chooses one.
    #[must_use]
    pub fn is_any_port(&self) -> bool {
        match self {
            Self::Tcp(address) => address.port() == 0,
            Self::Unix(_) => false,
        }
    }
}

/// Certificates of a TLS listener; the first is the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    /// `None`: clients are asked for no certificate.
    pub clients: Option<ClientCertificates>,
}

/// Whose certificates clients may show. PEM files, as in [`CertificateFiles`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    pub ca: PathBuf,
    /// Lists of revoked certificates: of every authority in a chain, if there are any.
    pub crl: Option<PathBuf>,
    pub verify: Verify,
}

/// Whether a client needs a certificate. One that does not hold is refused in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    Require,
    Optional,
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
