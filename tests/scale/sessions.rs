//! Whole sessions as a worker runs them, over transports in memory, with peers that answer each ping.

use super::{
    Plan,
    cost::{self, Lateness, Measured, Window},
    peer,
};
use futures_util::FutureExt;
use pulsegate::{
    handshake::admission::Admission,
    metrics::Meter,
    protocol::heartbeat::HeartbeatEvent,
    relay::{PerSide, Side},
    route::{HostHeader, HostPattern, PlainHttp, RouteConfig, RouteOptions},
    session::{
        self, ClientAddress, Facts, Opened, Opening, Routes, WorkerContext,
        pause::{PauseWatch, TICK},
        registry::Order,
        verdict::Verdict,
    },
    tasks::Tasks,
    transport::{Socket, Stream},
    upstream::{Backend, BackendAddress, Lease},
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
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::Notify,
    task::{spawn_local, unconstrained, yield_now},
    time::{sleep, sleep_until},
};

/// What a transport in memory holds at most: a ping and a pong, and some room.
const TRANSPORT: usize = 64;
/// Sessions that start between two looks at the timers.
const BATCH: usize = 256;
/// How often the worker's own timer fires, to see how late it is.
const BEAT: Duration = Duration::from_millis(5);

/// What all sessions and peers have done.
struct Tally {
    rounds: u32,
    /// Peers of sessions with a leg that had fewer pings than `rounds`.
    waiting: Cell<usize>,
    all: Notify,
    answered: Cell<u64>,
    /// Verdicts, and those among them that say too little was asked or answered.
    ended: Cell<usize>,
    wrong: Cell<usize>,
}

impl Tally {
    fn new(plan: &Plan) -> Self {
        Self {
            rounds: plan.rounds,
            waiting: Cell::new(plan.count),
            all: Notify::new(),
            answered: Cell::new(0),
            ended: Cell::new(0),
            wrong: Cell::new(0),
        }
    }

    fn heard(&self, event: HeartbeatEvent) {
        match event {
            HeartbeatEvent::Sent => {}
            HeartbeatEvent::Answered { .. } => self.answered.set(self.answered.get() + 1),
            HeartbeatEvent::AnsweredLate | HeartbeatEvent::Missed | HeartbeatEvent::Unproven => {
                self.wrong.set(self.wrong.get() + 1)
            }
        }
    }

    fn judge(&self, verdict: &Verdict) {
        self.ended.set(self.ended.get() + 1);
        let right = Side::BOTH.into_iter().all(|side| {
            let leg = &verdict.legs[side];
            // The last pong may still be on its way.
            leg.pings_sent >= self.rounds && leg.pongs_received + 1 >= leg.pings_sent && leg.messages_received == 0
        });
        if !right {
            self.wrong.set(self.wrong.get() + 1);
        }
    }
}

/// The client and the backend of one session.
struct Peers {
    ends: PerSide<DuplexStream>,
    gone: PerSide<bool>,
    pings: PerSide<u32>,
    tally: Rc<Tally>,
}

impl Peers {
    /// Answers what has come; whether the session's end of the transport is gone.
    fn answer(&mut self, side: Side, cx: &mut Context<'_>) -> bool {
        loop {
            let mut room = [0; TRANSPORT];
            let mut room = ReadBuf::new(&mut room);
            match Pin::new(&mut self.ends[side]).poll_read(cx, &mut room) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) if room.filled().is_empty() => return true,
                Poll::Ready(done) => done.unwrap(),
            }
            let (pong, used) = peer::answer(side, room.filled()).unwrap();
            assert_eq!(used, room.filled().len(), "one ping at a time");
            match Pin::new(&mut self.ends[side]).poll_write(cx, &pong) {
                Poll::Ready(Ok(taken)) if taken == pong.len() => {}
                // The session was cut meanwhile.
                Poll::Ready(_) | Poll::Pending => return true,
            }
            self.pings[side] += 1;
            if self.pings[side] == self.tally.rounds && self.pings[side.other()] >= self.tally.rounds {
                self.tally.waiting.set(self.tally.waiting.get() - 1);
                self.tally.all.notify_one();
            }
        }
    }
}

