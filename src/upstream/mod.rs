//! Pools of backends: which one a session goes to, and the dial.
use std::{path::PathBuf, time::Duration};

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

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// One backend at run time, shared by all workers.
#[derive(Debug)]
pub struct Backend {
    pub address: BackendAddress,
    /// As written in `gateway.toml`; its name in logs and metrics.
    pub name: String,
    /// Name of the pool it belongs to.
    pub upstream: String,
    sessions: AtomicUsize,
    proven: AtomicBool,
}

impl Backend {
    /// Sessions that hold a lease on it now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether any of its sessions ever answered one of our pings.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// One of its sessions answered one of our pings.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

/// A session's hold on a backend: counted while it lives.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    #[must_use]
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.sessions.fetch_add(1, Ordering::Relaxed);
        Self { backend }
    }

    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}
