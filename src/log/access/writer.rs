//! The thread that writes the access log, whatever its disk does.
use crate::log::queue::Item;
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

/// Where lines go.
pub(super) type Output = Box<dyn Write + Send>;

/// What goes into one write at most, about: after a burst of ends lines wait, and one write for many is cheap.
const BATCH: usize = 64 * 1024;
/// How long after a failure the next attempt comes.
const RETRY: Duration = Duration::from_secs(1);

/// The file and what is to be written to it.
pub(super) struct Writer<Open> {
    out: Output,
    open: Open,
    batch: Vec<u8>,
    lines: u64,
    /// The last write ended inside a line.
    torn: bool,
    /// Since when writing fails; `None` while it works.
    failing: Option<Failure>,
    /// When to try to open the file again.
    reopen_at: Option<Instant>,
    /// All that was never written, for who asks.
    lost: Arc<AtomicU64>,
}

struct Failure {
    retry: Instant,
    lost: u64,
}

impl<Open: FnMut() -> io::Result<Output>> Writer<Open> {
    pub(super) fn new(out: Output, open: Open, lost: Arc<AtomicU64>) -> Self {
        Self { out, open, batch: Vec::new(), lines: 0, torn: false, failing: None, reopen_at: None, lost }
    }

    /// Serves until nobody is left who could bring a line. `dropped`: lines that found no room in the queue.
    pub(super) fn run(mut self, items: &Receiver<Item>, dropped: &AtomicU64) {
        loop {
            let item = match items.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.write();
                    tell_dropped(dropped);
                    self.wait(items)
                }
                Ok(item) => Ok(item),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            };
            match item {
                Ok(Item::Line(line)) => self.take(&line),
                Ok(Item::Flush(done)) => {
                    self.write();
                    tell_dropped(dropped);
                    // Whoever asked may have lost patience and be gone.
                    let _ = done.try_send(());
                }
                Ok(Item::Reopen) => {
                    self.write();
                    self.reopen(Instant::now());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if self.reopen_at.is_some_and(|at| at <= now) {
                self.reopen(now);
            }
        }
        self.write();
    }

    fn wait(&self, items: &Receiver<Item>) -> Result<Item, RecvTimeoutError> {
        match self.reopen_at {
            Some(at) => items.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => items.recv().map_err(RecvTimeoutError::from),
        }
    }

    fn take(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.lines += 1;
        if self.batch.len() >= BATCH {
            self.write();
        }
    }

    /// Writes the batch, or counts it as lost. After a failure a batch is tried once each [`RETRY`].
    fn write(&mut self) {
        let now = Instant::now();
        if self.batch.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        if self.failing.as_ref().is_some_and(|failure| now < failure.retry) {
            self.lose(lines);
        } else if let Err((written, error)) = self.attempt() {
            let kept = self.batch[..written].iter().filter(|byte| **byte == b'\n').count() as u64;
            if self.failing.is_none() {
                tracing::error!(
                    %error,
                    "the access log cannot be written: {error}; its records are lost, and it is tried again each second"
                );
            }
            let lost = self.failing.as_ref().map_or(0, |failure| failure.lost);
            self.failing = Some(Failure { retry: now + RETRY, lost });
            self.lose(lines.saturating_sub(kept));
        } else if let Some(Failure { lost, .. }) = self.failing.take() {
            tracing::warn!(lost, "the access log is written again; {lost} records were lost meanwhile");
        }
        self.batch.clear();
    }

    fn lose(&mut self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        if let Some(failure) = &mut self.failing {
            failure.lost += lines;
        }
    }

    /// Writes the batch; fails with the number of its bytes that were taken.
    fn attempt(&mut self) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.out.write_all(b"\n").map_err(|error| (0, error))?;
            self.torn = false;
        }
        let mut written = 0;
        while written < self.batch.len() {
            match self.out.write(&self.batch[written..]) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err((written, error)),
            }
            self.torn = self.batch[written - 1] != b'\n';
        }
        self.out.flush().map_err(|error| (written, error))
    }

    /// Goes on with the file that has the name now; if it cannot be opened, with the one that is open.
    fn reopen(&mut self, now: Instant) {
        match (self.open)() {
            Ok(out) => {
                self.out = out;
                self.torn = false;
                self.reopen_at = None;
                // A new file may well be on a disk that has room.
                if let Some(failure) = &mut self.failing {
                    failure.retry = now;
                }
                tracing::info!("the access log is opened anew");
            }
            Err(error) => {
                if self.reopen_at.is_none() {
                    tracing::error!(
                        %error,
                        "the access log cannot be opened anew: {error}; records go to the old file, and it is tried again each second"
                    );
                }
                self.reopen_at = Some(now + RETRY);
            }
        }
    }
}

fn tell_dropped(dropped: &AtomicU64) {
    let lost = dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        tracing::warn!(lost, "{lost} records of the access log dropped: its disk was slower than sessions ended");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;

    /// A disk with room for so many bytes more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= count;
            written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk {
        fn with(room: usize) -> Self {
            let disk = Self::default();
            disk.room(room);
            disk
        }
        fn room(&self, room: usize) {
            self.0.lock().unwrap().1 = room;
        }
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    fn writer(disk: &Disk, open: impl FnMut() -> io::Result<Output>) -> Writer<impl FnMut() -> io::Result<Output>> {
        Writer::new(Box::new(disk.clone()), open, Arc::default())
    }

    fn closed() -> io::Result<Output> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    #[test]
    fn a_full_disk_costs_records_and_leaves_no_torn_line_before_a_whole_one() {
        let disk = Disk::with(6);
        let mut writer = writer(&disk, closed);
        for line in [b"one\n", b"two\n"] {
            writer.take(line);
        }
        writer.write();
        assert_eq!((disk.text().as_str(), writer.lost.load(Ordering::Relaxed)), ("one\ntw", 1));
        writer.take(b"at once\n");
        writer.write();
        assert_eq!(writer.lost.load(Ordering::Relaxed), 2, "the next attempt has its time");
        disk.room(100);
        writer.failing.as_mut().unwrap().retry = Instant::now();
        writer.take(b"four\n");
        writer.write();
        assert_eq!(disk.text(), "one\ntw\nfour\n");
        assert!(writer.failing.is_none());
        assert_eq!(writer.lost.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_is_tried_again_and_the_old_one_goes_on() {
        let (old, new) = (Disk::with(100), Disk::with(100));
        let (target, mut attempts) = (new.clone(), 0);
        let mut writer = writer(&old, move || {
            attempts += 1;
            if attempts < 3 { closed() } else { Ok(Box::new(target.clone()) as Output) }
        });
        writer.reopen(Instant::now());
        writer.take(b"one\n");
        writer.write();
        let again = writer.reopen_at.unwrap();
        writer.reopen(again);
        assert!(writer.reopen_at.is_some_and(|at| at > again));
        writer.reopen(again);
        assert!(writer.reopen_at.is_none());
        writer.take(b"two\n");
        writer.write();
        assert_eq!((old.text().as_str(), new.text().as_str()), ("one\n", "two\n"));
    }
}