impl Future for Peers {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        for side in Side::BOTH {
            if !self.gone[side] {
                self.gone[side] = self.answer(side, cx);
            }
        }
        if self.gone.downstream && self.gone.upstream { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A transport whose buffers are as large as they will ever be: its memory is not the session's.
fn transport() -> (DuplexStream, DuplexStream) {
    let (mut near, mut far) = duplex(TRANSPORT);
    fill(&mut near, &mut far);
    fill(&mut far, &mut near);
    (near, far)
}

fn fill(writer: &mut DuplexStream, reader: &mut DuplexStream) {
    let passing = async {
        let mut bytes = [0; TRANSPORT];
        writer.write_all(&bytes).await.unwrap();
        reader.read_exact(&mut bytes).await.unwrap();
    };
    // Nothing here has to wait, and no task is to be told that it had its share of the runtime.
    unconstrained(passing).now_or_never().unwrap();
}

/// What the sessions of a worker have in common.
struct Common {
    route: Arc<RouteConfig>,
    backend: Arc<Backend>,
    admission: Arc<Admission>,
    meter: Arc<Meter>,
}

impl Common {
    fn new(plan: &Plan) -> Self {
        let route = RouteConfig {
            name: "/".to_owned(),
            host: HostPattern::Any,
            path: "/".to_owned(),
            strip_prefix: false,
            upstream: "pool".to_owned(),
            host_header: HostHeader::Client,
            origins: None,
            http: PlainHttp::Refuse,
            options: RouteOptions { relay: Arc::clone(&plan.relay), ..RouteOptions::default() },
        };
        Self {
            route: Arc::new(route),
            backend: Arc::new(Backend::new("pool", BackendAddress::Echo)),
            admission: Admission::new(plan.count, None),
            meter: Arc::default(),
        }
    }

    fn opening(&self, downstream: DuplexStream, upstream: DuplexStream) -> Opening {
        let opened = |socket| Opened { stream: Stream::Plain(Socket::Memory(socket)), early: Vec::new() };
        let facts = Facts {
            id: "00000000-0000-4000-8000-000000000000".into(),
            route: Arc::clone(&self.route),
            lease: Lease::new(Arc::clone(&self.backend)),
            client: ClientAddress::from("203.0.113.203".parse().ok()),
            user_agent: None,
            origin: None,
            local_port: None,
            accounts: Cell::default(),
            permit: self.admission.admit(&self.route, None).unwrap(),
            meter: Arc::clone(&self.meter),
        };
        Opening { downstream: opened(downstream), upstream: opened(upstream), deflate: false, facts }
    }
}

/// The worker's watchdog, which also tells how late its own timer is.
async fn watch(pause: Rc<PauseWatch>, lateness: Rc<RefCell<Lateness>>) {
    let mut tick = Instant::now() + TICK;
    loop {
        let due = Instant::now() + BEAT;
        sleep_until(due.into()).await;
        let now = Instant::now();
        lateness.borrow_mut().record(now - due);
        if now >= tick {
            pause.tick(now);
            tick = now + TICK;
        }
    }
}

/// Runs `count` sessions until every leg had its pings and the time is over; then cuts them.
pub(crate) async fn run(plan: &Plan) -> Measured {
    let tally = Rc::new(Tally::new(plan));
    let lateness = Rc::new(RefCell::new(Lateness::new()));
    let (common, sessions, peers) = (Common::new(plan), Rc::<Tasks>::default(), Rc::<Tasks>::default());
    let (hears, judges) = (Rc::clone(&tally), Rc::clone(&tally));
    let context = Rc::new(WorkerContext {
        registry: Rc::default(),
        routes: Routes::default(),
        pause: Rc::new(PauseWatch::new(Instant::now())),
        heartbeat: Some(Rc::new(move |_, _, event| hears.heard(event))),
        report: Box::new(move |verdict| judges.judge(&verdict)),
        farewells: Cell::new(pulsegate::pacing::Bounded {
            pace: pulsegate::pacing::Pace::Spread(std::time::Duration::ZERO),
            most: std::time::Duration::ZERO,
        }),
        account: None,
        outboxes: Arc::default(),
        scratch: RefCell::default(),
    });
    let watchdog = spawn_local(watch(Rc::clone(&context.pause), Rc::clone(&lateness)));

    // Peers and transports first, so that what they take can be told apart.
    let (empty, resident) = (cost::held(), cost::resident());
    let mut openings = Vec::with_capacity(plan.count);
    for number in 0..plan.count {
        let ((downstream, client), (upstream, backend)) = (transport(), transport());
        let ends = PerSide { downstream: client, upstream: backend };
        let both = Peers { ends, gone: PerSide::default(), pings: PerSide::default(), tally: Rc::clone(&tally) };
        peers.spawn(both, |message| panic!("a peer panicked: {message}"));
        openings.push((downstream, upstream));
        if number % BATCH == 0 {
            yield_now().await;
        }
    }
    let surroundings = cost::held();
    for (number, (downstream, upstream)) in openings.drain(..).enumerate() {
        let session = session::run(common.opening(downstream, upstream), Rc::clone(&context));
        sessions.spawn(session, |message| panic!("a session panicked: {message}"));
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
    lateness.borrow_mut().forget();
    let window = Window::open(tally.answered.get());
    sleep(plan.measured).await;
    let (spent, grown) = (window.close(tally.answered.get()), cost::held() - full);

    let lost = plan.count - context.registry.len();
    for key in context.registry.keys() {
        context.registry.order(key, Order::Cut);
    }
    sessions.finished().await;
    peers.finished().await;
    drop(openings);
    watchdog.abort();
    let left = cost::each(cost::held() - empty, plan.count);
    let lateness = lateness.replace(Lateness::new());
    Measured {
        count: plan.count,
        bytes: cost::each(full - surroundings, plan.count),
        surroundings: cost::each(surroundings - empty, plan.count),
        resident: resident / plan.count,
        grown: cost::each(grown, plan.count),
        left,
        broken: lost + tally.wrong.get() + (plan.count - tally.ended.get()) + common.backend.sessions(),
        spent,
        lateness,
    }
}
