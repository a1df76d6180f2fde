//! When a session's timer is set for: a little late, so that those of many sessions share a wake-up.
//!
//! A worker that wakes from sleep for one ping pays more for the wake-up, with all its caches cold, than for the ping.

use std::{
    cell::OnceCell,
    time::{Duration, Instant},
};

/// Timers that fire in one wake-up, about. More would save little, and hold up the sessions that have data.
const TOGETHER: u64 = 16;
/// Milliseconds in which a session sets a timer once, about: each leg pings every 20 s by default.
const EACH: u64 = 10_000;
/// A timer is late by at most this share of its wait,
const SHARE: u64 = 32;
/// and by at most this, in milliseconds.
const LATEST: u64 = 128;

thread_local! {
    /// From here each worker counts its steps.
    static ORIGIN: OnceCell<Instant> = const { OnceCell::new() };
}

/// The end of the step in which `due` lies. The more `sessions` a worker has, the smaller the steps: with very many,
/// enough timers fire together anyway.
pub(super) fn together(due: Instant, now: Instant, sessions: usize) -> Instant {
    let wait = u64::try_from(due.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
    let step = (wait / SHARE).min(LATEST).min(TOGETHER * EACH / (sessions as u64).max(1));
    // Steps are powers of two, so that a longer one ends where shorter ones do. One millisecond is what timers know.
    let Some(step) = step.checked_ilog2().filter(|power| *power > 0).map(|power| 1 << power) else { return due };
    let origin = ORIGIN.with(|origin| *origin.get_or_init(|| now));
    let since = due.saturating_duration_since(origin).as_nanos().div_ceil(1_000_000);
    u64::try_from(since).map_or(due, |since| origin + Duration::from_millis(since.next_multiple_of(step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);

    /// The points in time at which a worker wakes in 20 s, in which both legs of each session ping once: when one did,
    /// the session waits for the other.
    fn wake_ups(sessions: usize) -> Vec<Instant> {
        let now = Instant::now();
        let timers = u32::try_from(sessions * 2).expect("few enough");
        let due = (0..timers).map(|number| now + INTERVAL + INTERVAL * number / timers);
        let wait = |number: usize| INTERVAL * (number % 10 + 1) as u32 / 10;
        let mut at: Vec<_> = due.enumerate().map(|(number, due)| together(due, due - wait(number), sessions)).collect();
        at.sort();
        at.dedup();
        at
    }

    #[test]
    fn timers_are_never_early_and_late_by_their_share_at_most() {
        let now = Instant::now();
        for sessions in [0, 1, 100, 10_000, 1_000_000] {
            for wait in [0, 1, 2, 63, 64, 100, 300, 1_000, 5_000, 20_000, 86_400_000, 40_000_000_000] {
                let wait = Duration::from_millis(wait) + Duration::from_nanos(7);
                let due = now + wait;
                let late = together(due, now, sessions).checked_duration_since(due).expect("not early");
                let rounding = Duration::from_millis(1);
                assert!(
                    late <= wait / 32 + rounding && late <= Duration::from_millis(128) + rounding,
                    "{wait:?} {late:?}"
                );
            }
        }
    }

    #[test]
    fn a_short_wait_is_exact() {
        let now = Instant::now();
        let due = now + Duration::from_micros(63_999);
        assert_eq!(together(due, now, 1), due);
    }

    #[test]
    fn what_is_due_already_stays_so() {
        let now = Instant::now();
        let due = now.checked_sub(INTERVAL).unwrap_or(now);
        assert_eq!(together(due, now, 1), due);
    }

    #[test]
    fn about_as_many_fire_together_whether_sessions_are_few_or_many() {
        for sessions in [1_000, 2_500, 5_000, 9_000] {
            let pings = sessions * 2;
            let each = pings / wake_ups(sessions).len();
            assert!((5..=16).contains(&each), "{each} of {sessions} sessions in a wake-up");
        }
    }
}
