//! One worker's connections to backends that wait for their next request.
use super::body::RequestBody;
use crate::{
    handshake::spelling::{Spelled, Speller},
    transport::Stream,
    upstream::Backend,
};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep_until, timeout},
};

/// Connections that a worker keeps to one backend, and to all.
const KEPT_EACH: usize = 32;
const KEPT: usize = 256;
/// How long an idle one is kept: below the five seconds after which common servers close theirs, so that a request does not
/// meet the end of its connection.
const IDLE: Duration = Duration::from_secs(4);
/// Before the end that a server announces by `Keep-Alive: timeout=`.
const MARGIN: Duration = Duration::from_secs(1);
/// How long what a backend has yet to read or say behind its answer is waited for, before its connection is given up.
const SETTLE: Duration = Duration::from_secs(60);
/// The least that hyper takes as its largest buffer.
const LEAST_BUFFER: usize = 8 * 1024;

/// Names that the gateway writes.
const NAMES: &[&str] = &[
    "Host",
    "Connection",
    "TE",
    "Transfer-Encoding",
    "Content-Length",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "Forwarded",
    "X-Real-IP",
    "X-Request-Id",
];

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// The one that was used last comes last.
    idle: RefCell<VecDeque<Idle>>,
    sweeping: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    backend: Arc<Backend>,
    connection: Connection,
    since: Instant,
    until: Instant,
}

/// A connection to a backend on which one request may be asked.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) speller: Speller,
}

impl Connection {
    /// Speaks HTTP/1.1 on a new stream. `header` bounds the heads of answers, in bytes.
    ///
    /// # Errors
    /// hyper's.
    pub(super) async fn open(stream: Stream, header: usize) -> hyper::Result<Self> {
        let (io, speller) = Spelled::new(stream, NAMES);
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_header_size(header)
            .max_buf_size(header.max(LEAST_BUFFER))
            .handshake(TokioIo::new(io))
            .await?;
        // It ends with its sender, or with the answer whose body is dropped.
        spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a backend ended");
            }
        });
        Ok(Self { sender, speller })
    }
}

impl Connections {
    /// The one to this backend that was used last, if it was idle for no longer than `fresh`.
    pub(super) fn take(&self, backend: &Arc<Backend>, fresh: Duration) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| one.until > now && !one.connection.sender.is_closed());
        let fits = |one: &Idle| Arc::ptr_eq(&one.backend, backend) && now - one.since <= fresh;
        let place = idle.iter().rposition(fits)?;
        idle.remove(place).map(|one| one.connection)
    }

    /// Keeps a connection once its exchange is over, for as long as its backend does by its own account.
    pub(super) fn settle(self: &Rc<Self>, backend: Arc<Backend>, mut connection: Connection, told: Option<Duration>) {
        let limit = told.map_or(IDLE, |told| told.saturating_sub(MARGIN).min(IDLE));
        if limit.is_zero() {
            return;
        }
        if connection.sender.is_ready() {
            return self.keep(backend, connection, limit);
        }
        let pool = Rc::downgrade(self);
        // It ends with the connection, or soon after the answer's body is dropped or complete.
        spawn_local(async move {
            let ready = loop {
                match timeout(SETTLE, connection.sender.ready()).await {
                    Ok(ready) => break ready.is_ok(),
                    Err(_) if connection.sender.is_closed() => break false,
                    // The body of an answer takes as long as it takes; its own deadlines end it.
                    Err(_) => {}
                }
            };
            if let Some(pool) = pool.upgrade().filter(|_| ready) {
                pool.keep(backend, connection, limit);
            }
        });
    }

    fn keep(self: &Rc<Self>, backend: Arc<Backend>, connection: Connection, limit: Duration) {
        if backend.retired() || backend.drained() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle.borrow_mut();
        if idle.iter().filter(|one| Arc::ptr_eq(&one.backend, &backend)).count() >= KEPT_EACH {
            return;
        }
        if idle.len() >= KEPT {
            idle.pop_front();
        }
        idle.push_back(Idle { backend, connection, since, until: since + limit });
        if !self.sweeping.replace(true) {
            let pool = Rc::downgrade(self);
            spawn_local(async move {
                while let Some(pool) = pool.upgrade() {
                    let Some(next) = pool.sweep(Instant::now()) else { return };
                    drop(pool);
                    sleep_until(next).await;
                }
            });
        }
    }

    /// Ends those whose time is over; when the next one's is, if there is one.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| one.until > now && !one.connection.sender.is_closed());
        let next = idle.iter().map(|one| one.until).min();
        self.sweeping.set(next.is_some());
        next
    }
}
