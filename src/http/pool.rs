//! One worker's connections to backends that wait for their next request.
use super::body::RequestBody;
use crate::{
    handshake::spelling::{Spelled, Speller},
    transport::Stream,
    upstream::{Backend, LEAST_BUFFER},
};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::oneshot,
    task::spawn_local,
    time::{Instant, sleep, sleep_until},
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
/// For a connection that was given up to write what it has yet to write, and to end.
const LINGER: Duration = Duration::from_secs(2);

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

/// What the body of an answer holds of its connection. Dropping it before the end of the body gives the connection up.
#[derive(Debug)]
pub(super) struct Giving {
    whole: Option<oneshot::Sender<()>>,
    #[expect(dead_code, reason = "held for its drop")]
    held: Held,
}

impl Giving {
    /// The body came to its end.
    pub(super) fn end(&mut self) {
        if let Some(Err(())) = self.whole.take().map(|whole| whole.send(())) {
            tracing::trace!("the connection of an answer was at its end before");
        }
    }
}

/// When all of them are dropped the connection is given up.
type Held = Rc<oneshot::Sender<Infallible>>;

/// Whom a connection may serve after its exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Any further request.
    Others,
    Nobody,
}

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
    held: Held,
}

impl Connection {
    /// Speaks HTTP/1.1 on a new stream. `header` bounds the heads of answers, in bytes. Dropping it ends the connection: soon, even if
    /// its backend reads nothing, since hyper would wait for ever to write the last of a request.
    ///
    /// # Errors
    /// hyper's.
    pub(super) async fn open(stream: Stream, header: usize) -> hyper::Result<Self> {
        let speller = Speller::default();
        let io = Spelled::new(stream, NAMES, &speller);
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_header_size(header)
            .max_buf_size(header.max(LEAST_BUFFER))
            .handshake(TokioIo::new(io))
            .await?;
        let (held, released) = oneshot::channel();
        spawn_local(async move {
            let given_up = async {
                drop(released.await);
                sleep(LINGER).await;
            };
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to a backend ended");
                    }
                }
                () = given_up => tracing::debug!("a connection to a backend that reads nothing was cut"),
            }
        });
        Ok(Self { sender, speller, held: Rc::new(held) })
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

    /// Lets a connection end its exchange, and keeps it then for as long as its backend does by its own account (`told`), if it may
    /// serve others. What it returns belongs to the body of the answer.
    pub(super) fn settle(
        self: &Rc<Self>,
        backend: Arc<Backend>,
        mut connection: Connection,
        keeping: Keeping,
        told: Option<Duration>,
    ) -> Giving {
        let (whole, given) = oneshot::channel();
        let giving = Giving { whole: Some(whole), held: Rc::clone(&connection.held) };
        let limit = match keeping {
            Keeping::Others => told.map_or(IDLE, |told| told.saturating_sub(MARGIN).min(IDLE)),
            Keeping::Nobody => Duration::ZERO,
        };
        if connection.sender.is_ready() {
            self.keep(backend, connection, limit);
            return giving;
        }
        let pool = Rc::downgrade(self);
        spawn_local(async move {
            let given_up = async {
                if given.await.is_ok() {
                    sleep(SETTLE).await;
                }
            };
            let ready = tokio::select! {
                biased;
                ready = connection.sender.ready() => ready.is_ok(),
                () = given_up => false,
            };
            if let Some(pool) = pool.upgrade().filter(|_| ready) {
                pool.keep(backend, connection, limit);
            }
        });
        giving
    }

    fn keep(self: &Rc<Self>, backend: Arc<Backend>, connection: Connection, limit: Duration) {
        if limit.is_zero() || backend.retired() || backend.drained() {
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
