//! How sessions that are to end are kept apart in time, so that their clients do not all come back at once.
use std::{collections::VecDeque, fmt, num::NonZeroU32, time::Duration, time::Instant};

/// More losses than this of one backend's sessions within [`WINDOW`] are many.
pub const MANY: usize = 100;
/// The time within which losses count together.
pub const WINDOW: Duration = Duration::from_secs(1);

/// How fast sessions are told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// However many there are, over this time.
    Spread(Duration),
    /// However long it takes, so many at a time.
    Rate(Rate),
}

/// A pace that takes at most so long, whatever it takes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded {
    pub pace: Pace,
    pub most: Duration,
}

impl Bounded {
    /// The time that this takes for so many `sessions`.
    #[must_use]
    pub fn time(self, sessions: usize) -> Duration {
        self.pace.time(sessions).min(self.most)
    }
}

/// So many sessions in each `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

/// Which sessions are told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    OldestFirst,
    Random,
}

/// One worker's part of a spread that all workers share evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub worker: u32,
    pub workers: u32,
}

impl Pace {
    /// The time that this takes for so many `sessions`.
    #[must_use]
    pub fn time(self, sessions: usize) -> Duration {
        match self {
            Self::Spread(time) => time,
            Self::Rate(rate) => {
                let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
                rate.per.mul_f64(f64::from(sessions) / f64::from(rate.count.get()))
            }
        }
    }
}

/// As it is written in `gateway.toml`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.per > Duration::from_secs(1) { 'm' } else { 's' };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Turns {
    /// Puts sessions, the oldest first, into the order in which they are told. `below` gives a random number below its
    /// argument.
    pub fn arrange<T>(self, sessions: &mut [T], mut below: impl FnMut(usize) -> usize) {
        match self {
            Self::OldestFirst => {}
            Self::Random => {
                for last in (1..sessions.len()).rev() {
                    sessions.swap(last, below(last + 1));
                }
            }
        }
    }
}

/// When each of this worker's `sessions` is told to end, from the start of the spread: even steps, and the workers'
/// steps interleaved. A worker's only session is told at once: it has nobody to keep apart from.
pub fn schedule(sessions: u32, spread: Duration, share: Share) -> impl Iterator<Item = Duration> {
    let steps = f64::from(sessions) * f64::from(share.workers);
    (0..sessions).map(move |i| {
        let first = if sessions == 1 { 0.0 } else { f64::from(share.worker) };
        let step = f64::from(i) * f64::from(share.workers) + first;
        spread.mul_f64(step / steps)
    })
}

/// Notices when more than [`MANY`] things happen within [`WINDOW`]. Holds at most so many instants and one.
#[derive(Clone, Debug, Default)]
pub struct Burst(VecDeque<Instant>);

impl Burst {
    /// Counts one; whether that makes it many.
    pub fn count(&mut self, now: Instant) -> bool {
        self.0.push_back(now);
        if self.0.len() > MANY + 1 {
            self.0.pop_front();
        }
        let first = self.0.front().copied().unwrap_or(now);
        self.0.len() > MANY && now.saturating_duration_since(first) <= WINDOW
    }
}

/// Makes the clients of a lost backend wait their turn to hear of it, once they are many.
#[derive(Debug, Default)]
pub struct Turnstile {
    losses: Burst,
    /// When the next one is told, and how far apart they are.
    next: Option<(Instant, Duration)>,
}

/// What a client of a lost backend is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is told at once.
    Now,
    /// The same; those who come after it within the next time wait.
    First,
    /// It is told then.
    At(Instant),
}

