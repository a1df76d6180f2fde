//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use super::{
    Changes, ReloadError, Reloads,
    endings::{Ending, EndingId, Endings, Plan, Progress},
    reload::Reloader,
};
use crate::{
    config::Config,
    handshake::admission::Admission,
    log::access::AccessLog,
    metrics::{Meters, text::Format},
    relay::{EndReason, PerSide},
    session::{
        registry::Parting,
        select::{Filter, Position, Record, SessionKey},
    },
    shutdown::{Control, DrainProgress, Phase, Tally},
    upgrade::{self, Lineage, Successor, UpgradeError},
    upstream::{Backend, Cause, Share, Upstream},
    worker::{Part, Query, Survey, Worker, Workers},
};
use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    pub(super) control: Control,
    pub(super) workers: Workers,
    pub(super) endings: Endings,
    pub(super) started: Instant,
    pub(super) meters: Arc<Meters>,
    pub(super) access: Option<Arc<AccessLog>>,
    pub(super) admission: Arc<Admission>,
    pub(super) tally: Arc<Tally>,
    pub(super) lineage: Lineage,
    pub(super) upgrade_timeout: Duration,
    pub(super) reloader: Weak<Reloader>,
}

/// A page of the list of sessions.
#[derive(Clone, Debug)]
pub struct Page {
    /// Sessions that fit the filter.
    pub matching: usize,
    pub sessions: Vec<Record>,
    /// What the next page comes after. `None`: this is the last one.
    pub next: Option<Position>,
}

/// One look at the whole gateway.
#[derive(Clone, Debug)]
pub struct Overview {
    pub phase: Phase,
    pub uptime: Duration,
    pub open: usize,
    /// Sessions that told their figures: all, or a sample of very many.
    pub asked: usize,
    /// Sessions begun and ended since the start.
    pub started: u64,
    pub ended: Vec<(EndReason, u64)>,
    /// The last round trips of those asked, the shortest first.
    pub round_trips: PerSide<Vec<Duration>>,
    /// Bytes that wait on the legs of those asked.
    pub outbox: u64,
    /// Those asked of whom a leg is not read, because the other does not take what came.
    pub paused: usize,
    pub slowest: Vec<Record>,
    pub quietest: Vec<Record>,
}

/// One backend as it stands.
#[derive(Clone, Debug)]
pub struct BackendState {
    pub upstream: String,
    pub name: String,
    /// Sessions on it, and handshakes with it.
    pub sessions: usize,
    /// Why others are tried first. `None`: it is up, or due to be tried.
    pub down: Option<Cause>,
    /// For how long. `None` of one that is down: until it answers a check.
    pub down_for: Option<Duration>,
    /// The part of its share that it gets: less than 1 after it has returned.
    pub part: f64,
    pub share: Share,
    /// It answered a ping once.
    pub proven: bool,
    /// It gets no new sessions.
    pub drained: bool,
}

/// Which backends are meant: those of a name, in one pool or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backends {
    pub upstream: Option<String>,
    /// As written in `gateway.toml`; of a name that means all its addresses. One of them has `#` and the address behind it.
    pub name: String,
}

impl Operator {
    /// How the drain goes; `None` before it has begun.
    #[must_use]
    pub fn drain_progress(&self) -> Option<DrainProgress> {
        self.tally.progress(self.admission.sessions(), Instant::now().into())
    }

    /// Which generation of a row of upgrades this process is, and which earlier ones still drain.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Starts this program anew, as its file is now, hands the listening sockets to the new process, and drains this one once that
    /// is ready. Answers when it is decided.
    ///
    /// # Errors
    /// When the new process does not come to serve; this one serves as before then.
    pub async fn upgrade(&self) -> Result<Successor, UpgradeError> {
        let (lineage, control, workers) = (self.lineage.clone(), self.control.clone(), self.workers.clone());
        upgrade::upgrade(upgrade::Part { lineage, control, workers, within: self.upgrade_timeout }).await
    }

    /// Sessions that are open now, on all workers.
    pub async fn open_sessions(&self) -> usize {
        self.workers.ask(|worker| async move { worker.open_sessions() }).await.iter().sum()
    }

