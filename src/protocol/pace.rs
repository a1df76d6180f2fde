//! Whether a side keeps pace: bytes a second, averaged over the time in which it had something to do.
use super::moment::{Moment, nanos};
use std::time::Duration;

/// What a side must keep up with.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The time over which it is averaged (`timeouts.stall`). `None`: nobody is judged.
    pub window: Option<Duration>,
    /// Bytes a second (`limits.pace`). `None`: any byte at all will do.
    pub floor: Option<u64>,
}

impl Pace {
    fn wanted(&self, window: Duration) -> u64 {
        let floor = self.floor.unwrap_or(0) as u128;
        ((floor * window.as_millis() / 1000) as u64).max(1)
    }
}

/// Adds up time under way and bytes moved in it. Time in which the side has nothing to do does not count.
///
/// Its counts are made when it first runs, and kept from then on: most sides never have to be waited for.
#[derive(Debug, Default)]
pub struct Meter(Option<Box<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// It runs.
    since: Option<Moment>,
    /// In nanoseconds.
    spent: u64,
    moved: u64,
}

impl Meter {
    /// Whether something waits for the side.
    #[inline]
    #[must_use]
    pub fn runs(&self) -> bool {
        self.0.as_ref().is_some_and(|counts| counts.since.is_some())
    }

    /// Something waits for the side, from now on.
    #[inline]
    pub fn run(&mut self, now: Moment) {
        self.0.get_or_insert_default().since.get_or_insert(now);
    }

    /// Nothing waits for the side any more.
    #[inline]
    pub fn rest(&mut self, now: Moment) {
        if let Some(counts) = &mut self.0
            && let Some(since) = counts.since.take()
        {
            counts.spent = counts.spent.saturating_add(nanos(now - since));
        }
    }

    /// Bytes moved while it ran.
    #[inline]
    pub fn moved(&mut self, count: usize) {
        if let Some(counts) = &mut self.0
            && counts.since.is_some()
        {
            counts.moved += count as u64;
        }
    }

    /// Bytes moved without waiting, which speaks for a side that had to be waited for in this window.
    #[inline]
    pub fn passed(&mut self, count: usize) {
        if let Some(counts) = &mut self.0
            && counts.spent > 0
        {
            counts.moved += count as u64;
        }
    }

    /// Nothing is left to be slow at: what was counted does not count.
    #[inline]
    pub fn forget(&mut self) {
        if let Some(counts) = &mut self.0 {
            **counts = Counts::default();
        }
    }

    /// Starts a new window; a meter that ran goes on running.
    pub fn restart(&mut self, now: Moment) {
        if let Some(counts) = &mut self.0 {
            **counts = Counts { since: counts.since.map(|_| now), ..Counts::default() };
        }
    }

    /// When the window is full, if it goes on like this.
    #[must_use]
    pub fn poll_timeout(&self, pace: Pace) -> Option<Moment> {
        let counts = self.0.as_deref()?;
        Some(counts.since? + pace.window?.saturating_sub(Duration::from_nanos(counts.spent)))
    }

    /// Whether a full window lies behind and was too slow. A full window is followed by a new one.
    pub fn stalled(&mut self, pace: Pace, now: Moment) -> bool {
        let Some(counts) = self.0.as_deref() else { return false };
        let (Some(since), Some(window)) = (counts.since, pace.window) else { return false };
        if Duration::from_nanos(counts.spent) + (now - since) < window {
            return false;
        }
        let slow = counts.moved < pace.wanted(window);
        self.restart(now);
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { window: Some(Duration::from_secs(60)), floor: Some(256) };

    #[test]
    fn one_byte_now_and_then_is_a_stall() {
        let start = Moment::START;
        let mut meter = Meter::default();
        meter.run(start);
        for _ in 0..60 {
            meter.moved(1);
        }
        assert!(!meter.stalled(PACE, start + Duration::from_secs(59)));
        assert!(meter.stalled(PACE, start + Duration::from_secs(60)));
    }

    #[test]
    fn a_slow_but_steady_side_goes_on() {
        let start = Moment::START;
        let mut meter = Meter::default();
        meter.run(start);
        meter.moved(256 * 60);
        assert!(!meter.stalled(PACE, start + Duration::from_secs(60)));
        assert_eq!(meter.poll_timeout(PACE), Some(start + Duration::from_secs(120)));
    }

    #[test]
    fn time_with_nothing_to_do_does_not_count() {
        let start = Moment::START;
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut meter = Meter::default();
        meter.run(at(0));
        meter.rest(at(30));
        assert_eq!(meter.poll_timeout(PACE), None);
        meter.run(at(1000));
        assert_eq!(meter.poll_timeout(PACE), Some(at(1030)));
        assert!(meter.stalled(PACE, at(1030)));
    }

    #[test]
    fn what_moves_between_waits_counts() {
        let start = Moment::START;
        let mut meter = Meter::default();
        let mut now = start;
        for _ in 0..61 {
            meter.run(now);
            now += Duration::from_secs(1);
            meter.moved(1);
            meter.rest(now);
            meter.passed(500);
        }
        meter.run(now);
        assert!(!meter.stalled(PACE, now));
    }

    #[test]
    fn no_floor_means_any_byte() {
        let start = Moment::START;
        let pace = Pace { floor: None, ..PACE };
        let mut meter = Meter::default();
        meter.run(start);
        meter.moved(1);
        assert!(!meter.stalled(pace, start + Duration::from_secs(60)));
        assert!(meter.stalled(pace, start + Duration::from_secs(120)));
    }
}
