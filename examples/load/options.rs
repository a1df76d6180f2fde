//! What can be asked for on the command line.
use crate::process;
use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf};

/// Loads a WebSocket service and measures it: round trips, streams, idle connections, churn.
///
/// For the service's own costs, give its --pid: CPU time and memory are read from /proc, whatever the program.
#[derive(Parser)]
#[command(name = "load")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Serve(Serve),
    Rtt(Rtt),
    Sub(Sub),
    Idle(Idle),
    Churn(Churn),
    Fair(Fair),
    Certificate(Certificate),
}

/// A backend to load proxies with: /echo, /sink, and /source/SIZE/RATE, which pushes.
///
/// /source/64/0 pushes messages of 64 bytes as fast as they go, /source/256/50/text 50 a second, as text. Whatever else
/// is asked for is an echo.
#[derive(Args)]
pub(crate) struct Serve {
    #[arg(long, default_value = "127.0.0.1:9101")]
    pub(crate) listen: SocketAddr,
    /// Serve sources and sinks on a second thread, so that a flood does not keep the echo waiting.
    #[arg(long)]
    pub(crate) split: bool,
}

/// What every kind of load has.
#[derive(Args, Clone)]
pub(crate) struct Load {
    /// ws://HOST:PORT/PATH or wss://...
    pub(crate) url: String,
    /// Connections held at the same time.
    #[arg(long, default_value_t = 50)]
    pub(crate) conns: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 5.0, value_parser = not_negative)]
    pub(crate) secs: f64,
    /// Seconds of the same load before measuring starts.
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    pub(crate) warmup: f64,
    /// Stop measuring once this many messages (churn: connections) are counted, if --secs are not over before.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Process whose CPU time and memory are accounted, its children included. May be given several times.
    #[arg(long, value_parser = running)]
    pub(crate) pid: Vec<u32>,
    /// Line for the request's head, "Name: value". May be given several times.
    #[arg(long)]
    pub(crate) header: Vec<String>,
    /// Connections opened at the same time, before the load begins.
    #[arg(long, default_value_t = 50)]
    pub(crate) burst: usize,
    /// Seconds a connection may take to open.
    #[arg(long, default_value_t = 10.0, value_parser = not_negative)]
    pub(crate) timeout: f64,
    /// PEM file of the authorities that the service's certificate must chain to. The platform's, if not given.
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// Take any certificate.
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,
    /// No progress on standard error.
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Write the result as JSON: to FILE, or to standard output instead of the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) json: Option<PathBuf>,
}

/// What round trips are made of.
#[derive(Args, Clone)]
pub(crate) struct Message {
    /// Bytes of payload.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: usize,
    /// Text (ASCII) instead of binary messages.
    #[arg(long)]
    pub(crate) text: bool,
    /// Take any message for the answer, from services that do not echo; else its type and size must be the same.
    #[arg(long)]
    pub(crate) any: bool,
}

/// Round trips: each connection sends messages to an echo, and sends again when they are back.
#[derive(Args, Clone)]
pub(crate) struct Rtt {
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) message: Message,
    /// Messages that each connection sends at once, then waits for.
    #[arg(long, default_value_t = 1)]
    pub(crate) inflight: usize,
    /// Messages a second, all connections together, sent at their times whether or not earlier ones are back. Latency then
    /// counts from when a message should have left, so that a stalled service cannot hide how long it stalled.
    #[arg(long, conflicts_with = "inflight", value_parser = positive)]
    pub(crate) rate: Option<f64>,
}

/// Reads what a service pushes.
#[derive(Args, Clone)]
pub(crate) struct Sub {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Text message that each connection sends first, to subscribe.
    #[arg(long, value_name = "TEXT")]
    pub(crate) hello: Option<String>,
}

/// Opens connections and holds them, answering pings: memory and CPU time of each.
#[derive(Args, Clone)]
pub(crate) struct Idle {
    #[command(flatten)]
    pub(crate) load: Load,
}

/// Connects, sends one message to an echo, closes, and begins again.
#[derive(Args, Clone)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) message: Message,
}

/// Round trips, first alone, then the same while one more connection floods the service.
#[derive(Args, Clone)]
pub(crate) struct Fair {
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) message: Message,
    /// What the flooding connection talks to: a source that pushes as fast as it goes, or with --send a sink.
    #[arg(long)]
    pub(crate) flood: String,
    /// Flood by sending messages of 64 KiB as fast as they go, instead of by receiving.
    #[arg(long)]
    pub(crate) send: bool,
    /// Messages a second, as in `rtt`.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
}

/// Writes a throwaway certificate for localhost and 127.0.0.1: cert.pem, key.pem, and both.pem with the two in one.
#[derive(Args)]
pub(crate) struct Certificate {
    pub(crate) folder: PathBuf,
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number @ 0.0..=1e9) => Ok(number),
        Ok(_) | Err(_) => Err("a number from 0 to 1e9 is wanted".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number @ 1e-3..=1e9) => Ok(number),
        Ok(_) | Err(_) => Err("a number from 0.001 to 1e9 is wanted".to_owned()),
    }
}

fn running(text: &str) -> Result<u32, String> {
    let pid = text.parse().map_err(|_| "a number is wanted".to_owned())?;
    if process::exists(pid) { Ok(pid) } else { Err("no such process".to_owned()) }
}
