//! A load generator for WebSocket services, and a backend to put behind proxies:
//!
//! ```sh
//! cargo run --release --example load -- serve
//! cargo run --release --example load -- rtt ws://127.0.0.1:8080/echo --conns 50 --size 64 --secs 5
//! ```
//!
//! `load --help` lists the kinds of load. Names of figures carry their unit; `conn` is a connection, `msg` a message (for
//! round trips: there and back), `cpu_us` microseconds of CPU time of the processes named with `--pid`.
mod certificate;
mod churn;
mod connection;
mod dial;
mod failure;
mod fair;
mod handshake;
mod options;
mod pace;
mod process;
mod report;
mod rtt;
mod serve;
mod stream;
mod sub;
mod tally;
#[cfg(test)]
mod tests;
mod wire;

use clap::Parser;
use dial::Dialer;
use options::{Command, Load, Options};
use report::Report;
use std::{error::Error, fs, path::Path, process::ExitCode};
use tally::Tally;
use tokio::runtime::{Builder, LocalOptions};

/// Different failures that are shown; more are summed up.
const FAILURES_SHOWN: usize = 8;

/// What a load came to.
pub(crate) struct Outcome {
    report: Report,
    /// Whether anything worked at all.
    worked: bool,
}

impl Outcome {
    fn new(load: &str, figures: Report, worked: bool, dialer: &Dialer, tally: &Tally) -> Self {
        let mut report = Report::default();
        report.text("load", load);
        if let Some(tls) = dialer.negotiated() {
            report.text("tls", tls);
        }
        report.count("opened", tally.opened_count());
        report.count("lost", tally.lost_count());
        let failures = tally.failures();
        report.count("errors", failures.values().sum());
        report.append(figures);
        let mut explained = Report::default();
        for (failure, count) in failures.iter().take(FAILURES_SHOWN) {
            explained.count(failure, *count);
        }
        let more = failures.values().skip(FAILURES_SHOWN).sum::<u64>();
        if more > 0 {
            explained.count("others", more);
        }
        report.group("failures", explained);
        Self { report, worked }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            complain("nothing worked");
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Whether it worked.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    pulsegate::descriptors::raise()?;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let (load, outcome) = match &options.command {
        Command::Certificate(options) => return certificate::write(options).map(|()| true),
        Command::Serve(options) => return runtime.block_on(serve::run(options)).map(|()| true),
        Command::Rtt(options) => (&options.load, runtime.block_on(rtt::run(options))?),
        Command::Sub(options) => (&options.load, runtime.block_on(sub::sub(options))?),
        Command::Idle(options) => (&options.load, runtime.block_on(sub::idle(options))?),
        Command::Churn(options) => (&options.load, runtime.block_on(churn::run(options))?),
        Command::Fair(options) => (&options.load, runtime.block_on(fair::run(options))?),
    };
    tell(load, &outcome.report)?;
    Ok(outcome.worked)
}

#[allow(clippy::print_stdout, reason = "printing the result is what this program is for")]
fn tell(load: &Load, report: &Report) -> std::io::Result<()> {
    match &load.json {
        Some(path) if path == Path::new("-") => println!("{}", report.json()),
        Some(path) => {
            println!("{}", report.table());
            fs::write(path, report.json() + "\n")?;
        }
        None => println!("{}", report.table()),
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the user reads it")]
fn complain(what: &str) {
    eprintln!("load: {what}");
}
