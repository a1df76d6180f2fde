//! Points in time at half the size of an `Instant`: an idle session keeps a dozen of them.
use std::{
    num::NonZeroU64,
    ops::{Add, AddAssign, Sub},
    time::{Duration, Instant},
};

/// A point in time on one relay's [`Clock`], in nanoseconds; an `Option` of it is no larger. Its arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// When a clock starts. 146 years can be told before it, and 438 after it.
    pub const START: Self = Self::at(1 << 62);

    const fn at(nanos: u64) -> Self {
        match NonZeroU64::new(nanos) {
            Some(nanos) => Self(nanos),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Time since an earlier moment; none if that is later.
    #[inline]
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    #[inline]
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }
}

impl AddAssign<Duration> for Moment {
    #[inline]
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    #[inline]
    fn sub(self, time: Duration) -> Self {
        Self::at(self.0.get().saturating_sub(nanos(time)))
    }
}

impl Sub for Moment {
    type Output = Duration;
    #[inline]
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Eight bytes of nanoseconds are enough for 584 years.
#[inline]
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What tells instants as moments. It reads no time of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now, whenever that is.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { start: now }
    }

    /// The instant at which it was started.
    #[must_use]
    pub const fn start(&self) -> Instant {
        self.start
    }

    /// An instant as a moment; one before the start is the start.
    #[inline]
    #[must_use]
    pub fn moment(&self, instant: Instant) -> Moment {
        Moment::START + instant.saturating_duration_since(self.start)
    }

    /// A moment as an instant; one before the start is the start.
    #[inline]
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.saturating_duration_since(Moment::START)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_costs_eight_bytes_known_or_not() {
        assert_eq!((size_of::<Moment>(), size_of::<Option<Moment>>()), (8, 8));
    }

    #[test]
    fn an_instant_crosses_and_comes_back_unchanged() {
        let start = Instant::now();
        let clock = Clock::new(start);
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(400 * 365 * 86_400)] {
            assert_eq!(clock.moment(start + time), Moment::START + time);
            assert_eq!(clock.instant(Moment::START + time), start + time);
        }
        assert_eq!(clock.instant(Moment::START - Duration::from_secs(1)), start);
    }

    #[test]
    fn arithmetic_stays_within_what_can_be_told() {
        let day = Duration::from_secs(86_400);
        assert_eq!((Moment::START - day) + day, Moment::START);
        assert_eq!((Moment::START + day) - Moment::START, day);
        assert_eq!(Moment::START - (Moment::START + day), Duration::ZERO);
        let (last, first) = (Moment::START + Duration::MAX, Moment::START - Duration::MAX);
        assert!(first < Moment::START && Moment::START < last);
        assert_eq!((first - day, last + day), (first, last));
    }
}
