//! Plain HTTP on a client's connection: from a request's head to its route, and to the backend's answer.
use super::{
    access::{self, Caller, Entry},
    admission::Place,
    forwarded::{Provenance, X_REQUEST_ID, request_id},
    headers::has_token,
    names::Names,
    request::NO_UPGRADE,
    response::{Body, Refusal},
    service::{Phase, Visit, asks_for},
    words::{bounded, date, text, without_user},
};
use crate::{
    http::{
        Asked, Due, Ledger, RequestRecord, RequestResult,
        body::{RequestBody, ResponseBody},
        exchange,
        framing::Watch,
        request::{Encoding, PlainRequest, announce},
    },
    route::{PlainHttp, Route},
    upstream::is_secure,
};
use http::{
    HeaderValue, Request, Response,
    header::{CONNECTION, DATE, UPGRADE, USER_AGENT},
};
use http_body_util::Either;
use hyper::body::Incoming;
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A text of ours, or what a backend streams.
pub(super) type PlainBody = Either<Body, ResponseBody>;

/// What a connection knows of the plain requests on it.
#[derive(Debug, Default)]
pub(super) struct PlainState {
    /// Taken with the first request that goes to a backend.
    place: RefCell<Option<Place>>,
    due: Rc<Due>,
    /// Of the request at hand.
    ledger: RefCell<Weak<Ledger>>,
    watch: Rc<Watch>,
    /// Requests that began.
    requests: Cell<u32>,
    /// Whether the request at hand is a plain one.
    asks: Cell<bool>,
    /// Whether the request at hand is the last one on its connection.
    last: Cell<bool>,
}

impl PlainState {
    /// What is found out about its requests' heads as they are read.
    pub(super) fn watch(&self) -> Rc<Watch> {
        Rc::clone(&self.watch)
    }

    /// Another request begins.
    pub(super) fn begin(&self) {
        self.requests.set(self.requests.get().saturating_add(1));
        self.asks.set(false);
        self.last.set(false);
        self.due.set(None);
    }

    /// The header names of the request at hand, as they came.
    pub(super) fn names(&self) -> Names {
        self.watch.names(self.requests.get()).unwrap_or_default()
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    pub(super) fn asks(&self) -> bool {
        self.asks.get()
    }

    pub(super) fn last(&self) -> bool {
        self.last.get()
    }

    /// Whether the answer to the last request was given whole.
    pub(super) fn idle(&self) -> bool {
        self.ledger.borrow().upgrade().is_none()
    }

    /// The client does not take its answer.
    pub(super) fn stalled(&self) {
        if let Some(ledger) = self.ledger.borrow().upgrade() {
            ledger.ends(RequestResult::ClientStalled);
        }
    }

    /// Whether a request of this connection went to a backend, so that it is no opening handshake any more.
    pub(super) fn settled(&self) -> bool {
        self.place.borrow().is_some()
    }
}

/// A plain request that is on its way.
struct Passing<'a> {
    request: PlainRequest,
    body: Incoming,
    route: &'a Route,
    provenance: Provenance,
    ledger: Rc<Ledger>,
}

impl Visit {
    /// Whether a request is none for a session, where there are routes that take such.
    pub(super) fn is_plain(&self, request: &Request<Incoming>) -> bool {
        let health = || self.peer.health.as_deref().is_some_and(|health| asks_for(health, request));
        self.edge.terms().plain && !has_token(request.headers(), &UPGRADE, "websocket") && !health()
    }

