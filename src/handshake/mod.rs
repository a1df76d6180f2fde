//! The opening handshake: from a connected stream to a session's `Opening`, or an HTTP refusal.
mod access;
pub mod admission;
mod crowd;
mod edits;
mod farewell;
mod forwarded;
pub(crate) mod headers;
mod identity;
mod introduction;
mod plain;
pub mod refusals;
pub(crate) mod request;
pub(crate) mod response;
mod service;
mod silent;
pub mod spelling;
mod stack;
#[cfg(test)]
mod wiring;
mod words;

use crate::{
    http::{Connections, Report, framing::Watched},
    listener::{Peer, accept::Connection, tls::Acceptor, trust::Trust},
    metrics::{HandshakeResult, TlsResult, WorkerMeter},
    otel::Arrival,
    route::{PlainHttp, RouteOptions, Router},
    session::{Opened, Opening},
    transport::{Socket, Stream},
    upstream::Upstream,
};
use admission::Admission;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use refusals::{Refusals, RefusedHandshake};
use service::{Upgrade, Visit};
use silent::{Part, Silent};
use spelling::Spelled;
use std::{
    cell::RefCell,
    future::{Future, pending, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep_until},
};

/// hyper's smallest read buffer; `limits.header` may be less.
const SMALLEST_BUFFER: usize = 8192;
/// Backends that one handshake may wait for in vain before it is given up.
const TRIES: u32 = 3;

/// What opening handshakes need to know; one per worker, made from parts that all workers share.
pub struct Edge {
    terms: RefCell<Arc<Terms>>,
    admission: Arc<Admission>,
    refusals: Arc<Refusals>,
    dials: Arc<Semaphore>,
    meter: Arc<WorkerMeter>,
    connections: Rc<Connections>,
    /// Where plain requests are told of that are over.
    requests: RefCell<Option<Report>>,
    leaving: watch::Sender<bool>,
    silent: Silent,
}

/// What a request is answered by; a reload replaces it.
pub struct Terms {
    defaults: RouteOptions,
    trust: Trust,
    router: Arc<Router>,
    patience: Duration,
    /// Whether any route takes plain HTTP.
    plain: bool,
}

impl Terms {
    /// `defaults` apply before a route is known.
    #[must_use]
    pub fn new(defaults: RouteOptions, trust: Trust, router: Arc<Router>) -> Arc<Self> {
        let once = |options: &RouteOptions| options.connect + options.handshake;
        let longest = router.matching_order().map(|route| once(&route.config.options)).max();
        let patience = longest.unwrap_or_else(|| once(&defaults)) * TRIES;
        let plain = router.matching_order().any(|route| route.config.http == PlainHttp::Proxy);
        Arc::new(Self { defaults, trust, router, patience, plain })
    }
}

impl Edge {
    /// `dials` has a place for each handshake that may wait for a backend; give it fewer than there are slots to accept
    /// into, so that refusals are answered while backends hang. `meter` is the worker's.
    #[must_use]
    pub fn new(
        terms: Arc<Terms>,
        admission: Arc<Admission>,
        refusals: Arc<Refusals>,
        dials: Arc<Semaphore>,
        meter: Arc<WorkerMeter>,
    ) -> Rc<Self> {
        let (connections, requests, leaving) = (Rc::default(), RefCell::default(), watch::Sender::new(false));
        let (terms, silent) = (RefCell::new(terms), Silent::default());
        Rc::new(Self { terms, admission, refusals, dials, meter, connections, requests, leaving, silent })
    }

    /// Requests that come from now on are answered by these, on connections that are open already, too.
    pub fn replace(&self, terms: Arc<Terms>) {
        *self.terms.borrow_mut() = terms;
    }

    /// Has `report` told of each plain request that is over.
    pub fn report_requests(&self, report: impl Fn(&crate::http::RequestRecord) + 'static) {
        *self.requests.borrow_mut() = Some(Rc::new(report));
    }

    /// From now on connections of plain requests end with the answer under way.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    fn leaving(&self) -> bool {
        *self.leaving.borrow() || self.admission.draining()
    }

    /// Places for opening handshakes run out: the connection that has asked for nothing for longest gives its own up.
    pub fn shed(&self) {
        self.silent.shed();
    }

    fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.borrow())
    }

    /// The pools that its routes go to, each once, in matching order.
    #[must_use]
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let mut upstreams: Vec<Arc<Upstream>> = Vec::new();
        for route in self.terms().router.matching_order() {
            if !upstreams.iter().any(|known| Arc::ptr_eq(known, &route.upstream)) {
                upstreams.push(Arc::clone(&route.upstream));
            }
        }
        upstreams
    }
}

/// What became of a connection.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made; a box would be one more allocation")]
pub enum Received {
    Session(Opening),
    /// Plain requests are asked on it, which may go on for as long as their client likes.
    Plain(Plain),
    /// It was refused, or ended, and that was logged.
    Nothing,
}

