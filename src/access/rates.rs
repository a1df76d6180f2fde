//! How many handshakes and sessions a second, in all and from one address, in bounded memory.
use crate::pacing::Rate;
use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Sets of [`WAYS`] addresses that are remembered at a time, for each limit: 65,536 addresses, 1 MiB. Whoever has more of
/// them is held by the limits for all.
const SETS: usize = 8192;
/// An address has its place in one set. A full one forgets whoever asked least of late.
const WAYS: usize = 8;
/// Sets that share a lock.
const LOCKS: usize = 64;

/// `[gateway] rates`. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatesConfig {
    pub handshakes: Option<Rate>,
    pub handshakes_per_address: Option<Rate>,
    pub sessions: Option<Rate>,
    pub sessions_per_address: Option<Rate>,
}

/// The limits on what comes, shared by all workers.
#[derive(Debug)]
pub struct Rates {
    start: Instant,
    handshakes: Pair,
    sessions: Pair,
}

/// Which of the limits was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Handshakes,
    Sessions,
}

/// Too many came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub counted: Counted,
    /// Whether from one address; else in all.
    pub one_address: bool,
    /// When the next may come.
    pub wait: Duration,
}

#[derive(Debug, Default)]
struct Pair {
    all: Limiter,
    each: AddressLimiter,
}

