//! Who may open a session now: session, address and memory limits, and draining.
use super::crowd::Crowd;
use crate::{access::rates::Rates, route::RouteConfig};
use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

/// The limits on all sessions of the gateway, shared by all workers.
pub struct Admission {
    max_sessions: AtomicUsize,
    /// In bytes; the greatest number where there is no limit.
    memory_limit: AtomicU64,
    held: Option<Held>,
    draining: AtomicBool,
    sessions: AtomicUsize,
    by_address: Mutex<HashMap<AddressKey, u32>>,
    crowd: Crowd,
    rates: Rates,
    max_connections: AtomicUsize,
    connections: AtomicUsize,
}

/// Bytes held now.
pub type Held = Box<dyn Fn() -> u64 + Send + Sync>;

/// A limit on the bytes in the outboxes of all sessions together. What waits elsewhere is not seen: with rustls one batch of
/// records of each TLS leg (at most 80 KiB, its buffer's limit), and what the kernel holds.
pub struct MemoryLimit {
    /// In bytes, as in `gateway.toml`. `None`: no limit, until one is set.
    pub limit: Option<u64>,
    /// Asked once per handshake, while there is a limit.
    pub held: Held,
}

/// Why no session may be opened now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    Draining,
    /// `max_sessions` are open.
    Full,
    /// The outboxes hold nearly `memory_limit`.
    Memory,
    /// `max_http_connections` of clients that ask plain HTTP are open.
    Connections,
    /// The client's address has `limits.sessions_per_address` open on this route.
    Address,
}

/// Sessions are counted per route and address, an IPv6 one by its /64: that is what one subscriber is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AddressKey {
    route: String,
    address: IpAddr,
}

impl AddressKey {
    fn new(route: &RouteConfig, address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        };
        Self { route: route.name.clone(), address }
    }
}

impl Admission {
    #[must_use]
    pub fn new(max_sessions: usize, memory: Option<MemoryLimit>) -> Arc<Self> {
        let (limit, held) = memory.map_or((None, None), |memory| (memory.limit, Some(memory.held)));
        Arc::new(Self {
            max_sessions: AtomicUsize::new(max_sessions),
            memory_limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            held,
            draining: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            by_address: Mutex::default(),
            crowd: Crowd::default(),
            rates: Rates::new(Instant::now()),
            max_connections: AtomicUsize::new(usize::MAX),
            connections: AtomicUsize::new(0),
        })
    }

    /// The right of a client's connection to ask plain HTTP.
    ///
    /// # Errors
    /// The limit that stands in the way. A drain is none: what is open is served to its end.
    pub fn admit_connection(self: &Arc<Self>) -> Result<Place, Denied> {
        if !self.has_memory() {
            return Err(Denied::Memory);
        }
        let most = self.max_connections.load(Ordering::Relaxed);
        let one_more = |open: usize| (open < most).then_some(open + 1);
        let admitted = self.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        admitted.map_err(|_| Denied::Connections)?;
        Ok(Place(Arc::clone(self)))
    }

    /// From now on so many connections may ask plain HTTP at a time. Who is in stays.
    pub fn limit_connections(&self, max_connections: usize) {
        self.max_connections.store(max_connections, Ordering::Relaxed);
    }

    /// Connections that ask plain HTTP.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Whether places for them run short, so that connections are better ended than kept for a next request.
    #[must_use]
    pub fn crowded(&self) -> bool {
        let most = self.max_connections.load(Ordering::Relaxed);
        self.connections() >= most - most / 4
    }

    /// The right to open a session on `route`. `client` is `None` where there is no address to count by.
    ///
    /// # Errors
    /// The limit that stands in the way.
    pub fn admit(self: &Arc<Self>, route: &RouteConfig, client: Option<IpAddr>) -> Result<Permit, Denied> {
        if self.draining.load(Ordering::Acquire) {
            return Err(Denied::Draining);
        }
        if !self.has_memory() {
            return Err(Denied::Memory);
        }
        let max_sessions = self.max_sessions.load(Ordering::Relaxed);
        let one_more = |open: usize| (open < max_sessions).then_some(open + 1);
        self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).map_err(|_| Denied::Full)?;
        // From here on the drop of the permit gives back what was taken.
        let mut permit = Permit { admission: Arc::clone(self), address: None };
        if let (Some(limit), Some(client)) = (route.options.sessions_per_address, client) {
            let key = AddressKey::new(route, client);
            let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let open = counts.entry(key.clone()).or_default();
            if *open >= limit {
                if *open == 0 {
                    counts.remove(&key);
                }
                drop(counts);
                return Err(Denied::Address);
            }
            *open += 1;
            permit.address = Some(Box::new(key));
        }
        Ok(permit)
    }

    /// Who the sessions' clients are.
    #[must_use]
    pub(super) fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// The last eighth of the limit is kept for the sessions that exist: new ones are refused before it is reached.
    fn has_memory(&self) -> bool {
        let limit = self.memory_limit.load(Ordering::Relaxed);
        limit == u64::MAX || self.held.as_ref().is_none_or(|held| held() < limit - limit / 8)
    }

    /// From now on these limits hold. Who is in stays.
    pub fn limit(&self, max_sessions: usize, memory_limit: Option<u64>) {
        self.max_sessions.store(max_sessions, Ordering::Relaxed);
        self.memory_limit.store(memory_limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Sessions that may be open at a time.
    #[must_use]
    pub fn max_sessions(&self) -> usize {
        self.max_sessions.load(Ordering::Relaxed)
    }

    /// How many may come in a second.
    #[must_use]
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// From now on nobody is admitted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Sessions that are open, or about to be.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("sessions", &self.sessions())
            .field("max_sessions", &self.max_sessions.load(Ordering::Relaxed))
            .field("draining", &self.draining())
            .finish_non_exhaustive()
    }
}

