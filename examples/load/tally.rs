//! What all connections of a thread count together, and the window of time in which it is measured.
use crate::{connection::Received, failure::Failure, options::Load, process::Usage};
use hdrhistogram::Histogram;
use std::{
    cell::{Cell, RefCell, RefMut},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_blocking},
    time::sleep,
};

/// The longest latency that is told apart from longer ones: a minute, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;
/// Read from a connection at once.
const SCRATCH: usize = 256 << 10;

pub(crate) struct Tally {
    messages: Cell<u64>,
    bytes: Cell<u64>,
    pings: Cell<u64>,
    /// Connections opened so far, and those of them that ended too early.
    opened: Cell<u64>,
    lost: Cell<u64>,
    /// How often each thing went wrong.
    failures: RefCell<BTreeMap<String, u64>>,
    latency: RefCell<Histogram<u64>>,
    /// The number of messages that ends the window. It ends too when every connection is lost.
    limit: Cell<u64>,
    reached: Notify,
    stopping: Cell<bool>,
    wakers: RefCell<Vec<Option<Waker>>>,
    /// One for all connections: a read is counted before the next one begins.
    scratch: RefCell<Box<[u8]>>,
}

/// What a window brought.
pub(crate) struct Measured {
    pub(crate) secs: f64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) pings: u64,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// CPU seconds in the window, and memory at its end, of the processes asked for; `None` if there are none.
    pub(crate) usage: Option<Usage>,
    /// CPU seconds of this program.
    pub(crate) own_cpu: f64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("bounds and digits are in range")
}

impl Tally {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            messages: Cell::new(0),
            bytes: Cell::new(0),
            pings: Cell::new(0),
            opened: Cell::new(0),
            lost: Cell::new(0),
            failures: RefCell::default(),
            latency: RefCell::new(histogram()),
            limit: Cell::new(u64::MAX),
            reached: Notify::new(),
            stopping: Cell::new(false),
            wakers: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH].into()),
        })
    }

    /// To read into, within one poll.
    pub(crate) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    pub(crate) fn received(&self, received: Received) {
        self.bytes.set(self.bytes.get() + received.bytes);
        self.pings.set(self.pings.get() + received.pings);
        self.messages.set(self.messages.get() + received.messages);
        if self.messages.get() >= self.limit.get() {
            self.reached.notify_one();
        }
    }

    /// `messages` of them took so long.
    pub(crate) fn took(&self, messages: u64, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_MAX).clamp(1, LATENCY_MAX);
        self.latency.borrow_mut().saturating_record_n(nanoseconds, messages);
    }

    pub(crate) fn opened(&self) {
        self.opened.set(self.opened.get() + 1);
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        *self.failures.borrow_mut().entry(failure.to_string()).or_default() += 1;
    }

    /// A connection is over, by us or not.
    pub(crate) fn ended(&self, failure: &Failure) {
        if !matches!(failure, Failure::Stopped) {
            self.lost.set(self.lost.get() + 1);
            self.failed(failure);
            if self.all_lost() {
                self.reached.notify_one();
            }
        }
    }

    pub(crate) fn opened_count(&self) -> u64 {
        self.opened.get()
    }

    pub(crate) fn lost_count(&self) -> u64 {
        self.lost.get()
    }

    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.borrow().clone()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// To be called first by the task of each connection, so that it can be woken.
    pub(crate) async fn register(&self, index: usize) {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let mut wakers = self.wakers.borrow_mut();
        if wakers.len() <= index {
            wakers.resize(index + 1, None);
        }
        wakers[index] = Some(waker);
    }

    pub(crate) fn wake(&self, index: usize) {
        if let Some(Some(waker)) = self.wakers.borrow().get(index) {
            waker.wake_by_ref();
        }
    }

    /// Ends the work of every connection at its next turn.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        for waker in self.wakers.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }

    /// Latencies since the window began.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        self.latency.borrow().clone()
    }

    /// There is nothing left to wait for.
    async fn over(&self) {
        while self.messages.get() < self.limit.get() && !self.all_lost() {
            self.reached.notified().await;
        }
    }

    fn all_lost(&self) -> bool {
        self.opened.get() > 0 && self.lost.get() >= self.opened.get()
    }

    /// Warms up, then measures for as long as is asked for.
    pub(crate) async fn window(&self, load: &Load) -> Measured {
        if load.warmup > 0.0 {
            sleep(Duration::from_secs_f64(load.warmup)).await;
        }
        let (usage, own_cpu) = (usage_of(&load.pid).await, Usage::own_cpu());
        let begun = Instant::now();
        let (messages, bytes, pings) = (self.messages.get(), self.bytes.get(), self.pings.get());
        self.latency.borrow_mut().reset();
        self.limit.set(load.count.map_or(u64::MAX, |count| messages.saturating_add(count)));
        tokio::select! {
            () = sleep(Duration::from_secs_f64(load.secs)) => {}
            () = self.over() => {}
        }
        self.limit.set(u64::MAX);
        let after = usage_of(&load.pid).await;
        Measured {
            secs: begun.elapsed().as_secs_f64(),
            messages: self.messages.get() - messages,
            bytes: self.bytes.get() - bytes,
            pings: self.pings.get() - pings,
            latency: self.latency(),
            usage: (!load.pid.is_empty()).then_some(Usage { cpu: after.cpu - usage.cpu, memory: after.memory }),
            own_cpu: Usage::own_cpu() - own_cpu,
        }
    }

    /// Tells how it goes on standard error, each second until this is dropped.
    #[allow(clippy::print_stderr, reason = "progress is for the user's eyes")]
    pub(crate) fn progress(self: &Rc<Self>, load: &Load) -> Progress {
        if load.quiet {
            return Progress(None);
        }
        let tally = Rc::clone(self);
        let task = tokio::task::spawn_local(async move {
            let begun = Instant::now();
            let mut last = (begun, 0, 0);
            loop {
                sleep(Duration::from_secs(1)).await;
                let now = (Instant::now(), tally.messages.get(), tally.bytes.get());
                let secs = now.0.duration_since(last.0).as_secs_f64();
                eprintln!(
                    "{:4.0} s  {} opened  {:.0} a second  {:.1} MiB/s  {} failures",
                    begun.elapsed().as_secs_f64(),
                    tally.opened.get(),
                    (now.1 - last.1) as f64 / secs,
                    (now.2 - last.2) as f64 / secs / 1_048_576.0,
                    tally.failures.borrow().values().sum::<u64>()
                );
                last = now;
            }
        });
        Progress(Some(task.abort_handle()))
    }
}

