//! The opening handshake: from a connected stream to a session's `Opening`, or an HTTP refusal.
mod access;
pub mod admission;
mod attend;
mod crowd;
mod edits;
mod farewell;
mod first;
mod forwarded;
pub(crate) mod head;
pub(crate) mod headers;
mod hops;
mod identity;
mod introduction;
pub(crate) mod names;
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
    listener::{Peer, accept::Connection, proxy_protocol::ProxyProtocol, tls::Acceptor, trust::Trust},
    metrics::{HandshakeResult, TlsResult, WorkerMeter},
    otel::Arrival,
    route::{PlainHttp, RouteOptions, Router},
    session::{ClientAddress, Opening},
    transport::{Socket, Stream},
    upstream::Upstream,
};
use admission::Admission;
use attend::{Attended, Ended, attend, conclude};
use bytes::Bytes;
use first::First;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use refusals::{Refusals, RefusedHandshake};
use service::Visit;
use silent::{GivesWay, Part, SHED, Silent};
use spelling::Spelled;
use stack::StackAnswer;
use std::{
    cell::RefCell,
    future::{Future, pending},
    io,
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
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
    /// Whether a backend may have to be told where a client connected to; a connection of plain requests lasts, and a reload may want it.
    announces: bool,
}

impl Terms {
    /// `defaults` apply before a route is known.
    #[must_use]
    pub fn new(defaults: RouteOptions, trust: Trust, router: Arc<Router>) -> Arc<Self> {
        let whole = |options: &RouteOptions| {
            let backends = (options.connect + options.handshake) * TRIES;
            backends.saturating_add(options.access.patience())
        };
        let longest = router.matching_order().map(|route| whole(&route.config.options)).max();
        let patience = longest.unwrap_or_else(|| whole(&defaults));
        let plain = router.matching_order().any(|route| route.config.http == PlainHttp::Proxy);
        let announces = plain || router.matching_order().any(|route| route.upstream.announces());
        Arc::new(Self { defaults, trust, router, patience, plain, announces })
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

    /// Places for opening handshakes run out: a connection that has asked for nothing gives its own up.
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
        let Connection { mut socket, mut peer, slot } = connection;
        let mut arrival = Arrival::now();
        // What not all have to do is boxed, so that a connection takes little room.
        let greeted = async {
            // A question to the kernel for each connection, which nobody else wants answered.
            if edge.terms().announces {
                peer.local = socket.local_address();
            }
            if peer.proxy_protocol == ProxyProtocol::Require {
                let address = service::peer_address(&peer);
                let introduced = introduction::introduced(&mut socket, peer, edge);
                peer = Box::pin(unless_shed(edge, address, introduced)).await??;
            }
            let Some(acceptor) = tls else { return Some((Stream::Plain(socket), peer)) };
            // From now on it counts for the address that it was introduced with.
            let secured = secure(acceptor, socket, &peer, edge);
            let mut stream = Box::pin(unless_shed(edge, service::peer_address(&peer), secured)).await??;
            if let Stream::ServerTls(secured) = &mut stream {
                peer.tls_facts = Some(Arc::new(secured.facts()));
            }
            arrival.secured();
            Some((stream, peer))
        };
        let Some((stream, peer)) = greeted.await else { return Received::Nothing };
        let received = begin(stream, peer, edge, arrival).await;
        drop(slot);
        received
    })
}

