//! A whole gateway: built from a `Config`, run by workers, drained on request.
mod changes;
mod endings;
mod names;
mod operator;
mod reload;
mod routing;
mod served;
mod standing;
mod watch;

pub use changes::{Altered, Changes};
pub use endings::{EndingId, EndingState, Progress};
pub use operator::{BackendState, Backends, Operator, Overview, Page};
pub use reload::{ReloadError, Reloads};

use crate::{
    config::{Ceilings, Config},
    descriptors,
    handshake::{
        Edge, Terms,
        admission::{Admission, MemoryLimit},
        refusals::Refusals,
    },
    listener::{
        ListenAddress, ListenerConfig,
        bind::BindError,
        handover,
        inherited::Inherited,
        spread::Board,
        tls::{TlsError, expiry},
    },
    log::{
        LAST_WORDS,
        access::{AccessLog, AccessLogError},
        verdict::VerdictLog,
    },
    metrics::{Meters, WorkerMeter},
    session::Outboxes,
    shutdown::{Control, DrainPlan, Drained, Share, Tally},
    upgrade::Lineage,
    upstream::UpstreamTlsError,
    worker::{self, Workers},
};
pub use crate::{listener::spread::Load, session::Observer, worker::Query};
use endings::Endings;
use names::Names;
use reload::Reloader;
use routing::Routing;
use served::Listeners;
use standing::{Standing, terms};
use std::{
    error::Error,
    io,
    num::NonZeroUsize,
    path::Path,
    rc::Rc,
    sync::{Arc, atomic::Ordering, mpsc::sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// Why a gateway does not start. Nothing is bound then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Upstream(#[from] UpstreamTlsError),
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// Only a configuration that `config` did not make can be so.
    #[error("route {route:?} goes to upstream {upstream:?}, which is not configured")]
    NoUpstream { route: String, upstream: String },
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Sessions that the drain told to end.
    pub told: usize,
    /// Sessions cut by the drain's timeout or a second request, before their closing handshake was over.
    pub cut: usize,
    /// Workers that ended by a bug instead of a drain.
    pub failed_workers: usize,
}

/// A running gateway. Several in one process do not know of each other. Dropping one cuts its sessions and waits for its
/// workers.
#[derive(Debug)]
pub struct Gateway {
    control: Control,
    board: Arc<Board>,
    /// To ask the workers, and to have them do something.
    reach: Workers,
    meters: Arc<Meters>,
    endings: Endings,
    started: Instant,
    workers: Vec<JoinHandle<Drained>>,
    access: Option<Arc<AccessLog>>,
    admission: Arc<Admission>,
    tally: Arc<Tally>,
    /// What it stands on, Unix sockets' files among it, which are removed with it.
    reloader: Arc<Reloader>,
    lineage: Lineage,
    upgrade_timeout: Duration,
}

impl Gateway {
    /// Builds every part, binds every listener, and serves. Events go to the process's `tracing` subscriber.
    ///
    /// # Errors
    /// When a file cannot be read, an address not be bound, or a worker not be started; nothing runs then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::observed(config, None)
    }

    /// The same, with somebody who watches the sessions.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn observed(config: Config, observer: Option<Arc<dyn Observer>>) -> Result<Self, StartError> {
        Self::inheriting(config, observer, &mut Inherited::default(), Lineage::default())
    }

    /// The same, on sockets that are there already, for those listeners that find theirs among them.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn inheriting(
        config: Config,
        observer: Option<Arc<dyn Observer>>,
        inherited: &mut Inherited,
        lineage: Lineage,
    ) -> Result<Self, StartError> {
        let workers = worker_count(&config);
        let start = Instant::now();
        let meters = Meters::new(workers);
        meters.show_generation(lineage.generation().into());
        let routing = Routing::build(&config, None, &meters)?;
        let outboxes: Vec<Outboxes> = (0..workers).map(|_| Outboxes::default()).collect();
        let memory = memory_limit(config.gateway.memory_limit, outboxes.clone());
        let max_sessions = max_sessions(&config);
        let admission = Admission::new(max_sessions, Some(memory));
        admission.rates().set(&config.gateway.rates, Instant::now());
        admission.limit_connections(max_http_connections(&config));
        let access = config.access_log.as_ref().map(AccessLog::start).transpose()?.map(Arc::new);
        let verdicts = Arc::new(VerdictLog::new(config.log.sessions, access.clone()));
        let refusals = Refusals::new();
        let (plan, terms) = (DrainPlan::of(&config), terms(&config, &routing));

        let control = Control::default();
        let mut listeners = Listeners::new(control.clone());
        let prepared = listeners.prepare(inherited, &config.listeners, workers)?;
        let opened = listeners.commit(prepared, workers).opened;
        show(&config, max_sessions, &meters);
        let board = Arc::new(Board::new(workers, start));
        let links = handover::link(&board, workers);
        let (reach, errands) = Workers::new(workers);
        let (routes, upgrade_timeout) = (Arc::clone(&routing.routes), config.gateway.upgrade_timeout);
        let standing = Standing {
            config,
            routing,
            listeners,
            workers,
            reach: reach.clone(),
            admission: Arc::clone(&admission),
            verdicts: Arc::clone(&verdicts),
            meters: Arc::clone(&meters),
            names: Names::new(reach.clone(), Arc::clone(&meters)),
        };
        let reloader = Reloader::new(standing, control.clone(), lineage.clone());
        let mut gateway = Self {
            control,
            board,
            reach,
            meters,
            endings: Endings::default(),
            started: start,
            workers: Vec::new(),
            access,
            admission: Arc::clone(&admission),
            tally: Arc::default(),
            reloader,
            lineage,
            upgrade_timeout,
        };
        let (ready, started) = sync_channel(workers);
        let parts = outboxes.into_iter().zip(links).zip(errands).zip(opened);
        for (index, (((outboxes, (hands, intake)), errands), listeners)) in parts.enumerate() {
            let meter = &gateway.meters.workers()[index];
            let setup = worker::Setup {
                share: share(index, workers),
                start,
                errands,
                listeners,
                hands,
                intake,
                edge: edge_of(&terms, &admission, &refusals, meter),
                meter: Arc::clone(meter),
                routes: Arc::clone(&routes),
                admission: Arc::clone(&admission),
                outboxes,
                verdicts: Arc::clone(&verdicts),
                access: gateway.access.clone(),
                observer: observer.clone(),
                plan,
                tally: Arc::clone(&gateway.tally),
                phase: gateway.control.watch(),
            };
            let (ready, fall) = (ready.clone(), Fall(gateway.control.clone()));
            let body = move || {
                let _fall = fall;
                worker::run(setup, ready)
            };
            gateway.workers.push(thread::Builder::new().name(format!("worker-{index}")).spawn(body)?);
        }
        drop(ready);
        for outcome in started {
            outcome?;
        }
        let standing = gateway.reloader.standing();
        standing.names.follow(standing.routing.pools())?;
        drop(standing);
        Ok(gateway)
    }

    /// Has it reload from `file`: when its [`Operator`] is asked to, and, if `gateway.watch` says so, when the file or a
    /// certificate changes. `adjust` changes what was read before it is used, as arguments do that stand above the file.
    pub fn follow(
        &self,
        file: &Path,
        adjust: impl Fn(&mut Config) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    ) {
        self.reloader.follow(file.to_owned(), Box::new(adjust));
    }

    /// The listeners with the addresses they really have: the kernel's choice where port 0 was asked for.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerConfig> {
        self.reloader.standing().listeners.listening().collect()
    }

    /// The addresses of [`Gateway::listeners`].
    pub fn addresses(&self) -> impl Iterator<Item = ListenAddress> {
        self.listeners().into_iter().map(|listener| listener.address)
    }

    /// What each worker has to do now.
    pub fn loads(&self) -> impl Iterator<Item = Load> {
        self.board.loads(Instant::now())
    }

    /// The same, to be asked from another thread, while one waits for it.
    pub fn watch_loads(&self) -> impl Fn() -> std::vec::IntoIter<Load> + Send + use<> {
        let board = Arc::clone(&self.board);
        move || board.loads(Instant::now()).collect::<Vec<_>>().into_iter()
    }

    /// To drain or cut this gateway from another thread, while one waits for it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// To steer it and to ask about it, from any thread, while one waits for it.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator {
            control: self.control.clone(),
            workers: self.reach.clone(),
            endings: self.endings.clone(),
            started: self.started,
            meters: Arc::clone(&self.meters),
            access: self.access.clone(),
            admission: Arc::clone(&self.admission),
            tally: Arc::clone(&self.tally),
            lineage: self.lineage.clone(),
            upgrade_timeout: self.upgrade_timeout,
            reloader: Arc::downgrade(&self.reloader),
        }
    }

    /// Begins to drain as `[gateway] drain` says, and returns at once.
    pub fn drain(&self) {
        self.control.drain();
    }

    /// Waits until a drain is over; without one, for ever.
    #[must_use]
    pub fn wait(mut self) -> Ended {
        self.join()
    }

    fn join(&mut self) -> Ended {
        let mut ended = Ended::default();
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(drained) => {
                    ended.told += drained.told;
                    ended.cut += drained.cut;
                }
                Err(_) => ended.failed_workers += 1,
            }
        }
        if let Some(access) = &self.access {
            access.flush(LAST_WORDS);
        }
        ended
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            self.control.cut();
            self.join();
        }
    }
}

