//! Round trips, closed loop (as fast as they come back) and open loop (at a rate).
use crate::{
    Outcome,
    connection::Connection,
    dial::{Dialer, open_all},
    failure::Failure,
    options::{Message, Rtt},
    pace::Pace,
    report::Report,
    tally::{Measured, Tally},
    wire,
};
use std::{
    error::Error,
    future::poll_fn,
    rc::Rc,
    task::{Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long answers are waited for after the window.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Bytes that wait on a connection in an open loop; what is due beyond them is sent later, and told as late.
const QUEUE_MAX: usize = 1 << 20;

pub(crate) async fn run(options: &Rtt) -> Result<Outcome, Box<dyn Error>> {
    let (load, tally) = (&options.load, Tally::new());
    let dialer = Dialer::new(&load.url, load)?;
    let progress = tally.progress(load);
    let connections = open_all(&dialer, load, &tally).await;
    let mut report = Report::default();
    let mut worked = false;
    if !connections.is_empty() {
        let trips = Trips::start(connections, &options.message, options.inflight, options.rate, &tally);
        let mut measured = tally.window(load).await;
        let unanswered = trips.finish(&mut measured, &tally).await;
        worked = measured.messages > 0;
        report.count("messages", measured.messages);
        report.figure("msgs_per_s", measured.messages as f64 / measured.secs);
        report.usage(&measured, "msg", measured.messages);
        if options.rate.is_some() {
            report.count("unanswered", unanswered);
        }
        report.latency("latency_us", &measured.latency);
    }
    drop(progress);
    Ok(Outcome::new("rtt", report, worked, &dialer, &tally))
}

/// Round trips going on.
pub(crate) struct Trips {
    tasks: JoinSet<()>,
    pace: Option<Rc<Pace>>,
}

impl Trips {
    pub(crate) fn start(
        connections: Vec<Connection>,
        message: &Message,
        inflight: usize,
        rate: Option<f64>,
        tally: &Rc<Tally>,
    ) -> Self {
        let inflight = inflight.max(1);
        let batch: Rc<[u8]> = wire::messages(inflight, message.size, message.text, true).into();
        let pace = rate.map(|rate| Pace::new(rate, connections.len()));
        let mut tasks = JoinSet::new();
        for (index, mut connection) in connections.into_iter().enumerate() {
            connection.expect(message);
            let (batch, tally) = (Rc::clone(&batch), Rc::clone(tally));
            match &pace {
                Some(pace) => drop(tasks.spawn_local(open_loop(index, connection, batch, Rc::clone(pace), tally))),
                None => drop(tasks.spawn_local(closed_loop(index, connection, batch, inflight as u64, tally))),
            }
        }
        if let Some(pace) = &pace {
            let (pace, tally) = (Rc::clone(pace), Rc::clone(tally));
            tasks.spawn_local(async move {
                if let Err(error) = pace.run(Rc::clone(&tally)).await {
                    tally.failed(&Failure::Timer(error));
                }
            });
        }
        Self { tasks, pace }
    }

    /// Ends them. In an open loop late answers are waited for, and `measured` gets their latencies; answers how many
    /// never came, whose latency so far is counted.
    pub(crate) async fn finish(mut self, measured: &mut Measured, tally: &Tally) -> u64 {
        let mut unanswered = 0;
        if let Some(pace) = &self.pace {
            pace.freeze();
            let waiting = async {
                while pace.unanswered() > 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            // Those that are missing then are told.
            let _ = timeout(STRAGGLERS, waiting).await;
            unanswered = pace.unanswered();
        }
        tally.stop();
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        // What has not ended by then is dropped.
        let _ = timeout(STRAGGLERS, ending).await;
        if self.pace.is_some() {
            measured.latency = tally.latency();
        }
        unanswered
    }
}

/// Sends a batch, waits until all of it is back, and begins again.
async fn closed_loop(index: usize, mut connection: Connection, batch: Rc<[u8]>, inflight: u64, tally: Rc<Tally>) {
    tally.register(index).await;
    let mut unsent;
    let failure = 'trips: loop {
        unsent = &batch[..];
        let mut left = inflight;
        let begun = Instant::now();
        while left > 0 {
            match connection.turn(&mut unsent, &tally).await {
                Ok(received) if received.messages > left => {
                    break 'trips Failure::Protocol("more messages than were sent");
                }
                Ok(received) => {
                    left -= received.messages;
                    tally.received(received);
                    if received.messages > 0 {
                        tally.took(received.messages, begun.elapsed());
                    }
                }
                Err(failure) => break 'trips failure,
            }
        }
    };
    tally.ended(&failure);
    if matches!(failure, Failure::Stopped) {
        connection.leave(unsent.is_empty() || unsent.len() == batch.len()).await;
    }
}

/// Sends each message when it is due.
async fn open_loop(index: usize, mut connection: Connection, message: Rc<[u8]>, pace: Rc<Pace>, tally: Rc<Tally>) {
    tally.register(index).await;
    let (mut sent, mut answered) = (0, 0);
    let failure = poll_fn(|cx| {
        loop {
            while sent < pace.due(index) && connection.queued() < QUEUE_MAX {
                connection.queue(&message);
                sent += 1;
            }
            match ready!(connection.poll_turn(cx, &mut &[][..], &tally)) {
                Ok(received) if answered + received.messages > sent => {
                    return Poll::Ready(Failure::Protocol("more messages than were sent"));
                }
                Ok(received) => {
                    let now = Instant::now();
                    for nth in answered..answered + received.messages {
                        tally.took(1, pace.late(index, nth, now));
                    }
                    answered += received.messages;
                    pace.answered(received.messages);
                    tally.received(received);
                }
                Err(failure) => return Poll::Ready(failure),
            }
        }
    })
    .await;
    let now = Instant::now();
    for nth in answered..pace.due(index) {
        tally.took(1, pace.late(index, nth, now));
    }
    tally.ended(&failure);
    if matches!(failure, Failure::Stopped) {
        let between_frames = connection.queued() == 0;
        connection.leave(between_frames).await;
    }
}
