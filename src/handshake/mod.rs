//! The opening handshake: from a connected stream to a session's `Opening`, or an HTTP refusal.
mod access;
pub mod admission;
mod crowd;
mod edits;
mod farewell;
mod forwarded;
mod headers;
mod identity;
mod introduction;
pub mod refusals;
mod request;
mod response;
mod service;
mod silent;
pub mod spelling;
#[cfg(test)]
mod wiring;

use crate::{
    listener::{Peer, accept::Connection, tls::Acceptor, trust::Trust},
    metrics::{HandshakeResult, TlsResult, WorkerMeter},
    otel::Arrival,
    route::{RouteOptions, Router},
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
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::Semaphore,
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
    silent: Silent,
}

/// What a request is answered by; a reload replaces it.
pub struct Terms {
    defaults: RouteOptions,
    trust: Trust,
    router: Arc<Router>,
    patience: Duration,
}

impl Terms {
    /// `defaults` apply before a route is known.
    #[must_use]
    pub fn new(defaults: RouteOptions, trust: Trust, router: Arc<Router>) -> Arc<Self> {
        let once = |options: &RouteOptions| options.connect + options.handshake;
        let longest = router.matching_order().map(|route| once(&route.config.options)).max();
        let patience = longest.unwrap_or_else(|| once(&defaults)) * TRIES;
        Arc::new(Self { defaults, trust, router, patience })
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
        Rc::new(Self { terms: RefCell::new(terms), admission, refusals, dials, meter, silent: Silent::default() })
    }

    /// Requests that come from now on are answered by these, on connections that are open already, too.
    pub fn replace(&self, terms: Arc<Terms>) {
        *self.terms.borrow_mut() = terms;
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

/// Brings an accepted connection to its session: a PROXY header and TLS if the listener wants them, then the opening handshake. The connection's
/// slot is given back when this ends. `None`: it was refused, and that was logged.
///
/// Boxed: a task would move it several times.
pub fn receive<'a>(
    connection: Connection,
    tls: Option<&'a Acceptor>,
    edge: &'a Rc<Edge>,
) -> Pin<Box<dyn Future<Output = Option<Opening>> + 'a>> {
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
        let (stream, peer) = edge.silent.unless_asked(greeted).await?;
        let opening = serve(stream, peer, edge, arrival).await;
        drop(slot);
        opening
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
    let (io, speller) = Spelled::new(stream, response::SPELLINGS);
    let visit = Visit::new(Rc::clone(edge), peer, speller, arrival);
    let header = edge.terms().defaults.header;
    let mut connection = http1::Builder::new()
        .max_header_size(header)
        .max_buf_size(header.max(SMALLEST_BUFFER))
        .preserve_header_case(true)
        // A head is one piece of memory, and a refusal's body small.
        .writev(false)
        // Refusals get theirs from us, a 101 only its backend's.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service::stack(&visit));
    let mut alarm = pin!(sleep_until(visit.deadline().unwrap_or_else(Instant::now)));
    let (mut part, mut shed) = (Part::default(), false);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
            return Poll::Ready(Some(ended));
        }
        shed = part.gives_way(&edge.silent, visit.waits_for_head(), cx);
        if shed {
            return Poll::Ready(None);
        }
        let Some(deadline) = visit.deadline() else { return Poll::Pending };
        // The alarm of an earlier deadline stays: mostly all is over before it rings.
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if alarm.deadline() >= deadline {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    match (ended, visit.take_upgrade()) {
        (Some(Ok(())), Some(upgrade)) => {
            upgrade.facts.meter.handshakes().accepted(upgrade.asked.elapsed());
            Some(opening(stream, &parts.read_buf, upgrade))
        }
        (Some(Err(_)) | None, Some(upgrade)) => {
            drop(stream);
            upgrade.facts.meter.handshakes().count(HandshakeResult::ClientLeft);
            tracing::debug!("the client left between the backend's 101 and its own");
            farewell::to_backend(upgrade).await;
            None
        }
        (Some(ended), None) => {
            if let Err(error) = ended {
                explain(&error, &visit);
            }
            farewell::to_client(stream).await;
            None
        }
        (None, None) if shed => {
            let cause = "no request head was complete when its place was needed for a newer connection".into();
            visit.record(HandshakeResult::HeadTimeout, None, cause);
            None
        }
        (None, None) if visit.waits_for_head() => {
            let cause = "the request head was not complete within `timeouts.handshake`".into();
            visit.record(HandshakeResult::HeadTimeout, None, cause);
            farewell::to_client(stream).await;
            None
        }
        // It has not taken its answer in time, so it will not take a farewell.
        (None, None) => None,
    }
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
    } else if visit.busy() {
        (HandshakeResult::ClientLeft, None, "the client left before it was answered".into())
    } else {
        tracing::debug!(%error, "a connection ended without a request");
        return;
    };
    visit.record(result, status, cause);
}
