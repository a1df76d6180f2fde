//! Sends spans to a collector: OTLP as JSON over HTTP, from a thread of its own.
use crate::log::access::json_text;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{
    env, io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpStream,
    runtime::Builder,
    sync::mpsc,
    time::{sleep, timeout},
};

/// Spans of handshakes that may wait; more are dropped and counted.
const CAPACITY: usize = 2048;
/// Handshakes that go into one request at most.
const BATCH: usize = 256;
/// How long a handshake waits for others to go with.
const GATHER: Duration = Duration::from_secs(1);
/// For a request to the collector.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an exit waits for the last request.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One stage.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) trace: u128,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) state: Option<String>,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    pub(super) attributes: Vec<(&'static str, String)>,
    pub(super) failed: bool,
}

/// The numbers are OTLP's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

enum Item {
    Spans(Vec<Span>),
    /// Answered when all that came before is sent.
    Flush(SyncSender<()>),
}

struct Outlet {
    items: mpsc::Sender<Item>,
    /// Of the traces that begin here, so many are taken: 0.0 to 1.0.
    share: f64,
}

static OUTLET: OnceLock<Outlet> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtelError {
    #[error("{0} is no address of a collector: write http://HOST:4318 in OTEL_EXPORTER_OTLP_ENDPOINT")]
    Endpoint(String),
    #[error("OTEL_TRACES_SAMPLER_ARG is {0}: write a number from 0.0 to 1.0")]
    Share(String),
    #[error("cannot start the exporter of traces: {0}")]
    Thread(#[from] io::Error),
}

/// Sends what still waits when dropped, within two seconds.
#[must_use]
#[derive(Debug)]
pub struct Exporter(());

impl Drop for Exporter {
    fn drop(&mut self) {
        let Some(outlet) = OUTLET.get() else { return };
        let (done, flushed) = sync_channel(1);
        if outlet.items.try_send(Item::Flush(done)).is_ok() {
            // A collector that does not answer keeps nobody from leaving.
            let _ = flushed.recv_timeout(LAST_WORDS);
        }
    }
}

/// Where to send, from OpenTelemetry's environment variables.
struct Target {
    authority: String,
    path: String,
    service: String,
}

/// Starts the exporter, if `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set; once in a process.
///
/// # Errors
/// A variable is wrong, or the thread cannot be started.
pub fn start() -> Result<Option<Exporter>, OtelError> {
    let variable = |name| env::var(name).ok().filter(|value: &String| !value.is_empty());
    let whole = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let base = || variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| format!("{}/v1/traces", url.trim_end_matches('/')));
    let Some(url) = whole.or_else(base) else { return Ok(None) };
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let share = match variable("OTEL_TRACES_SAMPLER_ARG") {
        None => 1.0,
        Some(text) => {
            let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or(OtelError::Share(text))?
        }
    };
    let uri = url.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
    let (Some(uri), service) = (uri, variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "pulsegate".into())) else {
        return Err(OtelError::Endpoint(url));
    };
    let Some(authority) = uri.authority() else { return Err(OtelError::Endpoint(url)) };
    let host = authority.host();
    let authority = format!("{host}:{}", authority.port_u16().unwrap_or(80));
    let path = uri.path_and_query().map_or("/v1/traces", |path| path.as_str()).to_owned();
    let (items, received) = mpsc::channel(CAPACITY);
    if OUTLET.set(Outlet { items, share }).is_ok() {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(run(received, Target { authority, path, service }));
        thread::Builder::new().name("otel".into()).spawn(run)?;
    }
    Ok(Some(Exporter(())))
}

/// Whether a handshake is traced, by what its client says of its own trace; `None`: none are.
pub(super) fn samples(parent: Option<bool>) -> Option<bool> {
    let outlet = OUTLET.get()?;
    Some(parent.unwrap_or_else(|| rand::random::<f64>() < outlet.share))
}