/// Read on another thread: it takes milliseconds, which would be in the latencies.
async fn usage_of(pids: &[u32]) -> Usage {
    if pids.is_empty() {
        return Usage::default();
    }
    let pids = pids.to_vec();
    spawn_blocking(move || Usage::of(&pids)).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

pub(crate) struct Progress(Option<AbortHandle>);

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    fn load(arguments: &[&str]) -> Load {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            load: Load,
        }
        Only::parse_from([&["load", "ws://x"], arguments].concat()).load
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_in_the_window_counts() {
        let tally = Tally::new();
        let three = Received { messages: 3, bytes: 30, pings: 1 };
        let load = load(&["--warmup", "2", "--secs", "3"]);
        let (measured, ()) = tokio::join!(tally.window(&load), async {
            for _ in 0..10 {
                sleep(Duration::from_millis(900)).await;
                tally.received(three);
                tally.took(3, Duration::from_millis(7));
            }
        });
        // At 2.7, 3.6 and 4.5 seconds.
        assert_eq!((measured.messages, measured.bytes, measured.pings), (9, 90, 3));
        assert_eq!(measured.latency.len(), 9);
        assert!(measured.usage.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_ends_the_window_early() {
        let tally = Tally::new();
        let one = Received { messages: 1, bytes: 1, pings: 0 };
        let load = load(&["--warmup", "0", "--secs", "1e6", "--count", "5"]);
        let sending = async {
            loop {
                sleep(Duration::from_millis(10)).await;
                tally.received(one);
            }
        };
        tokio::select! {
            measured = tally.window(&load) => assert!(measured.messages >= 5, "{}", measured.messages),
            () = sending => {}
        }
    }
}
