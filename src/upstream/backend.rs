//! One backend at run time, and a session's hold on it.
use super::{
    BackendAddress, Cause, Share,
    balance::hash,
    dials::Places,
    dns::Address,
    fate::{FEWEST, Misses, Youth},
    health::Health,
    reports::Checks,
};
use crate::{
    metrics::BackendMeter,
    pacing::{Bounded, Turn, Turnstile},
};
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// One backend at run time, shared by all workers.
#[derive(Debug)]
pub struct Backend {
    pub address: BackendAddress,
    /// Where it is, if it is one of the addresses of a name.
    pub at: Option<SocketAddr>,
    /// As written in `gateway.toml`, with `#` and where it is if it is one of several; its name in logs and metrics.
    pub name: String,
    /// Name of the pool it belongs to.
    pub upstream: String,
    /// The same number for the same name in every gateway.
    seed: u64,
    terms: Mutex<Terms>,
    /// What it is to take of what its weight says, in thousandths.
    part: AtomicU32,
    /// Why its name has no address, if it stands for one.
    unresolved: Mutex<Option<String>>,
    sessions: AtomicUsize,
    pub(super) proven: AtomicBool,
    /// Whether it was found frozen, and answered no ping since.
    pub(super) froze: AtomicBool,
    warned: AtomicBool,
    meter: Arc<BackendMeter>,
    turnstile: Mutex<Turnstile>,
    retired: AtomicBool,
    drained: AtomicBool,
    pub(super) health: Health,
    pub(super) places: Places,
    /// Sessions that ever began on it.
    pub(super) begun: AtomicU64,
    pub(super) youth: Mutex<Youth>,
    pub(super) misses: Mutex<Misses>,
    pub(super) checks: Mutex<Checks>,
}

/// What a backend is held to, by the pool that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    pub share: Share,
    /// How long it is left alone the first time it fails.
    pub fail_timeout: Duration,
    /// For how long it gets less than its share after it has returned.
    pub slow_start: Option<Duration>,
}

impl Backend {
    /// A backend of a pool, without sessions and thought to be well, whose figures nobody reads.
    #[must_use]
    pub fn new(upstream: &str, address: BackendAddress) -> Self {
        Self::metered(upstream, address, |_| Arc::default())
    }

    /// The same, counted where `meter` says for its name.
    #[must_use]
    pub fn metered(upstream: &str, address: BackendAddress, meter: impl FnOnce(&str) -> Arc<BackendMeter>) -> Self {
        Self::metered_at(upstream, address, None, meter)
    }

    /// The same, at one of the addresses of its name.
    pub(super) fn metered_at(
        upstream: &str,
        address: BackendAddress,
        at: Option<SocketAddr>,
        meter: impl FnOnce(&str) -> Arc<BackendMeter>,
    ) -> Self {
        let name = match (&address, at) {
            (BackendAddress::Service { .. }, Some(at)) => format!("{address}#{at}"),
            (_, Some(at)) => format!("{address}#{}", at.ip()),
            (_, None) => address.to_string(),
        };
        let meter = meter(&name);
        // A counter outlives its backend: this one is not known to be down.
        meter.show_up(true);
        Self {
            meter,
            seed: hash(name.as_bytes()),
            terms: Mutex::default(),
            part: AtomicU32::new(Address::EVEN),
            unresolved: Mutex::default(),
            name,
            at,
            upstream: upstream.to_owned(),
            address,
            sessions: AtomicUsize::new(0),
            proven: AtomicBool::new(false),
            froze: AtomicBool::new(false),
            warned: AtomicBool::new(false),
            turnstile: Mutex::default(),
            retired: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            health: Health::default(),
            places: Places::default(),
            begun: AtomicU64::new(0),
            youth: Mutex::default(),
            misses: Mutex::default(),
            checks: Mutex::default(),
        }
    }