/// A worker that falls over takes the gateway down in good order, so that whoever supervises it starts another.
struct Fall(Control);

impl Drop for Fall {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a worker failed, which is a bug; the others are drained");
            self.0.drain();
        }
    }
}

fn worker_count(config: &Config) -> usize {
    match config.gateway.workers {
        0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
        workers => workers,
    }
}

fn share(worker: usize, workers: usize) -> Share {
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Share { worker: narrow(worker), workers: narrow(workers) }
}

fn max_http_connections(config: &Config) -> usize {
    Ceilings::new(descriptors::limit()).max_http_connections(&config.gateway)
}

fn max_sessions(config: &Config) -> usize {
    let ceilings = Ceilings::new(descriptors::limit());
    let (wanted, fit) = (ceilings.max_sessions(&config.gateway), ceilings.sessions());
    if wanted > fit {
        tracing::warn!(
            "gateway.max_sessions = {wanted}, but the descriptor limit of {} has room for {fit}: raise it (ulimit -n, \
             LimitNOFILE=)",
            ceilings.descriptors
        );
    }
    wanted
}

/// Makes a worker's edge, on its thread, from what all workers share.
fn edge_of(
    terms: &Arc<Terms>,
    admission: &Arc<Admission>,
    refusals: &Arc<Refusals>,
    meter: &Arc<WorkerMeter>,
) -> Box<dyn FnOnce() -> Rc<Edge> + Send> {
    let (terms, admission, refusals) = (Arc::clone(terms), Arc::clone(admission), Arc::clone(refusals));
    let (dials, meter) = (Arc::new(Semaphore::new(worker::DIALS)), Arc::clone(meter));
    Box::new(move || Edge::new(terms, admission, refusals, dials, meter))
}

fn memory_limit(limit: Option<u64>, outboxes: Vec<Outboxes>) -> MemoryLimit {
    let held = move || outboxes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
    MemoryLimit { limit, held: Box::new(held) }
}

/// Has the figures tell of what is configured, too. Certificates are read anew: those in use, for they were read just now.
fn show(config: &Config, max_sessions: usize, meters: &Meters) {
    meters.show_limits(max_sessions, config.gateway.memory_limit);
    meters.show_routes(config.routes.iter().map(|route| (route.name.as_str(), route.upstream.as_str())));
    let files = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(|tls| &tls.certificates);
    meters.show_certificates(files.filter_map(expiry).collect());
}
