//! From a request head to the handshake's answer.
use super::{
    Edge,
    access::{self, Caller, Entry},
    edits::{Known, edit},
    forwarded::{Provenance, X_REQUEST_ID, request_id},
    names::Names,
    plain::PlainState,
    refusals::RefusedHandshake,
    request::{UpgradeRequest, authority},
    response::{Body, Refusal, grants_deflate, healthy, passed_on, switching},
    spelling::Speller,
    words::{bounded, date, text, without_user},
};
use crate::{
    listener::{Health, Peer},
    metrics::{HandshakeResult, Meter},
    otel::{Arrival, Handshake},
    route::{Route, RouteConfig},
    session::{ClientAddress, Facts, Opened},
    upstream::{Accepted, Affinity, Answer, OpenError, Refused, UpstreamRequest, is_secure},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, DATE, HOST, UPGRADE, USER_AGENT},
};
use http_body_util::{Either, Empty};
use hyper::body::{Body as _, Incoming};
use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    mem,
    net::IpAddr,
    num::NonZeroU16,
    rc::Rc,
    sync::Arc,
};
use tokio::time::Instant;

/// Requests that may be refused on one connection, so that asking in vain does not hold a slot for ever.
const REFUSALS: u32 = 16;

/// What follows a request's head; nobody reads it.
pub(super) type Behind = Either<Empty<Bytes>, Incoming>;

/// A backend has said 101, the client is being told so.
pub(super) struct Upgrade {
    pub(super) upstream: Opened,
    pub(super) deflate: bool,
    pub(super) facts: Facts,
    /// When the request had come.
    pub(super) asked: Instant,
}

/// One client connection before it is a session: what its requests, one after the other, are answered from.
pub(super) struct Visit {
    pub(super) edge: Rc<Edge>,
    pub(super) peer: Peer,
    pub(super) speller: Speller,
    pub(super) plain: PlainState,
    phase: Cell<Phase>,
    answered: Cell<u32>,
    upgrade: RefCell<Option<Upgrade>>,
    pub(super) about: RefCell<About>,
    /// Taken by the first request.
    arrival: Cell<Arrival>,
}

/// What is known of the request at hand, in case it is refused: text only once it is logged.
#[derive(Default)]
pub(super) struct About {
    pub(super) client: ClientAddress,
    /// As the client named us.
    host: Option<HeaderValue>,
    uri: Option<Uri>,
    pub(super) id: Option<HeaderValue>,
    route: Option<Arc<RouteConfig>>,
    /// Where handshakes with that route are counted.
    meter: Option<Arc<Meter>>,
    pub(super) backend: Option<String>,
    pub(super) trace: Handshake,
    /// Of its headers, as they came.
    names: Names,
}

impl About {
    fn known<'a>(&'a self, peer: &'a Peer, route: &'a RouteConfig) -> Known<'a> {
        Known { peer, client: self.client, host: self.host.as_ref(), id: self.id.as_ref(), route }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Phase {
    /// The client is to have sent its first head by then.
    Head(Instant),
    /// The stack works on an answer, under its timeout.
    Answering,
    /// The client is to take the answer by then, and to have sent its next head.
    Answered(Instant),
    /// A backend's answer to a plain request goes to the client, which may ask again.
    Relaying,
}

impl Visit {
    pub(super) fn new(edge: Rc<Edge>, peer: Peer, arrival: Arrival) -> Rc<Self> {
        let about = About { client: peer_address(&peer).into(), ..About::default() };
        let phase = Cell::new(Phase::Head(Instant::now() + edge.terms().defaults.handshake));
        let (answered, upgrade, about) = (Cell::default(), RefCell::default(), RefCell::new(about));
        let (speller, plain) = Default::default();
        Rc::new(Self { edge, peer, speller, plain, phase, answered, upgrade, about, arrival: Cell::new(arrival) })
    }

