//! What a run costs: bytes on the heap, resident memory, processor time, and how late timers are.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    time::{Duration, Instant},
};

/// Counts what each thread holds: each test runs on one, whatever the others do meanwhile.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends frees what it held when its counter is gone already.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Bytes that this thread asked for and did not give back.
pub(crate) fn held() -> isize {
    HELD.get()
}

/// Bytes of anonymous memory that the process has.
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Processor time that this thread has used; `None` where the kernel does not count it.
pub(crate) fn processor() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// How late timers were, in steps of 10 µs up to 5 s.
pub(crate) struct Lateness {
    steps: Vec<u32>,
    worst: Duration,
}

impl Lateness {
    const STEP: Duration = Duration::from_micros(10);
    const STEPS: usize = 500_000;

    pub(crate) fn new() -> Self {
        Self { steps: vec![0; Self::STEPS], worst: Duration::ZERO }
    }

    pub(crate) fn record(&mut self, late: Duration) {
        let step = (late.as_micros() / Self::STEP.as_micros()) as usize;
        self.steps[step.min(Self::STEPS - 1)] += 1;
        self.worst = self.worst.max(late);
    }

    pub(crate) fn forget(&mut self) {
        self.steps.fill(0);
        self.worst = Duration::ZERO;
    }

    /// The lateness that a share of all timers did not exceed.
    fn quantile(&self, share: f64) -> Duration {
        let all: u64 = self.steps.iter().map(|count| u64::from(*count)).sum();
        let wanted = (all as f64 * share).ceil() as u64;
        let mut seen = 0;
        let step = self.steps.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        Self::STEP * step.map_or(0, |step| step as u32 + 1)
    }
}

/// Processor time and pings since all had heartbeated for a while.
pub(crate) struct Window {
    begun: Instant,
    processor: Option<Duration>,
    pings: u64,
}

impl Window {
    pub(crate) fn open(pings: u64) -> Self {
        Self { begun: Instant::now(), processor: processor(), pings }
    }

    pub(crate) fn close(&self, pings: u64) -> Spent {
        let used = processor().zip(self.processor).map(|(now, then)| now - then);
        Spent { time: self.begun.elapsed(), processor: used, pings: pings - self.pings }
    }
}

/// What was spent while all of them heartbeated.
pub(crate) struct Spent {
    time: Duration,
    processor: Option<Duration>,
    pings: u64,
}

/// The figures of a run; bytes are those of one relay or session.
pub(crate) struct Measured {
    pub(crate) count: usize,
    /// On the heap, as asked for.
    pub(crate) bytes: usize,
    /// Of which the transports in memory and the peers behind them, not in `bytes`.
    pub(crate) surroundings: usize,
    /// Resident, all of the above and what the allocator adds.
    pub(crate) resident: usize,
    /// On the heap after the heartbeats, more than before.
    pub(crate) grown: usize,
    /// On the heap when all have ended.
    pub(crate) left: usize,
    /// How often something that must hold for each did not.
    pub(crate) broken: usize,
    pub(crate) spent: Spent,
    pub(crate) lateness: Lateness,
}

impl Measured {
    pub(crate) fn tell(&self, what: &str) {
        let Self { count, bytes, surroundings, resident, grown, left: _, broken: _, spent, lateness } = self;
        let seconds = spent.time.as_secs_f64();
        let each = spent.processor.map(|used| used.as_secs_f64() * 1e6 / *count as f64 / seconds);
        eprintln!("{count} {what}, heartbeating for {seconds:.1} s:");
        eprintln!("  heap, each            {bytes} bytes; transports and peers {surroundings}; grown by {grown}");
        eprintln!("  resident, each        {resident} bytes, with transports, peers and the allocator's own");
        eprintln!("  pings                 {:.0} a second, all answered", spent.pings as f64 / seconds);
        match each {
            Some(each) => eprintln!("  processor, each       {each:.3} µs a second"),
            None => eprintln!("  processor, each       unknown: this kernel does not count it"),
        }
        eprintln!(
            "  timers late by        {:?} at the median, {:?} at 99.9 %, {:?} at worst",
            lateness.quantile(0.5),
            lateness.quantile(0.999),
            lateness.worst
        );
    }
}

/// Bytes of each of `count`, rounded up.
pub(crate) fn each(bytes: isize, count: usize) -> usize {
    usize::try_from(bytes).unwrap_or(0).div_ceil(count)
}