/// Waits for what a connection has to do before it can ask for anything. `None`: its place was needed for another.
async fn unless_shed<T>(edge: &Edge, client: Option<IpAddr>, work: impl Future<Output = T>) -> Option<T> {
    match edge.silent.unless_asked(client, work).await {
        Ok(done) => Some(done),
        Err(GivesWay) => {
            edge.meter.strangers().count(HandshakeResult::HeadTimeout);
            edge.refusals.record(&RefusedHandshake {
                cause: SHED.into(),
                client: ClientAddress::from(client).to_string(),
                ..RefusedHandshake::default()
            });
            None
        }
    }
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
async fn begin(mut stream: Stream, peer: Peer, edge: &Rc<Edge>, arrival: Arrival) -> Received {
    let terms = edge.terms();
    let visit = Visit::new(Rc::clone(edge), peer, arrival);
    let mut part = Part::of(service::peer_address(&visit.peer));
    let attended = {
        let mut serving = pin!(first::serve(&visit, &mut stream, terms.defaults.header));
        attend(&visit, &mut part, true, pending(), |cx, _| serving.as_mut().poll(cx)).await
    };
    let (attended, early) = match attended {
        // Few go that way, and it takes much room.
        Attended::Ended(First::Left { read, answer }) => {
            return Box::pin(by_hyper(visit, stream, part, &terms, (read, answer))).await;
        }
        Attended::Ended(First::Told(early)) => (Attended::Ended(Ended::Well), early),
        Attended::Ended(First::Gone) => (Attended::Ended(Ended::Gone), Vec::new()),
        Attended::Late => (Attended::Late, Vec::new()),
        Attended::Shed => (Attended::Shed, Vec::new()),
        // No plain request comes that way.
        Attended::Settled => (Attended::Settled, Vec::new()),
    };
    drop(part);
    received(conclude(attended, &visit, stream, early).await)
}

fn received(opening: Option<Opening>) -> Received {
    opening.map_or(Received::Nothing, Received::Session)
}

/// Serves a connection of which something was read, and whose first request may have its answer. `terms` are those by which it was read.
async fn by_hyper(
    visit: Rc<Visit>,
    stream: Stream,
    mut part: Part,
    terms: &Terms,
    (read, answer): (Bytes, Option<StackAnswer>),
) -> Received {
    let io = Watched::new(stream, read, visit.plain.watch());
    let io = Spelled::new(io, response::SPELLINGS, &visit.speller);
    let Terms { defaults: RouteOptions { header, .. }, plain, .. } = *terms;
    let mut connection = http1::Builder::new()
        .max_header_size(header)
        .max_buf_size(header.max(SMALLEST_BUFFER))
        // Plain requests go on by hyper, too. For a handshake `Watched` keeps the names.
        .preserve_header_case(plain)
        // A head is one piece of memory, and a refusal's body small.
        .writev(false)
        // Refusals get theirs from us, a 101 only its backend's.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), stack::service(&visit, answer));
    let attended = attend(&visit, &mut part, true, pending(), |cx, _| connection.poll_without_shutdown(cx)).await;
    if matches!(attended, Attended::Settled) {
        drop(part);
        let going = async move {
            let mut leaving = visit.edge.leaving.subscribe();
            // The edge outlives its connections.
            let leave = async { drop(leaving.wait_for(|leaving| *leaving).await) };
            // It holds no place that it could give up.
            let mut part = Part::of(None);
            let attended = attend(&visit, &mut part, false, leave, |cx, leave| {
                if leave {
                    Pin::new(&mut connection).graceful_shutdown();
                }
                connection.poll_without_shutdown(cx)
            })
            .await;
            let parts = connection.into_parts();
            finish(attended, &visit, parts.io.into_inner().into_inner(), &parts.read_buf).await
        };
        return Received::Plain(Plain(Box::pin(going)));
    }
    drop(part);
    let parts = connection.into_parts();
    received(finish(attended, &visit, parts.io.into_inner().into_inner(), &parts.read_buf).await)
}

/// What becomes of a connection that hyper serves no longer. What came behind the last request is copied, as it would keep hyper's
/// whole buffer alive.
async fn finish(
    attended: Attended<hyper::Result<()>>,
    visit: &Visit,
    io: Watched<Stream>,
    read_buf: &[u8],
) -> Option<Opening> {
    let (stream, unread) = io.into_parts();
    conclude(attended.map(Ended::from), visit, stream, [read_buf, &unread].concat()).await
}
