//! The drain: stop accepting, end sessions at a chosen rate, wait, then cut.
use crate::{
    config::{Config, DrainConfig},
    protocol::close::CloseCode,
    relay::EndReason,
    session::registry::{Order, Registry},
    tasks::Tasks,
};
use std::{io, rc::Rc, sync::Arc, thread, time::Duration};
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
    },
    /// Told to stop at once, or for a second time.
    Cutting,
}

/// Kept between a session's last moment by its own deadline and the drain's timeout.
const MARGIN: Duration = Duration::from_millis(500);
/// How long connections that ask for nothing hold up an exit once no session is left.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(2);
/// How long sessions that were told to cut may take to do it.
const CUT_GRACE: Duration = Duration::from_secs(1);
/// How soon a session that opened during the drain is noticed at the latest.
const LATECOMER_POLL: Duration = Duration::from_millis(50);

/// When a drain does what, counted from the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Until then new sessions are still accepted.
    pub delay: Duration,
    /// From then on close frames leave, spaced evenly over this time.
    pub spread: Duration,
    /// What is left by then is cut.
    pub timeout: Duration,
    pub code: CloseCode,
}

impl DrainPlan {
    /// `[gateway] drain`, with `spread` shortened so that the last session told has `close` (the longest
    /// `timeouts.close` of all routes) left before `timeout`.
    #[must_use]
    pub fn new(drain: &DrainConfig, close: Duration) -> Self {
        let room = drain.timeout.saturating_sub(drain.delay).saturating_sub(close).saturating_sub(MARGIN);
        Self { delay: drain.delay, spread: drain.spread.min(room), timeout: drain.timeout, code: drain.code }
    }

    /// The plan for a whole configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let close = config.routes.iter().map(|route| route.options.relay.timeouts.close).max().unwrap_or_default();
        Self::new(&config.gateway.drain, close)
    }
}

/// One worker's part of a spread that all workers share evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub worker: u32,
    pub workers: u32,
}

/// When each of this worker's `sessions` is told to end, from the start of the spread: even steps, and the workers'
/// steps interleaved. A worker's only session is told at once: it has nobody to keep apart from.
pub fn schedule(sessions: u32, spread: Duration, share: Share) -> impl Iterator<Item = Duration> {
    let steps = f64::from(sessions) * f64::from(share.workers);
    (0..sessions).map(move |i| {
        let first = if sessions == 1 { 0.0 } else { f64::from(share.worker) };
        let step = f64::from(i) * f64::from(share.workers) + first;
        spread.mul_f64(step / steps)
    })
}

/// What a drain works on: one worker's sessions and handshakes.
pub struct Draining<'a> {
    pub registry: &'a Rc<Registry>,
    pub sessions: &'a Rc<Tasks>,
    pub handshakes: &'a Rc<Tasks>,
    /// Sessions of the whole gateway that are open or about to be: while there are any, handshakes are waited for.
    pub admitted: &'a dyn Fn() -> usize,
    pub share: Share,
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

/// Waits for the signal, and then until new sessions are no longer wanted. Answers when the signal came.
pub async fn until_closing(phase: &mut watch::Receiver<Phase>, plan: &DrainPlan) -> Instant {
    let since = match phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase) {
        Ok(Phase::Draining { since }) => since,
        // Whoever could have given the signal is gone: that is one, too.
        Ok(Phase::Serving | Phase::Cutting) | Err(_) => Instant::now(),
    };
    tokio::select! {
        () = sleep_until(since + plan.delay) => {}
        () = cutting(phase) => {}
    }
    since
}

/// Ends every session, as planned, and waits for them and for handshakes under way; cuts what is left at the timeout
/// or at a second signal. Returns when the worker has nothing left to do.
pub async fn drain(
    parts: &Draining<'_>,
    plan: &DrainPlan,
    since: Instant,
    phase: &mut watch::Receiver<Phase>,
) -> Drained {
    let mut told = 0;
    let in_time = tokio::select! {
        () = end_all(parts, plan, &mut told) => true,
        () = sleep_until(since + plan.timeout) => false,
        () = cutting(phase) => false,
    };
    if in_time {
        return Drained { told, cut: 0 };
    }
    let cut = parts.registry.unsettled();
    for key in parts.registry.keys() {
        parts.registry.order(key, Order::Cut);
    }
    // Whoever does not take the order in time is dropped with the worker, which resets its sockets as well.
    let _ = timeout(CUT_GRACE, parts.sessions.finished()).await;
    Drained { told, cut }
}

async fn end_all(parts: &Draining<'_>, plan: &DrainPlan, told: &mut usize) {
    let start = Instant::now();
    let order = Order::End { reason: EndReason::Draining, code: Some(plan.code) };
    let keys = parts.registry.keys();
    let mut newest = keys.last().copied();
    for (due, key) in schedule(u32::try_from(keys.len()).unwrap_or(u32::MAX), plan.spread, parts.share).zip(keys) {
        sleep_until(start + due).await;
        parts.registry.order(key, order.clone());
        *told += 1;
    }
    let mut quiet_since = None;
    loop {
        // Handshakes accepted earlier become sessions now: they are told at once.
        let known = newest;
        for key in parts.registry.keys().into_iter().filter(|key| known.is_none_or(|known| *key > known)) {
            parts.registry.order(key, order.clone());
            newest = Some(key);
            *told += 1;
        }
        if parts.sessions.running() == 0 {
            let quiet = *quiet_since.get_or_insert_with(Instant::now);
            let idle = quiet.elapsed() >= HANDSHAKE_GRACE && (parts.admitted)() == 0;
            if parts.handshakes.running() == 0 || idle {
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

/// SIGTERM and SIGINT of this process. For `main`: programs that embed a gateway have signals of their own.
pub struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on neither signal ends the process.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (terminate, interrupt) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Has the first signal drain a gateway and every further one cut it. The thread lives as long as the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn forward(mut self, control: Control) -> io::Result<()> {
        let forward = move || {
            self.runtime.block_on(async {
                loop {
                    let name = tokio::select! {
                        _ = self.terminate.recv() => "SIGTERM",
                        _ = self.interrupt.recv() => "SIGINT",
                    };
                    if control.phase() == Phase::Serving {
                        tracing::info!("{name}: draining; a second signal cuts the sessions that are left");
                        control.drain();
                    } else {
                        tracing::warn!("{name} again: cutting the sessions that are left");
                        control.cut();
                    }
                }
            });
        };
        thread::Builder::new().name("signals".into()).spawn(forward).map(drop)
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
    /// Begins the drain. Nothing changes if it has begun already.
    pub fn drain(&self) {
        self.0.send_if_modified(|phase| match phase {
            Phase::Serving => {
                *phase = Phase::Draining { since: Instant::now() };
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