    /// When the connection is to be given up, unless the layer at work has a deadline of its own.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Answering => None,
            Phase::Head(deadline) | Phase::Answered(deadline) => Some(deadline),
            Phase::Relaying => self.plain.due(),
        }
    }

    /// Whether nothing was asked yet.
    pub(super) fn waits_for_head(&self) -> bool {
        matches!(self.phase.get(), Phase::Head(_))
    }

    /// Whether nothing is asked now: it may never ask, or not again.
    pub(super) fn asks_nothing(&self) -> bool {
        matches!(self.phase.get(), Phase::Head(_) | Phase::Answered(_)) && self.upgrade.borrow().is_none()
    }

    /// Whether a request waits for its answer.
    pub(super) fn busy(&self) -> bool {
        matches!(self.phase.get(), Phase::Answering)
    }

    /// From now on the layer at work has no deadline but those of a plain request.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// What a 101 stands for, once.
    pub(super) fn take_upgrade(&self) -> Option<Upgrade> {
        self.upgrade.take()
    }

    /// Counts and logs that the request at hand was refused.
    pub(super) fn record(&self, result: HandshakeResult, status: Option<StatusCode>, cause: Cow<'static, str>) {
        self.count(result);
        self.log(status, cause);
    }

    /// A plain request whose route takes such is none: its ledger counts it.
    fn count(&self, result: HandshakeResult) {
        match &self.about.borrow().meter {
            Some(_) if self.plain.asks() => {}
            Some(meter) => meter.handshakes().count(result),
            None => self.edge.meter.strangers().count(result),
        }
    }

    /// What hyper refused by itself was none of the requests that were answered before.
    pub(super) fn forget(&self) {
        self.plain.begin();
        *self.about.borrow_mut() = About { client: peer_address(&self.peer).into(), ..About::default() };
    }

    fn log(&self, status: Option<StatusCode>, cause: Cow<'static, str>) {
        let about = self.about.borrow();
        self.edge.refusals.record(&RefusedHandshake {
            status,
            plain: self.plain.asks(),
            cause,
            client: about.client.to_string(),
            host: about.host.as_ref().map(|host| without_user(&text(host))),
            path: about.uri.as_ref().map(|uri| bounded(uri.path()).to_owned()),
            id: about.id.as_ref().map(text),
            route: about.route.as_ref().map(|route| route.name.clone()),
            backend: about.backend.clone(),
        });
    }

    pub(super) fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        if let Some(result) = refusal.result() {
            self.count(result);
        }
        self.log(Some(refusal.status()), refusal.cause());
        self.speller.arm();
        refusal.response()
    }

    /// A request begins; `names` of its headers, unless they were watched as hyper read it.
    pub(super) fn begin<B>(&self, request: &Request<B>, names: Option<Names>) {
        self.phase.set(Phase::Answering);
        self.plain.begin();
        *self.about.borrow_mut() = About {
            client: peer_address(&self.peer).into(),
            // What it is routed by, if that is clear.
            host: authority(request.uri(), request.headers()).ok().or_else(|| request.headers().get(HOST).cloned()),
            uri: Some(request.uri().clone()),
            trace: Handshake::begin(self.arrival.take(), request.uri().path(), request.headers()),
            names: names.unwrap_or_else(|| self.plain.names()),
            ..About::default()
        };
    }

    pub(super) fn end<B>(&self, answer: &mut Response<B>) {
        self.phase.set(Phase::Answered(Instant::now() + self.edge.terms().defaults.handshake));
        self.answered.set(self.answered.get() + 1);
        self.about.borrow().trace.end(answer.status());
        self.edit_answer(answer.headers_mut());
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        answer.headers_mut().entry(DATE).or_insert_with(date);
        let last = self.answered.get() >= REFUSALS || self.edge.leaving() || self.plain.last();
        if last {
            answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The heart: one request, one answer.
    pub(super) async fn answer(&self, request: Request<Behind>) -> Result<Response<Body>, Refusal> {
        let asked = Instant::now();
        if let Some(health) = self.peer.health.as_deref()
            && asks_for(health, &request)
        {
            self.speller.arm();
            return Ok(healthy((health.ready)()));
        }
        let (mut head, body) = request.into_parts();
        head.extensions.insert(mem::take(&mut self.about.borrow_mut().names));
        let terms = self.edge.terms();
        let provenance = Provenance::find(&self.peer, &terms.trust, &head.headers);
        self.about.borrow_mut().client = provenance.client;
        let request = UpgradeRequest::parse(head, !body.is_end_stream())?;
        let found = terms.router.find(&request.host, request.target.path());
        let route = Arc::clone(found.ok_or(Refusal::NoRoute)?);
        let meter = self.edge.meter.route(&route.config.name, &route.config.upstream);
        self.know(&route.config, &meter);
        self.about.borrow().trace.routed(&route.config.name);
        if !route.config.allows_origin(request.origin.as_deref()) {
            return Err(Refusal::Origin);
        }
        let caller = Caller {
            provenance: &provenance,
            method: &Method::GET,
            target: &request.target,
            authority: &request.authority,
            headers: &request.headers,
            edit: &|headers| self.edit_request(&route.config, headers),
        };
        let granted = match access::check(&route, self.edge.admission.rates(), &caller).await? {
            Entry::Granted(granted) => granted,
            Entry::Answered(answer) => {
                self.record(access::ANSWERED, Some(answer.status()), access::SERVICE_REFUSED.into());
                return Ok(answer);
            }
        };
        let permit = self.edge.admission.admit(&route.config, provenance.counted).map_err(Refusal::Denied)?;
        let (key, authority) = (request.key.clone(), request.authority.clone());
        let origin = request.origin.as_deref().map(|origin| bounded(origin).into());
        let affinity = route.upstream.affinity(provenance.client.ip(), &request.target, &request.headers);
        let mut head = request.into_upstream(&route.config);
        let id = request_id(&mut head.headers);
        self.about.borrow_mut().id = head.headers.get(X_REQUEST_ID).cloned();
        provenance.tell(&mut head.headers, &authority);
        let secure = is_secure(&head.headers);
        granted.apply(&mut head.headers);
        self.about.borrow().trace.attach(&id, &mut head);
        let user_agent = head.headers.get(USER_AGENT).map(text);
        self.edit_request(&route.config, &mut head.headers);
        if route.upstream.announces()
            && let Some(ends) = provenance.ends(&self.peer)
        {
            head.extensions.insert(ends);
        }
        let mut accepted = match self.ask(&route, head, affinity).await? {
            Answer::Accepted(accepted) => accepted,
            Answer::Refused(Refused { mut response, backend }) => {
                route.upstream.stick(affinity, &backend, secure, response.headers_mut());
                self.about.borrow_mut().backend = Some(backend.name.clone());
                let status = Some(response.status());
                self.record(HandshakeResult::BackendRefused, status, "the backend refused".into());
                return Ok(passed_on(response));
            }
        };
        route.upstream.stick(affinity, accepted.lease.backend(), secure, &mut accepted.head.headers);
        let Accepted { stream, early, mut head, lease, local_port } = accepted;
        if let (Some(client), true) = (provenance.client.ip(), terms.trust.proxies.is_empty()) {
            self.edge.admission.crowd().joined(client, provenance.contested);
        }
        let client = provenance.client;
        let config = Arc::clone(&route.config);
        let local_port = local_port.and_then(NonZeroU16::new);
        let facts = Facts {
            id,
            route: config,
            lease,
            client,
            user_agent,
            origin,
            local_port,
            accounts: Cell::default(),
            permit,
            meter,
        };
        let upgrade = Upgrade { upstream: Opened { stream, early }, deflate: grants_deflate(&head), facts, asked };
        *self.upgrade.borrow_mut() = Some(upgrade);
        self.speller.arm_as(head.extensions.remove().unwrap_or_default());
        Ok(switching(head, &key))
    }

    /// Makes the headers for the backend what the route says.
    pub(super) fn edit_request(&self, route: &RouteConfig, headers: &mut HeaderMap) {
        edit(headers, &route.options.headers.request, &self.about.borrow().known(&self.peer, route));
    }

    /// Makes the headers for the client what the route says, if one was found, whoever answers.
    pub(super) fn edit_answer(&self, headers: &mut HeaderMap) {
        let about = self.about.borrow();
        let Some(route) = about.route.as_deref() else { return };
        let edits = &route.options.headers.response;
        if edits.is_empty() {
            return;
        }
        edit(headers, edits, &about.known(&self.peer, route));
        self.speller.arm_with(Arc::clone(&edits.spellings));
    }

    pub(super) fn know(&self, route: &Arc<RouteConfig>, meter: &Arc<Meter>) {
        let mut about = self.about.borrow_mut();
        about.route = Some(Arc::clone(route));
        about.meter = Some(Arc::clone(meter));
    }

    async fn ask(&self, route: &Route, head: http::request::Parts, affinity: Affinity) -> Result<Answer, Refusal> {
        let (options, host_header) = (&route.config.options, route.config.host_header);
        let asked = route.upstream.open(UpstreamRequest { head, options, host_header, affinity }).await;
        asked.map_err(|OpenError { status, cause, backend }| {
            self.about.borrow_mut().backend = backend;
            Refusal::Upstream { status, cause }
        })
    }
}

/// Whether a balancer asks for readiness: not a client that wants a session at that path.
pub(super) fn asks_for<B>(health: &Health, request: &Request<B>) -> bool {
    let plain = !request.headers().contains_key(UPGRADE);
    plain && [Method::GET, Method::HEAD].contains(request.method()) && request.uri().path() == &*health.path
}

/// The peer's address as the log has it.
pub(super) fn peer_name(peer: &Peer) -> String {
    ClientAddress::from(peer_address(peer)).to_string()
}

pub(super) fn peer_address(peer: &Peer) -> Option<IpAddr> {
    peer.address.map(|address| address.ip())
}
