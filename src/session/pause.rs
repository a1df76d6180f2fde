//! Notices that the gateway itself was stopped for a while, so that no peer is blamed for it.
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How often a worker's watchdog ticks.
pub const TICK: Duration = Duration::from_millis(500);
/// A tick later than this was a pause (SIGSTOP, a migrated or overbooked machine).
pub const LATE: Duration = Duration::from_secs(1);

/// The pauses of one worker. Every leg that sees a new epoch starts its heartbeat afresh.
#[derive(Debug)]
pub struct PauseWatch {
    last_tick: Cell<Instant>,
    epoch: Cell<u32>,
    unreported: Cell<Duration>,
}

impl PauseWatch {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last_tick: Cell::new(now), epoch: Cell::new(0), unreported: Cell::new(Duration::ZERO) }
    }

    /// The pause epoch at `now`: one more than before if no tick came for longer than [`TICK`] and [`LATE`] together.
    ///
    /// Sessions ask before they judge a deadline: after a pause a session may be polled before the watchdog is.
    pub fn observe(&self, now: Instant) -> u32 {
        let gap = now.saturating_duration_since(self.last_tick.get());
        if gap > TICK + LATE {
            self.epoch.set(self.epoch.get().wrapping_add(1));
            self.last_tick.set(now);
            self.unreported.set(self.unreported.get() + gap);
        }
        self.epoch.get()
    }

    /// The watchdog's tick. Answers how long the worker was paused, if it was since the last tick.
    pub fn tick(&self, now: Instant) -> Option<Duration> {
        self.observe(now);
        self.last_tick.set(now);
        let paused = self.unreported.take();
        (!paused.is_zero()).then_some(paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_on_time_are_no_pause() {
        let mut now = Instant::now();
        let watch = PauseWatch::new(now);
        for _ in 0..10 {
            now += TICK + LATE;
            assert_eq!(watch.tick(now), None);
            assert_eq!(watch.observe(now), 0);
        }
    }

    #[test]
    fn a_late_tick_is_a_pause_of_its_whole_gap() {
        let start = Instant::now();
        let watch = PauseWatch::new(start);
        let gap = TICK + LATE + Duration::from_millis(1);
        assert_eq!(watch.tick(start + gap), Some(gap));
        assert_eq!(watch.observe(start + gap), 1);
        assert_eq!(watch.tick(start + gap + TICK), None);
    }

    #[test]
    fn a_session_that_wakes_before_the_watchdog_notices_once_and_the_watchdog_tells() {
        let start = Instant::now();
        let watch = PauseWatch::new(start);
        let resumed = start + Duration::from_secs(10);
        assert_eq!(watch.observe(resumed), 1);
        assert_eq!(watch.observe(resumed), 1);
        assert_eq!(watch.tick(resumed), Some(Duration::from_secs(10)));
        assert_eq!(watch.tick(resumed + TICK), None);
    }

    #[test]
    fn two_pauses_are_two_epochs() {
        let start = Instant::now();
        let watch = PauseWatch::new(start);
        assert_eq!(watch.observe(start + Duration::from_secs(10)), 1);
        assert_eq!(watch.observe(start + Duration::from_secs(20)), 2);
    }
}
