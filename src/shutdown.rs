//! The drain: stop accepting, end sessions at a chosen rate, wait, then cut.
use crate::{
    config::{Config, DrainConfig},
    protocol::close::CloseCode,
    relay::EndReason,
    session::registry::{Order, Registry},
    worker::tasks::Tasks,
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
/// steps interleaved.
pub fn schedule(sessions: u32, spread: Duration, share: Share) -> impl Iterator<Item = Duration> {
    let steps = f64::from(sessions) * f64::from(share.workers);
    (0..sessions).map(move |i| {
        let step = f64::from(i) * f64::from(share.workers) + f64::from(share.worker);
        spread.mul_f64(step / steps)
    })
}

/// What a drain works on: one worker's sessions and handshakes.
pub struct Draining<'a> {
    pub registry: &'a Rc<Registry>,
    pub sessions: &'a Rc<Tasks>,
    pub handshakes: &'a Rc<Tasks>,
    /// Sessions whose verdict is not written yet; those of them that are left in the end are the ones cut.
    pub undecided: &'a dyn Fn() -> usize,
    /// Sessions of the whole gateway that are open or about to be: while there are any, handshakes are waited for.
    pub admitted: &'a dyn Fn() -> usize,
    pub share: Share,
}

/// How one worker's drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Sessions that the drain told to end.
    pub told: usize,
    /// Sessions cut by `timeout` or a second signal, before their closing handshake or `timeouts.close` was over.
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
    let cut = (parts.undecided)();
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
        parts.registry.order(key, order);
        *told += 1;
    }
    let mut quiet_since = None;
    loop {
        // Handshakes accepted earlier become sessions now: they are told at once.
        let known = newest;
        for key in parts.registry.keys().into_iter().filter(|key| known.is_none_or(|known| *key > known)) {
            parts.registry.order(key, order);
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{
        cell::{Cell, RefCell},
        future::poll_fn,
        task::Poll,
    };
    use tokio::runtime::LocalOptions;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn drain_config(delay: u64, spread: u64, timeout: u64) -> DrainConfig {
        DrainConfig { delay: secs(delay), spread: secs(spread), timeout: secs(timeout), code: CloseCode::GOING_AWAY }
    }

    #[test]
    fn the_spread_leaves_the_last_session_its_closing_handshake() {
        let fits = DrainPlan::new(&drain_config(0, 5, 25), secs(10));
        assert_eq!(fits.spread, secs(5));
        let shortened = DrainPlan::new(&drain_config(2, 15, 25), secs(10));
        assert_eq!(shortened.delay + shortened.spread + secs(10) + MARGIN, shortened.timeout);
        let no_room = DrainPlan::new(&drain_config(0, 15, 5), secs(10));
        assert_eq!(no_room.spread, Duration::ZERO);
    }

    #[test]
    fn sessions_are_told_in_even_steps_over_all_workers() {
        let first: Vec<_> = schedule(3, secs(12), Share { worker: 0, workers: 2 }).collect();
        let second: Vec<_> = schedule(3, secs(12), Share { worker: 1, workers: 2 }).collect();
        assert_eq!(first, [secs(0), secs(4), secs(8)]);
        assert_eq!(second, [secs(2), secs(6), secs(10)]);
        assert_eq!(schedule(0, secs(12), Share { worker: 0, workers: 1 }).count(), 0);
        assert!(schedule(5, Duration::ZERO, Share { worker: 0, workers: 1 }).all(|due| due.is_zero()));
    }

    /// A worker whose sessions are played by tasks that write down what they are told, and when.
    struct Stage {
        registry: Rc<Registry>,
        sessions: Rc<Tasks>,
        handshakes: Rc<Tasks>,
        admitted: Cell<usize>,
        start: Instant,
        told: Rc<RefCell<Vec<(Duration, Order)>>>,
    }

    impl Stage {
        fn new() -> Self {
            Self {
                registry: Rc::default(),
                sessions: Rc::default(),
                handshakes: Rc::default(),
                admitted: Cell::new(0),
                start: Instant::now(),
                told: Rc::default(),
            }
        }

        /// A session that takes `closing` to end once it is told to, or ends at once when it is cut.
        fn session(&self, closing: Duration) {
            let (member, told, start) = (self.registry.enter(), Rc::clone(&self.told), self.start);
            let task = async move {
                let mut end = None;
                loop {
                    let order = poll_fn(|cx| {
                        member.listen(cx.waker());
                        member.take_order().map_or(Poll::Pending, Poll::Ready)
                    });
                    tokio::select! {
                        order = order => {
                            told.borrow_mut().push((start.elapsed(), order));
                            match order {
                                Order::End { .. } => end = Some(Instant::now() + closing),
                                Order::Cut => return,
                            }
                        }
                        () = sleep_until(end.unwrap_or(start)), if end.is_some() => return,
                    }
                }
            };
            self.sessions.spawn(task, |message| panic!("{message}"));
        }

        async fn drain(&self, plan: &DrainPlan, control: &Control) -> Drained {
            let mut phase = control.watch();
            let undecided = || self.sessions.running();
            let parts = Draining {
                registry: &self.registry,
                sessions: &self.sessions,
                handshakes: &self.handshakes,
                undecided: &undecided,
                admitted: &|| self.admitted.get(),
                share: Share { worker: 0, workers: 1 },
            };
            let since = until_closing(&mut phase, plan).await;
            drain(&parts, plan, since, &mut phase).await
        }

        fn times(&self) -> Vec<Duration> {
            self.told.borrow().iter().map(|(at, _)| *at).collect()
        }
    }

    fn play(scene: impl Future<Output = ()>) {
        let mut runtime = Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build_local(LocalOptions::default()).unwrap().block_on(scene);
    }

    #[test]
    fn a_drain_spreads_the_close_frames_and_awaits_the_answers() {
        play(async {
            let stage = Stage::new();
            (0..5).for_each(|_| stage.session(secs(1)));
            let (plan, control) = (DrainPlan::new(&drain_config(3, 10, 60), secs(10)), Control::default());
            control.drain();
            assert_eq!(stage.drain(&plan, &control).await, Drained { told: 5, cut: 0 });
            let order = Order::End { reason: EndReason::Draining, code: Some(CloseCode::GOING_AWAY) };
            assert!(stage.told.borrow().iter().all(|(_, told)| *told == order));
            let whole: Vec<_> = stage.times().iter().map(Duration::as_secs).collect();
            assert_eq!(whole, [3, 5, 7, 9, 11]);
            assert_eq!(stage.start.elapsed().as_secs(), 12);
        });
    }

    #[test]
    fn what_is_left_at_the_timeout_is_cut() {
        play(async {
            let stage = Stage::new();
            stage.session(secs(1));
            stage.session(secs(3_600));
            let (plan, control) = (DrainPlan::new(&drain_config(0, 0, 25), secs(10)), Control::default());
            control.drain();
            assert_eq!(stage.drain(&plan, &control).await, Drained { told: 2, cut: 1 });
            assert_eq!(stage.start.elapsed().as_secs(), 25);
            assert_eq!(stage.told.borrow().last().unwrap().1, Order::Cut);
        });
    }

    #[test]
    fn a_second_signal_cuts_even_during_the_delay() {
        play(async {
            let stage = Stage::new();
            (0..3).for_each(|_| stage.session(secs(1)));
            let (plan, control) = (DrainPlan::new(&drain_config(20, 10, 60), secs(10)), Control::default());
            control.drain();
            let second = async {
                tokio::time::sleep(secs(2)).await;
                control.cut();
            };
            let (drained, ()) = tokio::join!(stage.drain(&plan, &control), second);
            assert_eq!(drained.cut, 3);
            assert_eq!(stage.start.elapsed().as_secs(), 2);
        });
    }

    #[test]
    fn a_session_that_opens_during_the_drain_is_told_too() {
        play(async {
            let stage = Stage::new();
            stage.session(secs(5));
            let (plan, control) = (DrainPlan::new(&drain_config(0, 0, 60), secs(10)), Control::default());
            control.drain();
            let late = async {
                tokio::time::sleep(secs(2)).await;
                stage.session(secs(1));
            };
            let (drained, ()) = tokio::join!(stage.drain(&plan, &control), late);
            assert_eq!(drained, Drained { told: 2, cut: 0 });
            assert_eq!(stage.times().iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 2]);
        });
    }

    #[test]
    fn an_idle_handshake_delays_an_exit_only_briefly() {
        play(async {
            let stage = Stage::new();
            stage.handshakes.spawn(std::future::pending(), |_| {});
            let (plan, control) = (DrainPlan::new(&drain_config(0, 0, 60), secs(10)), Control::default());
            control.drain();
            assert_eq!(stage.drain(&plan, &control).await, Drained::default());
            assert!(stage.start.elapsed() < HANDSHAKE_GRACE + secs(1));
        });
    }

    #[test]
    fn a_handshake_that_was_admitted_is_finished_and_its_session_told() {
        play(async {
            let stage = Stage::new();
            stage.admitted.set(1);
            let dialled = Rc::new(tokio::sync::Notify::new());
            let dial = Rc::clone(&dialled);
            stage.handshakes.spawn(async move { dial.notified().await }, |_| {});
            let (plan, control) = (DrainPlan::new(&drain_config(0, 0, 60), secs(10)), Control::default());
            control.drain();
            let backend = async {
                tokio::time::sleep(HANDSHAKE_GRACE + secs(5)).await;
                stage.session(secs(1));
                dialled.notify_one();
                stage.admitted.set(0);
            };
            let (drained, ()) = tokio::join!(stage.drain(&plan, &control), backend);
            assert_eq!(drained, Drained { told: 1, cut: 0 });
        });
    }

    #[test]
    fn phases_only_move_forward() {
        let control = Control::default();
        assert_eq!(control.phase(), Phase::Serving);
        control.drain();
        let first = control.phase();
        control.drain();
        assert_eq!(control.phase(), first);
        control.cut();
        control.drain();
        assert_eq!(control.phase(), Phase::Cutting);
    }
}