    /// All figures as they are now, as `docs/metrics.md` lists them. No worker is asked or held up.
    #[must_use]
    pub fn metrics(&self, format: Format) -> String {
        self.meters.text(format, self.control.phase() != Phase::Serving)
    }

    /// The counters behind them, for what changes a running gateway: it shows there what is configured now, and how that went.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// To drain the gateway, or to cut it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Opens the access log anew, after its file has been moved away. Answers whether there is one.
    pub fn reopen_logs(&self) -> bool {
        if let Some(access) = &self.access {
            access.reopen();
        }
        self.access.is_some()
    }

    /// Records that the access log lost, since its disk was too slow or full.
    #[must_use]
    pub fn access_log_lost(&self) -> u64 {
        self.access.as_ref().map_or(0, |access| access.lost())
    }

    /// Reads the file of [`Gateway::follow`](super::Gateway::follow) again, whole, and has every worker do what has changed
    /// in it. What was changed is logged, and so is every mistake.
    ///
    /// # Errors
    /// The file has mistakes, or asks for what cannot be had. Nothing is changed then.
    pub async fn reload(&self) -> Result<Changes, ReloadError> {
        self.reloader.upgrade().ok_or(ReloadError::Ended)?.reload(None).await
    }

    /// The same with a configuration instead of the file.
    ///
    /// # Errors
    /// It asks for what cannot be had. Nothing is changed then.
    pub async fn reload_to(&self, config: Config) -> Result<Changes, ReloadError> {
        self.reloader.upgrade().ok_or(ReloadError::Ended)?.reload(Some(config)).await
    }

