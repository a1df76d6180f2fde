//! Ends many sessions at a chosen rate, in the background: what an operator asked for, and how far it has come.
use crate::{
    session::{registry::Parting, select::Filter},
    upstream::Backend,
    worker::{Chosen, Workers},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How many are remembered; those that still run always are.
const REMEMBERED: usize = 32;
/// Orders are given at most this often, in batches if the rate is higher.
const STEP: Duration = Duration::from_millis(50);
/// The bounds of a rate, in sessions a second.
const SLOWEST: f64 = 0.01;
const FASTEST: f64 = 1e6;
/// How often an evacuation looks for sessions whose handshake was under way.
const LATECOMERS: Duration = Duration::from_millis(250);

/// The number of an ending; never used again by the process.
pub type EndingId = u64;

/// What is to be ended, and how.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// In an operator's words: what is ended.
    pub(super) about: String,
    pub(super) filter: Filter,
    pub(super) parting: Parting,
    /// Sessions a second.
    pub(super) rate: f64,
    /// It goes on until these backends hold no session, or are put back.
    pub(super) evacuated: Vec<Arc<Backend>>,
}

/// Where an ending is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndingState {
    Running,
    Done,
    /// By an operator, or because the gateway ends.
    Cancelled,
}

impl EndingState {
    /// The name in the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How far an ending has come.
#[derive(Clone, Debug)]
pub struct Progress {
    pub id: EndingId,
    pub about: String,
    /// Sessions a second.
    pub rate: f64,
    /// Sessions that matched so far; `None` until they are counted.
    pub total: Option<usize>,
    /// Those of them that were told to end.
    pub told: usize,
    pub state: EndingState,
}

/// One ending, shared by whoever watches it and the task that does it.
#[derive(Debug)]
pub(super) struct Ending {
    id: EndingId,
    plan: Plan,
    total: AtomicUsize,
    counted: AtomicBool,
    told: AtomicUsize,
    cancelled: AtomicBool,
    over: AtomicBool,
}

/// All endings of one gateway.
#[derive(Clone, Debug, Default)]
pub(super) struct Endings {
    list: Arc<Mutex<Vec<Arc<Ending>>>>,
    next: Arc<AtomicU64>,
}

impl Endings {
    /// Begins one, on the first worker's thread.
    pub(super) fn start(&self, mut plan: Plan, workers: &Workers) -> EndingId {
        plan.rate = if plan.rate.is_nan() { SLOWEST } else { plan.rate.clamp(SLOWEST, FASTEST) };
        let ending = Arc::new(Ending {
            id: self.next.fetch_add(1, Relaxed) + 1,
            plan,
            total: AtomicUsize::new(0),
            counted: AtomicBool::new(false),
            told: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::clone(&ending));
        let mut surplus = list.len().saturating_sub(REMEMBERED);
        list.retain(|one| {
            let forgotten = surplus > 0 && one.over.load(Relaxed);
            surplus -= usize::from(forgotten);
            !forgotten
        });
        drop(list);
        let (id, workers) = (ending.id, workers.clone());
        let guard = Over(Arc::clone(&ending));
        workers.clone().send(0, move |_| async move {
            ending.run(&workers).await;
            drop(guard);
        });
        id
    }

    pub(super) fn all(&self) -> Vec<Arc<Ending>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn find(&self, id: EndingId) -> Option<Arc<Ending>> {
        self.all().into_iter().find(|ending| ending.id == id)
    }
}

/// An ending whose task is gone is over, however it went.
struct Over(Arc<Ending>);

impl Drop for Over {
    fn drop(&mut self) {
        let ending = &self.0;
        let unfinished = !ending.counted.load(Relaxed) || ending.told.load(Relaxed) < ending.total.load(Relaxed);
        if unfinished {
            ending.cancelled.store(true, Relaxed);
        }
        ending.over.store(true, Relaxed);
    }
}

impl Ending {
    pub(super) fn cancel(&self) {
        if !self.over.load(Relaxed) {
            self.cancelled.store(true, Relaxed);
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let state = match (self.cancelled.load(Relaxed), self.over.load(Relaxed)) {
            (true, _) => EndingState::Cancelled,
            (false, true) => EndingState::Done,
            (false, false) => EndingState::Running,
        };
        Progress {
            id: self.id,
            about: self.plan.about.clone(),
            rate: self.plan.rate,
            total: self.counted.load(Relaxed).then(|| self.total.load(Relaxed)),
            told: self.told.load(Relaxed),
            state,
        }
    }

    async fn run(&self, workers: &Workers) {
        let mut known = HashSet::new();
        loop {
            let filter = self.plan.filter.clone();
            let chosen = workers.ask(move |worker| worker.choose(filter)).await;
            let mut fresh: Vec<Chosen> = chosen.into_iter().flatten().filter(|one| known.insert(*one)).collect();
            fresh.sort_unstable();
            self.total.fetch_add(fresh.len(), Relaxed);
            self.counted.store(true, Relaxed);
            self.tell(&fresh, workers).await;
            if self.cancelled.load(Relaxed) || !self.goes_on() {
                return;
            }
            sleep(LATECOMERS).await;
        }
    }

    /// Whether more may come: sessions on backends that are to be empty, or handshakes with them.
    fn goes_on(&self) -> bool {
        self.plan.evacuated.iter().any(|backend| backend.drained() && backend.sessions() > 0)
    }

    /// Whether the operator wants it no more.
    fn called_off(&self) -> bool {
        let put_back = !self.plan.evacuated.is_empty() && !self.plan.evacuated.iter().any(|backend| backend.drained());
        if put_back {
            self.cancelled.store(true, Relaxed);
        }
        self.cancelled.load(Relaxed)
    }

    async fn tell(&self, fresh: &[Chosen], workers: &Workers) {
        let start = Instant::now();
        let mut told = 0;
        while told < fresh.len() && !self.called_off() {
            let due = due(start.elapsed(), self.plan.rate).min(fresh.len());
            let mut by_worker: BTreeMap<u32, Vec<_>> = BTreeMap::new();
            for chosen in &fresh[told..due] {
                by_worker.entry(chosen.worker).or_default().push(chosen.key);
            }
            for (worker, keys) in by_worker {
                let parting = self.plan.parting.clone();
                workers.send(worker, move |worker| async move { worker.terminate(&keys, parting) });
            }
            self.told.fetch_add(due - told, Relaxed);
            told = due;
            let next = start + Duration::from_secs_f64(told as f64 / self.plan.rate);
            sleep_until(next.max(Instant::now() + STEP)).await;
        }
    }
}

/// Sessions that have been told after so long: the first at once.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by what there are")]
fn due(elapsed: Duration, rate: f64) -> usize {
    ((elapsed.as_secs_f64() * rate) as usize).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_at_their_rate() {
        assert_eq!(due(Duration::ZERO, 10.0), 1);
        assert_eq!(due(Duration::from_millis(99), 10.0), 1);
        assert_eq!(due(Duration::from_millis(250), 10.0), 3);
        assert_eq!(due(Duration::from_secs(3), 0.5), 2);
        assert_eq!(due(Duration::from_secs(60), FASTEST), 60_000_001);
    }
}