    /// Sessions that hold a lease on it now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Whether an operator means it: by its name, or, with all other addresses of its name in `gateway.toml`, by that.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || self.at.is_some() && rest.starts_with('#'))
    }

    /// What it is to take of what its pool gets.
    #[must_use]
    pub fn share(&self) -> Share {
        self.terms().share
    }

    #[must_use]
    pub fn terms(&self) -> Terms {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is held to these.
    pub fn set_terms(&self, terms: Terms) {
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = terms;
    }

    /// Its weight, in thousandths: what is configured, and of that the part which a service's records say it is to have.
    pub(super) fn weight(&self) -> u32 {
        self.share().weight.saturating_mul(self.part.load(Ordering::Relaxed))
    }

    /// In thousandths.
    pub(super) fn set_part(&self, part: u32) {
        self.part.store(part, Ordering::Relaxed);
    }

    pub(super) fn set_unresolved(&self, cause: &str) {
        *self.unresolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause.to_owned());
    }

    /// Why its name had no address when it was looked up last.
    pub(super) fn unresolved(&self) -> String {
        let cause = self.unresolved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        cause.unwrap_or_else(|| "its lookup took too long".to_owned())
    }

    /// Whether it has as many sessions as it may have.
    #[must_use]
    pub fn full(&self) -> bool {
        self.share().max_sessions.is_some_and(|most| self.sessions() >= most)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Where it is counted what it does.
    #[must_use]
    pub fn meter(&self) -> &BackendMeter {
        &self.meter
    }

    /// One of its sessions lost it: when its client is to be told, so that the clients of all that it has are told over `pace`.
    /// `missed`: by a deadline. The others may be about to miss theirs, so even the first clients are kept apart.
    pub fn turn(&self, now: std::time::Instant, pace: Bounded, missed: bool) -> Turn {
        let sessions = self.sessions();
        let mut turnstile = self.turnstile.lock().unwrap_or_else(PoisonError::into_inner);
        turnstile.enter(now, sessions, missed && sessions >= FEWEST, |sessions| pace.time(sessions))
    }

    /// Whether any of its sessions ever answered one of our pings.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Whether no pool has it any more: its sessions are to end.
    #[must_use]
    pub fn retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// It belongs to a pool from now on, or to none.
    pub fn retire(&self, retired: bool) {
        self.retired.store(retired, Ordering::Relaxed);
    }

    /// Whether it is given no new session, as an operator wants it.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// From now on it is given no new session, or again its share of them.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Why it is left alone, and for how long still: without a time, until it answers a check. `None`: it is up, or due to be
    /// tried again.
    #[must_use]
    pub fn ailment(&self) -> Option<(Cause, Option<Duration>)> {
        self.health.ailment(Instant::now())
    }

    /// The part of its share that it gets: less than 1 while it starts slowly.
    #[must_use]
    pub fn part(&self) -> f64 {
        self.health.part(Instant::now(), self.terms().slow_start)
    }

    /// Whether this is the first time that something about it deserves a warning.
    #[must_use]
    pub fn warn_once(&self) -> bool {
        !self.warned.swap(true, Ordering::Relaxed)
    }
}

/// A session's hold on a backend: counted while it lives.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// One session more, however many it has.
    #[must_use]
    pub fn new(backend: Arc<Backend>) -> Self {
        backend.sessions.fetch_add(1, Ordering::Relaxed);
        backend.meter.held();
        Self { backend }
    }

    /// The same, unless the backend is full: several workers may ask at once.
    pub(super) fn claim(backend: &Arc<Backend>) -> Option<Self> {
        let most = backend.share().max_sessions.unwrap_or(usize::MAX);
        let one_more = |sessions: usize| (sessions < most).then_some(sessions + 1);
        backend.sessions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        backend.meter.held();
        Some(Self { backend: Arc::clone(backend) })
    }

    #[must_use]
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.sessions.fetch_sub(1, Ordering::Relaxed);
        self.backend.meter.released();
    }
}

