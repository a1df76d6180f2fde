//! The sessions of one worker, so that a drain or an operator reaches each of them.
use super::{
    Facts,
    census::{Census, Figures},
};
use crate::{protocol::close::CloseCode, relay::EndReason};
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
    time::{Duration, Instant},
};

/// What a session is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// End by closing handshakes; `code` replaces what the client is told by default.
    End { reason: EndReason, code: Option<CloseCode> },
    /// The same, as `terminated`, with what an operator says.
    Terminate(Rc<Parting>),
    /// Reset both legs now.
    Cut,
    /// Take over the heartbeat, limits and timeouts that its route has now.
    Configure,
}

/// What an operator has a client told when it ends sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parting {
    /// `None`: what the route's `close_codes` say, or 1001.
    pub code: Option<CloseCode>,
    /// At most 123 bytes. `None`: "terminated".
    pub words: Option<Box<str>>,
}

/// The sessions of one worker. Not shared between threads.
///
/// What is known of each stands in one table, so that a session costs its line there and no allocation of its own.
#[derive(Default)]
pub struct Registry {
    entries: RefCell<Slab<Entry>>,
    next: Cell<u64>,
    /// From here births are counted; the same for all workers, so that their sessions can be put in order.
    start: Cell<Option<Instant>>,
    pub(super) census: Census,
}

/// In milliseconds.
const TENTH: u128 = 100;

/// A session of one worker; the older one is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Counts all sessions of the worker.
    pub(crate) number: u64,
    /// Its place in the table; another session has it later.
    slot: usize,
}

/// A session that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub key: Key,
    /// When it began, on a clock that all workers of a gateway share, in tenths of a second.
    pub born: u32,
}

/// One session as the registry knows it.
pub(super) struct Entry {
    pub(super) number: u64,
    /// Nothing is known of sessions that only a test enters.
    pub(super) facts: Option<Rc<Facts>>,
    order: Option<Order>,
    pub(super) waker: Option<Waker>,
    /// When it began: tenths of a second since the start.
    born: u32,
    settled: bool,
    /// A census waits for its figures.
    pub(super) asked: bool,
}

impl Registry {
    /// A registry without sessions, which tells their births from `start` on.
    #[must_use]
    pub fn counting_from(start: Instant) -> Self {
        let registry = Self::default();
        registry.start.set(Some(start));
        registry
    }

    /// Sessions that run now, the oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let entries = self.entries.borrow();
        let mut keys: Vec<Key> = entries.iter().map(|(slot, entry)| Key { number: entry.number, slot }).collect();
        keys.sort_unstable();
        keys
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.borrow().is_empty()
    }

    /// Sessions that are lost if they are cut now: those whose closing handshakes are not over.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.entries.borrow().iter().filter(|(_, entry)| !entry.settled).count()
    }

    /// The session that was entered last, if it still runs.
    #[must_use]
    pub fn newest(&self) -> Option<Key> {
        let number = self.next.get().checked_sub(1)?;
        let entries = self.entries.borrow();
        entries.iter().find(|(_, entry)| entry.number == number).map(|(slot, _)| Key { number, slot })
    }

    /// Gives a session an order; a newer order replaces one not yet taken, but for new settings, which an end makes
    /// pointless. Unknown keys have ended already.
    pub fn order(&self, key: Key, order: Order) {
        let waker = self.with(key, |entry| {
            if order == Order::Configure && entry.order.is_some() {
                return None;
            }
            entry.order = Some(order);
            entry.waker.clone()
        });
        if let Some(waker) = waker.flatten() {
            waker.wake();
        }
    }

    /// Enters a session of which nothing is known; it leaves when the guard is dropped.
    #[must_use]
    pub fn enter(self: &Rc<Self>) -> Membership {
        self.insert(None, 0)
    }

    /// Enters a session that begins now; it leaves when the guard is dropped.
    #[must_use]
    pub fn enter_session(self: &Rc<Self>, facts: Rc<Facts>, now: Instant) -> Membership {
        let start = self.start.get().unwrap_or(now);
        self.start.set(Some(start));
        let tenths = now.saturating_duration_since(start).as_millis() / TENTH;
        self.insert(Some(facts), u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    fn insert(self: &Rc<Self>, facts: Option<Rc<Facts>>, born: u32) -> Membership {
        let number = self.next.replace(self.next.get() + 1);
        let entry = Entry { number, facts, order: None, waker: None, born, settled: false, asked: false };
        let slot = self.entries.borrow_mut().insert(entry);
        Membership { registry: Rc::clone(self), slot }
    }

    /// Those sessions that run now, the oldest first, of which `wanted` likes what is known: facts, and age to a tenth of a second.
    #[must_use]
    pub fn select(&self, now: Instant, mut wanted: impl FnMut(&Facts, Duration) -> bool) -> Vec<Found> {
        let since = self.start.get().map_or(0, |start| now.saturating_duration_since(start).as_millis() / TENTH);
        let age = |born: u32| Duration::from_secs_f64(since.saturating_sub(u128::from(born)) as f64 / 10.0);
        let entries = self.entries.borrow();
        let mut liked = |entry: &Entry| entry.facts.as_deref().is_some_and(|facts| wanted(facts, age(entry.born)));
        let found = entries.iter().filter(|(_, entry)| liked(entry));
        let found = found.map(|(slot, entry)| Found { key: Key { number: entry.number, slot }, born: entry.born });
        let mut found: Vec<Found> = found.collect();
        found.sort_unstable_by_key(|found| found.key);
        found
    }

    /// What is known of a session, while it runs.
    #[must_use]
    pub fn facts(&self, key: Key) -> Option<Rc<Facts>> {
        self.with(key, |entry| entry.facts.clone()).flatten()
    }

    /// The key of the session with this number, while it runs.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<Key> {
        let entries = self.entries.borrow();
        entries.iter().find(|(_, entry)| entry.number == number).map(|(slot, _)| Key { number, slot })
    }

    pub(super) fn with<T>(&self, key: Key, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut entries = self.entries.borrow_mut();
        entries.get_mut(key.slot).filter(|entry| entry.number == key.number).map(act)
    }
}

