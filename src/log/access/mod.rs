//! The access log: what sessions did, in a file of its own, one line each.
mod record;
mod request;
mod writer;

use super::{queue, queue::Queue};
use crate::{
    config::{AccessLogConfig, AccessLogFormat, AccessLogPath, LogSessions},
    http::{RequestRecord, RequestResult},
    relay::PerSide,
    session::{
        Facts,
        verdict::{LegVerdict, Verdict},
    },
};
use record::Record;
#[cfg(feature = "otel")]
pub(crate) use record::json_text;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use writer::{Output, Writer};

/// The access log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("access_log.path: {} cannot be opened for writing: {error}", .path.display())]
pub struct AccessLogError {
    path: PathBuf,
    error: io::Error,
}

/// Takes records from all workers and never makes them wait: a thread of its own writes them.
#[derive(Debug)]
pub struct AccessLog {
    queue: Queue,
    format: AccessLogFormat,
    sessions: LogSessions,
    every: Option<Duration>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens it and starts its thread.
    ///
    /// # Errors
    /// When its file cannot be opened, or the thread not be started.
    pub fn start(config: &AccessLogConfig) -> Result<Self, AccessLogError> {
        match &config.path {
            AccessLogPath::Stdout => Self::writing(config, || Ok(Box::new(io::stdout()) as Output)),
            AccessLogPath::File(path) => {
                let name = path.clone();
                Self::writing(config, move || open(&name))
            }
        }
        .map_err(|error| match &config.path {
            AccessLogPath::Stdout => AccessLogError { path: "stdout".into(), error },
            AccessLogPath::File(path) => AccessLogError { path: path.clone(), error },
        })
    }

    fn writing(
        config: &AccessLogConfig,
        mut open: impl FnMut() -> io::Result<Output> + Send + 'static,
    ) -> io::Result<Self> {
        let lost = Arc::new(AtomicU64::new(0));
        let (out, counter) = (open()?, Arc::clone(&lost));
        let queue = Queue::served_by("access-log", queue::CAPACITY, move |items, dropped| {
            Writer::new(out, open, counter).run(items, dropped);
        })?;
        Ok(Self { queue, format: config.format, sessions: config.sessions, every: config.every, lost })
    }

    /// How often an open session is to be written.
    #[must_use]
    pub fn every(&self) -> Option<Duration> {
        self.every
    }

    /// Writes how a session ended, just now, if `access_log.sessions` wants it.
    pub fn end(&self, verdict: &Verdict) {
        if super::verdict::wanted(self.sessions, verdict) {
            self.push(&Record::end(verdict, SystemTime::now()));
        }
    }

    /// Writes how an open session does.
    pub fn progress(&self, facts: &Facts, legs: &PerSide<LegVerdict>, duration: Duration) {
        self.push(&Record::progress(facts, legs, duration, SystemTime::now()));
    }

    /// Writes what became of a plain HTTP request, just now, if `access_log.sessions` wants it.
    pub fn request(&self, request: &RequestRecord) {
        let wanted = match self.sessions {
            LogSessions::All => true,
            LogSessions::Abnormal => request.result != RequestResult::Answered,
            LogSessions::Off => false,
        };
        if wanted {
            self.write(&request::line(request, SystemTime::now(), self.format));
        }
    }

    fn push(&self, record: &Record<'_>) {
        self.write(&match self.format {
            AccessLogFormat::Json => record.json(),
            AccessLogFormat::Text => record.text(),
        });
    }

    fn write(&self, line: &str) {
        if let Some(dropped) = self.queue.push(line.as_bytes()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if dropped == 1 {
                tracing::warn!("the access log is not written as fast as sessions end: records are dropped");
            }
        }
    }

    /// Closes its file and opens the one that has its name now, after what is queued already.
    pub fn reopen(&self) {
        if !self.queue.reopen() {
            tracing::warn!("the access log is not opened anew, since its disk stalls; ask again");
        }
    }

    /// Records that were never written: the disk was too slow or full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what is queued now is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        self.queue.flush(patience);
    }
}

/// Readable by its group: it holds clients' addresses.
const MODE: u32 = 0o640;

fn open(path: &Path) -> io::Result<Output> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let path = AccessLogPath::File("/nonexistent/access.log".into());
        let config = AccessLogConfig { path, format: AccessLogFormat::Json, sessions: LogSessions::All, every: None };
        let error = AccessLog::start(&config).unwrap_err().to_string();
        assert!(error.starts_with("access_log.path: /nonexistent/access.log cannot be opened"), "{error}");
    }

    /// A disk that takes nothing until it is let go.
    struct Stalled(std::sync::mpsc::Receiver<()>, Arc<AtomicU64>);

    impl io::Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.fetch_add(bytes.iter().filter(|byte| **byte == b'\n').count() as u64, Ordering::Relaxed);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_stalls_costs_records_that_are_counted_and_holds_nobody_up() {
        const ENDS: usize = queue::CAPACITY * 2;
        let path = AccessLogPath::Stdout;
        let config = AccessLogConfig { path, format: AccessLogFormat::Text, sessions: LogSessions::All, every: None };
        let (let_go, gate) = std::sync::mpsc::channel();
        let written = Arc::new(AtomicU64::new(0));
        let mut disk = Some(Stalled(gate, Arc::clone(&written)));
        let log = AccessLog::writing(&config, move || match disk.take() {
            Some(disk) => Ok(Box::new(disk) as Output),
            None => Err(io::ErrorKind::Other.into()),
        })
        .unwrap();
        let verdict = crate::log::verdict::tests::verdict(crate::relay::EndReason::ClientClosed);
        (0..ENDS).for_each(|_| log.end(&verdict));
        let lost = log.lost();
        assert!(lost > 0 && lost < ENDS as u64, "{lost} lost");
        drop(let_go);
        log.flush(Duration::from_secs(10));
        assert_eq!(written.load(Ordering::Relaxed) + log.lost(), ENDS as u64);
    }
}
