//! Tests of the drain, on paused time.
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
    let lone: Vec<_> = schedule(1, secs(12), Share { worker: 1, workers: 2 }).collect();
    assert_eq!(lone, [secs(0)], "a lone session is not kept waiting");
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
        self.lingering_session(closing, Duration::ZERO);
    }

    /// One that waits for the end of TCP after that.
    fn lingering_session(&self, closing: Duration, linger: Duration) {
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
                        told.borrow_mut().push((start.elapsed(), order.clone()));
                        match order {
                            Order::End { .. } | Order::Terminate(_) => end = Some(Instant::now() + closing),
                            Order::Cut => return,
                        }
                    }
                    () = sleep_until(end.unwrap_or(start)), if end.is_some_and(|end| end > Instant::now()) => {
                        member.settle();
                    }
                    () = sleep_until(end.unwrap_or(start) + linger), if end.is_some() => return,
                }
            }
        };
        self.sessions.spawn(task, |message| panic!("{message}"));
    }

    async fn drain(&self, plan: &DrainPlan, control: &Control) -> Drained {
        let mut phase = control.watch();
        let parts = Draining {
            registry: &self.registry,
            sessions: &self.sessions,
            handshakes: &self.handshakes,
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
fn a_session_that_only_waits_for_the_end_of_tcp_is_not_called_cut() {
    play(async {
        let stage = Stage::new();
        stage.lingering_session(secs(1), secs(3_600));
        let (plan, control) = (DrainPlan::new(&drain_config(0, 0, 25), secs(10)), Control::default());
        control.drain();
        assert_eq!(stage.drain(&plan, &control).await, Drained { told: 1, cut: 0 });
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
