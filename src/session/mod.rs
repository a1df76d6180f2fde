//! A session: a relay plus its two transports, driven by one task, from the 101 to the last byte.

mod appetite;
pub mod census;
mod client;
mod drive;
mod early;
mod ends;
mod flow;
mod monologue;
pub mod pause;
pub mod registry;
mod routes;
pub mod select;
mod tell;
#[cfg(test)]
mod tests;
mod timer;
mod turn;
pub mod verdict;

use crate::{
    handshake::admission::Permit,
    metrics::Meter,
    pacing::Bounded,
    protocol::heartbeat::HeartbeatEvent,
    relay::{PerSide, Side},
    route::RouteConfig,
    transport::{RECORDS, Stream},
    upstream::Lease,
};
use appetite::Company;
pub use client::ClientAddress;
use drive::Session;
use pause::PauseWatch;
use pin_project_lite::pin_project;
use registry::Registry;
pub use routes::{Routes, RoutesByName};
use std::{
    cell::{Cell, RefCell},
    num::NonZeroU16,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Sleep, sleep_until};
use verdict::{LegVerdict, Verdict};

/// Everything a session starts from: both 101s have been said.
#[derive(Debug)]
pub struct Opening {
    pub downstream: Opened,
    pub upstream: Opened,
    /// permessage-deflate was agreed end to end, so RSV1 may pass (RFC 7692 section 6).
    pub deflate: bool,
    pub facts: Facts,
}

/// One upgraded stream.
#[derive(Debug)]
pub struct Opened {
    pub stream: Stream,
    /// Bytes that arrived right behind the handshake, copied out of its buffer.
    pub early: Vec<u8>,
}

/// What is known of a session besides its bytes; its verdict tells it.
#[derive(Debug)]
pub struct Facts {
    /// `X-Request-Id`, made or passed.
    pub id: Box<str>,
    pub route: Arc<RouteConfig>,
    /// The backend, counted as busy while this lives.
    pub lease: Lease,
    /// As found through trusted proxies.
    pub client: ClientAddress,
    pub user_agent: Option<Box<str>>,
    pub origin: Option<Box<str>>,
    /// Our own port on the connection to the backend.
    pub local_port: Option<NonZeroU16>,
    /// How often it was due to be written while it ran.
    pub accounts: Cell<u32>,
    /// Given back when the session ends.
    pub permit: Permit,
    /// Where its worker counts what the sessions of its route do.
    pub meter: Arc<Meter>,
}

/// Told of every ping, pong and round trip: session id, side, event.
pub type HeartbeatObserver = Rc<dyn Fn(&str, Side, HeartbeatEvent)>;

/// Bytes in the outboxes of one worker's sessions.
pub type Outboxes = Arc<OwnLine<AtomicU64>>;

/// A value on cache lines of its own, so that no worker waits for what another writes beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct OwnLine<T>(T);

impl<T> Deref for OwnLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Hears what sessions do, on the worker's thread: it must not block.
pub trait Observer: Send + Sync {
    /// A session has said both its 101s.
    fn opened(&self, _facts: &Facts) {}
    /// Something happened to our heartbeat on one leg of the session of this id.
    fn heartbeat(&self, _session: &str, _side: Side, _event: HeartbeatEvent) {}
    /// A session ended.
    fn ended(&self, _verdict: &Verdict) {}
}

/// What the sessions of one worker share. Not shared between threads.
pub struct WorkerContext {
    pub registry: Rc<Registry>,
    /// What a session that is told to takes its new settings from.
    pub routes: Routes,
    pub pause: Rc<PauseWatch>,
    pub heartbeat: Option<HeartbeatObserver>,
    /// Called once per session, when its codes are known.
    pub report: Box<dyn Fn(Verdict)>,
    /// How fast the clients of a lost backend are told, once they are many.
    pub farewells: Cell<Bounded>,
    /// For sessions that are written while they run.
    pub account: Option<Account>,
    /// Bytes in the outboxes of this worker's sessions, for the memory limit.
    pub outboxes: Outboxes,
    pub scratch: RefCell<Scratch>,
}

/// Has each open session written again and again.
pub struct Account {
    pub every: Duration,
    /// Called on the session's own task.
    pub write: Box<AccountWriter>,
}

/// Takes a session's facts, what is known of its legs, and the time since it began.
pub type AccountWriter = dyn Fn(&Facts, &PerSide<LegVerdict>, Duration);

/// Room for what is read, borrowed within one poll: an idle session owns no buffer.
#[derive(Debug)]
pub struct Scratch {
    /// Plaintext: frames.
    chunk: Box<[u8]>,
    /// TLS records.
    cipher: Box<[u8]>,
    company: Company,
}

/// Bytes that are read at once when a sender and its receiver are fast. That many, because TCP's own work for a read or a write
/// hardly grows with it, and who is ahead of a sender leaves more of that work to the sender.
const SCRATCH: usize = 2 * 1024 * 1024;

impl Default for Scratch {
    fn default() -> Self {
        let room = |length| vec![0; length].into_boxed_slice();
        Self { chunk: room(SCRATCH), cipher: room(RECORDS), company: Company::default() }
    }
}

/// Runs a session to its end. Its verdict is reported when its codes are known; it lives on until TCP is done.
pub fn run(opening: Opening, context: Rc<WorkerContext>) -> impl Future<Output = ()> {
    let session = Session::new(opening, context);
    // Its first turn sets the timer.
    Running { timer: sleep_until(session.started().into()), session }
}

pin_project! {
    /// A session and its timer, side by side: its task holds them, and they are the one large allocation of a session.
    struct Running {
        #[pin]
        timer: Sleep,
        session: Session,
    }
}

impl Future for Running {
    type Output = ();

    /// A panic in here is a bug of ours: it ends this session as `internal`, and nothing else.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        for _ in 0..2 {
            match catch_unwind(AssertUnwindSafe(|| this.session.poll(this.timer.as_mut(), cx))) {
                Ok(poll) => return poll,
                Err(_) => this.session.give_up(),
            }
        }
        Poll::Ready(())
    }
}