impl BackendAddress {
    /// `host`, or `host:port` where the port is not the scheme's own; empty for one that is no TCP address.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { tls, host, port, .. } => {
                let host =
                    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
                match (tls, port) {
                    (false, 80) | (true, 443) => host,
                    (false | true, port) => format!("{host}:{port}"),
                }
            }
            Self::Service { .. } => self.service_domain().to_owned(),
            Self::Unix(_) | Self::Echo => String::new(),
        }
    }
}

impl BackendAddress {
    /// The name behind the labels of service and protocol; the certificate of the service is for it (RFC 6125).
    pub(super) fn service_domain(&self) -> &str {
        match self {
            Self::Service { name, .. } => name.splitn(3, '.').nth(2).unwrap_or(name),
            Self::Tcp { host, .. } => host,
            Self::Unix(_) | Self::Echo => "",
        }
    }
}

/// As it is written in `gateway.toml`.
impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { tls, path, .. } => {
                let scheme = if *tls { "wss" } else { "ws" };
                write!(f, "{scheme}://{}{}", self.authority(), if path == "/" { "" } else { path })
            }
            Self::Service { tls, name, path } => {
                let scheme = if *tls { "srv+wss" } else { "srv+ws" };
                write!(f, "{scheme}://{name}{}", if path == "/" { "" } else { path })
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Echo => f.write_str("builtin:echo"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(tls: bool, host: &str, port: u16, path: &str) -> BackendAddress {
        BackendAddress::Tcp { tls, host: host.into(), port, path: path.into() }
    }

    #[test]
    fn a_backend_is_named_as_written() {
        for (address, name) in [
            (tcp(false, "10.0.0.1", 8000, "/"), "ws://10.0.0.1:8000"),
            (tcp(true, "chat.example.com", 443, "/v1"), "wss://chat.example.com/v1"),
            (tcp(false, "::1", 80, "/"), "ws://[::1]"),
            (tcp(false, "[::1]", 81, "/"), "ws://[::1]:81"),
            (BackendAddress::Unix("run/chat.sock".into()), "unix:run/chat.sock"),
            (BackendAddress::Echo, "builtin:echo"),
            (service(), "srv+wss://_chat._tcp.example.com/v1"),
        ] {
            assert_eq!(Backend::new("chat", address).name, name);
        }
    }

    fn service() -> BackendAddress {
        BackendAddress::Service { tls: true, name: "_chat._tcp.example.com".into(), path: "/v1".into() }
    }

    #[test]
    fn one_of_several_addresses_is_told_from_the_others() {
        let at = |address| Backend::metered_at("chat", address, "10.0.0.1:81".parse().ok(), |_| Arc::default()).name;
        assert_eq!(at(tcp(false, "chat.internal", 81, "/")), "ws://chat.internal:81#10.0.0.1");
        assert_eq!(at(service()), "srv+wss://_chat._tcp.example.com/v1#10.0.0.1:81");
        assert_eq!(service().service_domain(), "example.com");
    }

    #[test]
    fn a_full_backend_gives_no_lease() {
        let backend = Arc::new(Backend::new("demo", BackendAddress::Echo));
        backend.set_terms(Terms { share: Share { max_sessions: Some(2), ..Share::default() }, ..Terms::default() });
        let (one, two) = (Lease::claim(&backend), Lease::claim(&backend));
        assert!(one.is_some() && two.is_some() && backend.full());
        assert!(Lease::claim(&backend).is_none());
        drop(one);
        assert!(Lease::claim(&backend).is_some() && !backend.full());
    }

    #[test]
    fn a_lease_is_counted_while_it_lives() {
        let backend = Arc::new(Backend::new("demo", BackendAddress::Echo));
        let lease = Lease::new(Arc::clone(&backend));
        assert_eq!(backend.sessions(), 1);
        drop(lease);
        assert_eq!(backend.sessions(), 0);
    }
}
