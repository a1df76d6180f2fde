//! What is noted of one opening handshake: a span for each of its stages.
use super::{
    context::{TRACEPARENT, TRACESTATE, TraceContext},
    export::{self, Kind, Span},
};
use http::{HeaderMap, HeaderValue, StatusCode, request::Parts};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// When a connection came, and when its TLS handshake was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    accepted: Option<SystemTime>,
    secured: Option<SystemTime>,
}

impl Arrival {
    #[must_use]
    pub fn now() -> Self {
        Self { accepted: Some(SystemTime::now()), secured: None }
    }

    pub fn secured(&mut self) {
        self.secured = Some(SystemTime::now());
    }
}

/// One opening handshake, if it is traced.
#[derive(Clone, Debug, Default)]
pub struct Handshake(Option<Arc<Trace>>);

#[derive(Debug)]
struct Trace {
    trace: u128,
    /// The span of the whole handshake.
    id: u64,
    /// The client's, if it sent one.
    parent: Option<u64>,
    state: Option<String>,
    begun: SystemTime,
    asked: SystemTime,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    spans: Vec<Span>,
    attributes: Vec<(&'static str, String)>,
}

impl Handshake {
    /// A request came on a connection. A client's valid context is continued, or obeyed if it says not to sample.
    #[must_use]
    pub fn begin(arrival: Arrival, path: &str, headers: &HeaderMap) -> Self {
        let context = TraceContext::of(headers);
        let Some(sampled) = export::samples(context.map(|context| context.sampled)) else { return Self(None) };
        if !sampled {
            return Self(None);
        }
        let asked = SystemTime::now();
        let state = headers.get(TRACESTATE).and_then(|state| state.to_str().ok());
        let trace = Trace {
            trace: context.map_or_else(|| rand::random::<u128>().max(1), |context| context.trace),
            id: new_id(),
            parent: context.map(|context| context.parent),
            state: context.and(state).map(str::to_owned),
            begun: arrival.accepted.unwrap_or(asked),
            asked,
            noted: Mutex::default(),
        };
        if let (Some(accepted), Some(secured)) = (arrival.accepted, arrival.secured) {
            trace.note(Span { start: accepted, end: secured, ..trace.span("tls", Kind::Internal) });
        }
        trace.noted().attributes.push(("url.path", path.to_owned()));
        Self(Some(Arc::new(trace)))
    }

    /// Its route was found.
    pub fn routed(&self, route: &str) {
        if let Some(trace) = &self.0 {
            let attributes = vec![("pulsegate.route", route.to_owned())];
            trace.note(Span { start: trace.asked, attributes, ..trace.span("route", Kind::Internal) });
            trace.noted().attributes.push(("pulsegate.route", route.to_owned()));
        }
    }

    /// Goes along with the request to the backend.
    pub fn attach(&self, session: &str, head: &mut Parts) {
        if let Some(trace) = &self.0 {
            trace.noted().attributes.push(("pulsegate.session", session.to_owned()));
            head.extensions.insert(self.clone());
        }
    }

    /// The client is answered.
    pub fn end(&self, status: StatusCode) {
        let Some(trace) = &self.0 else { return };
        let Noted { mut spans, mut attributes } = std::mem::take(&mut *trace.noted());
        attributes.push(("http.response.status_code", status.as_str().to_owned()));
        let failed = status.is_server_error();
        spans.push(Span {
            id: trace.id,
            parent: trace.parent,
            start: trace.begun,
            attributes,
            failed,
            ..trace.span("websocket handshake", Kind::Server)
        });
        export::send(spans);
    }
}

impl Trace {
    /// A stage that ends now, right below the whole.
    fn span(&self, name: &'static str, kind: Kind) -> Span {
        let now = SystemTime::now();
        let (id, parent, state) = (new_id(), Some(self.id), self.state.clone());
        Span {
            trace: self.trace,
            id,
            parent,
            state,
            name,
            kind,
            start: now,
            end: now,
            attributes: Vec::new(),
            failed: false,
        }
    }

    fn note(&self, span: Span) {
        self.noted().spans.push(span);
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One backend that is tried: its span is what the backend sees as its parent.
#[derive(Debug)]
pub struct Attempt(Option<Trial>);

#[derive(Debug)]
struct Trial {
    trace: Arc<Trace>,
    id: u64,
    backend: String,
    begun: SystemTime,
    dialled: Option<SystemTime>,
    status: Option<StatusCode>,
}

impl Attempt {
    /// Writes the trace context into what the backend is asked.
    #[must_use]
    pub fn begin(head: &mut Parts, backend: &str) -> Self {
        let Some(trace) = head.extensions.get::<Handshake>().and_then(|handshake| handshake.0.clone()) else {
            return Self(None);
        };
        let (id, now) = (new_id(), SystemTime::now());
        let context = TraceContext { trace: trace.trace, parent: id, sampled: true };
        if let Ok(value) = HeaderValue::from_str(&context.to_string()) {
            head.headers.insert(TRACEPARENT, value);
        }
        // Without a valid parent its state means nothing (Trace Context level 1, section 3.3.1).
        if trace.parent.is_none() {
            head.headers.remove(TRACESTATE);
        }
        Self(Some(Trial { trace, id, backend: backend.to_owned(), begun: now, dialled: None, status: None }))
    }

    /// Connected, with TLS if it is wanted.
    pub fn dialled(&mut self) {
        if let Some(trial) = &mut self.0 {
            trial.dialled = Some(SystemTime::now());
        }
    }

    /// The backend answered.
    pub fn answered(&mut self, status: StatusCode) {
        if let Some(trial) = &mut self.0 {
            trial.status = Some(status);
        }
    }
}

/// However it ended: a dial may also be cancelled.
impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(Trial { trace, id, backend, begun, dialled, status }) = self.0.take() else { return };
        let below =
            |name, start, end, failed| Span { parent: Some(id), start, end, failed, ..trace.span(name, Kind::Client) };
        let now = SystemTime::now();
        let mut spans = vec![below("dial", begun, dialled.unwrap_or(now), dialled.is_none())];
        if let Some(dialled) = dialled {
            spans.push(below("backend handshake", dialled, now, status.is_none()));
        }
        let mut attributes = vec![("pulsegate.backend", backend)];
        attributes.extend(status.map(|status| ("http.response.status_code", status.as_str().to_owned())));
        let failed = status.is_none_or(|status| status.is_server_error());
        spans.push(Span { id, start: begun, attributes, failed, ..trace.span("backend", Kind::Client) });
        trace.noted().spans.extend(spans);
    }
}

fn new_id() -> u64 {
    rand::random::<u64>().max(1)
}
