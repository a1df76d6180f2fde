//! What one flooding connection does to the round trips of the others.
use crate::{
    Outcome,
    dial::{Dialer, open_all},
    failure::Failure,
    options::{Fair, Load},
    report::Report,
    rtt::Trips,
    tally::{Measured, Tally},
    wire,
};
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::oneshot,
    time::{sleep, timeout},
};

/// Messages that a flooding sender writes at once, and their size.
const SENT: (usize, usize) = (4, 64 << 10);
const MIB: f64 = (1_u64 << 20) as f64;

pub(crate) async fn run(options: &Fair) -> Result<Outcome, Box<dyn Error>> {
    let (load, tally) = (&options.load, Tally::new());
    let dialer = Dialer::new(&load.url, load)?;
    Dialer::new(&options.flood, load)?;
    let progress = tally.progress(load);
    let connections = open_all(&dialer, load, &tally).await;
    let mut report = Report::default();
    let mut worked = false;
    if !connections.is_empty() {
        let trips = Trips::start(connections, &options.message, 1, options.rate, &tally);
        let calm = tally.window(load).await;
        let flood = Flood::start(options)?;
        let flowing = timeout(Duration::from_secs_f64(load.timeout), flood.flowing()).await.is_ok();
        let before = flood.bytes();
        let mut flooded = tally.window(load).await;
        let flow = (flood.bytes() - before) as f64 / MIB / flooded.secs;
        trips.finish(&mut flooded, &tally).await;
        flood.end()?;
        if !flowing {
            return Err(format!("{}: the flood does not flow", options.flood).into());
        }
        worked = calm.messages > 0 && flooded.messages > 0;
        tell(&mut report, &calm, &flooded);
        report.figure("flood_mib_per_s", flow);
    }
    drop(progress);
    Ok(Outcome::new("fair", report, worked, &dialer, &tally))
}

fn tell(report: &mut Report, calm: &Measured, flooded: &Measured) {
    for (name, measured) in [("calm", calm), ("flooded", flooded)] {
        let mut part = Report::default();
        part.count("messages", measured.messages);
        part.figure("msgs_per_s", measured.messages as f64 / measured.secs);
        part.usage(measured, "msg", measured.messages);
        part.latency("latency_us", &measured.latency);
        report.group(name, part);
    }
    for (name, quantile) in [("p50_ratio", 0.5), ("p99_ratio", 0.99)] {
        let at = |measured: &Measured| measured.latency.value_at_quantile(quantile) as f64;
        report.figure(name, at(flooded) / at(calm));
    }
}

/// A connection that takes, or sends, as fast as it goes, on a thread of its own, so that it does not keep the measuring
/// one waiting.
struct Flood {
    thread: JoinHandle<Result<(), String>>,
    stop: oneshot::Sender<()>,
    bytes: Arc<AtomicU64>,
}

impl Flood {
    fn start(options: &Fair) -> std::io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let bytes = Arc::new(AtomicU64::new(0));
        let (url, load, send, counter) =
            (options.flood.clone(), options.load.clone(), options.send, Arc::clone(&bytes));
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(flood(&url, &load, send, &counter, stopped))
        })?;
        Ok(Self { thread, stop, bytes })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The first bytes went through.
    async fn flowing(&self) {
        while self.bytes() == 0 && !self.thread.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// # Errors
    /// Why the flood ended too early.
    fn end(self) -> Result<(), String> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

async fn flood(
    url: &str,
    load: &Load,
    send: bool,
    counter: &AtomicU64,
    mut stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let tally = Tally::new();
    let dialer = Dialer::new(url, load).map_err(|error| error.to_string())?;
    let mut connection = dialer.open().await.map_err(|failure| format!("the flood: {failure}"))?;
    let batch = if send { wire::messages(SENT.0, SENT.1, false, true) } else { Vec::new() };
    let mut unsent = &batch[..];
    loop {
        let before = unsent.len();
        let turn = async {
            if send { connection.push(&mut unsent, &tally).await } else { connection.turn(&mut unsent, &tally).await }
        };
        let flowed: Result<_, Failure> = tokio::select! {
            flowed = turn => flowed,
            _ = &mut stopped => break,
        };
        let received = flowed.map_err(|failure| format!("the flood: {failure}"))?;
        counter.fetch_add(received.bytes + (before - unsent.len()) as u64, Ordering::Relaxed);
        if unsent.is_empty() {
            unsent = &batch;
        }
    }
    connection.leave(unsent.is_empty() || unsent.len() == batch.len()).await;
    Ok(())
}