    /// One plain request, one answer.
    pub(super) async fn relayed(self: Rc<Self>, request: Request<Incoming>) -> Response<PlainBody> {
        self.plain.asks.set(true);
        let answer = Box::pin(self.relay(request)).await;
        match answer {
            Ok(mut answer) if matches!(answer.body(), Either::Left(_)) => {
                self.end(&mut answer);
                answer
            }
            Ok(mut answer) => {
                self.about.borrow().trace.end(answer.status());
                self.enter(Phase::Relaying);
                self.edit_answer(answer.headers_mut());
                answer.headers_mut().entry(DATE).or_insert_with(date);
                if self.plain.last() || self.edge.leaving() || self.edge.admission.crowded() {
                    answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
            Err(refusal) => {
                let mut answer = self.refuse(&refusal);
                self.end(&mut answer);
                answer.map(Either::Left)
            }
        }
    }

    async fn relay(&self, request: Request<Incoming>) -> Result<Response<PlainBody>, Refusal> {
        let asked = Instant::now();
        let (head, body) = request.into_parts();
        let terms = self.edge.terms();
        let provenance = Provenance::find(&self.peer, &terms.trust, &head.headers);
        self.about.borrow_mut().client = provenance.client;
        let ambiguity = self.plain.watch.ambiguity(self.plain.requests.get());
        // What follows a request whose end is not clear is never read.
        self.plain.last.set(true);
        let request = PlainRequest::parse(head, ambiguity)?;
        self.plain.last.set(request.encoding == Encoding::Chunked);
        let found = terms.router.find(&request.host, request.target.path());
        let route = found.ok_or(Refusal::NoRoute)?;
        match route.config.http {
            PlainHttp::Refuse => return Err(Refusal::NotAnUpgrade(NO_UPGRADE)),
            PlainHttp::Proxy => {}
        }
        let ledger = self.ledger(&request, route, &provenance, asked);
        let passing = Passing { request, body, route, provenance, ledger: Rc::clone(&ledger) };
        let passed = self.pass(passing).await;
        if let Err(refusal) = &passed {
            ledger.answers(refusal.status());
            self.about.borrow_mut().backend = ledger.backend();
        }
        passed
    }

    /// The request is to be counted and told of from now on.
    fn ledger(&self, request: &PlainRequest, route: &Route, provenance: &Provenance, asked: Instant) -> Rc<Ledger> {
        let meter = self.edge.meter.route(&route.config.name, &route.config.upstream);
        self.know(&route.config, &meter);
        self.about.borrow().trace.routed(&route.config.name);
        let record = RequestRecord {
            id: Box::default(),
            client: provenance.name.clone(),
            method: request.method.clone(),
            host: without_user(&text(&request.authority)).into(),
            path: bounded(request.target.path()).into(),
            user_agent: request.headers.get(USER_AGENT).map(text),
            route: Arc::clone(&route.config),
            backend: None,
            status: None,
            result: RequestResult::ClientLeft,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            answered_after: None,
        };
        let ledger = Ledger::new(record, asked, meter, self.edge.requests.borrow().clone());
        *self.plain.ledger.borrow_mut() = Rc::downgrade(&ledger);
        ledger
    }

    async fn pass(&self, passing: Passing<'_>) -> Result<Response<PlainBody>, Refusal> {
        let Passing { request, body, route, provenance, ledger } = passing;
        let config = &route.config;
        let refused = |refusal| {
            ledger.ends(RequestResult::Refused);
            Err(refusal)
        };
        if !config.allows_origin(request.origin.as_deref()) {
            return refused(Refusal::Origin);
        }
        // Until it is let in it has one of the places of the handshakes that wait.
        let place = match (self.plain.settled(), route.guard.takes_time()) {
            (false, true) => match self.edge.dials.try_acquire() {
                Ok(place) => Some(place),
                Err(_) => return refused(Refusal::Overloaded),
            },
            (true, _) | (false, false) => None,
        };
        let entry = self.enter_by(&request, route, &provenance).await;
        drop(place);
        let granted = match entry {
            Ok(Entry::Granted(granted)) => granted,
            Ok(Entry::Answered(answer)) => {
                ledger.ends(RequestResult::Refused);
                ledger.answers(answer.status());
                self.record(access::ANSWERED, Some(answer.status()), access::SERVICE_REFUSED.into());
                return Ok(answer.map(Either::Left));
            }
            Err(refusal) => return refused(refusal),
        };
        if !self.plain.settled() {
            match self.edge.admission.admit_connection() {
                Ok(place) => drop(self.plain.place.borrow_mut().replace(place)),
                Err(denied) => return refused(Refusal::Denied(denied)),
            }
        }
        let authority = request.authority.clone();
        let affinity = route.upstream.affinity(provenance.client.ip(), &request.target, &request.headers);
        let mut head = request.into_upstream(config);
        let edits = &config.options.headers.request;
        announce(&mut head.headers, |name| {
            !(provenance.tells(name.as_str()) || granted.concerns(name) || edits.names(name))
        });
        let id = request_id(&mut head.headers);
        self.about.borrow_mut().id = head.headers.get(X_REQUEST_ID).cloned();
        provenance.tell(&mut head.headers, &authority);
        let secure = is_secure(&head.headers);
        granted.apply(&mut head.headers);
        self.about.borrow().trace.attach(&id, &mut head);
        self.edit_request(config, &mut head.headers);
        if route.upstream.announces()
            && let Some(ends) = provenance.ends(&self.peer)
        {
            head.extensions.insert(ends);
        }
        ledger.named(id);
        let relay = &config.options.relay;
        let body = RequestBody::new(body, relay.timeouts.stall, relay.pace, Rc::clone(&ledger));
        let (connections, due) = (&self.edge.connections, Rc::clone(&self.plain.due));
        let asked = Asked { route, head, affinity, secure, body, connections, ledger: Rc::clone(&ledger), due };
        let answered = exchange(asked).await.map_err(|failure| {
            ledger.ends(failure.result());
            // Of a request whose body stands still, nothing further is read.
            self.plain.last.set(true);
            Refusal::Exchange { status: failure.status(), cause: failure.to_string() }
        })?;
        Ok(answered.map(Either::Right))
    }

    /// Whether the client may come in, by the route's lists, its password and its service.
    async fn enter_by(&self, request: &PlainRequest, route: &Route, provenance: &Provenance) -> Result<Entry, Refusal> {
        let caller = Caller {
            provenance,
            method: &request.method,
            target: &request.target,
            authority: &request.authority,
            headers: &request.headers,
            edit: &|headers| self.edit_request(&route.config, headers),
        };
        access::check_plain(route, self.edge.admission.rates(), &caller).await
    }
}
