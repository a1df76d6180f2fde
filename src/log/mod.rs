//! Where events go: lines of text or JSON on stderr, written by a thread of their own.
//!
//! Standard error, as nginx and HAProxy do: containers and systemd collect both streams, and standard output stays free
//! for the answers of `check` and `try`.
pub mod access;
mod mass;
mod queue;
pub mod verdict;

use crate::config::{LogConfig, LogFormat};
use queue::Queue;
use std::{
    io::{self, IsTerminal},
    panic,
    sync::OnceLock,
    time::Duration,
};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// How long an exit waits for a log reader that does not read.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// The level of this process's log, if it is ours.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Changes the level of this process's log. Answers whether it could: a program that embeds a gateway has a log of its own.
pub fn set_level(level: &str) -> bool {
    let (Some(handle), Ok(filter)) = (LEVEL.get(), EnvFilter::builder().parse(level)) else { return false };
    handle.reload(filter).is_ok()
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.level = {level:?} is no level and no filter: {problem}; write error, warn, info or debug")]
    Level { level: String, problem: String },
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
    #[error("this process already has a tracing subscriber")]
    AlreadyStarted,
}

/// Writes what is still queued when dropped, within two seconds.
#[must_use]
pub struct LogGuard(Queue);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.flush(LAST_WORDS);
    }
}

/// Sets this process's tracing subscriber, as `[log]` says, and sends panics there. For `main`, once: programs that
/// embed a gateway bring a subscriber of their own.
///
/// # Errors
/// When the level is no filter, the log's thread cannot start, or there is a subscriber already.
pub fn start(config: &LogConfig) -> Result<LogGuard, LogError> {
    let filter = EnvFilter::builder()
        .parse(&config.level)
        .map_err(|error| LogError::Level { level: config.level.clone(), problem: error.to_string() })?;
    let terminal = io::stderr().is_terminal();
    let queue = Queue::start(io::stderr())?;
    let lines = tracing_subscriber::fmt::layer().with_writer(queue.clone());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match (config.format, terminal) {
        (LogFormat::Json, _) | (LogFormat::Auto, false) => {
            Box::new(lines.json().flatten_event(true).with_current_span(false))
        }
        (LogFormat::Text, _) | (LogFormat::Auto, true) => {
            Box::new(lines.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()))
        }
    };
    let (filter, level) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().map_err(|_| LogError::AlreadyStarted)?;
    // Nobody else gets here: there is one subscriber.
    let _ = LEVEL.set(level);
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string);
        let message = info.payload_as_str().unwrap_or("(no message)");
        tracing::error!(target: "pulsegate::bug", place, "panicked: {message}; please report this");
    }));
    Ok(LogGuard(queue))
}
