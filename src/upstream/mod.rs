//! Pools of backends: which one a session goes to, and the dial.
mod backend;
mod balance;
mod choose;
mod connect;
mod dials;
mod echo;
mod handshake;
mod health;
mod members;
mod pool;
pub mod probe;
mod resolve;
mod tcp;
mod tls;
mod verify;
#[cfg(test)]
mod wiring;

pub use backend::{Backend, Lease};
pub(crate) use connect::{DialError, connect_unix, secured};
pub use dials::{DialConfig, IdentityFiles};
pub(crate) use handshake::{Asking, HandshakeError, Shaken, request, shake};
pub use pool::{Accepted, Answer, OpenError, Refused, Upstream, UpstreamRequest};
pub use probe::{Probe, probe};
pub(crate) use resolve::Resolver;
use std::{path::PathBuf, time::Duration};
pub(crate) use tcp::TcpDialer;
pub use tls::UpstreamTlsError;

/// An `[upstream.NAME]` as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    pub name: String,
    pub servers: Vec<BackendAddress>,
    pub balance: BalanceKind,
    /// How long a backend that failed is left alone the first time.
    pub fail_timeout: Duration,
    /// PEM file of the authorities that `wss` backends must chain to. `None`: the platform's.
    pub ca: Option<PathBuf>,
    pub dials: DialConfig,
}

/// One address in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `ws://` or `wss://` with host, port and base path (`/` if none), which is put before the request's path.
    Tcp { tls: bool, host: String, port: u16, path: String },
    /// `unix:PATH`
    Unix(PathBuf),
    /// `builtin:echo`
    Echo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalanceKind {
    RoundRobin,
    LeastSessions,
    Random,
}

/// A duration in the words of `gateway.toml`'s reader: `5s`, `1.5s`.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
