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
    let pace = Pace::Spread(secs(spread));
    DrainConfig { delay: secs(delay), pace, order: Turns::OldestFirst, timeout: secs(timeout), code: None }
}

#[test]
fn the_spread_leaves_the_last_session_its_closing_handshake() {
    let fits = DrainPlan::new(&drain_config(0, 5, 25), secs(10));
    assert_eq!(fits.pace.time(1), secs(5));
    let shortened = DrainPlan::new(&drain_config(2, 15, 25), secs(10));
    assert_eq!(shortened.delay + shortened.pace.time(1) + secs(10) + MARGIN, shortened.timeout);
    let no_room = DrainPlan::new(&drain_config(0, 15, 5), secs(10));
    assert_eq!(no_room.pace.time(1), Duration::ZERO);
}

/// A worker whose sessions are played by tasks that write down what they are told, and when.
struct Stage {
    registry: Rc<Registry>,
    sessions: Rc<Tasks>,
    handshakes: Rc<Tasks>,
    requests: Rc<Tasks>,
    admitted: Cell<usize>,
    start: Instant,
    told: Rc<RefCell<Vec<(Duration, Order)>>>,
    tally: Tally,
}

impl Stage {
    fn new() -> Self {
        Self {
            registry: Rc::default(),
            sessions: Rc::default(),
            handshakes: Rc::default(),
            requests: Rc::default(),
            admitted: Cell::new(0),
            start: Instant::now(),
            told: Rc::default(),
            tally: Tally::default(),
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
                let order = poll_fn(|cx| member.listen(cx.waker()).order.map_or(Poll::Pending, Poll::Ready));
                tokio::select! {
                    order = order => {
                        told.borrow_mut().push((start.elapsed(), order.clone()));
                        match order {
                            Order::End { .. } | Order::Terminate(_) => end = Some(Instant::now() + closing),
                            Order::Cut => return,
                            Order::Configure => {}
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
            requests: &self.requests,
            admitted: &|| self.admitted.get(),
            patient: false,
            share: Share { worker: 0, workers: 1 },
            tally: &self.tally,
        };
        let began = until_closing(&mut phase, &Cell::new(*plan), &self.tally).await;
        drain(&parts, plan, began, &mut phase).await
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
fn a_rate_tells_so_many_a_second_and_no_more() {
    play(async {
        let stage = Stage::new();
        (0..30).for_each(|_| stage.session(secs(1)));
        let rate = Pace::Rate(crate::pacing::Rate { count: 10.try_into().unwrap(), per: secs(1) });
        let config = DrainConfig { pace: rate, ..drain_config(0, 0, 60) };
        let (plan, control) = (DrainPlan::new(&config, secs(10)), Control::default());
        control.drain();
        assert_eq!(stage.drain(&plan, &control).await, Drained { told: 30, cut: 0 });
        let each = |second| stage.times().iter().filter(|at| at.as_secs() == second).count();
        assert_eq!([each(0), each(1), each(2), each(3)], [10, 10, 10, 0]);
    });
}

#[test]
fn a_rate_that_the_timeout_leaves_no_room_for_is_exceeded_rather_than_sessions_cut() {
    play(async {
        let stage = Stage::new();
        (0..30).for_each(|_| stage.session(secs(1)));
        let rate = Pace::Rate(crate::pacing::Rate { count: 1.try_into().unwrap(), per: secs(1) });
        let config = DrainConfig { pace: rate, ..drain_config(0, 0, 15) };
        let (plan, control) = (DrainPlan::new(&config, secs(5)), Control::default());
        control.drain();
        assert_eq!(stage.drain(&plan, &control).await, Drained { told: 30, cut: 0 });
        assert_eq!(stage.times().last().unwrap().as_secs(), 9);
    });
}

#[test]
fn every_cause_has_its_code_unless_one_is_set() {
    for (cause, set, code) in [
        (DrainCause::Stop, None, 1001),
        (DrainCause::Upgrade, None, 1012),
        (DrainCause::Shed, None, 1013),
        (DrainCause::Upgrade, CloseCode::new(4000), 4000),
    ] {
        play(async move {
            let stage = Stage::new();
            stage.session(secs(1));
            let config = DrainConfig { code: set, ..drain_config(0, 0, 60) };
            let (plan, control) = (DrainPlan::new(&config, secs(10)), Control::default());
            control.drain_for(cause);
            stage.drain(&plan, &control).await;
            let order = Order::End { reason: EndReason::Draining, code: CloseCode::new(code) };
            assert_eq!(stage.told.borrow()[0].1, order);
        });
    }
}

#[test]
fn progress_can_be_asked_for_at_any_time() {
    play(async {
        let stage = Stage::new();
        (0..10).for_each(|_| stage.session(secs(1)));
        stage.admitted.set(10);
        let (plan, control) = (DrainPlan::new(&drain_config(5, 10, 60), secs(10)), Control::default());
        assert_eq!(stage.tally.progress(10, Instant::now()), None);
        control.drain_for(DrainCause::Upgrade);
        let asked = |left| stage.tally.progress(left, Instant::now()).unwrap();
        let asking = async {
            tokio::time::sleep(secs(2)).await;
            let early = asked(10);
            assert_eq!((early.cause, early.sessions, early.told), (DrainCause::Upgrade, 0, 0));
            assert_eq!((early.until_told.as_secs(), early.until_cut.as_secs()), (13, 58));
            tokio::time::sleep(Duration::from_millis(7_500)).await;
            let middle = asked(6);
            assert_eq!((middle.sessions, middle.told, middle.left, middle.cut), (10, 5, 6, 0));
            assert_eq!((middle.until_told.as_millis(), middle.estimate()), (5_500, middle.until_told));
            tokio::time::sleep(Duration::from_millis(4_600)).await;
            let late = asked(1);
            assert_eq!((late.told, late.until_told), (10, Duration::ZERO));
            assert_eq!(late.estimate(), late.until_cut);
            stage.admitted.set(0);
        };
        let (drained, ()) = tokio::join!(stage.drain(&plan, &control), asking);
        assert_eq!(drained, Drained { told: 10, cut: 0 });
    });
}

#[test]
fn the_log_hears_of_it_every_five_seconds_from_one_worker() {
    play(async {
        let (tally, plan) = (Tally::default(), DrainPlan::new(&drain_config(0, 10, 60), secs(10)));
        assert!(!tally.log_due(Instant::now()));
        tally.begin(Instant::now(), DrainCause::Stop, plan);
        let mut heard = Vec::new();
        for second in 0..12 {
            // Two workers ask.
            heard.extend([(); 2].iter().filter(|()| tally.log_due(Instant::now())).map(|()| second));
            tokio::time::sleep(secs(1)).await;
        }
        assert_eq!(heard, [0, 5, 10]);
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
