//! The sessions of one worker, so that a drain or an operator reaches each of them.
use super::Facts;
use crate::{protocol::close::CloseCode, relay::EndReason};
use slab::Slab;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

/// What a session is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End by closing handshakes; `code` replaces what the client is told by default.
    End { reason: EndReason, code: Option<CloseCode> },
    /// Reset both legs now.
    Cut,
    /// Take over the heartbeat, limits and timeouts that its route has now.
    Configure,
}

/// The sessions of one worker. Not shared between threads.
///
/// What is known of each stands in one table, so that a session costs its line there and no allocation of its own.
#[derive(Default)]
pub struct Registry {
    entries: RefCell<Slab<Entry>>,
    next: Cell<u64>,
}

/// A session of one worker; the older one is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Counts all sessions of the worker.
    number: u64,
    /// Its place in the table; another session has it later.
    slot: usize,
}

/// One session as the registry knows it.
struct Entry {
    number: u64,
    order: Option<Order>,
    settled: bool,
    waker: Option<Waker>,
    /// What is known of it; none where nobody asks.
    facts: Option<Rc<Facts>>,
}

impl Registry {
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

    /// What is known of a session; none once it has ended.
    #[must_use]
    pub fn facts(&self, key: Key) -> Option<Rc<Facts>> {
        self.entries.borrow().get(key.slot).filter(|entry| entry.number == key.number)?.facts.clone()
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
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key.slot).filter(|entry| entry.number == key.number) else { return };
        if order == Order::Configure && entry.order.is_some() {
            return;
        }
        entry.order = Some(order);
        let waker = entry.waker.clone();
        drop(entries);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Enters a session; it leaves when the guard is dropped.
    #[must_use]
    pub fn enter(self: &Rc<Self>, facts: Option<Rc<Facts>>) -> Membership {
        let number = self.next.replace(self.next.get() + 1);
        let entry = Entry { number, order: None, settled: false, waker: None, facts };
        let slot = self.entries.borrow_mut().insert(entry);
        Membership { registry: Rc::clone(self), slot }
    }
}

/// What a session hears when it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The order that waited; it is given once.
    pub order: Option<Order>,
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
        Heard { order: entry.order.take(), other_waker }
    }

    /// From now on both closing handshakes are over, however they went; only TCP has not ended yet.
    pub fn settle(&self) {
        self.registry.entries.borrow_mut()[self.slot].settled = true;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let entry = self.registry.entries.borrow_mut().remove(self.slot);
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
        let mut members: Vec<_> = (0..4).map(|_| registry.enter(None)).collect();
        let keys = registry.keys();
        members.remove(1);
        members.push(registry.enter(None));
        let now = registry.keys();
        assert_eq!(now[..3], [keys[0], keys[2], keys[3]]);
        assert!(now[3] > keys[3] && now[3].slot == keys[1].slot);
    }

    #[test]
    fn an_order_for_a_session_that_ended_reaches_nobody() {
        let registry = Rc::new(Registry::default());
        let ended = registry.enter(None);
        let key = *registry.keys().first().unwrap();
        drop(ended);
        let next = registry.enter(None);
        registry.order(key, Order::Cut);
        assert_eq!(heard(&next).order, None);
        registry.order(registry.keys()[0], Order::Cut);
        assert_eq!((heard(&next).order, heard(&next).order), (Some(Order::Cut), None));
    }

    #[test]
    fn new_settings_do_not_replace_an_end() {
        let registry = Rc::new(Registry::default());
        let (_older, member) = (registry.enter(None), registry.enter(None));
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
        assert!(size_of::<Slab<Entry>>() > 0 && size_of::<Entry>() <= 40, "{}", size_of::<Entry>());
    }
}
