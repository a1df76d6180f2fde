//! Whole sessions, over transports in memory: what the loop around a relay adds to it.

use super::{Case, Kind, Run, relay::made_by, route};
use pulsegate::{
    handshake::admission::Admission,
    relay::Side,
    session::{self, ClientAddress, Facts, Opened, Opening, Routes, WorkerContext, pause::PauseWatch},
    transport::{Socket, Stream},
    upstream::{Backend, BackendAddress, Lease},
};
use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    runtime::{Builder, Runtime},
};

/// What a transport in memory holds: more than any case sends at once.
const ROOM: usize = 256 * 1024;
/// Pings that no bench lives to see: they would be read as part of an answer.
const DAILY: &str = "heartbeat.client.ping_interval = \"24h\"\nheartbeat.upstream.ping_interval = \"24h\"";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("session/round-trip-64", 2, || round_trip(Kind::Binary, 64)),
        Case::new("session/round-trip-64KiB", 2, || round_trip(Kind::Binary, 64 * 1024)),
        Case::new("session/text-round-trip-64KiB", 2, || round_trip(Kind::Text, 64 * 1024)),
        Case::new("session/nothing-to-do", 1, nothing_to_do),
    ]
}

/// A frame to the backend, and one back.
fn round_trip(kind: Kind, length: usize) -> Run {
    let mut open = Open::new();
    let (there, back) = (made_by(Side::Downstream, kind, length), made_by(Side::Upstream, kind, length));
    Box::new(move || {
        open.write(Side::Downstream, &there);
        open.turn();
        open.read(Side::Upstream, there.len());
        open.write(Side::Upstream, &back);
        open.turn();
        open.read(Side::Downstream, back.len());
    })
}

/// A wake-up that finds nothing.
fn nothing_to_do() -> Run {
    let mut open = Open::new();
    Box::new(move || open.turn())
}

/// A session and its two peers' ends.
struct Open {
    session: Pin<Box<dyn Future<Output = ()>>>,
    client: DuplexStream,
    backend: DuplexStream,
    room: Box<[u8]>,
    /// Its timer lives while this does.
    _runtime: Runtime,
}

impl Open {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        let ((client, downstream), (backend, upstream)) = (duplex(ROOM), duplex(ROOM));
        let session = {
            let _entered = runtime.enter();
            Box::pin(session::run(opening(downstream, upstream), context()))
        };
        Self { session, client, backend, room: vec![0; ROOM].into_boxed_slice(), _runtime: runtime }
    }

    /// The session is woken, and goes as far as it can.
    fn turn(&mut self) {
        let poll = self.session.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll.is_pending(), "the session ended");
    }

    fn write(&mut self, side: Side, bytes: &[u8]) {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(self.peer(side)).poll_write(&mut context, bytes) {
            Poll::Ready(Ok(taken)) => assert_eq!(taken, bytes.len()),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => panic!("no room"),
        }
    }

    fn read(&mut self, side: Side, length: usize) {
        let mut room = std::mem::take(&mut self.room);
        let mut buffer = ReadBuf::new(&mut room);
        let mut context = Context::from_waker(Waker::noop());
        let poll = Pin::new(self.peer(side)).poll_read(&mut context, &mut buffer);
        assert!(matches!(poll, Poll::Ready(Ok(()))));
        assert_eq!(buffer.filled().len(), length);
        self.room = room;
    }

    fn peer(&mut self, side: Side) -> &mut DuplexStream {
        match side {
            Side::Downstream => &mut self.client,
            Side::Upstream => &mut self.backend,
        }
    }
}

fn opening(downstream: DuplexStream, upstream: DuplexStream) -> Opening {
    let route = route(DAILY);
    let permit = Admission::new(1, None).admit(&route, None).expect("room for one");
    let facts = Facts {
        id: "one".into(),
        route: Arc::new(route),
        lease: Lease::new(Arc::new(Backend::new("pool", BackendAddress::Echo))),
        client: ClientAddress::Unix,
        user_agent: None,
        origin: None,
        local_port: None,
        accounts: Cell::default(),
        permit,
        meter: Arc::default(),
    };
    let opened = |socket| Opened { stream: Stream::Plain(Socket::Memory(socket)), early: Vec::new() };
    Opening { downstream: opened(downstream), upstream: opened(upstream), deflate: false, facts }
}

fn context() -> Rc<WorkerContext> {
    Rc::new(WorkerContext {
        registry: Rc::default(),
        routes: Routes::default(),
        pause: Rc::new(PauseWatch::new(Instant::now())),
        heartbeat: None,
        report: Box::new(|_| {}),
        farewells: Cell::new(pulsegate::pacing::Bounded {
            pace: pulsegate::pacing::Pace::Spread(std::time::Duration::ZERO),
            most: std::time::Duration::ZERO,
        }),
        account: None,
        outboxes: Arc::default(),
        scratch: RefCell::default(),
    })
}
