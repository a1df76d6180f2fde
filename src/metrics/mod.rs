//! What the gateway counts of itself, and the text in which Prometheus reads it.
//!
//! Each worker counts on its own, with plain stores to memory that no other thread writes; whoever scrapes adds the workers up.
//! What happens once in a handshake, or rarer, is counted by all in one place. `docs/metrics.md` says what each figure means.

mod backend;
mod codes;
mod count;
mod families;
mod handshakes;
mod meter;
mod process;
mod requests;
mod scrape;
pub mod text;

pub use backend::{BackendMeter, DialFailure, Ejection};
pub use handshakes::{HandshakeMeter, HandshakeResult, TlsMeter, TlsResult};
pub use meter::Meter;
pub use requests::{RequestMeter, RequestResult};

use count::Count;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Names of a route and of its upstream, or of an upstream and one of its backends.
type Names = (String, String);

/// All counters of one gateway.
#[derive(Debug)]
pub struct Meters {
    workers: Box<[Arc<WorkerMeter>]>,
    backends: Mutex<BTreeMap<Names, Arc<BackendMeter>>>,
    certificates: Mutex<Vec<CertificateExpiry>>,
    reloads: [AtomicU64; ReloadResult::ALL.len()],
    last_reload: AtomicU64,
    generation: AtomicU64,
    max_sessions: AtomicU64,
    /// In bytes; none if zero.
    memory_limit: AtomicU64,
    started: SystemTime,
}

/// One worker's counters. That worker alone writes them.
#[derive(Debug, Default)]
pub struct WorkerMeter {
    routes: Mutex<BTreeMap<Names, Arc<Meter>>>,
    /// Opening handshakes that did not come so far as to have a route.
    strangers: HandshakeMeter,
    tls: TlsMeter,
    busy_nanos: Count,
    pauses: Count,
}

/// Until when a listener's certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateExpiry {
    pub file: PathBuf,
    /// Seconds since 1970, UTC.
    pub not_after: i64,
}

/// What became of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// Something changed.
    Applied,
    /// The configuration was what it had been.
    Unchanged,
    /// It had mistakes, or could not be read: nothing changed.
    Refused,
}

impl ReloadResult {
    const ALL: [Self; 3] = [Self::Applied, Self::Unchanged, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

impl Meters {
    /// The counters of a gateway that starts now with so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let started = SystemTime::now();
        Arc::new(Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            backends: Mutex::default(),
            certificates: Mutex::default(),
            reloads: Default::default(),
            last_reload: AtomicU64::new(seconds(started).as_secs()),
            generation: AtomicU64::new(1),
            max_sessions: AtomicU64::new(0),
            memory_limit: AtomicU64::new(0),
            started,
        })
    }

    /// Each worker's part.
    #[must_use]
    pub fn workers(&self) -> &[Arc<WorkerMeter>] {
        &self.workers
    }

    /// Where a backend is counted. Backends of one name, before and after a reload, are one.
    #[must_use]
    pub fn backend(&self, upstream: &str, backend: &str) -> Arc<BackendMeter> {
        Arc::clone(locked(&self.backends).entry((upstream.to_owned(), backend.to_owned())).or_default())
    }

    /// Has these routes (each with its upstream's name) shown, with zeros until something happens on them, and no longer shows
    /// routes and backends that nobody uses any more: for a start, and for a reload once all is built.
    pub fn show_routes<'a>(&self, routes: impl Iterator<Item = (&'a str, &'a str)> + Clone) {
        for worker in &self.workers {
            let shown = routes.clone().map(|(route, upstream)| worker.route(route, upstream)).collect::<Vec<_>>();
            locked(&worker.routes).retain(|_, meter| Arc::strong_count(meter) > 1);
            drop(shown);
        }
        self.forget_backends();
    }

    /// No longer shows backends that nobody uses any more.
    pub fn forget_backends(&self) {
        locked(&self.backends).retain(|_, meter| Arc::strong_count(meter) > 1);
    }

    /// Replaces the certificates shown.
    pub fn show_certificates(&self, mut certificates: Vec<CertificateExpiry>) {
        certificates.sort();
        certificates.dedup_by(|one, other| one.file == other.file);
        *locked(&self.certificates) = certificates;
    }

    /// Replaces the limits shown: sessions, and bytes in outboxes.
    pub fn show_limits(&self, max_sessions: usize, memory_limit: Option<u64>) {
        self.max_sessions.store(max_sessions as u64, Relaxed);
        self.memory_limit.store(memory_limit.unwrap_or(0), Relaxed);
    }

    /// A reload came to an end.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads[result as usize].fetch_add(1, Relaxed);
        match result {
            ReloadResult::Applied | ReloadResult::Unchanged => {
                self.last_reload.store(seconds(SystemTime::now()).as_secs(), Relaxed);
            }
            ReloadResult::Refused => {}
        }
    }

    /// The how manieth process of a row of upgrades this is; the first is 1.
    pub fn show_generation(&self, generation: u64) {
        self.generation.store(generation, Relaxed);
    }
}

impl WorkerMeter {
    /// Where this worker counts the sessions of a route.
    #[must_use]
    pub fn route(&self, route: &str, upstream: &str) -> Arc<Meter> {
        Arc::clone(locked(&self.routes).entry((route.to_owned(), upstream.to_owned())).or_default())
    }

    /// Opening handshakes that did not come so far as to have a route.
    #[must_use]
    pub fn strangers(&self) -> &HandshakeMeter {
        &self.strangers
    }

    /// TLS handshakes with clients.
    #[must_use]
    pub fn tls(&self) -> &TlsMeter {
        &self.tls
    }

    /// How long it has worked rather than waited, since its start.
    pub fn show_busy(&self, busy: Duration) {
        self.busy_nanos.set(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
    }

    /// It stood still for a while.
    pub fn paused(&self) {
        self.pauses.add(1);
    }
}

fn seconds(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
