//! Pools of backends: which one a session goes to, and the dial.
mod affinity;
mod announcement;
mod asking;
mod backend;
mod balance;
pub mod check;
mod choose;
mod connect;
mod dials;
mod dns;
mod dns_runtime;
mod echo;
mod fate;
mod handshake;
mod health;
mod lookups;
mod members;
mod pool;
pub mod probe;
mod reach;
mod reports;
mod resolve;
pub(crate) mod switching;
mod tcp;
mod tls;
mod verify;
#[cfg(test)]
mod wiring;

#[cfg(test)]
pub(crate) use tcp::tests::unheard;

pub use affinity::{Affinity, is_secure};
pub use announcement::{Ends, ProxyVersion};
pub(crate) use asking::{Asking, request};
pub use backend::{Backend, Lease, Terms};
pub use check::{CheckConfig, CheckKind};
pub(crate) use connect::{DialError, connect_unix, secured};
pub use dials::{DialConfig, IdentityFiles, Resolve};
pub(crate) use handshake::{HandshakeError, LEAST_BUFFER, Shaken, shake, told};
pub use health::Cause;
pub use members::Refreshed;
pub use pool::{Accepted, Answer, OpenError, Refused, Upstream, UpstreamRequest};
pub use probe::{Probe, probe};
pub(crate) use reach::{Reached, RequestLease, Way};
pub(crate) use resolve::Resolver;
use std::{fmt, path::PathBuf, time::Duration};
pub(crate) use tcp::TcpDialer;
pub use tls::UpstreamTlsError;
pub(crate) use tls::trusting;

/// An `[upstream.NAME]` as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    pub name: String,
    pub servers: Vec<ServerConfig>,
    pub balance: BalanceKind,
    /// The cookie that brings a client back to its backend. `None`: none is set.
    pub sticky: Option<StickyConfig>,
    /// How long a backend that failed is left alone the first time.
    pub fail_timeout: Duration,
    /// For how long a backend that has returned gets less than its share. `None`: it gets all of it at once.
    pub slow_start: Option<Duration>,
    /// How backends are asked whether they are well. `None`: only what sessions need is looked at.
    pub check: Option<CheckConfig>,
    /// PEM file of the authorities that `wss` backends must chain to. `None`: the platform's.
    pub ca: Option<PathBuf>,
    pub dials: DialConfig,
}

impl UpstreamConfig {
    /// A pool as it is if nothing but its servers is given.
    #[must_use]
    pub fn new(name: &str, servers: Vec<ServerConfig>) -> Self {
        let (name, balance) = (name.to_owned(), BalanceKind::LeastSessions);
        Self {
            name,
            servers,
            balance,
            sticky: None,
            fail_timeout: Duration::from_secs(10),
            slow_start: Some(Duration::from_secs(30)),
            check: None,
            ca: None,
            dials: DialConfig::default(),
        }
    }

    /// What a server of it is held to.
    #[must_use]
    pub fn terms(&self, server: &ServerConfig) -> Terms {
        Terms { share: server.share, fail_timeout: self.fail_timeout, slow_start: self.slow_start }
    }
}

/// One of `servers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    pub address: BackendAddress,
    pub share: Share,
}

/// What a backend is to take of what its pool gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// At least 1.
    pub weight: u32,
    /// It gets sessions only while no other is well.
    pub backup: bool,
    /// Sessions at a time, handshakes under way among them. `None`: no limit.
    pub max_sessions: Option<usize>,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, backup: false, max_sessions: None }
    }
}

impl From<BackendAddress> for ServerConfig {
    fn from(address: BackendAddress) -> Self {
        Self { address, share: Share::default() }
    }
}

/// One address in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `ws://` or `wss://` with host, port and base path (`/` if none), which is put before the request's path.
    Tcp { tls: bool, host: String, port: u16, path: String },
    /// `srv+ws://` or `srv+wss://` with the name of a service, such as `_chat._tcp.example.com`, and a base path.
    Service { tls: bool, name: String, path: String },
    /// `unix:PATH`
    Unix(PathBuf),
    /// `builtin:echo`
    Echo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BalanceKind {
    RoundRobin,
    LeastSessions,
    Random,
    /// Always the same one for the same key.
    Hash(HashKey),
}

/// What a hash goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's.
    Address,
    Header(http::HeaderName),
    Cookie(String),
    Query(String),
    /// A segment of the path; the first is 1.
    Path(usize),
}

/// The cookie that brings a client back to its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyConfig {
    /// Its name.
    pub cookie: String,
    /// Below which paths browsers send it.
    pub path: String,
    /// How long browsers keep it. `None`: until they are closed.
    pub max_age: Option<Duration>,
    pub same_site: SameSite,
    /// What its values are made with.
    pub secret: Option<Secret>,
}

/// Whether browsers send a cookie along when another site asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A duration in the words of `gateway.toml`'s reader: `5s`, `1.5s`.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
