//! The drain: stop accepting, end sessions at a chosen rate, wait, then cut.
mod progress;

pub use crate::pacing::{Share, schedule};
pub use progress::{DrainProgress, Tally};

use crate::{
    config::{Config, DrainConfig},
    pacing::{Bounded, Pace, Turns},
    protocol::close::CloseCode,
    relay::EndReason,
    session::registry::{Key, Order, Registry},
    tasks::Tasks,
};
use std::{cell::Cell, io, rc::Rc, sync::Arc, thread, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// What the whole gateway does now. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// Told to stop at this instant.
    Draining {
        since: Instant,
        cause: DrainCause,
    },
    /// Told to stop at once, or for a second time.
    Cutting,
}

/// Why a gateway drains; clients hear of it by the close code, unless `drain.code` sets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainCause {
    /// It stops: 1001, going away.
    Stop,
    /// Another process takes over: 1012, service restart.
    Upgrade,
    /// It is to shed its sessions, which others will take: 1013, try again later.
    Shed,
}

impl DrainCause {
    #[must_use]
    pub const fn code(self) -> CloseCode {
        match self {
            Self::Stop => CloseCode::GOING_AWAY,
            Self::Upgrade => CloseCode::SERVICE_RESTART,
            Self::Shed => CloseCode::TRY_AGAIN,
        }
    }

    /// The word in logs, metrics and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Upgrade => "upgrade",
            Self::Shed => "shed",
        }
    }
}

/// Kept between a session's last moment by its own deadline and the drain's timeout.
const MARGIN: Duration = Duration::from_millis(500);
/// How long connections that ask for nothing hold up an exit once no session is left.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(2);
/// How long sessions that were told to cut may take to do it.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// How often each worker looks whether the log is due.
const LOG_POLL: Duration = Duration::from_secs(1);
/// How soon a session that opened during the drain is noticed at the latest.
const LATECOMER_POLL: Duration = Duration::from_millis(50);

/// When a drain does what, counted from the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Until then new sessions are still accepted.
    pub delay: Duration,
    /// From then on close frames leave, so far apart.
    pub pace: Bounded,
    pub order: Turns,
    /// What is left by then is cut.
    pub timeout: Duration,
    /// `None`: by the cause.
    pub code: Option<CloseCode>,
}

impl DrainPlan {
    /// `[gateway] drain`, with room for so much spread that the last session told has `close` (the longest
    /// `timeouts.close` of all routes) left before `timeout`.
    #[must_use]
    pub fn new(drain: &DrainConfig, close: Duration) -> Self {
        let room = drain.timeout.saturating_sub(drain.delay).saturating_sub(close).saturating_sub(MARGIN);
        let DrainConfig { delay, pace, order, timeout, code } = *drain;
        Self { delay, pace: Bounded { pace, most: room }, order, timeout, code }
    }

    /// The plan for a whole configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let close = config.routes.iter().map(|route| route.options.relay.timeouts.close).max().unwrap_or_default();
        Self::new(&config.gateway.drain, close)
    }
}

/// What a drain works on: one worker's sessions and handshakes.
pub struct Draining<'a> {
    pub registry: &'a Rc<Registry>,
    pub sessions: &'a Rc<Tasks>,
    pub handshakes: &'a Rc<Tasks>,
    /// Connections of plain requests, which end with the answers under way.
    pub requests: &'a Rc<Tasks>,
    /// Sessions of the whole gateway that are open or about to be: while there are any, handshakes are waited for.
    pub admitted: &'a dyn Fn() -> usize,
    /// All handshakes are waited for, whatever they wait for.
    pub patient: bool,
    pub share: Share,
    pub tally: &'a Tally,
}

/// How one worker's drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that the drain told to end.
    pub told: usize,
    /// Sessions cut by `timeout` or a second signal, before their closing handshakes or `timeouts.close` were over. One whose
    /// closing handshakes were over, and which merely waited for the end of TCP, is not among them.
    pub cut: usize,
}