/// The right of one connection to ask plain HTTP; given back on drop.
#[derive(Debug)]
pub struct Place(Arc<Admission>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The right to hold one session; given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    /// Boxed: few routes set a limit per address.
    address: Option<Box<AddressKey>>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.sessions.fetch_sub(1, Ordering::AcqRel);
        let Some(key) = self.address.take().map(|key| *key) else { return };
        let mut counts = self.admission.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = counts.get_mut(&key) {
            *open -= 1;
            if *open == 0 {
                counts.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::route::{HostPattern, tests::route};

    fn limited(path: &str, sessions: u32) -> RouteConfig {
        let mut route = route(HostPattern::Any, path);
        route.options.sessions_per_address = Some(sessions);
        route
    }

    fn client(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_permit_is_given_back_on_drop() {
        let admission = Admission::new(2, None);
        let route = route(HostPattern::Any, "/");
        let first = admission.admit(&route, None).unwrap();
        let _second = admission.admit(&route, None).unwrap();
        assert_eq!(admission.admit(&route, None).unwrap_err(), Denied::Full);
        drop(first);
        assert_eq!(admission.sessions(), 1);
        assert!(admission.admit(&route, None).is_ok());
    }

    #[test]
    fn addresses_are_counted_per_route() {
        let admission = Admission::new(9, None);
        let (chat, feed) = (limited("/chat", 1), limited("/feed", 1));
        let first = admission.admit(&chat, client("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(&chat, client("::ffff:192.0.2.1")).unwrap_err(), Denied::Address);
        let _other_address = admission.admit(&chat, client("192.0.2.2")).unwrap();
        let _other_route = admission.admit(&feed, client("192.0.2.1")).unwrap();
        let _nobody = admission.admit(&chat, None).unwrap();
        assert_eq!(admission.sessions(), 4, "a refused session is not counted");
        drop(first);
        assert!(admission.admit(&chat, client("192.0.2.1")).is_ok());
    }

    #[test]
    fn ipv6_is_counted_by_its_64() {
        let admission = Admission::new(9, None);
        let chat = limited("/chat", 1);
        let _first = admission.admit(&chat, client("2001:db8:1:2::1")).unwrap();
        assert_eq!(admission.admit(&chat, client("2001:db8:1:2:ffff::9")).unwrap_err(), Denied::Address);
        assert!(admission.admit(&chat, client("2001:db8:1:3::1")).is_ok());
    }

    #[test]
    fn no_count_outlives_its_sessions() {
        let admission = Admission::new(9, None);
        drop(admission.admit(&limited("/", 2), client("192.0.2.1")).unwrap());
        assert_eq!(admission.admit(&limited("/", 0), client("192.0.2.1")).unwrap_err(), Denied::Address);
        assert!(admission.by_address.lock().unwrap().is_empty());
        assert_eq!(admission.sessions(), 0);
    }

    #[test]
    fn memory_refuses_before_its_limit() {
        let held = Arc::new(AtomicU64::new(0));
        let gauge = Arc::clone(&held);
        let memory = MemoryLimit { limit: Some(800), held: Box::new(move || gauge.load(Ordering::Relaxed)) };
        let admission = Admission::new(9, Some(memory));
        let route = route(HostPattern::Any, "/");
        held.store(699, Ordering::Relaxed);
        assert!(admission.admit(&route, None).is_ok());
        held.store(700, Ordering::Relaxed);
        assert_eq!(admission.admit(&route, None).unwrap_err(), Denied::Memory);
    }

    #[test]
    fn limits_change_and_those_who_are_in_stay() {
        let held = MemoryLimit { limit: None, held: Box::new(|| 1000) };
        let admission = Admission::new(2, Some(held));
        let route = route(HostPattern::Any, "/");
        let _in = [admission.admit(&route, None).unwrap(), admission.admit(&route, None).unwrap()];
        admission.limit(1, None);
        assert_eq!(admission.admit(&route, None).unwrap_err(), Denied::Full);
        assert_eq!(admission.sessions(), 2);
        admission.limit(3, Some(1000));
        assert_eq!(admission.admit(&route, None).unwrap_err(), Denied::Memory);
        admission.limit(3, Some(2000));
        assert!(admission.admit(&route, None).is_ok());
    }

    #[test]
    fn a_draining_gateway_admits_nobody() {
        let admission = Admission::new(9, None);
        let route = route(HostPattern::Any, "/");
        let _before = admission.admit(&route, None).unwrap();
        admission.drain();
        assert_eq!(admission.admit(&route, None).unwrap_err(), Denied::Draining);
        assert_eq!(admission.sessions(), 1);
    }
}