impl Rates {
    /// Without limits. Times are told from `start` on.
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self { start, handshakes: Pair::default(), sessions: Pair::default() }
    }

    /// From now on these limits hold. What was counted stays, but nobody waits longer for it than these let anybody wait.
    pub fn set(&self, config: &RatesConfig, now: Instant) {
        let now = self.nanos(now);
        self.handshakes.all.set(config.handshakes, now);
        self.handshakes.each.set(config.handshakes_per_address, now);
        self.sessions.all.set(config.sessions, now);
        self.sessions.each.set(config.sessions_per_address, now);
    }

    /// One more of them comes. A client without an address is counted among all alone.
    ///
    /// # Errors
    /// The limit that it would pass. Who is refused for its address is not counted among all.
    pub fn take(&self, counted: Counted, client: Option<IpAddr>, now: Instant) -> Result<(), TooMany> {
        let (pair, now) = (self.pair(counted), self.nanos(now));
        if let Some(client) = client {
            pair.each.take(key(client), now).map_err(|wait| TooMany { counted, one_address: true, wait })?;
        }
        pair.all.take(now).map_err(|wait| TooMany { counted, one_address: false, wait })
    }

    /// Whether one more from its address would pass, which is not counted.
    ///
    /// # Errors
    /// The limit for one address, which it would pass.
    pub fn allow(&self, counted: Counted, client: Option<IpAddr>, now: Instant) -> Result<(), TooMany> {
        let (pair, now) = (self.pair(counted), self.nanos(now));
        let Some(client) = client else { return Ok(()) };
        pair.each.allow(key(client), now).map_err(|wait| TooMany { counted, one_address: true, wait })
    }

    fn pair(&self, counted: Counted) -> &Pair {
        match counted {
            Counted::Handshakes => &self.handshakes,
            Counted::Sessions => &self.sessions,
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An address as it is counted, an IPv6 one by its /64: that is what one subscriber is given. IPv4 addresses take the place of
/// `::/64` and its neighbours, which nobody has.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

/// A rate as two times: so long for each, and so far ahead of the clock at most, which is the burst. Zero: no limit.
#[derive(Debug, Default)]
struct Bounds {
    each: AtomicU64,
    ahead: AtomicU64,
}

impl Bounds {
    fn set(&self, rate: Option<Rate>) {
        let each = rate.map_or(0, |rate| nanos(rate.per) / u64::from(rate.count.get()));
        self.ahead.store(each.saturating_mul(rate.map_or(0, |rate| u64::from(rate.count.get()) - 1)), Relaxed);
        self.each.store(each, Relaxed);
    }

    fn off(&self) -> bool {
        self.each.load(Relaxed) == 0
    }

    /// The generic cell rate algorithm (ITU-T I.371): `due` is when all that came would have come at an even rate. Its next
    /// value, or how long to wait.
    fn next(&self, due: u64, now: u64) -> Result<u64, Duration> {
        let (each, ahead) = (self.each.load(Relaxed), self.ahead.load(Relaxed));
        let due = due.max(now);
        match (due - now).checked_sub(ahead) {
            None | Some(0) => Ok(due.saturating_add(each)),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }

    /// What was due under other bounds. Later than these let anything be due, it becomes the end of their burst: one passes, and
    /// the next at their pace.
    fn within(&self, due: u64, now: u64) -> u64 {
        let (each, ahead) = (self.each.load(Relaxed), self.ahead.load(Relaxed));
        let burst = now.saturating_add(ahead);
        if due > burst.saturating_add(each) { burst } else { due }
    }
}

/// For all together.
#[derive(Debug, Default)]
struct Limiter {
    bounds: Bounds,
    due: AtomicU64,
}

impl Limiter {
    fn set(&self, rate: Option<Rate>, now: u64) {
        self.bounds.set(rate);
        let _ = self.due.fetch_update(Relaxed, Relaxed, |due| Some(self.bounds.within(due, now)));
    }

    fn take(&self, now: u64) -> Result<(), Duration> {
        if self.bounds.off() {
            return Ok(());
        }
        let mut due = self.due.load(Relaxed);
        loop {
            let next = self.bounds.next(due, now)?;
            match self.due.compare_exchange_weak(due, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => due = changed,
            }
        }
    }
}

/// For each address.
#[derive(Debug, Default)]
struct AddressLimiter {
    bounds: Bounds,
    /// Made when there first is a limit.
    table: OnceLock<Table>,
}

impl AddressLimiter {
    fn set(&self, rate: Option<Rate>, now: u64) {
        self.bounds.set(rate);
        if let Some(table) = self.table.get() {
            table.each(|due| self.bounds.within(due, now));
        }
    }

    fn take(&self, key: u64, now: u64) -> Result<(), Duration> {
        if self.bounds.off() {
            return Ok(());
        }
        self.table.get_or_init(Table::default).with(key, |due| self.bounds.next(due, now))
    }

    fn allow(&self, key: u64, now: u64) -> Result<(), Duration> {
        match self.table.get() {
            Some(table) if !self.bounds.off() => self.bounds.next(table.due(key), now).map(drop),
            Some(_) | None => Ok(()),
        }
    }
}

/// When addresses are due, in memory of a fixed size.
#[derive(Debug)]
struct Table {
    locks: Vec<Mutex<Vec<Set>>>,
    /// Nobody outside can tell which addresses share a set.
    hasher: RandomState,
}

type Set = [Due; WAYS];

#[derive(Clone, Copy, Debug, Default)]
struct Due {
    key: u64,
    /// Zero: nobody's.
    at: u64,
}

impl Default for Table {
    fn default() -> Self {
        let sets = || Mutex::new(vec![Set::default(); SETS / LOCKS]);
        Self { locks: (0..LOCKS).map(|_| sets()).collect(), hasher: RandomState::new() }
    }
}

impl Table {
    /// What is known of an address, zero if that is nothing.
    fn due(&self, key: u64) -> u64 {
        let (sets, place) = self.set(key);
        sets[place].iter().find(|due| due.key == key).map_or(0, |due| due.at)
    }

    /// The place of an address among the sets that share its lock.
    fn set(&self, key: u64) -> (MutexGuard<'_, Vec<Set>>, usize) {
        let place = usize::try_from(self.hasher.hash_one(key) % (SETS as u64)).unwrap_or(0);
        (self.locks[place % LOCKS].lock().unwrap_or_else(PoisonError::into_inner), place / LOCKS)
    }

    /// Replaces what is known of each address.
    fn each(&self, next: impl Fn(u64) -> u64) {
        for sets in &self.locks {
            let mut sets = sets.lock().unwrap_or_else(PoisonError::into_inner);
            sets.iter_mut().flatten().for_each(|due| due.at = next(due.at));
        }
    }

    /// Lets `next` replace what is known of an address, zero if that is nothing.
    fn with(&self, key: u64, next: impl FnOnce(u64) -> Result<u64, Duration>) -> Result<(), Duration> {
        let (mut sets, place) = self.set(key);
        let set = &mut sets[place];
        let known = set.iter().position(|due| due.key == key && due.at > 0);
        let due = next(known.map_or(0, |way| set[way].at))?;
        let least = || (0..WAYS).min_by_key(|way| set[*way].at).unwrap_or(0);
        set[known.unwrap_or_else(least)] = Due { key, at: due };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{net::Ipv6Addr, num::NonZeroU32};

    const ADDRESSES: usize = SETS * WAYS;

    fn rate(count: u32, seconds: u64) -> Option<Rate> {
        Some(Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) })
    }

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn limited(config: RatesConfig) -> (Rates, Instant) {
        let start = Instant::now();
        let rates = Rates::new(start);
        rates.set(&config, start);
        (rates, start)
    }

    /// How many of a hundred pass at one time.
    fn passed(rates: &Rates, client: Option<IpAddr>, now: Instant) -> usize {
        (0..100).filter(|_| rates.take(Counted::Handshakes, client, now).is_ok()).count()
    }

    #[test]
    fn without_limits_everyone_passes_and_nothing_is_remembered() {
        let (rates, start) = limited(RatesConfig::default());
        assert_eq!(passed(&rates, client("192.0.2.1"), start), 100);
        assert!(rates.handshakes.each.table.get().is_none());
    }

    #[test]
    fn as_many_as_the_rate_names_may_come_at_once_and_then_evenly() {
        let (rates, start) = limited(RatesConfig { handshakes: rate(10, 1), ..RatesConfig::default() });
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(passed(&rates, None, start), 10);
        let refused = rates.take(Counted::Handshakes, None, start).unwrap_err();
        let wait = Duration::from_millis(100);
        assert_eq!(refused, TooMany { counted: Counted::Handshakes, one_address: false, wait });
        assert_eq!(passed(&rates, None, after(99)), 0);
        assert_eq!(passed(&rates, None, after(100)), 1);
        assert_eq!(passed(&rates, None, after(350)), 2);
        assert_eq!(passed(&rates, None, after(60_000)), 10, "what was not used is not saved up");
        assert!(rates.take(Counted::Sessions, None, start).is_ok(), "sessions are counted apart");
    }

    #[test]
    fn addresses_are_counted_apart_and_ipv6_by_its_64() {
        let (rates, now) = limited(RatesConfig { handshakes_per_address: rate(2, 60), ..RatesConfig::default() });
        assert_eq!(passed(&rates, client("192.0.2.1"), now), 2);
        assert_eq!(passed(&rates, client("::ffff:192.0.2.1"), now), 0);
        assert_eq!(passed(&rates, client("192.0.2.2"), now), 2);
        assert_eq!(passed(&rates, client("2001:db8:1:2::1"), now), 2);
        assert_eq!(passed(&rates, client("2001:db8:1:2:ffff::9"), now), 0);
        assert_eq!(passed(&rates, client("2001:db8:1:3::1"), now), 2);
        assert_eq!(passed(&rates, None, now), 100);
        let refused = rates.take(Counted::Handshakes, client("192.0.2.1"), now).unwrap_err();
        assert!(refused.one_address && refused.wait == Duration::from_secs(30), "{refused:?}");
    }

    #[test]
    fn to_ask_whether_one_would_pass_counts_nothing() {
        let (rates, now) = limited(RatesConfig { handshakes_per_address: rate(1, 60), ..RatesConfig::default() });
        let one = client("192.0.2.1");
        assert!((0..10).all(|_| rates.allow(Counted::Handshakes, one, now).is_ok()));
        assert_eq!(passed(&rates, one, now), 1);
        assert_eq!(rates.allow(Counted::Handshakes, one, now), rates.take(Counted::Handshakes, one, now));
        assert!(rates.allow(Counted::Handshakes, one, now).is_err());
        assert!(rates.allow(Counted::Handshakes, client("192.0.2.2"), now).is_ok());
        assert!(rates.allow(Counted::Sessions, one, now).is_ok());
    }

    #[test]
    fn who_is_refused_for_its_address_takes_nothing_from_the_others() {
        let config = RatesConfig { handshakes: rate(10, 1), handshakes_per_address: rate(4, 1), ..Default::default() };
        let (rates, now) = limited(config);
        assert_eq!(passed(&rates, client("192.0.2.1"), now), 4);
        assert_eq!(passed(&rates, client("192.0.2.2"), now), 4);
        assert_eq!(passed(&rates, client("192.0.2.3"), now), 2);
    }

    #[test]
    fn limits_change_and_can_be_taken_away() {
        let (rates, now) = limited(RatesConfig { handshakes: rate(1, 60), ..RatesConfig::default() });
        assert_eq!(passed(&rates, None, now), 1);
        rates.set(&RatesConfig { handshakes: rate(50, 1), ..RatesConfig::default() }, now);
        assert!(passed(&rates, None, now + Duration::from_secs(61)) == 50);
        rates.set(&RatesConfig::default(), now);
        assert_eq!(passed(&rates, None, now), 100);
    }

    #[test]
    fn a_limit_that_is_raised_holds_nobody_to_the_old_one() {
        let per_minute = RatesConfig { handshakes_per_address: rate(1, 60), ..RatesConfig::default() };
        let (each, start) = limited(per_minute);
        let (all, _) = limited(RatesConfig { handshakes: rate(1, 60), ..RatesConfig::default() });
        let now = start + Duration::from_secs(1);
        for (rates, raised) in [
            (&each, RatesConfig { handshakes_per_address: rate(50, 1), ..RatesConfig::default() }),
            (&all, RatesConfig { handshakes: rate(50, 1), ..RatesConfig::default() }),
        ] {
            let one = client("192.0.2.1");
            assert_eq!(passed(rates, one, now), 1);
            rates.set(&raised, now);
            assert_eq!(passed(rates, one, now), 1, "at once");
            assert_eq!(passed(rates, one, now + Duration::from_millis(40)), 2, "and then at the new pace");
            rates.set(&raised, now + Duration::from_millis(40));
            assert_eq!(
                passed(rates, one, now + Duration::from_millis(40)),
                0,
                "the same limit once more gives nothing"
            );
        }
    }

    #[test]
    fn a_limit_that_is_lowered_forgets_nothing() {
        let (rates, now) = limited(RatesConfig { handshakes: rate(60, 1), ..RatesConfig::default() });
        assert_eq!(passed(&rates, None, now), 60);
        rates.set(&RatesConfig { handshakes: rate(1, 60), ..RatesConfig::default() }, now);
        assert_eq!(passed(&rates, None, now + Duration::from_millis(999)), 0);
        assert_eq!(passed(&rates, None, now + Duration::from_secs(1)), 1);
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_and_refuses_no_stranger() {
        let (rates, now) = limited(RatesConfig { sessions_per_address: rate(1, 60), ..RatesConfig::default() });
        for number in 0..2 * ADDRESSES as u128 {
            let address = Ipv6Addr::from_bits((0x2001_0db8 << 96) | (number << 64));
            assert!(rates.take(Counted::Sessions, Some(address.into()), now).is_ok(), "{address}");
        }
        let table = rates.sessions.each.table.get().unwrap();
        let remembered: usize = table.locks.iter().map(|sets| sets.lock().unwrap().len() * WAYS).sum();
        assert_eq!(remembered, ADDRESSES);
        assert_eq!(size_of::<Set>() * SETS, 1 << 20);
    }

    #[test]
    fn whoever_asks_most_is_remembered_longest() {
        let (rates, now) = limited(RatesConfig { handshakes_per_address: rate(60, 60), ..RatesConfig::default() });
        let loud = client("192.0.2.1");
        assert_eq!(passed(&rates, loud, now), 60);
        for number in 0..2 * ADDRESSES as u128 {
            let quiet = Ipv6Addr::from_bits((0x2001_0db8 << 96) | (number << 64));
            assert!(rates.take(Counted::Handshakes, Some(quiet.into()), now).is_ok());
        }
        assert_eq!(passed(&rates, loud, now), 0, "a flood does not wash it away");
    }
}