/// Waits for the signal, and then until new sessions are no longer wanted, by the plan as it is then. Answers when the
/// signal came, and why.
pub async fn until_closing(
    phase: &mut watch::Receiver<Phase>,
    plan: &Cell<DrainPlan>,
    tally: &Tally,
) -> (Instant, DrainCause) {
    let (since, cause) = match phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase) {
        Ok(Phase::Draining { since, cause }) => (since, cause),
        // Whoever could have given the signal is gone: that is one, too.
        Ok(Phase::Serving | Phase::Cutting) | Err(_) => (Instant::now(), DrainCause::Stop),
    };
    tally.begin(since, cause, plan.get());
    tokio::select! {
        () = sleep_until(since + plan.get().delay) => {}
        () = cutting(phase) => {}
    }
    (since, cause)
}

/// Ends every session, as planned, and waits for them and for handshakes under way; cuts what is left at the timeout
/// or at a second signal. Returns when the worker has nothing left to do.
pub async fn drain(
    parts: &Draining<'_>,
    plan: &DrainPlan,
    (since, cause): (Instant, DrainCause),
    phase: &mut watch::Receiver<Phase>,
) -> Drained {
    let mut told = 0;
    let order = Order::End { reason: EndReason::Draining, code: Some(plan.code.unwrap_or(cause.code())) };
    let tell = |key| {
        parts.registry.order(key, order.clone());
        parts.tally.told();
        told += 1;
    };
    let in_time = tokio::select! {
        () = end_all(parts, plan, tell) => true,
        () = sleep_until(since + plan.timeout) => false,
        () = cutting(phase) => false,
        () = log_progress(parts) => false,
    };
    if in_time {
        return Drained { told, cut: 0 };
    }
    let cut = parts.registry.unsettled();
    parts.tally.cut(cut);
    for key in parts.registry.keys() {
        parts.registry.order(key, Order::Cut);
    }
    // Whoever does not take the order in time is dropped with the worker, which resets its sockets as well.
    let _ = timeout(CUT_GRACE, parts.sessions.finished()).await;
    Drained { told, cut }
}

/// Calls `tell` for each of one worker's sessions, the oldest first in `keys`, in their turns over `spread`.
pub async fn tell_apart(mut keys: Vec<Key>, turns: Turns, spread: Duration, share: Share, mut tell: impl FnMut(Key)) {
    let start = Instant::now();
    turns.arrange(&mut keys, |below| fastrand::usize(..below));
    for (due, key) in schedule(u32::try_from(keys.len()).unwrap_or(u32::MAX), spread, share).zip(keys) {
        sleep_until(start + due).await;
        tell(key);
    }
}

/// Tells the log how the drain of all workers goes, every few seconds.
async fn log_progress(parts: &Draining<'_>) {
    loop {
        let now = Instant::now();
        if parts.tally.log_due(now)
            && let Some(progress) = parts.tally.progress((parts.admitted)(), now)
        {
            progress::log(&progress);
        }
        tokio::time::sleep(LOG_POLL).await;
    }
}

