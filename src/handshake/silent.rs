//! Connections of one worker that have not asked for anything yet, oldest first. When its places for opening handshakes run out, the
//! oldest give theirs up: thousands of connections that say nothing, or say it slowly, keep nobody out.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// It is told at most this often.
const QUIET: Duration = Duration::from_secs(10);
/// Those that have left are looked for once they may be so many.
const MANY: usize = 64;

/// Those who have not asked for anything.
#[derive(Debug, Default)]
pub(super) struct Silent {
    /// By age. Some may have left.
    members: RefCell<VecDeque<Rc<Member>>>,
    staying: Rc<Cell<usize>>,
    told: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Member {
    state: Cell<State>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Staying,
    /// It is to give its place up.
    Asked,
    Left,
}

/// A connection's part in it: it is one of them while it has asked for nothing.
#[derive(Debug, Default)]
pub(super) struct Part(Option<(Rc<Member>, Rc<Cell<usize>>)>);

impl Silent {
    /// The oldest gives its place up.
    pub(super) fn shed(&self) {
        let mut members = self.members.borrow_mut();
        while let Some(member) = members.pop_front() {
            if member.state.get() != State::Staying {
                continue;
            }
            member.state.set(State::Asked);
            self.staying.set(self.staying.get() - 1);
            if let Some(waker) = member.waker.take() {
                waker.wake();
            }
            let now = Instant::now();
            if self.told.get().is_none_or(|told| now >= told + QUIET) {
                self.told.set(Some(now));
                tracing::warn!(
                    "places for opening handshakes run out: connections that have asked for nothing are closed, oldest first"
                );
            }
            return;
        }
    }

    fn enter(&self) -> Rc<Member> {
        let mut members = self.members.borrow_mut();
        if members.len() >= 2 * self.staying.get() + MANY {
            members.retain(|member| member.state.get() == State::Staying);
        }
        let member = Rc::new(Member { state: Cell::new(State::Staying), waker: RefCell::default() });
        members.push_back(Rc::clone(&member));
        self.staying.set(self.staying.get() + 1);
        member
    }

    /// Waits for `work`, which belongs to a connection that has asked for nothing. `None`: it is to give its place up.
    pub(super) async fn unless_asked<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let (mut work, mut part) = (pin!(work), Part::default());
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending if part.gives_way(self, true, cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Part {
    /// Whether the connection is to give its place up now. `silent`: it has not asked for anything; one that has is none of
    /// them.
    pub(super) fn gives_way(&mut self, all: &Silent, silent: bool, cx: &mut Context<'_>) -> bool {
        if !silent {
            self.leave();
            return false;
        }
        let (member, _) = self.0.get_or_insert_with(|| (all.enter(), Rc::clone(&all.staying)));
        let mut waker = member.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        member.state.get() == State::Asked
    }

    fn leave(&mut self) {
        if let Some((member, staying)) = self.0.take()
            && member.state.replace(State::Left) == State::Staying
        {
            staying.set(staying.get() - 1);
            member.waker.take();
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn the_oldest_gives_way_and_who_has_asked_does_not() {
        let all = Silent::default();
        let mut parts: Vec<Part> = (0..4).map(|_| Part::default()).collect();
        assert!(parts.iter_mut().all(|part| !part.gives_way(&all, true, &mut context())));
        assert!(!parts[0].gives_way(&all, false, &mut context()));
        drop(parts.remove(1));
        all.shed();
        let asked: Vec<bool> = parts.iter_mut().map(|part| part.gives_way(&all, true, &mut context())).collect();
        assert_eq!(asked, [false, true, false], "the first has asked, the second was gone");
        // The first is silent again, and so the youngest.
        all.shed();
        assert!(parts[2].gives_way(&all, true, &mut context()));
        assert_eq!(all.staying.get(), 1);
        all.shed();
        all.shed();
        assert_eq!(all.staying.get(), 0);
    }

    #[test]
    fn those_who_left_are_not_kept() {
        let all = Silent::default();
        let mut first = Part::default();
        assert!(!first.gives_way(&all, true, &mut context()));
        for _ in 0..10_000 {
            assert!(!Part::default().gives_way(&all, true, &mut context()));
        }
        assert!(all.members.borrow().len() <= MANY + 3, "{}", all.members.borrow().len());
    }
}
