//! What its handshakes, sessions and checks report of a backend, and what that changes, told to the operator once.
use super::{
    Backend, Cause, CheckConfig,
    fate::{DEATHS, YOUNG},
    health::Change,
};
use crate::{metrics::Ejection, relay::EndReason};
use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How often a frozen backend is asked whether it thaws, if it is not checked anyway.
const THAW: Duration = Duration::from_secs(2);

/// What the checks of a backend told.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// When the next one is due; `None`: at once.
    due: Option<Instant>,
    under_way: bool,
    /// In a row; one of the two is zero.
    passed: u32,
    failed: u32,
}

impl Backend {
    /// A handshake that began then succeeded, or was refused by a backend that works.
    pub(super) fn answered(&self, began: Instant) {
        match self.health.succeeded(began, Instant::now()) {
            Change::Up(from) => self.returned(from),
            Change::None | Change::Down(_) => {}
        }
    }

    /// A session began on it.
    pub(super) fn session_began(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        lock(&self.youth).begin(Instant::now());
    }

    /// A dial or handshake that began then failed.
    pub(super) fn dial_failed(&self, began: Instant, words: String) {
        let cause = Cause { kind: Ejection::Failed, words };
        let change = self.health.failed(cause.clone(), began, Instant::now(), self.terms().fail_timeout);
        self.ejected(&cause, change);
    }

    /// One of its sessions ended, at this age.
    pub fn session_ended(&self, reason: EndReason, age: Duration) {
        self.meter().ended(reason);
        let lost = match reason {
            EndReason::UpstreamGone | EndReason::UpstreamViolation => true,
            EndReason::ClientClosed
            | EndReason::UpstreamClosed
            | EndReason::ClientGone
            | EndReason::ClientUnresponsive
            | EndReason::UpstreamUnresponsive
            | EndReason::ClientViolation
            | EndReason::ClientStalled
            | EndReason::UpstreamStalled
            | EndReason::Idle
            | EndReason::MaxAge
            | EndReason::Draining
            | EndReason::Policy
            | EndReason::Terminated
            | EndReason::Internal => false,
        };
        if !lost && age >= YOUNG {
            lock(&self.youth).live();
        }
        if !lost || age >= YOUNG {
            return;
        }
        let now = Instant::now();
        if lock(&self.youth).die(now) {
            let words =
                format!("{DEATHS} sessions in a row died within {YOUNG:?} of their beginning ({})", reason.label());
            let cause = Cause { kind: Ejection::YoungDeaths, words };
            let began = now.checked_sub(age).unwrap_or(now);
            let change = self.health.failed(cause.clone(), began, now, self.terms().fail_timeout);
            self.ejected(&cause, change);
        }
    }

    /// One of its sessions missed a deadline. If it is frozen, all of them miss theirs `within` that time.
    pub fn session_missed(&self, within: Duration) {
        if !self.proven() {
            return;
        }
        let begun = self.begun.load(Ordering::Relaxed);
        let Some((missed, sessions)) = lock(&self.misses).miss(Instant::now(), within, self.sessions(), begun) else {
            return;
        };
        let words = format!("{missed} of {sessions} sessions missed their deadlines together");
        let cause = Cause { kind: Ejection::Frozen, words };
        match self.health.put_out(cause) {
            Change::Down(_) => {
                self.froze.store(true, Ordering::Relaxed);
                self.meter().ejected(Ejection::Frozen);
                tracing::error!(
                    upstream = self.upstream,
                    backend = self.name,
                    missed,
                    sessions,
                    "backend frozen: it answered pings before, and now most of its sessions wait in vain; their clients are \
                     told one by one, and others are tried first until it answers a ping",
                );
            }
            Change::None | Change::Up(_) => {}
        }
    }

    /// One of its sessions answered one of our pings.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
        if self.froze.load(Ordering::Relaxed) {
            self.thaw();
        }
    }

    /// It answered a ping: if it was frozen, it is not any more.
    #[cold]
    fn thaw(&self) {
        self.froze.store(false, Ordering::Relaxed);
        if self.health.frozen()
            && let Change::Up(from) = self.health.checked(Instant::now())
        {
            self.returned(from);
        }
    }

    /// A frozen one runs again, but has no WebSocket for us to ping: the handshake of a client is to tell, one at a time.
    pub(super) fn runs_again(&self) {
        self.health.try_again(Instant::now(), self.terms().fail_timeout);
    }

    /// A check found it well, or not. It takes as many in a row of either as `check` wants to change what is thought of it; to
    /// thaw, one.
    pub(super) fn checked(&self, result: Result<(), String>, check: Option<&CheckConfig>) {
        let (rise, fall) = check.map_or((1, u32::MAX), |check| (check.rise, check.fall));
        let mut checks = lock(&self.checks);
        match result {
            Ok(()) => {
                checks.failed = 0;
                checks.passed = checks.passed.saturating_add(1);
                if checks.passed < rise && !self.health.frozen() {
                    return;
                }
                match self.health.checked(Instant::now()) {
                    Change::Up(from) => self.returned(from),
                    Change::None | Change::Down(_) => {}
                }
            }
            Err(words) => {
                checks.passed = 0;
                checks.failed = checks.failed.saturating_add(1);
                if checks.failed >= fall {
                    let cause = Cause { kind: Ejection::Check, words };
                    let change = self.health.put_out(cause.clone());
                    self.ejected(&cause, change);
                }
            }
        }
    }

    /// Checks are not asked for any more: what they found is not known any more.
    pub(super) fn unchecked(&self) {
        *lock(&self.checks) = Checks::default();
        if self.ailment().is_some_and(|(cause, _)| cause.kind == Ejection::Check) {
            match self.health.checked(Instant::now()) {
                Change::Up(from) => self.returned(from),
                Change::None | Change::Down(_) => {}
            }
        }
    }

    /// Whether a check is due, which is then to be made; the next one is due after that.
    pub(super) fn takes_check(&self, check: Option<&CheckConfig>, now: Instant) -> bool {
        let interval = match check {
            Some(check) => check.interval,
            None if self.health.frozen() => THAW,
            None => {
                self.unchecked();
                return false;
            }
        };
        let mut checks = lock(&self.checks);
        if checks.under_way || checks.due.is_some_and(|due| due > now) {
            return false;
        }
        checks.due = Some(now + interval.mul_f64(0.9 + 0.2 * fastrand::f64()));
        checks.under_way = true;
        true
    }

    pub(super) fn check_over(&self) {
        lock(&self.checks).under_way = false;
    }

    fn returned(&self, from: Ejection) {
        self.meter().show_up(true);
        *lock(&self.misses) = Default::default();
        if from == Ejection::YoungDeaths {
            lock(&self.youth).forgive();
        }
        tracing::info!(upstream = self.upstream, backend = self.name, "backend is back");
    }

    fn ejected(&self, cause: &Cause, change: Change) {
        match change {
            Change::Down(rest) => {
                self.meter().ejected(cause.kind);
                tracing::warn!(
                    upstream = self.upstream,
                    backend = self.name,
                    reason = cause.kind.label(),
                    cause = cause.words,
                    "backend is down; others are tried first {rest}",
                );
            }
            Change::None | Change::Up(_) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
