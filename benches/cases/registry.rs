//! A worker's registry of ten thousand sessions.

use super::{Case, Run};
use pulsegate::session::registry::{Membership, Order, Registry};
use std::{hint::black_box, rc::Rc, task::Waker};

const SESSIONS: u64 = 10_000;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("registry/enter-and-leave", 1, enter_and_leave), Case::new("registry/order", 1, order)]
}

fn full() -> (Rc<Registry>, Vec<Membership>) {
    let registry = Rc::<Registry>::default();
    let members = (0..SESSIONS).map(|_| registry.enter()).collect();
    (registry, members)
}

fn enter_and_leave() -> Run {
    let (registry, members) = full();
    Box::new(move || {
        let member = registry.enter();
        black_box(member.listen(Waker::noop()));
        drop(black_box(member));
        black_box(&members);
    })
}

/// An order, and the session that takes it.
fn order() -> Run {
    let (registry, members) = full();
    let keys = registry.keys();
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 7) % keys.len();
        registry.order(keys[turn], Order::Cut);
        assert_eq!(members[turn].listen(Waker::noop()).order, Some(Order::Cut));
    })
}
