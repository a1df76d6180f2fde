//! Connections that only receive: what a service pushes (`sub`), or nothing (`idle`).
use crate::{
    Outcome,
    connection::Connection,
    dial::{Dialer, open_all},
    failure::Failure,
    options::{Idle, Sub},
    process::Usage,
    report::Report,
    tally::Tally,
    wire,
};
use std::{
    error::Error,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::timeout};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
/// How long connections may take to say goodbye.
const LEAVING: Duration = Duration::from_secs(3);

pub(crate) async fn sub(options: &Sub) -> Result<Outcome, Box<dyn Error>> {
    let (load, tally) = (&options.load, Tally::new());
    let dialer = Dialer::new(&load.url, load)?;
    let progress = tally.progress(load);
    let mut connections = open_all(&dialer, load, &tally).await;
    if let Some(hello) = &options.hello {
        let mut frame = Vec::new();
        wire::put_frame(&mut frame, wire::TEXT, hello.as_bytes(), Some(fastrand::u32(..).to_be_bytes()));
        connections.iter_mut().for_each(|connection| connection.queue(&frame));
    }
    let mut report = Report::default();
    let mut worked = false;
    if !connections.is_empty() {
        let mut tasks = receive_on(connections, &tally);
        let measured = tally.window(load).await;
        finish(&mut tasks, &tally).await;
        worked = measured.messages > 0;
        report.count("messages", measured.messages);
        report.count("bytes", measured.bytes);
        report.figure("msgs_per_s", measured.messages as f64 / measured.secs);
        report.figure("mib_per_s", measured.bytes as f64 / MIB / measured.secs);
        if let Some(usage) = measured.usage {
            report.figure("cpu_s_per_gib", usage.cpu / (measured.bytes as f64 / GIB));
        }
        report.usage(&measured, "msg", measured.messages);
    }
    drop(progress);
    Ok(Outcome::new("sub", report, worked, &dialer, &tally))
}

pub(crate) async fn idle(options: &Idle) -> Result<Outcome, Box<dyn Error>> {
    let (load, tally) = (&options.load, Tally::new());
    let dialer = Dialer::new(&load.url, load)?;
    let progress = tally.progress(load);
    let (before, begun) = (Usage::of(&load.pid), Instant::now());
    let connections = open_all(&dialer, load, &tally).await;
    let (opening, after) = (begun.elapsed().as_secs_f64(), Usage::of(&load.pid));
    let count = connections.len() as f64;
    let mut report = Report::default();
    if !connections.is_empty() {
        let mut tasks = receive_on(connections, &tally);
        let measured = tally.window(load).await;
        finish(&mut tasks, &tally).await;
        report.figure("opens_per_s", count / opening);
        report.count("pings", measured.pings);
        if let Some(usage) = measured.usage {
            report.figure("open_cpu_us_per_conn", (after.cpu - before.cpu) * 1e6 / count);
            report.figure("memory_before_mib", before.memory / 1024.0);
            report.figure("memory_mib", usage.memory / 1024.0);
            report.figure("kib_per_conn", (usage.memory - before.memory) / count);
            report.figure("idle_cpu_us_per_conn_s", usage.cpu * 1e6 / count / measured.secs);
        }
        report.figure("load_cpu_cores", measured.own_cpu / measured.secs);
    }
    drop(progress);
    let worked = tally.opened_count() > tally.lost_count();
    Ok(Outcome::new("idle", report, worked, &dialer, &tally))
}

fn receive_on(connections: Vec<Connection>, tally: &Rc<Tally>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (index, connection) in connections.into_iter().enumerate() {
        tasks.spawn_local(receive(index, connection, Rc::clone(tally)));
    }
    tasks
}

async fn receive(index: usize, mut connection: Connection, tally: Rc<Tally>) {
    tally.register(index).await;
    let failure = loop {
        match connection.turn(&mut &[][..], &tally).await {
            Ok(received) => tally.received(received),
            Err(failure) => break failure,
        }
    };
    tally.ended(&failure);
    if matches!(failure, Failure::Stopped) {
        connection.leave(true).await;
    }
}

async fn finish(tasks: &mut JoinSet<()>, tally: &Tally) {
    tally.stop();
    // What has not ended by then is dropped.
    let _ = timeout(LEAVING, async { while tasks.join_next().await.is_some() {} }).await;
}
