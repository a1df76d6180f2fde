//! The sessions of one worker, so that a drain or an operator reaches each of them.
use crate::{protocol::close::CloseCode, relay::EndReason};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
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
}

/// The sessions of one worker. Not shared between threads.
#[derive(Default)]
pub struct Registry {
    entries: RefCell<BTreeMap<u64, Rc<Entry>>>,
    next: Cell<u64>,
}

/// One session as the registry knows it.
#[derive(Default)]
pub struct Entry {
    order: Cell<Option<Order>>,
    settled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Registry {
    /// Sessions that run now, the oldest first.
    #[must_use]
    pub fn keys(&self) -> Vec<u64> {
        self.entries.borrow().keys().copied().collect()
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
        self.entries.borrow().values().filter(|entry| !entry.settled.get()).count()
    }

    /// Gives a session an order; a newer order replaces one not yet taken. Unknown keys have ended already.
    pub fn order(&self, key: u64, order: Order) {
        if let Some(entry) = self.entries.borrow().get(&key) {
            entry.order.set(Some(order));
            if let Some(waker) = entry.waker.borrow().as_ref() {
                waker.wake_by_ref();
            }
        }
    }

    /// Enters a session; it leaves when the guard is dropped.
    #[must_use]
    pub fn enter(self: &Rc<Self>) -> Membership {
        let key = self.next.replace(self.next.get() + 1);
        let entry = Rc::new(Entry::default());
        self.entries.borrow_mut().insert(key, Rc::clone(&entry));
        Membership { registry: Rc::clone(self), key, entry }
    }
}

/// A session's place in the registry.
pub struct Membership {
    registry: Rc<Registry>,
    key: u64,
    entry: Rc<Entry>,
}

impl Membership {
    /// Has the session woken by `waker` when an order comes.
    pub fn listen(&self, waker: &Waker) {
        let mut slot = self.entry.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// From now on both closing handshakes are over, however they went; only TCP has not ended yet.
    pub fn settle(&self) {
        self.entry.settled.set(true);
    }

    /// The order that waits, once.
    #[must_use]
    pub fn take_order(&self) -> Option<Order> {
        self.entry.order.take()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.entries.borrow_mut().remove(&self.key);
    }
}