impl Turnstile {
    /// A session lost its backend, which has so many `sessions` still, this one among them. All of them are told within
    /// `time(sessions)` from the first that waits. `apart`: they are kept apart though they are not many yet.
    pub fn enter(&mut self, now: Instant, sessions: usize, apart: bool, time: impl FnOnce(usize) -> Duration) -> Turn {
        let burst = self.losses.count(now);
        let many = burst || apart;
        match self.next {
            Some((next, step)) if next > now => {
                self.next = Some((next + step, step));
                Turn::At(next)
            }
            // They come slower than they may be told.
            Some((next, step)) if many && now.saturating_duration_since(next) < WINDOW => {
                self.next = Some((now + step, step));
                Turn::Now
            }
            Some(_) | None if many => {
                let step = time(sessions) / u32::try_from(sessions.max(1)).unwrap_or(u32::MAX);
                self.next = Some((now + step, step));
                if burst { Turn::First } else { Turn::Now }
            }
            Some(_) | None => {
                self.next = None;
                Turn::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn rate(count: u32, per: Duration) -> Rate {
        Rate { count: NonZeroU32::new(count).unwrap(), per }
    }

    #[test]
    fn sessions_are_told_in_even_steps_over_all_workers() {
        let first: Vec<_> = schedule(3, secs(12), Share { worker: 0, workers: 2 }).collect();
        let second: Vec<_> = schedule(3, secs(12), Share { worker: 1, workers: 2 }).collect();
        assert_eq!(first, [secs(0), secs(4), secs(8)]);
        assert_eq!(second, [secs(2), secs(6), secs(10)]);
        assert_eq!(schedule(0, secs(12), Share { worker: 0, workers: 1 }).count(), 0);
        let lone: Vec<_> = schedule(1, secs(12), Share { worker: 1, workers: 2 }).collect();
        assert_eq!(lone, [secs(0)], "a lone session is not kept waiting");
        assert!(schedule(5, Duration::ZERO, Share { worker: 0, workers: 1 }).all(|due| due.is_zero()));
    }

    #[test]
    fn a_rate_takes_as_long_as_there_are_sessions() {
        assert_eq!(Pace::Spread(secs(15)).time(1_000_000), secs(15));
        assert_eq!(Pace::Rate(rate(100, secs(1))).time(1_000), secs(10));
        assert_eq!(Pace::Rate(rate(30, secs(60))).time(15), secs(30));
        assert_eq!(Pace::Rate(rate(100, secs(1))).time(0), Duration::ZERO);
        assert_eq!((rate(100, secs(1)).to_string(), rate(30, secs(60)).to_string()), ("100/s".into(), "30/m".into()));
    }

    #[test]
    fn workers_with_unequal_numbers_keep_the_rate_together() {
        let (spread, workers) = (Pace::Rate(rate(10, secs(1))).time(100), 2);
        let few = schedule(10, spread, Share { worker: 0, workers });
        let many = schedule(90, spread, Share { worker: 1, workers });
        let told: Vec<Duration> = few.chain(many).collect();
        for second in 0..10 {
            let within = told.iter().filter(|at| at.as_secs() == second).count();
            assert!((9..=11).contains(&within), "{within} in second {second}");
        }
    }

    #[test]
    fn a_random_order_is_one_of_all() {
        let mut sessions: Vec<u32> = (0..50).collect();
        Turns::OldestFirst.arrange(&mut sessions, |_| panic!("nothing random is asked for"));
        assert!(sessions.is_sorted());
        let mut state = 7;
        Turns::Random.arrange(&mut sessions, |below| {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            state % below
        });
        assert!(!sessions.is_sorted());
        sessions.sort_unstable();
        assert_eq!(sessions, (0..50).collect::<Vec<u32>>());
    }

    /// When each of `lost` sessions that are lost at once, of so many that a backend has, is told.
    fn waits(lost: usize, sessions: usize, spread: Duration) -> Vec<Duration> {
        let (now, mut turnstile) = (Instant::now(), Turnstile::default());
        (0..lost)
            .map(|gone| match turnstile.enter(now, sessions - gone, false, |_| spread) {
                Turn::Now | Turn::First => Duration::ZERO,
                Turn::At(at) => at - now,
            })
            .collect()
    }

    #[test]
    fn a_hundred_losses_are_told_at_once() {
        assert!(waits(MANY, 10_000, secs(15)).iter().all(Duration::is_zero));
    }

    #[test]
    fn the_rest_of_a_lost_backend_is_told_evenly_within_the_spread() {
        let waits = waits(1_100, 1_100, secs(10));
        assert!(waits[..=MANY].iter().all(Duration::is_zero));
        assert_eq!((waits[MANY + 1], waits[MANY + 500]), (Duration::from_millis(10), secs(5)));
        assert!(waits.is_sorted() && *waits.last().unwrap() <= secs(10), "{:?}", waits.last());
    }

    #[test]
    fn losses_that_come_slowly_never_wait() {
        let (start, mut turnstile) = (Instant::now(), Turnstile::default());
        for i in 0..1_000 {
            let now = start + Duration::from_millis(11) * i;
            assert_eq!(turnstile.enter(now, 1_000, false, |_| secs(15)), Turn::Now);
        }
    }

    #[test]
    fn a_few_that_are_kept_apart_are_told_evenly_from_the_first() {
        let (now, mut turnstile) = (Instant::now(), Turnstile::default());
        let mut turn = |gone: usize| turnstile.enter(now, 20 - gone, true, |_| secs(20));
        assert_eq!([turn(0), turn(1), turn(2)], [Turn::Now, Turn::At(now + secs(1)), Turn::At(now + secs(2))]);
        let later = now + secs(60);
        assert_eq!(turnstile.enter(later, 20, true, |_| secs(20)), Turn::Now);
    }

    #[test]
    fn after_quiet_the_next_burst_begins_anew() {
        let (now, mut turnstile) = (Instant::now(), Turnstile::default());
        let mut burst = |now| (0..200).filter(|_| turnstile.enter(now, 200, false, |_| secs(1)) == Turn::First).count();
        assert_eq!(burst(now), 1);
        assert_eq!(burst(now + secs(60)), 1);
        assert_eq!(turnstile.enter(now + secs(120), 1, false, |_| secs(1)), Turn::Now);
    }
}
