//! Connections of one worker that ask for nothing: not yet, or not again. When its places for opening handshakes run out, those of the
//! addresses that hold most of them give theirs up, oldest first: thousands of connections that say nothing, or say it slowly,
//! keep nobody out, and hurry nobody who comes from elsewhere.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// Why one is closed that has sent no request.
pub(super) const SHED: &str = "no request head was complete when its place was needed for a newer connection";
/// It is told at most this often.
const QUIET: Duration = Duration::from_secs(10);
/// Those that have left are looked for once they may be so many.
const MANY: usize = 64;
/// So many are chosen at a time, since choosing looks at all.
const CHOSEN: usize = 64;

/// Those who ask for nothing.
#[derive(Debug, Default)]
pub(super) struct Silent {
    /// By age. Some may have left.
    members: RefCell<VecDeque<Rc<Member>>>,
    /// Of them, those who give their places up next.
    next: RefCell<VecDeque<Rc<Member>>>,
    staying: Rc<Cell<usize>>,
    told: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct Member {
    /// As the connections of one subscriber are counted.
    from: Option<IpAddr>,
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

/// A connection's place is needed for another.
#[derive(Debug)]
pub(super) struct GivesWay;

/// A connection's part in it: it is one of them while it asks for nothing.
#[derive(Debug)]
pub(super) struct Part {
    address: Option<IpAddr>,
    member: Option<(Rc<Member>, Rc<Cell<usize>>)>,
}

/// What one subscriber is given: an IPv4 address, or the /64 of an IPv6 one.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl Silent {
    /// One of those that hold most gives its place up.
    pub(super) fn shed(&self) {
        let mut next = self.next.borrow_mut();
        let mut chosen = false;
        loop {
            let Some(member) = next.pop_front() else {
                if chosen {
                    return;
                }
                *next = self.choose();
                chosen = true;
                continue;
            };
            if member.state.get() == State::Staying {
                self.ask(&member);
                return;
            }
        }
    }

    fn ask(&self, member: &Member) {
        member.state.set(State::Asked);
        self.staying.set(self.staying.get() - 1);
        if let Some(waker) = member.waker.take() {
            waker.wake();
        }
        let now = Instant::now();
        if self.told.get().is_none_or(|told| now >= told + QUIET) {
            self.told.set(Some(now));
            tracing::warn!(
                address = member.from.map(tracing::field::display),
                "places for opening handshakes run out: connections that ask for nothing are closed, of the addresses \
                 that hold most of them, oldest first"
            );
        }
    }

    /// The oldest of the addresses that hold more than half as many as the one that holds most.
    fn choose(&self) -> VecDeque<Rc<Member>> {
        let mut members = self.members.borrow_mut();
        members.retain(|member| member.state.get() == State::Staying);
        let mut held: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for member in members.iter() {
            *held.entry(member.from).or_default() += 1;
        }
        let most = held.values().copied().max().unwrap_or_default();
        members.iter().filter(|member| 2 * held[&member.from] > most).take(CHOSEN).cloned().collect()
    }

    fn enter(&self, address: Option<IpAddr>) -> Rc<Member> {
        let mut members = self.members.borrow_mut();
        if members.len() >= 2 * self.staying.get() + MANY {
            members.retain(|member| member.state.get() == State::Staying);
        }
        let member = Rc::new(Member {
            from: address.map(subscriber),
            state: Cell::new(State::Staying),
            waker: RefCell::default(),
        });
        members.push_back(Rc::clone(&member));
        self.staying.set(self.staying.get() + 1);
        member
    }

    /// Waits for `work`, which belongs to a connection from `address` that has asked for nothing.
    ///
    /// # Errors
    /// It is to give its place up.
    pub(super) async fn unless_asked<T>(
        &self,
        address: Option<IpAddr>,
        work: impl Future<Output = T>,
    ) -> Result<T, GivesWay> {
        let (mut work, mut part) = (pin!(work), Part::of(address));
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if part.gives_way(self, true, cx) => Poll::Ready(Err(GivesWay)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

impl Part {
    /// A connection from there.
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        Self { address, member: None }
    }

    /// Whether the connection is to give its place up now. `silent`: it asks for nothing; one that does is none of
    /// them.
    pub(super) fn gives_way(&mut self, all: &Silent, silent: bool, cx: &mut Context<'_>) -> bool {
        if !silent {
            self.leave();
            return false;
        }
        let (member, _) = self.member.get_or_insert_with(|| (all.enter(self.address), Rc::clone(&all.staying)));
        let mut waker = member.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        member.state.get() == State::Asked
    }

    fn leave(&mut self) {
        if let Some((member, staying)) = self.member.take()
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
        let mut parts: Vec<Part> = (0..4).map(|_| Part::of(None)).collect();
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
        let mut first = Part::of(None);
        assert!(!first.gives_way(&all, true, &mut context()));
        for _ in 0..10_000 {
            assert!(!Part::of(None).gives_way(&all, true, &mut context()));
        }
        assert!(all.members.borrow().len() <= MANY + 3, "{}", all.members.borrow().len());
    }

    /// From where those came who are asked by so many calls, of one connection each from `addresses`.
    fn shed(addresses: impl Iterator<Item = IpAddr>, times: usize) -> Vec<IpAddr> {
        let all = Silent::default();
        let mut parts: Vec<(IpAddr, Part)> = addresses.map(|address| (address, Part::of(Some(address)))).collect();
        assert!(parts.iter_mut().all(|(_, part)| !part.gives_way(&all, true, &mut context())));
        (0..times).for_each(|_| all.shed());
        let asked = parts
            .iter_mut()
            .filter_map(|(address, part)| part.gives_way(&all, true, &mut context()).then_some(*address));
        asked.collect()
    }

    #[test]
    fn the_address_that_holds_most_gives_way_first() {
        let (few, many) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let came = || [few; 3].into_iter().chain([many; 200]);
        assert_eq!(shed(came(), 190), [many; 190], "the few are older, and stay");
        assert_eq!(shed(came(), 300).len(), 203, "all, if it must be");
    }

    #[test]
    fn addresses_that_hold_the_same_go_by_age() {
        let address = |last| IpAddr::from([192, 0, 2, last]);
        assert_eq!(shed((0..250).map(address), 3), [address(0), address(1), address(2)]);
    }

    #[test]
    fn an_ipv6_subscriber_is_one() {
        let address = |net: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]);
        let came = (0..4).map(|net| address(net, 0)).chain((0..100).map(|host| address(9, host)));
        let asked = shed(came, 90);
        assert!(asked.len() == 90 && asked.contains(&address(9, 0)) && !asked.contains(&address(1, 0)), "{asked:?}");
    }
}
