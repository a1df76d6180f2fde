//! What is noted of one plain request, from its head to the last byte of its answer.
use crate::{metrics::Meter, route::RouteConfig};
use http::{Method, StatusCode};
use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

pub use crate::metrics::RequestResult;

/// One plain request that is over, for the access log. No query strings and no credentials.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub id: Box<str>,
    pub client: Box<str>,
    pub method: Method,
    pub host: Box<str>,
    /// Without the query.
    pub path: Box<str>,
    pub user_agent: Option<Box<str>>,
    pub route: Arc<RouteConfig>,
    /// The one asked last.
    pub backend: Option<String>,
    /// What the client was told; `None`: nothing.
    pub status: Option<StatusCode>,
    pub result: RequestResult,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
    /// From the request's head to the head of the answer.
    pub answered_after: Option<Duration>,
}

/// Where finished requests are told of.
pub(crate) type Report = Rc<dyn Fn(&RequestRecord)>;

/// Counts a request while it lives, and tells of it at its end.
pub(crate) struct Ledger {
    record: RefCell<RequestRecord>,
    asked: Instant,
    received: Cell<u64>,
    sent: Cell<u64>,
    meter: Arc<Meter>,
    report: Option<Report>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Ledger {
    /// A request on a route. Unless something else is said, its client has left.
    pub(crate) fn new(record: RequestRecord, asked: Instant, meter: Arc<Meter>, report: Option<Report>) -> Rc<Self> {
        meter.requests().began();
        let record = RefCell::new(record);
        Rc::new(Self { record, asked, received: Cell::default(), sent: Cell::default(), meter, report })
    }

    /// Its id is known.
    pub(crate) fn named(&self, id: Box<str>) {
        self.record.borrow_mut().id = id;
    }

    pub(crate) fn asks(&self, backend: &str) {
        self.record.borrow_mut().backend = Some(backend.to_owned());
    }

    pub(crate) fn backend(&self) -> Option<String> {
        self.record.borrow().backend.clone()
    }

    /// The head of the answer goes to the client now.
    pub(crate) fn answers(&self, status: StatusCode) {
        let mut record = self.record.borrow_mut();
        record.status = Some(status);
        record.answered_after = Some(self.asked.elapsed());
    }

    /// How it ends, if nothing else is said later.
    pub(crate) fn ends(&self, result: RequestResult) {
        self.record.borrow_mut().result = result;
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let record = self.record.get_mut();
        (record.received, record.sent) = (self.received.get(), self.sent.get());
        record.duration = self.asked.elapsed();
        let class = record.status.map(|status| status.as_u16() / 100);
        self.meter.requests().ended(record.result, class, record.answered_after, record.received, record.sent);
        if let Some(report) = &self.report {
            report(record);
        }
    }
}

/// Until when the client has to do what is waited for: take what was written, or ask again. `None`: the backend is waited for.
#[derive(Debug, Default)]
pub(crate) struct Due(Cell<Option<Instant>>);

impl Due {
    pub(crate) fn get(&self) -> Option<Instant> {
        self.0.get()
    }

    pub(crate) fn set(&self, due: Option<Instant>) {
        self.0.set(due);
    }
}
