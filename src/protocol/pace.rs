//! Whether a side keeps pace: bytes a second, averaged over the time in which it had something to do.
use std::time::{Duration, Instant};

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
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    since: Option<Instant>,
    /// In nanoseconds.
    spent: u64,
    moved: u64,
}

impl Meter {
    /// Something waits for the side, from now on.
    #[inline]
    pub fn run(&mut self, now: Instant) {
        if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// Nothing waits for the side any more.
    #[inline]
    pub fn rest(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.spent = self.spent.saturating_add(nanos(now.saturating_duration_since(since)));
        }
    }

    /// Bytes moved while it ran.
    #[inline]
    pub fn moved(&mut self, count: usize) {
        if self.since.is_some() {
            self.moved += count as u64;
        }
    }

    /// Bytes moved without waiting, which speaks for a side that had to be waited for in this window.
    #[inline]
    pub fn passed(&mut self, count: usize) {
        if self.spent > 0 {
            self.moved += count as u64;
        }
    }

    /// Nothing is left to be slow at: what was counted does not count.
    #[inline]
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Starts a new window; a meter that ran goes on running.
    pub fn restart(&mut self, now: Instant) {
        *self = Self { since: self.since.map(|_| now), ..Self::default() };
    }

    /// When the window is full, if it goes on like this.
    #[must_use]
    pub fn poll_timeout(&self, pace: Pace) -> Option<Instant> {
        Some(self.since? + pace.window?.saturating_sub(Duration::from_nanos(self.spent)))
    }

    /// Whether a full window lies behind and was too slow. A full window is followed by a new one.
    pub fn stalled(&mut self, pace: Pace, now: Instant) -> bool {
        let (Some(since), Some(window)) = (self.since, pace.window) else { return false };
        if Duration::from_nanos(self.spent) + now.saturating_duration_since(since) < window {
            return false;
        }
        let slow = self.moved < pace.wanted(window);
        self.restart(now);
        slow
    }
}

/// Eight bytes of time are enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { window: Some(Duration::from_secs(60)), floor: Some(256) };

    #[test]
    fn one_byte_now_and_then_is_a_stall() {
        let start = Instant::now();
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
        let start = Instant::now();
        let mut meter = Meter::default();
        meter.run(start);
        meter.moved(256 * 60);
        assert!(!meter.stalled(PACE, start + Duration::from_secs(60)));
        assert_eq!(meter.poll_timeout(PACE), Some(start + Duration::from_secs(120)));
    }

    #[test]
    fn time_with_nothing_to_do_does_not_count() {
        let start = Instant::now();
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
        let start = Instant::now();
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
        let start = Instant::now();
        let pace = Pace { floor: None, ..PACE };
        let mut meter = Meter::default();
        meter.run(start);
        meter.moved(1);
        assert!(!meter.stalled(pace, start + Duration::from_secs(60)));
        assert!(meter.stalled(pace, start + Duration::from_secs(120)));
    }
}
