//! How long a backend that failed is left alone.
use std::{sync::Mutex, time::Duration};
use tokio::time::Instant;

/// The longest time a backend is left alone, unless `fail_timeout` itself is longer.
const LONGEST: Duration = Duration::from_secs(120);

/// What recent handshakes tell of a backend; shared by all workers, touched only by handshakes.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Up,
    /// Left alone from `since` until `until`, for `penalty` less or more.
    Down { since: Instant, until: Instant, penalty: Duration },
}

/// What a report changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It was up; it is left alone for this long.
    Down(Duration),
    /// It was down.
    Up,
}

impl Health {
    /// `None`: it may be chosen now. Otherwise when it may be.
    pub(super) fn alone_until(&self, now: Instant) -> Option<Instant> {
        match *self.lock() {
            State::Up => None,
            State::Down { until, .. } => (until > now).then_some(until),
        }
    }

    /// It is about to be tried: if it was down, others leave it alone until `over`, when this try has told more.
    pub(super) fn claim(&self, over: Instant) {
        match &mut *self.lock() {
            State::Up => {}
            State::Down { until, .. } => *until = (*until).max(over),
        }
    }

    /// A dial or handshake that began at `began` failed. Each failure in a row doubles the time; those that
    /// were under way when it was already known count once.
    pub(super) fn failed(&self, began: Instant, now: Instant, fail_timeout: Duration) -> Change {
        let mut state = self.lock();
        let (penalty, change) = match *state {
            State::Up => (fail_timeout, true),
            State::Down { since, .. } if began < since => return Change::None,
            State::Down { penalty, .. } => ((penalty * 2).min(LONGEST.max(fail_timeout)), false),
        };
        let alone = penalty.mul_f64(0.9 + 0.2 * fastrand::f64());
        *state = State::Down { since: now, until: now + alone, penalty };
        if change { Change::Down(alone) } else { Change::None }
    }

    /// A handshake succeeded, or was refused by a backend that works.
    pub(super) fn succeeded(&self) -> Change {
        match std::mem::take(&mut *self.lock()) {
            State::Up => Change::None,
            State::Down { .. } => Change::Up,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FAIL: Duration = Duration::from_secs(10);

    #[test]
    fn a_failure_is_told_once_and_a_success_resets() {
        let (health, t0) = (Health::default(), Instant::now());
        assert_eq!(health.alone_until(t0), None);
        let Change::Down(alone) = health.failed(t0, t0, FAIL) else { panic!("the first failure is a change") };
        assert!((FAIL.mul_f64(0.9)..=FAIL.mul_f64(1.1)).contains(&alone));
        assert_eq!(health.alone_until(t0), Some(t0 + alone));
        assert_eq!(health.alone_until(t0 + alone), None);
        let later = t0 + alone;
        assert_eq!(health.failed(later, later, FAIL), Change::None);
        assert_eq!(health.succeeded(), Change::Up);
        assert_eq!(health.succeeded(), Change::None);
        assert_eq!(health.alone_until(later), None);
    }

    #[test]
    fn the_time_grows_to_a_cap() {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..7 {
            health.failed(now, now, FAIL);
            let until = health.alone_until(now).unwrap();
            times.push((until - now).as_secs_f64());
            now = until;
        }
        for (time, nominal) in times.iter().zip([10.0, 20.0, 40.0, 80.0, 120.0, 120.0, 120.0]) {
            assert!((nominal * 0.9..=nominal * 1.1).contains(time), "{time} is not about {nominal}");
        }
        let long = FAIL * 60;
        let health = Health::default();
        health.failed(now, now, long);
        now = health.alone_until(now).unwrap();
        health.failed(now, now, long);
        assert!(health.alone_until(now).unwrap() - now <= long.mul_f64(1.1));
    }

    #[test]
    fn failures_under_way_together_count_once() {
        let (health, t0) = (Health::default(), Instant::now());
        let t1 = t0 + Duration::from_secs(1);
        health.failed(t0, t1, FAIL);
        let until = health.alone_until(t1);
        health.failed(t0, t1 + Duration::from_millis(5), FAIL);
        assert_eq!(health.alone_until(t1), until);
    }

    #[test]
    fn one_try_at_a_time_after_the_pause() {
        let (health, t0) = (Health::default(), Instant::now());
        health.failed(t0, t0, FAIL);
        let due = health.alone_until(t0).unwrap();
        assert_eq!(health.alone_until(due), None);
        health.claim(due + FAIL / 2);
        assert_eq!(health.alone_until(due), Some(due + FAIL / 2));
        assert_eq!(health.alone_until(due + FAIL / 2), None, "a try that told nothing");
        assert_eq!(health.succeeded(), Change::Up);
        health.claim(due + FAIL);
        assert_eq!(health.alone_until(due), None, "one that is up is everyone's");
    }
}