/// What a session hears when it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The order that waited; it is given once.
    pub order: Option<Order>,
    /// A census waits for its figures.
    pub asked: bool,
    /// The waker is not the one of the last time.
    pub other_waker: bool,
}

/// A session's place in the registry.
pub struct Membership {
    registry: Rc<Registry>,
    slot: usize,
}

impl Membership {
    /// Has the session woken by `waker` when an order comes, and takes the order that waits.
    #[inline]
    #[must_use]
    pub fn listen(&self, waker: &Waker) -> Heard {
        let entry = &mut self.registry.entries.borrow_mut()[self.slot];
        let other_waker = !entry.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        if other_waker {
            entry.waker = Some(waker.clone());
        }
        Heard { order: entry.order.take(), asked: entry.asked, other_waker }
    }

    /// Answers the census that waits.
    #[cold]
    pub fn answer(&self, figures: Figures) {
        let key = {
            let entry = &mut self.registry.entries.borrow_mut()[self.slot];
            entry.asked = false;
            Key { number: entry.number, slot: self.slot }
        };
        self.registry.census.answered(key, figures);
    }

    /// From now on both closing handshakes are over, however they went; only TCP has not ended yet.
    pub fn settle(&self) {
        self.registry.entries.borrow_mut()[self.slot].settled = true;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let entry = self.registry.entries.borrow_mut().remove(self.slot);
        if entry.asked {
            self.registry.census.left();
        }
        // Its waker may hold the last of a task, and its facts the last of a backend: their drop must find the table free.
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn heard(member: &Membership) -> Heard {
        member.listen(Waker::noop())
    }

    #[test]
    fn the_oldest_come_first_though_places_are_used_again() {
        let registry = Rc::new(Registry::default());
        let mut members: Vec<_> = (0..4).map(|_| registry.enter()).collect();
        let keys = registry.keys();
        members.remove(1);
        members.push(registry.enter());
        let now = registry.keys();
        assert_eq!(now[..3], [keys[0], keys[2], keys[3]]);
        assert!(now[3] > keys[3] && now[3].slot == keys[1].slot);
    }

    #[test]
    fn an_order_for_a_session_that_ended_reaches_nobody() {
        let registry = Rc::new(Registry::default());
        let ended = registry.enter();
        let key = *registry.keys().first().unwrap();
        drop(ended);
        let next = registry.enter();
        registry.order(key, Order::Cut);
        assert_eq!(heard(&next).order, None);
        registry.order(registry.keys()[0], Order::Cut);
        assert_eq!((heard(&next).order, heard(&next).order), (Some(Order::Cut), None));
    }

    #[test]
    fn new_settings_do_not_replace_an_end() {
        let registry = Rc::new(Registry::default());
        let (_older, member) = (registry.enter(), registry.enter());
        let key = registry.newest().unwrap();
        for (first, second, taken) in [
            (Order::Cut, Order::Configure, Order::Cut),
            (Order::Configure, Order::Cut, Order::Cut),
            (Order::Configure, Order::Configure, Order::Configure),
        ] {
            registry.order(key, first);
            registry.order(key, second);
            assert_eq!(heard(&member).order, Some(taken));
        }
        drop(member);
        assert_eq!(registry.newest(), None);
    }

    /// A gateway holds one for each of its sessions.
    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Slab<Entry>>() > 0 && size_of::<Entry>() <= 56, "{}", size_of::<Entry>());
    }
}