    /// Reloads the file and waits for nothing. A certificate that does not fit its key is read again for a while, since it
    /// may be half replaced. For signals.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn reload_soon(&self) -> io::Result<()> {
        let reloader = Weak::clone(&self.reloader);
        thread::Builder::new().name("reload".into()).spawn(move || Reloader::insist(&reloader)).map(drop)
    }

    /// The reloads so far.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.reloader.upgrade().map(|reloader| reloader.reloads()).unwrap_or_default()
    }

    /// Whether new sessions are wanted: not from the moment on at which a drain begins, though its delay still lets them in.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.control.phase() == Phase::Serving
    }

    /// A page of the list of sessions.
    pub async fn sessions(&self, query: Query) -> Page {
        let limit = query.limit;
        let parts: Vec<Part> = self.workers.ask(move |worker| worker.list(query)).await;
        let matching = parts.iter().map(|part| part.matching).sum();
        let behind: usize = parts.iter().map(|part| part.behind).sum();
        let mut sessions: Vec<Record> = parts.into_iter().flat_map(|part| part.records).collect();
        sessions.sort_by_key(|record| record.position);
        sessions.truncate(limit);
        let next = sessions.last().filter(|_| behind > limit).map(|record| record.position);
        Page { matching, sessions, next }
    }

    /// All that is known of one session, while it runs.
    pub async fn session(&self, key: SessionKey) -> Option<Record> {
        self.workers.ask(move |worker| worker.show(key)).await.into_iter().flatten().next()
    }

    /// Ends one session by closing handshakes, as `terminated`. Whether it was still there.
    pub async fn end(&self, key: SessionKey, parting: Parting) -> bool {
        let ended = self.workers.ask(move |worker| async move { worker.end(key, parting) }).await;
        ended.contains(&true)
    }

    /// Ends all sessions that match now, `rate` a second, the oldest first. Returns at once; it goes on until it is done, is
    /// cancelled, or the gateway ends.
    #[must_use]
    pub fn end_matching(&self, filter: Filter, parting: Parting, rate: f64) -> EndingId {
        let plan = Plan { about: "sessions".into(), filter, parting, rate, evacuated: Vec::new() };
        self.endings.start(plan, &self.workers)
    }

    /// What was begun by [`Operator::end_matching`] and [`Operator::evacuate`], the newest last. Those long done are forgotten.
    #[must_use]
    pub fn endings(&self) -> Vec<Progress> {
        self.endings.all().iter().map(|ending| ending.progress()).collect()
    }

    /// How far one has come.
    #[must_use]
    pub fn ending(&self, id: EndingId) -> Option<Progress> {
        self.endings.find(id).map(|ending| ending.progress())
    }

    /// Lets those live that it has not ended yet. `None`: there is none of that number.
    #[must_use]
    pub fn cancel(&self, id: EndingId) -> Option<Progress> {
        let ending: Arc<Ending> = self.endings.find(id)?;
        ending.cancel();
        Some(ending.progress())
    }

    /// Every backend that a route goes to.
    pub async fn backends(&self) -> Vec<BackendState> {
        let all = self.all_backends().await;
        all.iter().map(|backend| BackendState::of(backend)).collect()
    }

    /// Gives these backends no new sessions, or again their share. Their sessions run on. How they stand now; none if there are
    /// no such backends.
    pub async fn set_drained(&self, backends: &Backends, drained: bool) -> Vec<BackendState> {
        let meant = self.meant(backends).await;
        meant.iter().for_each(|backend| backend.set_drained(drained));
        meant.iter().map(|backend| BackendState::of(backend)).collect()
    }

    /// Drains these backends, and ends their sessions, `rate` a second, until none is left, the backends are put back, or it is
    /// cancelled. `None`: there are no such backends.
    pub async fn evacuate(&self, backends: &Backends, parting: Parting, rate: f64) -> Option<EndingId> {
        let evacuated = self.meant(backends).await;
        if evacuated.is_empty() {
            return None;
        }
        evacuated.iter().for_each(|backend| backend.set_drained(true));
        let filter =
            Filter { upstream: backends.upstream.clone(), backend: Some(backends.name.clone()), ..Filter::default() };
        let plan = Plan { about: format!("backend {}", backends.name), filter, parting, rate, evacuated };
        Some(self.endings.start(plan, &self.workers))
    }

    async fn all_backends(&self) -> Vec<Arc<Backend>> {
        let upstreams = self.workers.ask(|worker| async move { worker.upstreams() }).await;
        // All workers have the same ones.
        let upstreams: Vec<Arc<Upstream>> = upstreams.into_iter().next().unwrap_or_default();
        upstreams.iter().flat_map(|upstream| upstream.backends().to_vec()).collect()
    }

    async fn meant(&self, backends: &Backends) -> Vec<Arc<Backend>> {
        let mut all = self.all_backends().await;
        all.retain(|backend| {
            backend.is_called(&backends.name) && backends.upstream.as_ref().is_none_or(|pool| *pool == backend.upstream)
        });
        all
    }

    /// One look at the whole gateway. It asks every session (of very many a sample), so it costs each of them a turn.
    pub async fn overview(&self) -> Overview {
        let surveys: Vec<Survey> = self.workers.ask(Worker::survey).await;
        let mut all = Overview {
            phase: self.control.phase(),
            uptime: self.started.elapsed(),
            open: 0,
            asked: 0,
            started: 0,
            ended: EndReason::ALL.map(|reason| (reason, 0)).to_vec(),
            round_trips: PerSide::default(),
            outbox: 0,
            paused: 0,
            slowest: Vec::new(),
            quietest: Vec::new(),
        };
        for survey in surveys {
            all.open += survey.open;
            all.asked += survey.asked;
            all.started += survey.started;
            all.ended.iter_mut().zip(survey.ended).for_each(|((_, sum), ended)| *sum += ended);
            all.round_trips.downstream.extend(survey.round_trips.downstream);
            all.round_trips.upstream.extend(survey.round_trips.upstream);
            all.outbox += survey.outbox;
            all.paused += survey.paused;
            all.slowest.extend(survey.slowest);
            all.quietest.extend(survey.quietest);
        }
        all.round_trips.downstream.sort_unstable();
        all.round_trips.upstream.sort_unstable();
        for foremost in [&mut all.slowest, &mut all.quietest] {
            foremost.sort_by_key(|record| record.position);
            foremost.truncate(FOREMOST);
        }
        all
    }
}

/// Sessions that an overview names.
const FOREMOST: usize = 10;

impl BackendState {
    fn of(backend: &Backend) -> Self {
        let (down, down_for) = backend.ailment().map_or((None, None), |(cause, time)| (Some(cause), time));
        Self {
            upstream: backend.upstream.clone(),
            name: backend.name.clone(),
            sessions: backend.sessions(),
            down,
            down_for,
            part: backend.part(),
            share: backend.share(),
            proven: backend.proven(),
            drained: backend.drained(),
        }
    }
}
