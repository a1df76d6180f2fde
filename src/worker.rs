//! One worker: a thread with a single-threaded runtime, its own listening sockets, and the sessions they bring.
mod calm;
mod care;
mod errands;
mod listening;
mod retire;
mod sessions;
mod succession;
mod update;

pub use calm::when_calm;
pub(crate) use errands::{Errands, Workers};
pub(crate) use listening::{Greeting, ListenerId, Listening};
use sessions::Counts;
pub use sessions::Query;
pub(crate) use sessions::{Chosen, Part, Survey};
pub(crate) use succession::Offer;
pub(crate) use update::Update;

use calm::Calm;
use listening::Listeners;
use retire::Retirement;
use succession::Stop;

use crate::{
    handshake::{self, Edge, Plain, Received, admission::Admission},
    listener::{
        accept::Connection,
        handover::{Hands, Intake},
        spread::Seat,
        tls::Acceptor,
    },
    log::{access::AccessLog, verdict::VerdictLog},
    metrics::WorkerMeter,
    session::{
        self, Account, Observer, Opening, Outboxes, Routes, RoutesByName, WorkerContext,
        pause::{PauseWatch, TICK},
        registry::Registry,
    },
    shutdown::{DrainCause, DrainPlan, Drained, Draining, Phase, Share, Tally, drain, until_closing},
    tasks::Tasks,
    transport::{RecordRoom, ServerConfigs},
    upstream::Upstream,
};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Handle, LocalOptions},
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval_at},
};

/// Connections that may be in their opening handshake at a time, on one worker, whichever listener they came to.
const HANDSHAKES: usize = 1024;
/// Places kept free by whoever has asked for nothing for longest.
const SPARE: usize = 64;
/// Those of them that may wait for a backend; the rest is kept for refusals.
pub(crate) const DIALS: usize = HANDSHAKES / 4 * 3;

/// What a worker is made of; built by the gateway, moved to the worker's thread.
pub(crate) struct Setup {
    pub(crate) share: Share,
    /// When the gateway started.
    pub(crate) start: Instant,
    pub(crate) errands: Errands,
    pub(crate) listeners: Vec<Listening>,
    pub(crate) hands: Hands,
    pub(crate) intake: Intake,
    pub(crate) edge: Box<dyn FnOnce() -> Rc<Edge> + Send>,
    pub(crate) meter: Arc<WorkerMeter>,
    pub(crate) routes: Arc<RoutesByName>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) outboxes: Outboxes,
    pub(crate) verdicts: Arc<VerdictLog>,
    pub(crate) access: Option<Arc<AccessLog>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) plan: DrainPlan,
    pub(crate) tally: Arc<Tally>,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// The body of a worker's thread: serves until a drain is over. `ready` hears once whether the worker could start.
pub(crate) fn run(setup: Setup, ready: SyncSender<io::Result<()>>) -> Drained {
    // The gateway that listens to `ready` waits for every worker, so a send cannot fail; if it did, we serve anyway.
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return Drained::default();
        }
    };
    let _ = ready.send(Ok(()));
    // The gateway listens until every worker has let go of it.
    drop(ready);
    runtime.block_on(Box::pin(live(setup)))
}