async fn end_all(parts: &Draining<'_>, plan: &DrainPlan, mut tell: impl FnMut(Key)) {
    let keys = parts.registry.keys();
    let mut newest = keys.last().copied();
    // A rate is that of the gateway, so every worker takes as long as all sessions together need.
    let all = (parts.admitted)().max(keys.len());
    let spread = plan.pace.time(all);
    if let (Pace::Rate(rate), 0, true) = (plan.pace.pace, parts.share.worker, plan.pace.pace.time(all) > spread) {
        tracing::warn!(
            "drain.timeout leaves {spread:.1?} for {all} sessions: they are told faster than {rate}, not cut"
        );
    }
    parts.tally.expect(keys.len(), spread, Instant::now());
    tell_apart(keys, plan.order, spread, parts.share, &mut tell).await;
    let mut quiet_since = None;
    loop {
        // Handshakes accepted earlier become sessions now: they are told at once.
        let known = newest;
        for key in parts.registry.keys().into_iter().filter(|key| known.is_none_or(|known| *key > known)) {
            parts.tally.expect(1, Duration::ZERO, Instant::now());
            tell(key);
            newest = Some(key);
        }
        if parts.sessions.running() == 0 {
            let quiet = *quiet_since.get_or_insert_with(Instant::now);
            let idle = !parts.patient && quiet.elapsed() >= HANDSHAKE_GRACE && (parts.admitted)() == 0;
            if parts.requests.running() == 0 && (parts.handshakes.running() == 0 || idle) {
                return;
            }
        } else {
            quiet_since = None;
        }
        tokio::select! {
            () = parts.sessions.finished(), if parts.sessions.running() > 0 => {}
            () = tokio::time::sleep(LATECOMER_POLL) => {}
        }
    }
}

async fn cutting(phase: &mut watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase == Phase::Cutting).await.is_err() {
        // Nobody is left who could say so.
        std::future::pending::<()>().await;
    }
}

/// SIGTERM, SIGINT, SIGUSR1 and, if asked for, SIGHUP of this process. For `main`: programs that embed a gateway have signals of their own.
pub struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
    reopen: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on none of the signals ends the process. `hangup`: SIGHUP is one of them.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install(hangup: bool) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (terminate, interrupt, reopen, hangup) = {
            let _inside = runtime.enter();
            let hangup = hangup.then(|| signal(SignalKind::hangup())).transpose()?;
            let on = |kind| signal(kind);
            (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::user_defined1())?, hangup)
        };
        Ok(Self { runtime, terminate, interrupt, reopen, hangup })
    }

    /// Has the first SIGTERM or SIGINT drain a gateway and every further one cut it, SIGUSR1 call `reopen`, and SIGHUP do `reload`;
    /// neither may block. In a drain that began otherwise, after an upgrade for example, the first signal changes nothing:
    /// whoever stops a service has asked once. The thread lives as long as the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn forward(
        mut self,
        control: Control,
        reopen: impl Fn() + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let forward = move || {
            self.runtime.block_on(async {
                let mut told = false;
                loop {
                    let name = tokio::select! {
                        _ = self.terminate.recv() => "SIGTERM",
                        _ = self.interrupt.recv() => "SIGINT",
                        _ = self.reopen.recv() => {
                            reopen();
                            continue;
                        }
                        () = heard(&mut self.hangup) => {
                            tracing::info!("SIGHUP: reloading");
                            reload();
                            continue;
                        }
                    };
                    if control.phase() == Phase::Serving {
                        tracing::info!("{name}: draining; a second signal cuts the sessions that are left");
                        control.drain();
                    } else if !told {
                        tracing::info!("{name}: draining already; a second signal cuts the sessions that are left");
                    } else {
                        tracing::warn!("{name} again: cutting the sessions that are left");
                        control.cut();
                    }
                    told = true;
                }
            });
        };
        thread::Builder::new().name("signals".into()).spawn(forward).map(drop)
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Steers a gateway from any thread.
#[derive(Clone, Debug)]
pub struct Control(Arc<watch::Sender<Phase>>);

impl Default for Control {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Phase::Serving)))
    }
}

impl Control {
    /// Begins the drain, since it stops. Nothing changes if it has begun already.
    pub fn drain(&self) {
        self.drain_for(DrainCause::Stop);
    }

    /// Begins the drain. Nothing changes if it has begun already.
    pub fn drain_for(&self, cause: DrainCause) {
        self.0.send_if_modified(|phase| match phase {
            Phase::Serving => {
                *phase = Phase::Draining { since: Instant::now(), cause };
                true
            }
            Phase::Draining { .. } | Phase::Cutting => false,
        });
    }

    /// Cuts every session that is left, now.
    pub fn cut(&self) {
        self.0.send_replace(Phase::Cutting);
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests;
