//! Whether a backend is well, and for how long it is left alone if it is not.
use crate::metrics::Ejection;
use std::{fmt, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// The longest time a backend is left alone, unless `fail_timeout` itself is longer.
const LONGEST: Duration = Duration::from_secs(120);
/// When a backend returns that is left alone until a check passes: no time is known, but it is after all that have one.
const UNKNOWN: Duration = Duration::from_secs(24 * 60 * 60);
/// The least part of its share that a backend gets which has just returned.
const FIRST_PART: f64 = 0.05;

/// What is known of a backend's health; shared by all workers, touched only by handshakes, ends and checks.
#[derive(Debug, Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

/// Why a backend is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub kind: Ejection,
    /// For the log.
    pub words: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

#[derive(Clone, Debug)]
enum State {
    /// Since then, if it was down before.
    Up { since: Option<Instant> },
    /// A handshake tells when it is over: left alone from `since` until `until`, for `penalty` less or more. One tries it then,
    /// and others wait until `tried` for what that tells.
    Resting { cause: Cause, since: Instant, until: Instant, penalty: Duration, tried: Option<Instant> },
    /// A check tells when it is over.
    Out { cause: Cause },
}

impl Default for State {
    fn default() -> Self {
        Self::Up { since: None }
    }
}

/// What a report changed, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It was up, or had another cause to be down.
    Down(Rest),
    /// It was down, for this.
    Up(Ejection),
}

/// For how long a backend is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    For(Duration),
    UntilChecked,
}

/// As it stands in `others are tried first …`.
impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(time) => write!(f, "for {time:.1?}"),
            Self::UntilChecked => f.write_str("until it answers a check"),
        }
    }
}

impl Health {
    /// `None`: it may be chosen now. Otherwise when it may be.
    pub(super) fn alone_until(&self, now: Instant) -> Option<Instant> {
        match &*self.lock() {
            State::Up { .. } => None,
            State::Resting { until, tried, .. } => Some(tried.map_or(*until, |tried| tried.max(*until))),
            State::Out { .. } => Some(now + UNKNOWN),
        }
        .filter(|until| *until > now)
    }

    /// Whether only a check brings it back.
    pub(super) fn is_out(&self) -> bool {
        matches!(&*self.lock(), State::Out { .. })
    }

    /// Why it is down, and for how long still, if a time was set. `None`: it is up, or due to be tried again.
    pub(super) fn ailment(&self, now: Instant) -> Option<(Cause, Option<Duration>)> {
        match &*self.lock() {
            State::Up { .. } => None,
            State::Resting { cause, until, tried, .. } => {
                let until = tried.map_or(*until, |tried| tried.max(*until));
                (until > now).then(|| (cause.clone(), Some(until - now)))
            }
            State::Out { cause } => Some((cause.clone(), None)),
        }
    }

    /// It is about to be tried: if it was down, others leave it alone until `over`, when this try has told more.
    pub(super) fn claim(&self, over: Instant) {
        match &mut *self.lock() {
            State::Up { .. } | State::Out { .. } => {}
            State::Resting { tried, .. } => *tried = Some(tried.map_or(over, |tried| tried.max(over))),
        }
    }

    /// Whether it was down, its time is over, and what is asked of it now is to tell whether it is back.
    pub(super) fn on_trial(&self, now: Instant) -> bool {
        match &*self.lock() {
            State::Resting { until, .. } => *until <= now,
            State::Up { .. } | State::Out { .. } => false,
        }
    }

    /// The part of its share that it is to get: less than all of it for `slow_start` after it has returned.
    pub(super) fn part(&self, now: Instant, slow_start: Option<Duration>) -> f64 {
        match (&*self.lock(), slow_start) {
            (State::Up { since: Some(since) }, Some(time)) => {
                (now.saturating_duration_since(*since).as_secs_f64() / time.as_secs_f64()).clamp(FIRST_PART, 1.0)
            }
            (State::Up { .. } | State::Resting { .. } | State::Out { .. }, _) => 1.0,
        }
    }

    /// A dial or handshake that began at `began` failed, or sessions of its did. Each failure in a row doubles the time; those that
    /// were under way when it was already known count once, and those from before it returned not at all.
    pub(super) fn failed(&self, cause: Cause, began: Instant, now: Instant, fail_timeout: Duration) -> Change {
        let mut state = self.lock();
        let (penalty, change) = match &*state {
            State::Up { since: Some(since) } if began < *since => return Change::None,
            State::Up { .. } => (fail_timeout, true),
            State::Out { .. } => return Change::None,
            State::Resting { since, .. } if began < *since => return Change::None,
            State::Resting { penalty, .. } => ((*penalty * 2).min(LONGEST.max(fail_timeout)), false),
        };
        let alone = penalty.mul_f64(0.9 + 0.2 * fastrand::f64());
        *state = State::Resting { cause, since: now, until: now + alone, penalty, tried: None };
        if change { Change::Down(Rest::For(alone)) } else { Change::None }
    }

