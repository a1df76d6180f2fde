//! One worker: a thread with a single-threaded runtime, its own listening sockets, and the sessions they bring.
mod errands;
mod sessions;

pub(crate) use errands::{Errands, Workers};
pub use sessions::Query;
pub(crate) use sessions::{Chosen, Part, Survey};

use crate::{
    handshake::{self, Edge, admission::Admission},
    listener::{
        Health,
        accept::{Connection, accept},
        bind::ListenSocket,
        handover::{Hands, Intake},
        spread::{Arrival, Seat},
        tls::Acceptor,
    },
    log::verdict::VerdictLog,
    session::{
        self, Observer, Opening, Outboxes, WorkerContext,
        pause::{PauseWatch, TICK},
        registry::Registry,
    },
    shutdown::{DrainPlan, Drained, Draining, Phase, Share, drain, until_closing},
    tasks::Tasks,
    transport::{RecordRoom, ServerConfigs},
    upstream::Upstream,
};
use rustls::ServerConfig;
use sessions::Tally;
use std::{
    cell::RefCell,
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
    pub(crate) admission: Arc<Admission>,
    pub(crate) outboxes: Outboxes,
    pub(crate) verdicts: Arc<VerdictLog>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) plan: DrainPlan,
    pub(crate) phase: watch::Receiver<Phase>,
}

/// One worker's part of a listener.
pub(crate) struct Listening {
    pub(crate) socket: ListenSocket,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) health: Option<Arc<Health>>,
    pub(crate) arrival: Arrival,
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
        admission,
        outboxes,
        verdicts,
        observer,
        plan,
        mut phase,
    } = setup;
    let seat = hands.seat().clone();
    let worker = Rc::new(Worker::new((share.worker, start), edge(), hands, outboxes, verdicts, observer));
    let (stop, stopped) = watch::channel(false);
    for listening in listeners {
        worker.listen(listening, stopped.clone());
    }
    worker.take_over(intake, stopped);
    let errands = tokio::task::spawn_local(errands.run(Rc::clone(&worker)));
    let watchdog = tokio::task::spawn_local(watch(Rc::clone(&worker.pause), seat));

    let since = until_closing(&mut phase, &plan).await;
    admission.drain();
    stop.send_replace(true);
    worker.acceptors.finished().await;
    let parts = Draining {
        registry: &worker.context.registry,
        sessions: &worker.sessions,
        handshakes: &worker.handshakes,
        admitted: &|| admission.sessions(),
        share,
    };
    let drained = drain(&parts, &plan, since, &mut phase).await;
    watchdog.abort();
    errands.abort();
    drained
}

/// A worker on its own thread: what it serves with, and what it runs. Other threads reach it by [`Workers`].
pub(crate) struct Worker {
    /// Its number among the workers.
    index: u32,
    edge: Rc<Edge>,
    context: Rc<WorkerContext>,
    pause: Rc<PauseWatch>,
    records: RecordRoom,
    observer: Option<Arc<dyn Observer>>,
    tally: Rc<Tally>,
    hands: Hands,
    slots: Arc<Semaphore>,
    acceptors: Rc<Tasks>,
    handshakes: Rc<Tasks>,
    sessions: Rc<Tasks>,
}

impl Worker {
    fn new(
        (index, start): (u32, Instant),
        edge: Rc<Edge>,
        hands: Hands,
        outboxes: Outboxes,
        verdicts: Arc<VerdictLog>,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        let pause = Rc::new(PauseWatch::new(Instant::now()));
        let watching = observer.clone();
        let tally = Rc::<Tally>::default();
        let counting = Rc::clone(&tally);
        let context = WorkerContext {
            registry: Rc::new(Registry::counting_from(start)),
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
        };
        let (shaking, relaying) = (hands.seat().clone(), hands.seat().clone());
        Self {
            index,
            edge,
            context: Rc::new(context),
            pause,
            records: RecordRoom::default(),
            observer,
            tally,
            hands,
            slots: Arc::new(Semaphore::new(HANDSHAKES)),
            acceptors: Rc::default(),
            handshakes: Tasks::shown(move |running| shaking.show_handshakes(running)),
            sessions: Tasks::shown(move |running| relaying.show_sessions(running)),
        }
    }

    /// Accepts on one socket until told to stop.
    fn listen(self: &Rc<Self>, listening: Listening, stop: watch::Receiver<bool>) {
        let Listening { socket, tls, health, arrival } = listening;
        let (worker, slots) = (Rc::clone(self), Arc::clone(&self.slots));
        let tls = tls.map(ServerConfigs::new);
        let accepting = async move {
            let each = |mut connection: Connection| {
                connection.peer.health.clone_from(&health);
                if let Some(connection) = worker.hands.pass_on(connection, tls.as_ref(), arrival) {
                    worker.greet(connection, tls.clone());
                }
            };
            if let Err(error) = accept(socket, tls.is_some(), slots, stopped(stop), each).await {
                tracing::error!(%error, "a listening socket cannot be served; its worker serves the others");
            }
        };
        self.acceptors.spawn(accepting, |message| tracing::error!("accepting connections panicked: {message}"));
    }

    /// Takes the connections that other workers hand over, until told to stop.
    fn take_over(self: &Rc<Self>, intake: Intake, stop: watch::Receiver<bool>) {
        let (worker, slots) = (Rc::clone(self), Arc::clone(&self.slots));
        let taking = async move {
            intake.run(slots, stopped(stop), |connection, tls| worker.greet(connection, tls)).await;
        };
        self.acceptors.spawn(taking, |message| tracing::error!("taking connections over panicked: {message}"));
    }

    /// Takes a connection through its opening handshake, in a task of its own.
    fn greet(self: &Rc<Self>, connection: Connection, tls: Option<ServerConfigs>) {
        let worker = Rc::clone(self);
        let acceptor = tls.map(|configs| Acceptor::new(configs, self.records.clone()));
        let greeting = async move {
            let opening = handshake::receive(connection, acceptor.as_ref(), &worker.edge).await;
            if let Some(opening) = opening {
                worker.begin(opening);
            }
        };
        self.handshakes.spawn(greeting, |message| tracing::error!("an opening handshake panicked: {message}"));
    }

    /// Sessions that run on it now.
    pub(crate) fn open_sessions(&self) -> usize {
        self.context.registry.len()
    }

    /// The pools that its routes go to, each once.
    pub(crate) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.edge.upstreams()
    }

    fn begin(&self, opening: Opening) {
        self.tally.started();
        if let Some(observer) = &self.observer {
            observer.opened(&opening.facts);
        }
        let session = session::run(opening, Rc::clone(&self.context));
        self.sessions.spawn(session, |message| tracing::error!("a session panicked: {message}"));
    }
}

/// A gateway that is gone wants no more connections either.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Ticks for as long as the worker lives: a late tick is a pause of the whole worker. Tells the board how busy it is.
async fn watch(pause: Rc<PauseWatch>, seat: Seat) {
    let mut ticks = interval_at(tokio::time::Instant::now() + TICK, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let metrics = Handle::current().metrics();
    let (mut last, mut worked) = (Instant::now(), Duration::ZERO);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let total = metrics.worker_total_busy_duration(0);
        seat.tick(percent(total.saturating_sub(worked), now - last), now);
        (last, worked) = (now, total);
        if let Some(paused) = pause.tick(now) {
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