async fn live(setup: Setup) -> Drained {
    let Setup {
        share,
        start,
        errands,
        listeners,
        hands,
        intake,
        edge,
        meter,
        routes,
        admission,
        outboxes,
        verdicts,
        access,
        observer,
        plan,
        tally,
        mut phase,
    } = setup;
    let seat = hands.seat().clone();
    let worker = Rc::new(Worker::new((share, start), edge(), plan, hands, outboxes, (verdicts, access), observer));
    worker.context.routes.replace(routes);
    for listening in listeners {
        worker.listen(listening);
    }
    worker.take_over(intake);
    let errands = tokio::task::spawn_local(errands.run(Rc::clone(&worker)));
    let watchdog =
        tokio::task::spawn_local(watch(Rc::clone(&worker.pause), Rc::clone(&worker.calm), seat.clone(), meter));
    let retiring = Rc::clone(&worker);
    let retirement = tokio::task::spawn_local(async move { retiring.run_retirement().await });
    let care = tokio::task::spawn_local(Rc::clone(&worker).care_for_backends());

    let began = tokio::select! {
        // First: who relieves it has the gateway drain right after, and both may have come by now.
        biased;
        since = worker.relieved() => {
            tally.begin(since, DrainCause::Upgrade, worker.plan.get());
            (since, DrainCause::Upgrade)
        }
        began = until_closing(&mut phase, &worker.plan, &tally) => {
            admission.drain();
            worker.stop.send_replace(Stop::Emptying);
            began
        }
    };
    care.abort();
    worker.edge.leave();
    // Nothing new comes then, and handshakes under way are as welcome as before, however slow their clients.
    let relieved = matches!(*worker.stop.borrow(), Stop::Relieved { .. });
    worker.acceptors.finished().await;
    let parts = Draining {
        registry: &worker.context.registry,
        sessions: &worker.sessions,
        handshakes: &worker.handshakes,
        requests: &worker.requests,
        admitted: &|| admission.sessions(),
        patient: relieved,
        share,
        tally: &tally,
    };
    let drained = drain(&parts, &worker.plan.get(), began, &mut phase).await;
    watchdog.abort();
    errands.abort();
    retirement.abort();
    seat.leave();
    drained
}

/// A worker on its own thread: what it serves with, and what it runs. Other threads reach it by [`Workers`].
pub(crate) struct Worker {
    edge: Rc<Edge>,
    share: Share,
    plan: Cell<DrainPlan>,
    listeners: Listeners,
    retirement: Retirement,
    context: Rc<WorkerContext>,
    pause: Rc<PauseWatch>,
    calm: Rc<Calm>,
    records: RecordRoom,
    observer: Option<Arc<dyn Observer>>,
    counts: Rc<Counts>,
    hands: Hands,
    slots: Arc<Semaphore>,
    stop: watch::Sender<Stop>,
    acceptors: Rc<Tasks>,
    handshakes: Rc<Tasks>,
    /// Connections of plain requests.
    requests: Rc<Tasks>,
    sessions: Rc<Tasks>,
}

impl Worker {
    fn new(
        (share, start): (Share, Instant),
        edge: Rc<Edge>,
        plan: DrainPlan,
        hands: Hands,
        outboxes: Outboxes,
        (verdicts, access): (Arc<VerdictLog>, Option<Arc<AccessLog>>),
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        let requests = access.clone();
        let pause = Rc::new(PauseWatch::new(Instant::now()));
        let watching = observer.clone();
        let counts = Rc::<Counts>::default();
        let counting = Rc::clone(&counts);
        let context = WorkerContext {
            registry: Rc::new(Registry::counting_from(start)),
            routes: Routes::default(),
            pause: Rc::clone(&pause),
            heartbeat: observer.clone().map(|observer| -> session::HeartbeatObserver {
                Rc::new(move |session, side, event| observer.heartbeat(session, side, event))
            }),
            outboxes,
            scratch: RefCell::default(),
            report: Box::new(move |verdict| {
                counting.ended(verdict.reason);
                verdicts.write(&verdict, Instant::now());
                if let Some(observer) = &watching {
                    observer.ended(&verdict);
                }
            }),
            farewells: Cell::new(plan.pace),
            account: access.and_then(account),
        };
        if let Some(access) = &requests {
            let access = Arc::clone(access);
            edge.report_requests(move |request| access.request(request));
        }
        let (shaking, relaying) = (hands.seat().clone(), hands.seat().clone());
        Self {
            edge,
            share,
            plan: Cell::new(plan),
            listeners: Listeners::default(),
            retirement: Retirement::default(),
            context: Rc::new(context),
            pause,
            calm: Rc::default(),
            records: RecordRoom::default(),
            observer,
            counts,
            hands,
            slots: Arc::new(Semaphore::new(HANDSHAKES)),
            stop: watch::Sender::new(Stop::Serving),
            acceptors: Rc::default(),
            handshakes: Tasks::shown(move |running| shaking.show_handshakes(running)),
            requests: Rc::default(),
            sessions: Tasks::shown(move |running| relaying.show_sessions(running)),
        }
    }

