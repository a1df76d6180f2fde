//! One worker: a thread with a single-threaded runtime, its own listening sockets, and the sessions they bring.
use crate::{
    handshake::{self, Edge, admission::Admission},
    listener::{
        accept::{Connection, accept},
        bind::ListenSocket,
        tls::Acceptor,
    },
    log::verdict::VerdictLog,
    session::{
        self, Observer, Opening, Outboxes, WorkerContext,
        pause::{PauseWatch, TICK},
    },
    shutdown::{DrainPlan, Drained, Draining, Phase, Share, drain, until_closing},
    tasks::Tasks,
    transport::RecordRoom,
};
use rustls::ServerConfig;
use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};

/// Connections that may be in their opening handshake at a time, on one worker.
const HANDSHAKES: usize = 1024;
/// Those of them that may wait for a backend; the rest is kept for refusals.
pub(crate) const DIALS: usize = HANDSHAKES / 4 * 3;

/// What a worker is made of; built by the gateway, moved to the worker's thread.
pub(crate) struct Setup {
    pub(crate) share: Share,
    pub(crate) listeners: Vec<(ListenSocket, Option<Arc<ServerConfig>>)>,
    pub(crate) edge: Box<dyn FnOnce() -> Rc<Edge> + Send>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) outboxes: Outboxes,
    pub(crate) verdicts: Arc<VerdictLog>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) plan: DrainPlan,
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
    let Setup { share, listeners, edge, admission, outboxes, verdicts, observer, plan, mut phase } = setup;
    let worker = Rc::new(Worker::new(edge(), outboxes, verdicts, observer));
    let (stop, stopped) = watch::channel(false);
    for (socket, tls) in listeners {
        worker.listen(socket, tls, stopped.clone());
    }
    let watchdog = tokio::task::spawn_local(watch_for_pauses(Rc::clone(&worker.pause)));

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
    drained
}

struct Worker {
    edge: Rc<Edge>,
    context: Rc<WorkerContext>,
    pause: Rc<PauseWatch>,
    records: RecordRoom,
    observer: Option<Arc<dyn Observer>>,
    acceptors: Rc<Tasks>,
    handshakes: Rc<Tasks>,
    sessions: Rc<Tasks>,
}

impl Worker {
    fn new(edge: Rc<Edge>, outboxes: Outboxes, verdicts: Arc<VerdictLog>, observer: Option<Arc<dyn Observer>>) -> Self {
        let pause = Rc::new(PauseWatch::new(Instant::now()));
        let watching = observer.clone();
        let context = WorkerContext {
            registry: Rc::default(),
            pause: Rc::clone(&pause),
            heartbeat: observer.clone().map(|observer| -> session::HeartbeatObserver {
                Rc::new(move |session, side, event| observer.heartbeat(session, side, event))
            }),
            outboxes,
            scratch: RefCell::default(),
            report: Box::new(move |verdict| {
                verdicts.write(&verdict, Instant::now());
                if let Some(observer) = &watching {
                    observer.ended(&verdict);
                }
            }),
        };
        Self {
            edge,
            context: Rc::new(context),
            pause,
            records: RecordRoom::default(),
            observer,
            acceptors: Rc::default(),
            handshakes: Rc::default(),
            sessions: Rc::default(),
        }
    }

    /// Accepts on one socket until told to stop.
    fn listen(self: &Rc<Self>, socket: ListenSocket, tls: Option<Arc<ServerConfig>>, stop: watch::Receiver<bool>) {
        let worker = Rc::clone(self);
        let acceptor = tls.map(|config| Acceptor::new(config, self.records.clone()));
        let slots = Arc::new(Semaphore::new(HANDSHAKES));
        let accepting = async move {
            let stopped = async move {
                let mut stop = stop;
                // A gateway that is gone wants no more connections either.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let each = |connection| worker.greet(connection, acceptor.clone());
            if let Err(error) = accept(socket, acceptor.is_some(), slots, stopped, each).await {
                tracing::error!(%error, "a listening socket cannot be served; its worker serves the others");
            }
        };
        self.acceptors.spawn(accepting, |message| tracing::error!("accepting connections panicked: {message}"));
    }

    /// Takes a connection through its opening handshake, in a task of its own.
    fn greet(self: &Rc<Self>, connection: Connection, acceptor: Option<Acceptor>) {
        let worker = Rc::clone(self);
        let greeting = async move {
            let opening = handshake::receive(connection, acceptor.as_ref(), &worker.edge).await;
            if let Some(opening) = opening {
                worker.begin(opening);
            }
        };
        self.handshakes.spawn(greeting, |message| tracing::error!("an opening handshake panicked: {message}"));
    }

    fn begin(&self, opening: Opening) {
        if let Some(observer) = &self.observer {
            observer.opened(&opening.facts);
        }
        let session = session::run(opening, Rc::clone(&self.context));
        self.sessions.spawn(session, |message| tracing::error!("a session panicked: {message}"));
    }
}

/// Ticks for as long as the worker lives: a late tick is a pause of the whole worker.
async fn watch_for_pauses(watch: Rc<PauseWatch>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        if let Some(paused) = watch.tick(now) {
            tracing::warn!(
                paused_ms = u64::try_from(paused.as_millis()).unwrap_or(u64::MAX),
                pauses = watch.observe(now),
                "this worker stood still (stopped, migrated or starved of CPU); no peer is blamed: every heartbeat starts afresh"
            );
        }
    }
}