    /// A handshake that began at `began` succeeded, or was refused by a backend that works. That tells nothing of one whose
    /// handshakes did not fail, or of what failed since.
    pub(super) fn succeeded(&self, began: Instant, now: Instant) -> Change {
        let mut state = self.lock();
        let over = match &*state {
            State::Up { .. } | State::Out { .. } => None,
            State::Resting { since, .. } if began < *since => None,
            State::Resting { cause, until, .. } => match cause.kind {
                Ejection::Failed => Some(cause.kind),
                Ejection::YoungDeaths | Ejection::Frozen | Ejection::Check => (*until <= now).then_some(cause.kind),
            },
        };
        let Some(kind) = over else { return Change::None };
        *state = State::Up { since: Some(now) };
        Change::Up(kind)
    }

    /// It is left alone until a check passes.
    pub(super) fn put_out(&self, cause: Cause) -> Change {
        let mut state = self.lock();
        match &*state {
            // What is frozen fails checks, too.
            State::Out { cause: known } if known.kind == cause.kind || known.kind == Ejection::Frozen => Change::None,
            State::Out { .. } | State::Up { .. } | State::Resting { .. } => {
                *state = State::Out { cause };
                Change::Down(Rest::UntilChecked)
            }
        }
    }

    /// A check passed.
    pub(super) fn checked(&self, now: Instant) -> Change {
        let mut state = self.lock();
        match &*state {
            State::Up { .. } | State::Resting { .. } => Change::None,
            State::Out { cause } => {
                let kind = cause.kind;
                *state = State::Up { since: Some(now) };
                Change::Up(kind)
            }
        }
    }

    /// A frozen one runs, but there is no ping for it: the next handshake is to tell whether it thaws, one at a time.
    pub(super) fn try_again(&self, now: Instant, fail_timeout: Duration) {
        let mut state = self.lock();
        if let State::Out { cause } = &*state
            && cause.kind == Ejection::Frozen
        {
            let cause = cause.clone();
            *state = State::Resting { cause, since: now, until: now, penalty: fail_timeout, tried: None };
        }
    }