/// A connection of plain requests: to be run to its end. An opening handshake may still come on it.
pub struct Plain(Pin<Box<dyn Future<Output = Option<Opening>>>>);

impl Plain {
    /// Serves it. `None`: no session.
    pub async fn run(self) -> Option<Opening> {
        self.0.await
    }
}

/// Brings an accepted connection to its session: a PROXY header and TLS if the listener wants them, then the opening handshake. The connection's
/// slot is given back when this ends.
///
/// Boxed: a task would move it several times.
pub fn receive<'a>(
    connection: Connection,
    tls: Option<&'a Acceptor>,
    edge: &'a Rc<Edge>,
) -> Pin<Box<dyn Future<Output = Received> + 'a>> {
    Box::pin(async move {
        let Connection { mut socket, peer, slot } = connection;
        let mut arrival = Arrival::now();
        let greeted = async {
            let mut peer = introduction::introduced(&mut socket, peer, edge).await?;
            let stream = match tls {
                None => Stream::Plain(socket),
                Some(acceptor) => {
                    let mut stream = secure(acceptor, socket, &peer, edge).await?;
                    if let Stream::ServerTls(secured) = &mut stream {
                        peer.tls_facts = Some(Arc::new(secured.facts()));
                    }
                    arrival.secured();
                    stream
                }
            };
            Some((stream, peer))
        };
        let Some((stream, peer)) = edge.silent.unless_asked(greeted).await else { return Received::Nothing };
        let received = begin(stream, peer, edge, arrival).await;
        drop(slot);
        received
    })
}

async fn secure(acceptor: &Acceptor, socket: Socket, peer: &Peer, edge: &Edge) -> Option<Stream> {
    let began = Instant::now();
    let accepted = acceptor.accept(socket, edge.terms().defaults.handshake).await;
    let result = tls_result(&accepted);
    edge.meter.tls().count(result, began.elapsed());
    let error = match accepted {
        Ok(stream) => return Some(stream),
        Err(error) => error,
    };
    // A connection that ends before it says anything is a health check or a browser's spare one.
    if result == TlsResult::ClientLeft {
        tracing::debug!(client = service::peer_name(peer), %error, "the client left during the TLS handshake");
    } else {
        edge.refusals.record(&RefusedHandshake {
            cause: format!("TLS: {error}").into(),
            client: service::peer_name(peer),
            ..RefusedHandshake::default()
        });
    }
    None
}

