//! Connections that come and go: connect, one message to an echo and back, close.
use crate::{
    Outcome,
    connection::Received,
    dial::Dialer,
    failure::Failure,
    options::{Churn, Message},
    report::Report,
    tally::Tally,
    wire,
};
use std::{
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

/// Before the next try, after one that failed.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) async fn run(options: &Churn) -> Result<Outcome, Box<dyn Error>> {
    let (load, tally) = (&options.load, Tally::new());
    let dialer = Dialer::new(&load.url, load)?;
    let progress = tally.progress(load);
    let batch: Rc<[u8]> = wire::messages(1, options.message.size, options.message.text, true).into();
    let mut tasks = JoinSet::new();
    for _ in 0..load.conns {
        let (dialer, batch, tally) = (Rc::clone(&dialer), Rc::clone(&batch), Rc::clone(&tally));
        tasks.spawn_local(come_and_go(dialer, options.message.clone(), batch, tally));
    }
    let measured = tally.window(load).await;
    let mut report = Report::default();
    // Here each connection brings one message, so that messages are connections.
    report.count("connections", measured.messages);
    report.figure("conns_per_s", measured.messages as f64 / measured.secs);
    report.usage(&measured, "conn", measured.messages);
    report.latency("latency_us", &measured.latency);
    drop(progress);
    Ok(Outcome::new("churn", report, measured.messages > 0, &dialer, &tally))
}

async fn come_and_go(dialer: Rc<Dialer>, message: Message, batch: Rc<[u8]>, tally: Rc<Tally>) {
    loop {
        let begun = Instant::now();
        match once(&dialer, &message, &batch, &tally).await {
            Ok(received) => {
                tally.took(1, begun.elapsed());
                tally.received(received);
            }
            Err(failure) => {
                tally.failed(&failure);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn once(dialer: &Dialer, message: &Message, batch: &[u8], tally: &Tally) -> Result<Received, Failure> {
    let mut connection = dialer.open().await?;
    tally.opened();
    connection.expect(message);
    let (mut unsent, mut all) = (batch, Received::default());
    while all.messages == 0 {
        let received = connection.turn(&mut unsent, tally).await?;
        all.messages += received.messages;
        all.bytes += received.bytes;
        all.pings += received.pings;
    }
    connection.close(tally).await?;
    Ok(Received { messages: 1, ..all })
}