    /// What a check is to find out: whether it thaws.
    pub(super) fn frozen(&self) -> bool {
        matches!(&*self.lock(), State::Out { cause } if cause.kind == Ejection::Frozen)
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

    fn cause(kind: Ejection) -> Cause {
        Cause { kind, words: "test".into() }
    }

    fn fail(health: &Health, began: Instant, now: Instant) -> Change {
        health.failed(cause(Ejection::Failed), began, now, FAIL)
    }

    #[test]
    fn a_failure_is_told_once_and_a_success_resets() {
        let (health, t0) = (Health::default(), Instant::now());
        assert_eq!(health.alone_until(t0), None);
        let Change::Down(Rest::For(alone)) = fail(&health, t0, t0) else { panic!("the first failure is a change") };
        assert!((FAIL.mul_f64(0.9)..=FAIL.mul_f64(1.1)).contains(&alone));
        assert_eq!(health.alone_until(t0), Some(t0 + alone));
        assert_eq!(health.ailment(t0), Some((cause(Ejection::Failed), Some(alone))));
        assert_eq!(health.alone_until(t0 + alone), None);
        let later = t0 + alone;
        assert_eq!(fail(&health, later, later), Change::None);
        assert_eq!(health.succeeded(later, later), Change::Up(Ejection::Failed));
        assert_eq!(health.succeeded(later, later), Change::None);
        assert_eq!((health.alone_until(later), health.ailment(later)), (None, None));
    }

    #[test]
    fn the_time_grows_to_a_cap() {
        let (health, mut now) = (Health::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..7 {
            fail(&health, now, now);
            let until = health.alone_until(now).unwrap();
            times.push((until - now).as_secs_f64());
            now = until;
        }
        for (time, nominal) in times.iter().zip([10.0, 20.0, 40.0, 80.0, 120.0, 120.0, 120.0]) {
            assert!((nominal * 0.9..=nominal * 1.1).contains(time), "{time} is not about {nominal}");
        }
        let long = FAIL * 60;
        let health = Health::default();
        health.failed(cause(Ejection::Failed), now, now, long);
        now = health.alone_until(now).unwrap();
        health.failed(cause(Ejection::Failed), now, now, long);
        assert!(health.alone_until(now).unwrap() - now <= long.mul_f64(1.1));
    }

    #[test]
    fn failures_under_way_together_count_once() {
        let (health, t0) = (Health::default(), Instant::now());
        let t1 = t0 + Duration::from_secs(1);
        fail(&health, t0, t1);
        let until = health.alone_until(t1);
        fail(&health, t0, t1 + Duration::from_millis(5));
        assert_eq!(health.alone_until(t1), until);
    }

    #[test]
    fn failures_from_before_it_returned_are_old_news() {
        let (health, t0) = (Health::default(), Instant::now());
        let second = Duration::from_secs(1);
        fail(&health, t0, t0);
        health.succeeded(t0 + second, t0 + second);
        assert_eq!((fail(&health, t0, t0 + second * 2), health.alone_until(t0 + second * 2)), (Change::None, None));
        assert!(matches!(fail(&health, t0 + second * 2, t0 + second * 2), Change::Down(_)));
    }

    #[test]
    fn one_try_at_a_time_after_the_pause() {
        let (health, t0) = (Health::default(), Instant::now());
        fail(&health, t0, t0);
        let due = health.alone_until(t0).unwrap();
        assert_eq!(health.alone_until(due), None);
        health.claim(due + FAIL / 2);
        assert_eq!(health.alone_until(due), Some(due + FAIL / 2));
        assert_eq!(health.alone_until(due + FAIL / 2), None, "a try that told nothing");
        assert_eq!(health.succeeded(due, due), Change::Up(Ejection::Failed));
        health.claim(due + FAIL);
        assert_eq!(health.alone_until(due), None, "one that is up is everyone's");
    }

    #[test]
    fn what_began_before_a_failure_does_not_acquit_of_it() {
        let (health, t0) = (Health::default(), Instant::now());
        let t1 = t0 + Duration::from_secs(1);
        fail(&health, t0, t1);
        assert_eq!(health.succeeded(t0, t1 + FAIL * 2), Change::None);
        assert!(!health.on_trial(t1) && health.on_trial(t1 + FAIL * 2));
        assert_eq!(health.succeeded(t1 + FAIL, t1 + FAIL * 2), Change::Up(Ejection::Failed));
    }

    #[test]
    fn handshakes_do_not_acquit_one_whose_sessions_die_until_its_time_is_over() {
        let (health, t0) = (Health::default(), Instant::now());
        health.failed(cause(Ejection::YoungDeaths), t0, t0, FAIL);
        assert_eq!(health.succeeded(t0 + FAIL / 2, t0 + FAIL / 2), Change::None);
        let due = health.alone_until(t0).unwrap();
        assert_eq!(health.succeeded(due, due), Change::Up(Ejection::YoungDeaths));
    }

    #[test]
    fn only_a_check_brings_back_what_a_check_or_a_freeze_put_out() {
        for kind in [Ejection::Frozen, Ejection::Check] {
            let (health, t0) = (Health::default(), Instant::now());
            fail(&health, t0, t0);
            assert_eq!(health.put_out(cause(kind)), Change::Down(Rest::UntilChecked));
            assert_eq!(health.put_out(cause(kind)), Change::None);
            assert_eq!(health.put_out(cause(Ejection::Check)), Change::None);
            assert_eq!((fail(&health, t0, t0), health.succeeded(t0 + FAIL, t0 + FAIL)), (Change::None, Change::None));
            assert!(health.alone_until(t0).unwrap() > t0 + LONGEST, "it is tried after all others");
            assert_eq!(health.ailment(t0), Some((cause(kind), None)));
            assert_eq!(health.frozen(), kind == Ejection::Frozen);
            assert_eq!((health.checked(t0), health.checked(t0)), (Change::Up(kind), Change::None));
        }
    }

    #[test]
    fn a_frozen_one_without_a_ping_to_answer_is_tried_by_one_handshake() {
        let (health, t0) = (Health::default(), Instant::now());
        health.try_again(t0, FAIL);
        assert_eq!(health.alone_until(t0), None, "it is not frozen");
        health.put_out(cause(Ejection::Frozen));
        health.try_again(t0, FAIL);
        assert_eq!(health.alone_until(t0), None);
        health.claim(t0 + FAIL);
        assert_eq!(health.alone_until(t0), Some(t0 + FAIL));
        assert_eq!(fail(&health, t0, t0 + FAIL), Change::None);
        assert!(health.alone_until(t0 + FAIL).is_some(), "it did not thaw");
        let due = health.alone_until(t0 + FAIL).unwrap();
        assert_eq!(health.succeeded(due, due), Change::Up(Ejection::Failed));
        health.put_out(cause(Ejection::Frozen));
        health.try_again(due, FAIL);
        assert_eq!(health.succeeded(due, due), Change::Up(Ejection::Frozen));
    }

    #[test]
    fn one_that_returned_gets_more_and_more() {
        let (health, t0) = (Health::default(), Instant::now());
        let slow = Some(FAIL);
        assert_eq!(health.part(t0, slow), 1.0, "it never was down");
        fail(&health, t0, t0);
        health.succeeded(t0, t0);
        assert_eq!(health.part(t0, slow), FIRST_PART);
        assert_eq!(health.part(t0 + FAIL / 2, slow), 0.5);
        assert_eq!(health.part(t0 + FAIL * 2, slow), 1.0);
        assert_eq!(health.part(t0, None), 1.0);
    }
}