fn tls_result(accepted: &io::Result<Stream>) -> TlsResult {
    match accepted.as_ref().map_err(io::Error::kind) {
        Ok(_) => TlsResult::Accepted,
        Err(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => TlsResult::ClientLeft,
        Err(io::ErrorKind::TimedOut) => TlsResult::Timeout,
        Err(_) => TlsResult::Failed,
    }
}

/// Serves one connection until a handshake succeeds on it or it ends. Requests that are refused may be followed by others
/// on the same connection; each head, each wait for backends and each answer has its deadline.
///
/// Dropping this future ends the connection and cancels the dial. `None`: no session; what was refused was logged.
pub async fn serve(stream: Stream, peer: Peer, edge: &Rc<Edge>, arrival: Arrival) -> Option<Opening> {
    match begin(stream, peer, edge, arrival).await {
        Received::Session(opening) => Some(opening),
        Received::Plain(plain) => plain.run().await,
        Received::Nothing => None,
    }
}

/// The same, but for a connection of plain requests, which is handed over with the first of them.
async fn begin(stream: Stream, peer: Peer, edge: &Rc<Edge>, arrival: Arrival) -> Received {
    let (io, watch) = Watched::new(stream);
    let (io, speller) = Spelled::new(io, response::SPELLINGS);
    let visit = Visit::new(Rc::clone(edge), peer, (speller, watch), arrival);
    let header = edge.terms().defaults.header;
    let mut connection = http1::Builder::new()
        .max_header_size(header)
        .max_buf_size(header.max(SMALLEST_BUFFER))
        .preserve_header_case(true)
        // A head is one piece of memory, and a refusal's body small.
        .writev(false)
        // Refusals get theirs from us, a 101 only its backend's.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), stack::stack(&visit));
    let attended = attend(&visit, true, pending(), |cx, _| connection.poll_without_shutdown(cx)).await;
    if matches!(attended, Attended::Settled) {
        let going = async move {
            let mut leaving = visit.edge.leaving.subscribe();
            // The edge outlives its connections.
            let leave = async { drop(leaving.wait_for(|leaving| *leaving).await) };
            let attended = attend(&visit, false, leave, |cx, leave| {
                if leave {
                    Pin::new(&mut connection).graceful_shutdown();
                }
                connection.poll_without_shutdown(cx)
            })
            .await;
            let parts = connection.into_parts();
            conclude(attended, &visit, parts.io.into_inner().into_inner().into_inner(), &parts.read_buf).await
        };
        return Received::Plain(Plain(Box::pin(going)));
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner().into_inner();
    match conclude(attended, &visit, stream, &parts.read_buf).await {
        Some(opening) => Received::Session(opening),
        None => Received::Nothing,
    }
}

/// How the serving of a connection came to an end, or to a turn.
enum Attended {
    /// hyper is done with it.
    Ended(hyper::Result<()>),
    /// A deadline was not kept.
    Late,
    /// It has asked for nothing, and another needs its place.
    Shed,
    /// A plain request goes to a backend.
    Settled,
}

/// Serves a connection by `poll` until that is done or a deadline passes, or its first plain request goes to a backend, if it is
/// to be handed over then. `leave`, if there is such, resolves when the connection is to end with the answer under way: then
/// `poll` is told so once.
async fn attend(
    visit: &Visit,
    hand_over: bool,
    leave: impl Future<Output = ()>,
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<hyper::Result<()>>,
) -> Attended {
    let mut leave = pin!(leave);
    let mut left = hand_over;
    let mut alarm = pin!(sleep_until(visit.deadline().unwrap_or_else(Instant::now)));
    let mut part = Part::default();
    poll_fn(|cx| {
        let leaves = !left && leave.as_mut().poll(cx).is_ready();
        left |= leaves;
        if let Poll::Ready(ended) = poll(cx, leaves) {
            return Poll::Ready(Attended::Ended(ended));
        }
        if hand_over && visit.plain.settled() {
            return Poll::Ready(Attended::Settled);
        }
        if part.gives_way(&visit.edge.silent, visit.waits_for_head(), cx) {
            return Poll::Ready(Attended::Shed);
        }
        let Some(deadline) = visit.deadline() else { return Poll::Pending };
        // The alarm of an earlier deadline stays: mostly all is over before it rings.
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if alarm.deadline() >= deadline {
                return Poll::Ready(Attended::Late);
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

/// What becomes of a connection that hyper serves no longer. `None`: no session; what was refused was logged.
async fn conclude(attended: Attended, visit: &Visit, stream: Stream, read_buf: &[u8]) -> Option<Opening> {
    match (attended, visit.take_upgrade()) {
        (Attended::Ended(Ok(())), Some(upgrade)) => {
            upgrade.facts.meter.handshakes().accepted(upgrade.asked.elapsed());
            return Some(opening(stream, read_buf, upgrade));
        }
        (_, Some(upgrade)) => {
            drop(stream);
            upgrade.facts.meter.handshakes().count(HandshakeResult::ClientLeft);
            tracing::debug!("the client left between the backend's 101 and its own");
            farewell::to_backend(upgrade).await;
        }
        (Attended::Ended(ended), None) => {
            if let Err(error) = ended {
                explain(&error, visit);
            }
            farewell::to_client(stream).await;
        }
        (Attended::Shed, None) => {
            let cause = "no request head was complete when its place was needed for a newer connection".into();
            visit.record(HandshakeResult::HeadTimeout, None, cause);
        }
        (Attended::Late | Attended::Settled, None) if visit.waits_for_head() => {
            let cause = "the request head was not complete within `timeouts.handshake`".into();
            visit.record(HandshakeResult::HeadTimeout, None, cause);
            farewell::to_client(stream).await;
        }
        // Nothing was asked for a while.
        (Attended::Late, None) if visit.plain.idle() => farewell::to_client(stream).await,
        // It has not taken its answer in time, so it will not take a farewell.
        (Attended::Late | Attended::Settled, None) => visit.plain.stalled(),
    }
    None
}

/// What came behind the request is copied out, as it would keep hyper's whole buffer alive.
fn opening(stream: Stream, read_buf: &[u8], upgrade: Upgrade) -> Opening {
    let Upgrade { upstream, deflate, facts, .. } = upgrade;
    Opening { downstream: Opened { stream, early: read_buf.to_vec() }, upstream, deflate, facts }
}

/// Logs what hyper refused by itself.
fn explain(error: &hyper::Error, visit: &Visit) {
    let (result, status, cause) = if error.is_parse_too_large() {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let cause = "the request head is larger than `limits.header` or has over 100 headers".into();
        (HandshakeResult::HeadTooLarge, Some(status), cause)
    } else if error.is_parse_version_h2() {
        (HandshakeResult::NotHttp, None, "HTTP/2 is not spoken here; WebSockets need HTTP/1.1".into())
    } else if error.is_parse() {
        (HandshakeResult::NotHttp, Some(StatusCode::BAD_REQUEST), format!("not HTTP/1.1: {error}").into())
    } else if visit.plain.settled() {
        tracing::debug!(%error, "a connection of plain requests ended early");
        return;
    } else if visit.busy() {
        (HandshakeResult::ClientLeft, None, "the client left before it was answered".into())
    } else {
        tracing::debug!(%error, "a connection ended without a request");
        return;
    };
    visit.record(result, status, cause);
}
