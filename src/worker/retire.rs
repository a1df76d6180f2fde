//! Ends the sessions of routes and backends that a reload removed, spread over the time of a drain.
use super::Worker;
use crate::{
    pacing::schedule,
    relay::EndReason,
    session::{
        Facts,
        registry::{Key, Order},
    },
    shutdown::DrainCause,
};
use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Sessions that are to end, and when each is told; the first one first.
#[derive(Default)]
pub(super) struct Retirement {
    due: RefCell<VecDeque<(Instant, Key)>>,
    news: Notify,
}

impl Retirement {
    fn next(&self) -> Option<Instant> {
        self.due.borrow().front().map(|(due, _)| *due)
    }

    fn take_due(&self, now: Instant) -> Option<Key> {
        let mut due = self.due.borrow_mut();
        due.pop_front_if(|(at, _)| *at <= now).map(|(_, key)| key)
    }
}

impl Worker {
    /// Whether a session's route is gone, or its backend.
    pub(super) fn stranded(&self, facts: &Facts) -> bool {
        self.context.routes.get(&facts.route.name).is_none() || facts.lease.backend().retired()
    }

    /// Plans the end of these sessions; those planned before that are none of them stay. Answers how many are new.
    pub(super) fn retire(&self, stranded: &[Key]) -> usize {
        let now = Instant::now();
        let mut due = self.retirement.due.borrow_mut();
        let all: HashSet<Key> = stranded.iter().copied().collect();
        due.retain(|(_, key)| all.contains(key));
        let planned: HashSet<Key> = due.iter().map(|(_, key)| *key).collect();
        let fresh: Vec<Key> = stranded.iter().copied().filter(|key| !planned.contains(key)).collect();
        let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        // About as many stand on each worker, and a rate is that of all of them.
        let workers = usize::try_from(self.share.workers).unwrap_or(1);
        let spread = self.plan.get().pace.time(fresh.len() * workers);
        due.extend(schedule(count, spread, self.share).map(|after| now + after).zip(fresh));
        due.make_contiguous().sort_by_key(|(at, _)| *at);
        drop(due);
        self.retirement.news.notify_one();
        count as usize
    }

    /// Tells one session, which came too late for the plan, at once.
    pub(super) fn retire_now(&self, key: Key) {
        self.retirement.due.borrow_mut().push_front((Instant::now(), key));
        self.retirement.news.notify_one();
    }

    /// Tells each session when it is due, for as long as the worker lives.
    pub(super) async fn run_retirement(&self) {
        loop {
            let next = self.retirement.next();
            tokio::select! {
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = self.retirement.news.notified() => {}
            }
            let code = Some(self.plan.get().code.unwrap_or(DrainCause::Stop.code()));
            while let Some(key) = self.retirement.take_due(Instant::now()) {
                self.context.registry.order(key, Order::End { reason: EndReason::Draining, code });
            }
        }
    }
}
