//! How a pool dials: how many at a time with one backend, and how often on a further one.
use super::ProxyVersion;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};

/// How a pool dials its backends.
#[derive(Clone, Debug, PartialEq)]
pub struct DialConfig {
    /// Our own addresses that connections start from, in turn. The kernel chooses if there are none.
    pub sources: Vec<IpAddr>,
    /// Dials and opening handshakes under way with one backend, on all workers. `None`: as many as come.
    pub max_dials: Option<usize>,
    /// The share of handshakes that may be tried on a further backend. `None`: all.
    pub retry_budget: Option<f64>,
    /// The time before a further backend is tried; doubled each time, up to a second.
    pub retry_backoff: Duration,
    /// What we show to `wss` backends that ask for a certificate.
    pub identity: Option<IdentityFiles>,
    /// What becomes of the addresses of a name.
    pub resolve: Resolve,
    /// The DNS server that is asked. `None`: what the system asks.
    pub resolver: Option<SocketAddr>,
    /// The name in the certificate of `wss` backends. `None`: the host they are dialled by.
    pub server_name: Option<String>,
    /// Whether backends are told of the client by the PROXY protocol, before TLS.
    pub proxy_protocol: Option<ProxyVersion>,
}

/// What becomes of the addresses of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolve {
    /// Each is a backend.
    #[default]
    All,
    /// All of them are one backend, which is dialled at the one that answers first.
    One,
}

/// PEM files of a certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            max_dials: None,
            proxy_protocol: None,
            retry_budget: Some(0.5),
            retry_backoff: Duration::from_millis(25),
            identity: None,
            resolve: Resolve::All,
            resolver: None,
            server_name: None,
        }
    }
}

/// The places for dials with one backend; those who find none wait in a row.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<Option<(usize, Arc<Semaphore>)>>);

/// Holds a place while a dial and its opening handshake are under way.
pub(super) type Place = Option<OwnedSemaphorePermit>;

impl Places {
    /// From now on there are so many. Dials under way keep theirs.
    pub(super) fn limit(&self, most: Option<usize>) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.as_ref().map(|(most, _)| *most) != most {
            *places = most.map(|most| (most, Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))));
        }
    }

    /// A place, as soon as there is one.
    ///
    /// # Errors
    /// How many there are, if none became free within this time.
    pub(super) async fn enter(&self, within: Duration) -> Result<Place, usize> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((most, places)) = places else { return Ok(None) };
        match timeout(within, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(Some(place)),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(most),
        }
    }
}

/// Handshakes are remembered for about this long.
const MEMORY: Duration = Duration::from_secs(10);
/// Further tries that are always granted in that time, so that few handshakes have them all.
const ALWAYS: f64 = 100.0;
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Bounds the work that failing backends make for the others, over all workers.
#[derive(Debug)]
pub(super) struct Retries {
    budget: Option<f64>,
    backoff: Duration,
    spent: Mutex<Spent>,
}

/// Both fade with [`MEMORY`].
#[derive(Debug)]
struct Spent {
    handshakes: f64,
    retries: f64,
    at: Instant,
}

impl Retries {
    pub(super) fn new(config: &DialConfig) -> Self {
        let spent = Spent { handshakes: 0.0, retries: 0.0, at: Instant::now() };
        Self { budget: config.retry_budget, backoff: config.retry_backoff, spent: Mutex::new(spent) }
    }

    /// Whether one that `failed` so many times may be tried on a further backend; if so, after a pause. The first time is free.
    pub(super) async fn admit(&self, failed: usize) -> bool {
        let admitted = self.count(failed, Instant::now());
        if admitted && failed > 0 {
            sleep(self.pause(failed)).await;
        }
        admitted
    }

    fn count(&self, failed: usize, now: Instant) -> bool {
        let Some(budget) = self.budget else { return true };
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (-now.saturating_duration_since(spent.at).as_secs_f64() / MEMORY.as_secs_f64()).exp();
        *spent = Spent { handshakes: spent.handshakes * left, retries: spent.retries * left, at: now };
        if failed == 0 {
            spent.handshakes += 1.0;
            return true;
        }
        let admitted = spent.retries + 1.0 <= ALWAYS + budget * spent.handshakes;
        spent.retries += f64::from(u8::from(admitted));
        admitted
    }

    /// Half of it to one and a half, so that those who failed together do not come together.
    fn pause(&self, failed: usize) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << (failed - 1).min(16));
        doubled.min(LONGEST_BACKOFF).mul_f64(0.5 + fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn who_finds_no_place_waits_for_one_or_in_vain() {
        let places = Places::default();
        assert!(places.enter(SHORT).await.unwrap().is_none(), "without a limit there is nothing to hold");
        places.limit(Some(2));
        let (one, _two) = (places.enter(SHORT).await.unwrap(), places.enter(SHORT).await.unwrap());
        assert_eq!(places.enter(SHORT).await.unwrap_err(), 2);
        let (waited, ()) = tokio::join!(places.enter(Duration::from_secs(5)), async { drop(one) });
        assert!(waited.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_new_limit_holds_at_once() {
        let places = Places::default();
        places.limit(Some(1));
        let _held = places.enter(SHORT).await.unwrap();
        places.limit(Some(1));
        assert!(places.enter(SHORT).await.is_err(), "the same limit keeps its places");
        places.limit(Some(2));
        assert!(places.enter(SHORT).await.unwrap().is_some());
        places.limit(None);
        assert!(places.enter(SHORT).await.unwrap().is_none());
    }

    fn retries(budget: Option<f64>) -> Retries {
        Retries::new(&DialConfig { retry_budget: budget, ..DialConfig::default() })
    }

    #[test]
    fn the_budget_is_a_share_of_handshakes_and_comes_back() {
        let (retries, t0) = (retries(Some(0.5)), Instant::now());
        let granted = |now| (0..10_000).take_while(|_| retries.count(1, now)).count();
        assert!((0..1000).all(|_| retries.count(0, t0)));
        assert_eq!(granted(t0), 600);
        assert_eq!(granted(t0), 0);
        assert!(retries.count(0, t0), "the first backend is free");
        assert!(granted(t0 + MEMORY) > 50);
        assert!(granted(t0 + 20 * MEMORY) >= 99);
    }

    #[test]
    fn without_a_budget_every_retry_is_granted() {
        assert!((0..1000).all(|_| retries(None).count(1, Instant::now())));
    }

    #[test]
    fn pauses_double_to_a_bound_and_differ() {
        let retries = retries(None);
        for (failed, millis) in [(1, 25.0), (2, 50.0), (3, 100.0), (9, 1000.0), (60, 1000.0)] {
            let pause = retries.pause(failed).as_secs_f64() * 1000.0;
            assert!((millis * 0.5..=millis * 1.5).contains(&pause), "{failed}: {pause}");
        }
        let first = retries.pause(1);
        assert!((0..100).any(|_| retries.pause(1) != first));
    }
}
