//! Asks the sessions of one worker for their live figures. Each answers on its own next turn, so that a session pays nothing for
//! being counted while nobody counts.
use super::registry::{Key, Registry};
use crate::relay::{LegFigures, PerSide};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, Notify},
    task::yield_now,
};

/// Sessions that are asked at a time. Between batches everyone else has a turn.
const BATCH: usize = 128;

/// What a session tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Since both 101s were said.
    pub age: Duration,
    /// It is being ended.
    pub ending: bool,
    pub legs: PerSide<LegFigures>,
}

/// The census of one worker: at most one is under way.
#[derive(Default)]
pub(super) struct Census {
    turn: Mutex<()>,
    /// Sessions of this batch that have not answered yet.
    open: Cell<usize>,
    answers: RefCell<Vec<(Key, Figures)>>,
    all: Notify,
}

impl Census {
    pub(super) fn answered(&self, key: Key, figures: Figures) {
        self.answers.borrow_mut().push((key, figures));
        self.left();
    }

    /// One session less to wait for.
    pub(super) fn left(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        if self.open.get() == 0 {
            self.all.notify_waiters();
        }
    }
}

impl Registry {
    /// The figures of these sessions, but of those that have ended meanwhile. Waits for a census that is under way.
    pub async fn census(self: &Rc<Self>, keys: Vec<Key>) -> Vec<(Key, Figures)> {
        let _turn = self.census.turn.lock().await;
        let mut asking = Asking { registry: self, batch: Vec::new() };
        let mut figures = Vec::with_capacity(keys.len());
        for batch in keys.chunks(BATCH) {
            asking.batch = batch.to_vec();
            self.ask(batch);
            while self.census.open.get() > 0 {
                self.census.all.notified().await;
            }
            figures.append(&mut self.census.answers.borrow_mut());
            yield_now().await;
        }
        asking.batch.clear();
        figures
    }

    fn ask(&self, batch: &[Key]) {
        let mut wakers = Vec::with_capacity(batch.len());
        for key in batch {
            let waker = self.with(*key, |entry| {
                entry.asked = true;
                entry.waker.clone()
            });
            if let Some(waker) = waker {
                self.census.open.set(self.census.open.get() + 1);
                wakers.extend(waker);
            }
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}

/// Takes the questions back of a census that nobody waits for any more.
struct Asking<'a> {
    registry: &'a Registry,
    batch: Vec<Key>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        for key in self.batch.drain(..) {
            self.registry.with(key, |entry| entry.asked = false);
        }
        self.registry.census.open.set(0);
        self.registry.census.answers.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::session::registry::Membership;
    use std::{future::poll_fn, task::Poll};
    use tokio::{
        runtime::{Builder, LocalOptions},
        task::spawn_local,
    };

    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(test);
    }

    fn figures(age: u64) -> Figures {
        Figures { age: Duration::from_secs(age), ending: false, legs: PerSide::default() }
    }

    /// A session that answers `times` and then leaves.
    fn answering(member: Membership, age: u64, mut times: u32) {
        spawn_local(poll_fn(move |cx| {
            if member.listen(cx.waker()).asked {
                if times == 0 {
                    return Poll::Ready(());
                }
                times -= 1;
                member.answer(figures(age));
            }
            Poll::Pending
        }));
    }

    #[test]
    fn every_session_answers_once_and_one_that_ends_meanwhile_is_left_out() {
        run(async {
            let registry = Rc::<Registry>::default();
            let count = BATCH as u64 * 3 + 7;
            (0..count).for_each(|age| answering(registry.enter(), age, u32::from(age % 5 > 0)));
            let counted = registry.census(registry.keys()).await;
            assert_eq!(counted.len() as u64, count - count.div_ceil(5));
            assert!(counted.iter().all(|(key, figures)| key.number == figures.age.as_secs()));
            assert!(registry.census(registry.keys()).await.is_empty(), "all have left");
        });
    }

    #[test]
    fn ten_thousand_sessions_do_not_hold_up_the_others() {
        run(async {
            let registry = Rc::<Registry>::default();
            (0..10_000).for_each(|age| answering(registry.enter(), age, 1));
            let turns = Rc::new(Cell::new(0));
            let other = Rc::clone(&turns);
            spawn_local(async move {
                loop {
                    other.set(other.get() + 1);
                    yield_now().await;
                }
            });
            assert_eq!(registry.census(registry.keys()).await.len(), 10_000);
            assert!(turns.get() >= 10_000 / BATCH, "{} turns", turns.get());
        });
    }

    #[test]
    fn two_that_count_take_turns() {
        run(async {
            let registry = Rc::<Registry>::default();
            (0..500).for_each(|age| answering(registry.enter(), age, 2));
            let (first, second) = tokio::join!(registry.census(registry.keys()), registry.census(registry.keys()));
            assert_eq!((first.len(), second.len()), (500, 500));
        });
    }

    #[test]
    fn a_census_that_is_given_up_leaves_no_question_behind() {
        run(async {
            let registry = Rc::<Registry>::default();
            let silent = registry.enter();
            let waker = std::task::Waker::noop();
            assert!(!silent.listen(waker).asked);
            let asking = tokio::time::timeout(Duration::from_millis(5), registry.census(registry.keys())).await;
            assert!(asking.is_err(), "it never answers");
            assert!(!silent.listen(waker).asked);
            drop(silent);
            answering(registry.enter(), 3, 1);
            assert_eq!(registry.census(registry.keys()).await.len(), 1);
        });
    }
}