/// Never blocks.
pub(super) fn send(spans: Vec<Span>) {
    if let Some(outlet) = OUTLET.get()
        && outlet.items.try_send(Item::Spans(spans)).is_err()
    {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

async fn run(mut items: mpsc::Receiver<Item>, target: Target) {
    let mut failing = false;
    while let Some(first) = items.recv().await {
        let (mut spans, mut flushed) = (Vec::new(), None);
        let mut add = |item: Item| match item {
            Item::Spans(more) => spans.extend(more),
            Item::Flush(done) => flushed = Some(done),
        };
        let mut gathered = matches!(first, Item::Flush(_));
        add(first);
        let alarm = sleep(GATHER);
        tokio::pin!(alarm);
        for _ in 1..BATCH {
            if gathered {
                break;
            }
            tokio::select! {
                item = items.recv() => match item {
                    Some(item) => {
                        gathered = matches!(item, Item::Flush(_));
                        add(item);
                    }
                    None => gathered = true,
                },
                () = &mut alarm => gathered = true,
            }
        }
        if !spans.is_empty() {
            let count = spans.len();
            let sent = timeout(PATIENCE, post(&target, body(&target.service, &spans))).await;
            let problem = sent.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}"))).err();
            tell(problem, &mut failing, count);
        }
        if let Some(done) = flushed {
            // Whoever asked may have lost patience and be gone.
            let _ = done.try_send(());
        }
    }
}

fn tell(problem: Option<String>, failing: &mut bool, spans: usize) {
    match (problem, *failing) {
        (Some(error), false) => {
            tracing::warn!(error, spans, "traces cannot be exported and are lost until the collector takes them again");
            *failing = true;
        }
        (None, true) => {
            tracing::info!("traces are exported again");
            *failing = false;
        }
        (Some(_), true) | (None, false) => {}
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    if dropped > 0 {
        tracing::warn!(dropped, "{dropped} traces dropped: the collector was slower than handshakes come");
    }
}

async fn post(target: &Target, body: String) -> Result<(), String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let stream = TcpStream::connect(&target.authority).await.map_err(|error| told(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| told(&error))?;
    let request = Request::post(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| told(&error))?;
    let answer = async { sender.send_request(request).await.map_err(|error| told(&error)) };
    let answer = tokio::select! {
        answer = answer => answer?,
        ended = connection => return Err(ended.err().map_or("the connection ended".into(), |error| told(&error))),
    };
    if answer.status().is_success() { Ok(()) } else { Err(format!("the collector answered {}", answer.status())) }
}

/// An `ExportTraceServiceRequest` in OTLP's JSON: identifiers in hex, 64-bit numbers as text.
fn body(service: &str, spans: &[Span]) -> String {
    let mut out = String::with_capacity(512 * spans.len() + 256);
    out.push_str(r#"{"resourceSpans":[{"resource":{"attributes":["#);
    attribute(&mut out, "service.name", service);
    out.push_str(r#"]},"scopeSpans":[{"scope":{"name":"pulsegate","version":"#);
    json_text(&mut out, env!("CARGO_PKG_VERSION"));
    out.push_str(r#"},"spans":["#);
    for (index, span) in spans.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_span(&mut out, span);
    }
    out.push_str("]}]}]}");
    out
}

fn write_span(out: &mut String, span: &Span) {
    let Span { trace, id, parent, state, name, kind, start, end, attributes, failed } = span;
    out.push_str(&format!(r#"{{"traceId":"{trace:032x}","spanId":"{id:016x}","#));
    if let Some(parent) = parent {
        out.push_str(&format!(r#""parentSpanId":"{parent:016x}","#));
    }
    if let Some(state) = state {
        out.push_str(r#""traceState":"#);
        json_text(out, state);
        out.push(',');
    }
    let (start, end) = (nanos(*start), nanos(*end).max(nanos(*start)));
    out.push_str(&format!(
        r#""name":"{name}","kind":{},"startTimeUnixNano":"{start}","endTimeUnixNano":"{end}","attributes":["#,
        *kind as u8
    ));
    for (index, (key, value)) in attributes.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        attribute(out, key, value);
    }
    out.push_str(if *failed { r#"],"status":{"code":2}}"# } else { "]}" });
}

fn attribute(out: &mut String, key: &str, value: &str) {
    out.push_str(r#"{"key":"#);
    json_text(out, key);
    out.push_str(r#","value":{"stringValue":"#);
    json_text(out, value);
    out.push_str("}}");
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos()
}
