//! How a drain goes: what all workers have told so far, for the log and for who asks.
use super::{DrainCause, DrainPlan};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How often the log hears of it.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(5);

/// What the workers of one gateway count while they drain. Nothing writes it before.
#[derive(Debug, Default)]
pub struct Tally {
    begun: OnceLock<Begun>,
    sessions: AtomicUsize,
    told: AtomicUsize,
    cut: AtomicUsize,
    /// When the last session that is known is told, in milliseconds from the signal.
    last_ms: AtomicU64,
    /// When the log is next due, in milliseconds from the signal.
    log_ms: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    since: Instant,
    cause: DrainCause,
    plan: DrainPlan,
}

/// How a drain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainProgress {
    pub cause: DrainCause,
    /// Since the signal.
    pub elapsed: Duration,
    /// Sessions that were there when it was their turn, or came since: all that will be told.
    pub sessions: usize,
    /// Those of them that were told to end.
    pub told: usize,
    /// Sessions that are open still, told or not, and handshakes that may become one.
    pub left: usize,
    /// Those that were cut.
    pub cut: usize,
    /// Until the last one is told; nothing once they all are.
    pub until_told: Duration,
    /// Until what is left is cut.
    pub until_cut: Duration,
}

impl DrainProgress {
    /// Until it is over, about: clients that are told mostly leave at once. When all are told, those that are left may take
    /// until the cut.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        if self.left == 0 {
            Duration::ZERO
        } else if self.until_told.is_zero() {
            self.until_cut
        } else {
            self.until_told.min(self.until_cut)
        }
    }
}

impl Tally {
    pub(crate) fn begin(&self, since: Instant, cause: DrainCause, plan: DrainPlan) {
        // Every worker says the same.
        let _ = self.begun.set(Begun { since, cause, plan });
    }

    /// A worker begins to tell its `sessions`, over `spread`.
    pub(super) fn expect(&self, sessions: usize, spread: Duration, now: Instant) {
        self.sessions.fetch_add(sessions, Ordering::Relaxed);
        if let (Some(begun), true) = (self.begun.get(), sessions > 0) {
            self.last_ms.fetch_max(millis(now + spread - begun.since), Ordering::Relaxed);
        }
    }

    pub(super) fn told(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn cut(&self, sessions: usize) {
        self.cut.fetch_add(sessions, Ordering::Relaxed);
    }

    /// How the drain goes, once it has begun. `left`: sessions that are open.
    #[must_use]
    pub fn progress(&self, left: usize, now: Instant) -> Option<DrainProgress> {
        let Begun { since, cause, plan } = *self.begun.get()?;
        let elapsed = now - since;
        let told = self.told.load(Ordering::Relaxed);
        let sessions = self.sessions.load(Ordering::Relaxed);
        let last = match self.last_ms.load(Ordering::Relaxed) {
            0 if elapsed < plan.delay => plan.delay + plan.pace.time(left),
            ms => Duration::from_millis(ms),
        };
        let until_told = if elapsed >= plan.delay && told >= sessions { Duration::ZERO } else { last };
        Some(DrainProgress {
            cause,
            elapsed,
            sessions,
            told,
            left,
            cut: self.cut.load(Ordering::Relaxed),
            until_told: until_told.saturating_sub(elapsed),
            until_cut: plan.timeout.saturating_sub(elapsed),
        })
    }

    /// Whether the log is to hear of it now: for one worker each time.
    pub(super) fn log_due(&self, now: Instant) -> bool {
        let Some(begun) = self.begun.get() else { return false };
        let elapsed = millis(now - begun.since);
        let due = self.log_ms.load(Ordering::Relaxed);
        let next = elapsed + millis(TOLD_EVERY);
        due <= elapsed && self.log_ms.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Writes it down.
pub(super) fn log(progress: &DrainProgress) {
    let DrainProgress { told, left, cut, .. } = *progress;
    let left_s = progress.estimate().as_secs_f64().ceil();
    let about = if progress.until_told.is_zero() { "at most" } else { "about" };
    tracing::info!(
        told,
        left,
        cut,
        estimate_s = left_s,
        "draining: {told} sessions told, {left} left; {about} {left_s} s to go"
    );
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