    /// Takes the connections that other workers hand over, until told to stop.
    fn take_over(self: &Rc<Self>, intake: Intake) {
        let (worker, slots) = (Rc::clone(self), Arc::clone(&self.slots));
        let mut stop = self.stop.subscribe();
        let taking = async move {
            // A gateway that is gone wants no more connections either.
            let stopped = async { drop(stop.wait_for(|stop| *stop != Stop::Serving).await) };
            intake.run(slots, stopped, |connection, tls| worker.greet(connection, tls)).await;
        };
        self.acceptors.spawn(taking, |message| tracing::error!("taking connections over panicked: {message}"));
    }

    /// Takes a connection through its opening handshake, in a task of its own.
    fn greet(self: &Rc<Self>, connection: Connection, tls: Option<ServerConfigs>) {
        if self.slots.available_permits() < SPARE {
            self.edge.shed();
        }
        self.calm.disturb();
        let worker = Rc::clone(self);
        let acceptor = tls.map(|configs| Acceptor::new(configs, self.records.clone()));
        let greeting = async move {
            match handshake::receive(connection, acceptor.as_ref(), &worker.edge).await {
                Received::Session(opening) => worker.begin(opening),
                Received::Plain(plain) => worker.serve(plain),
                Received::Nothing => {}
            }
        };
        self.handshakes.spawn(greeting, |message| tracing::error!("an opening handshake panicked: {message}"));
    }

    /// Serves plain requests, in a task of its own.
    fn serve(self: &Rc<Self>, plain: Plain) {
        let worker = Rc::clone(self);
        let serving = async move {
            if let Some(opening) = plain.run().await {
                worker.begin(opening);
            }
        };
        self.requests.spawn(serving, |message| tracing::error!("the serving of plain requests panicked: {message}"));
    }

    /// Sessions that run on it now.
    pub(crate) fn open_sessions(&self) -> usize {
        self.context.registry.len()
    }

    /// The pools that its routes go to, each once.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.edge.upstreams()
    }

    fn begin(&self, mut opening: Opening) {
        self.counts.started();
        // A reload may have come during its handshake.
        if let Some(route) = self.context.routes.get(&opening.facts.route.name) {
            opening.facts.route = route;
        }
        let stranded = self.stranded(&opening.facts);
        if let Some(observer) = &self.observer {
            observer.opened(&opening.facts);
        }
        let session = session::run(opening, Rc::clone(&self.context));
        if let Some(key) = stranded.then(|| self.context.registry.newest()).flatten() {
            self.retire_now(key);
        }
        self.sessions.spawn(session, |message| tracing::error!("a session panicked: {message}"));
    }
}

/// Has open sessions written to the access log, if it asks for that.
fn account(access: Arc<AccessLog>) -> Option<Account> {
    let every = access.every()?;
    Some(Account { every, write: Box::new(move |facts, legs, age| access.progress(facts, legs, age)) })
}

/// Ticks for as long as the worker lives: a late tick is a pause of the whole worker. Tells the board and the meter how busy
/// it is.
async fn watch(pause: Rc<PauseWatch>, calm: Rc<Calm>, seat: Seat, meter: Arc<WorkerMeter>) {
    let mut ticks = interval_at(tokio::time::Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let metrics = Handle::current().metrics();
    let (mut last, mut worked) = (Instant::now(), Duration::ZERO);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let total = metrics.worker_total_busy_duration(0);
        seat.tick(percent(total.saturating_sub(worked), now - last), now);
        meter.show_busy(total);
        (last, worked) = (now, total);
        calm.tick();
        if let Some(paused) = pause.tick(now) {
            meter.paused();
            tracing::warn!(
                paused_ms = u64::try_from(paused.as_millis()).unwrap_or(u64::MAX),
                pauses = pause.observe(now),
                "this worker stood still (stopped, migrated or starved of CPU); no peer is blamed: every heartbeat starts afresh"
            );
        }
    }
}

fn percent(part: Duration, whole: Duration) -> u32 {
    u32::try_from(part.as_micros() * 100 / whole.as_micros().max(1)).unwrap_or(u32::MAX)
}
