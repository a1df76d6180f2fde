//! Relays without transports: each ping is answered where it is taken. What remains is the core, and a timer for each.

use super::{
    Plan,
    cost::{self, Lateness, Measured, Window},
    peer,
};
use pin_project_lite::pin_project;
use pulsegate::{
    protocol::heartbeat::{Answers, HeartbeatEvent, PathSample, Seed},
    relay::{PerSide, Relay, RelayConfig, Side},
};
use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    task::{spawn_local, yield_now},
    time::{Sleep, sleep, sleep_until},
};

/// Relays that start between two looks at the timers.
const BATCH: usize = 256;

/// What all relays have done.
struct Tally {
    rounds: u32,
    /// Relays with a leg that had fewer pings answered than `rounds`.
    waiting: Cell<usize>,
    all: Notify,
    pings: Cell<u64>,
    lateness: RefCell<Lateness>,
    /// The longest time from a settled ping to the next one that the configuration allows.
    longest: Duration,
    /// How often something that must hold did not.
    broken: Cell<usize>,
}

impl Tally {
    fn new(plan: &Plan) -> Self {
        let longest = Side::BOTH.map(|side| {
            let heartbeat = &plan.relay.heartbeat[side];
            heartbeat.ping_interval.unwrap().mul_f64(1.0 + heartbeat.jitter)
        });
        Self {
            rounds: plan.rounds,
            waiting: Cell::new(plan.count),
            all: Notify::new(),
            pings: Cell::new(0),
            lateness: RefCell::new(Lateness::new()),
            longest: longest.into_iter().max().unwrap(),
            broken: Cell::new(0),
        }
    }

    fn must(&self, hold: bool) {
        if !hold {
            self.broken.set(self.broken.get() + 1);
        }
    }
}

pin_project! {
    /// A relay and its timer, set as a session sets its own.
    struct Beating {
        relay: Relay,
        #[pin]
        timer: Sleep,
        armed: Instant,
        registered: bool,
        satisfied: bool,
        tally: Rc<Tally>,
    }
}

impl Beating {
    fn new(config: Arc<RelayConfig>, tally: Rc<Tally>) -> Self {
        let now = Instant::now();
        let seed = || Seed { secret: rand::random(), jitter: rand::random() };
        let relay = Relay::new(config, false, PerSide { downstream: seed(), upstream: seed() }, now);
        let armed = relay.poll_timeout().unwrap();
        Self { relay, timer: sleep_until(armed.into()), armed, registered: false, satisfied: false, tally }
    }
}

/// The pings that are due leave, and are answered.
fn beat(relay: &mut Relay, now: Instant, tally: &Tally) {
    relay.on_timeout(now, Answers::Proven, |_| Some(PathSample::default()));
    for side in Side::BOTH {
        while let Some(ping) = relay.take_control(side, now, rand::random) {
            let (pong, used) = peer::answer(side, ping.bytes()).unwrap();
            relay.sent(side, used);
            relay.on_taken(side, now, || Some(PathSample::default()));
            tally.must(relay.take_event(side) == Some(HeartbeatEvent::Sent));
            relay.arrived(side, pong.len(), relay.moment(now));
            let step = relay.receive(side, &pong, relay.moment(now));
            tally.must(step.used == pong.len() && step.pass.is_empty());
            tally.must(matches!(relay.take_event(side), Some(HeartbeatEvent::Answered { .. })));
            tally.pings.set(tally.pings.get() + 1);
        }
    }
}

impl Future for Beating {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let now = Instant::now();
        if let Some(due) = this.relay.poll_timeout().filter(|due| *due <= now) {
            this.tally.lateness.borrow_mut().record(now - due);
            beat(this.relay, now, this.tally);
            let answered = Side::BOTH.into_iter().map(|side| this.relay.leg(side).heartbeat.answered()).min();
            if answered >= Some(this.tally.rounds) && !std::mem::replace(this.satisfied, true) {
                this.tally.waiting.set(this.tally.waiting.get() - 1);
                this.tally.all.notify_one();
            }
        }
        let due = this.relay.poll_timeout().unwrap();
        this.tally.must(!this.relay.is_ending() && due > now && due <= now + this.tally.longest);
        if due < *this.armed || *this.armed <= now {
            *this.armed = due;
            this.timer.as_mut().reset(due.into());
            *this.registered = false;
        }
        if !*this.registered {
            *this.registered = this.timer.poll(cx).is_pending();
            if !*this.registered {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

/// Runs `count` relays until every leg had its pings, and the time is over.
pub(crate) async fn run(plan: &Plan) -> Measured {
    let tally = Rc::new(Tally::new(plan));
    let (held, resident) = (cost::held(), cost::resident());
    for number in 0..plan.count {
        spawn_local(Beating::new(Arc::clone(&plan.relay), Rc::clone(&tally)));
        if number % BATCH == 0 {
            yield_now().await;
        }
    }
    yield_now().await;
    let full = cost::held();
    let resident = cost::resident().saturating_sub(resident);
    while tally.waiting.get() > 0 {
        tally.all.notified().await;
    }
    // By now all that piled up while they started is done.
    tally.lateness.borrow_mut().forget();
    let window = Window::open(tally.pings.get());
    sleep(plan.measured).await;
    Measured {
        count: plan.count,
        bytes: cost::each(full - held, plan.count),
        surroundings: 0,
        resident: resident / plan.count,
        grown: cost::each(cost::held() - full, plan.count),
        left: 0,
        broken: tally.broken.get(),
        spent: window.close(tally.pings.get()),
        lateness: tally.lateness.replace(Lateness::new()),
    }
}
