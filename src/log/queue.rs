//! A bounded queue of log lines to a thread that writes them: a slow terminal, pipe or disk never blocks a worker.
use std::{
    cell::RefCell,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. A verdict is about 1 KiB, so some 8 MiB at worst.
pub(super) const CAPACITY: usize = 8192;
/// How long a request to reopen waits for room in the queue of a disk that stalls.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);
/// How often who waits for room in a full queue looks for it.
const ROOM_POLL: Duration = Duration::from_millis(5);

/// What the writing thread is given.
pub(super) enum Item {
    Line(Box<[u8]>),
    /// Answered when all that was queued before it is written.
    Flush(SyncSender<()>),
    /// What follows goes to the file that has the name now.
    Reopen,
}

/// The producers' end; as the log's own, it gives tracing-subscriber a writer per event.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    items: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with(CAPACITY, out, |lost| {
            tracing::warn!(lost, "{lost} log lines dropped: the log's reader was slower than its writers");
        })
    }

    fn with(
        capacity: usize,
        out: impl Write + Send + 'static,
        warn: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        Self::served_by("log", capacity, move |lines, dropped| write_lines(lines, dropped, out, warn))
    }

    /// Starts a thread that does with the items what it likes; it is told how many were dropped meanwhile.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn served_by(
        thread: &str,
        capacity: usize,
        serve: impl FnOnce(&Receiver<Item>, &AtomicU64) + Send + 'static,
    ) -> io::Result<Self> {
        let (items, lines) = sync_channel(capacity);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::Builder::new().name(thread.into()).spawn(move || serve(&lines, &counter))?;
        Ok(Self { items, dropped })
    }

    /// Queues a line. Without room it is dropped and counted; answers how many were so since the last that was told.
    pub(super) fn push(&self, line: &[u8]) -> Option<u64> {
        match self.items.try_send(Item::Line(line.into())) {
            Ok(()) => None,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                Some(self.dropped.fetch_add(1, Ordering::Relaxed) + 1)
            }
        }
    }

    /// Has the writing thread open its file anew, after what is queued now. Answers whether it will hear of it.
    pub(super) fn reopen(&self) -> bool {
        self.offer(Item::Reopen, Instant::now() + REOPEN_PATIENCE)
    }

    /// Waits until what is queued now is written, at most `patience`. Answers whether it was.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, flushed) = sync_channel(1);
        self.offer(Item::Flush(done), deadline)
            && flushed.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Waits for room.
    fn offer(&self, mut item: Item, deadline: Instant) -> bool {
        loop {
            match self.items.try_send(item) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => item = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
            thread::sleep(ROOM_POLL);
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes the one write of one event.
pub(super) struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !into_notice(line) {
            // What is dropped is told by the writing thread.
            let _ = self.0.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

thread_local! {
    /// Set on the writing thread, whose own events must not wait for itself.
    static NOTICE: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Keeps a line of the writing thread itself; `false` on any other thread.
fn into_notice(line: &[u8]) -> bool {
    NOTICE.with_borrow_mut(|notice| notice.as_mut().map(|kept| kept.extend_from_slice(line)).is_some())
}

fn write_lines(items: &Receiver<Item>, dropped: &AtomicU64, mut out: impl Write, warn: impl Fn(u64)) {
    NOTICE.set(Some(Vec::new()));
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => write(&mut out, &line, dropped),
            Item::Flush(done) => {
                tell_dropped(&mut out, dropped, &warn);
                // Whoever asked may have lost patience and be gone.
                let _ = done.try_send(());
            }
            // Standard error has no name.
            Item::Reopen => {}
        }
        tell_dropped(&mut out, dropped, &warn);
    }
}

fn tell_dropped(out: &mut impl Write, dropped: &AtomicU64, warn: impl Fn(u64)) {
    let lost = dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        warn(lost);
        let notice = NOTICE.with_borrow_mut(|notice| notice.as_mut().map(std::mem::take)).unwrap_or_default();
        write(out, &notice, dropped);
    }
}

/// A line that the log's reader does not take (closed pipe, full disk) counts as dropped.
fn write(out: &mut impl Write, line: &[u8], dropped: &AtomicU64) {
    if out.write_all(line).and_then(|()| out.flush()).is_err() {
        dropped.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Mutex, mpsc::channel};

    /// Writes into memory, each write only once it was let through.
    struct Gated {
        gate: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.gate.recv();
            self.written.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order() {
        let (open, gate) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let queue = Queue::start(Gated { gate, written: Arc::clone(&written) }).unwrap();
        drop(open);
        queue.make_writer().write_all(b"one\n").unwrap();
        queue.make_writer().write_all(b"two\n").unwrap();
        assert!(queue.flush(Duration::from_secs(10)));
        assert_eq!(*written.lock().unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_never_blocks_and_is_told_when_it_reads_again() {
        let (open, gate) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::new(std::sync::OnceLock::<Queue>::new());
        let notice = Arc::clone(&own);
        let warn = move |lost| {
            let mut line = notice.get().unwrap().make_writer();
            writeln!(line, "lost {lost}").unwrap();
        };
        let queue = Queue::with(4, Gated { gate, written: Arc::clone(&written) }, warn).unwrap();
        assert!(own.set(queue.clone()).is_ok());
        for i in 0..100 {
            queue.make_writer().write_all(format!("line {i}\n").as_bytes()).unwrap();
        }
        let lost = queue.dropped.load(Ordering::Relaxed);
        assert!((95..=96).contains(&lost), "{lost} of 100 lines dropped with 4 places and one line in hand");
        assert!(!queue.flush(Duration::from_millis(1)), "nothing was written yet");
        drop(open);
        assert!(queue.flush(Duration::from_secs(10)));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.contains(&format!("lost {lost}\n")), "{text}");
        assert_eq!(text.matches("line ").count(), 100 - usize::try_from(lost).unwrap(), "{text}");
    }
}
