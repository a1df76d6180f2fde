//! From a request to its answer: what is asked of the gateway, and where.
use super::{
    body::{Answer, Problem, content, json, read},
    cannot::{gone, no_backend, no_ending, no_reload, no_upgrade},
    guard::{Guard, Own, Refused},
    page, query, view,
};
use crate::{
    gateway::{Backends, Operator},
    metrics::text::Format,
    protocol::close::{CloseCode, MAX_REASON},
    session::{
        registry::Parting,
        select::{Filter, SessionKey, Sort},
    },
    shutdown::DrainCause,
};
use http::{HeaderMap, Method, Request, StatusCode, header::ACCEPT, request::Parts};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json as object};
use std::{sync::PoisonError, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// For the gateway's answer; a worker that stands still gives none.
const PATIENCE: Duration = Duration::from_secs(30);
/// For an upgrade, which is decided within `gateway.upgrade_timeout` and tells why it fails, and for a reload behind another.
const LONG_PATIENCE: Duration = Duration::from_secs(590);
const SLOW: [&str; 2] = ["/api/v1/upgrade", "/api/v1/reload"];
/// An overview is not made more often, however many watch.
const FRESH: Duration = Duration::from_secs(1);
/// Sessions a second, unless asked otherwise.
const RATE: f64 = 50.0;
/// What clients of an evacuated backend are told unless asked otherwise: come back.
const EVACUATED: CloseCode = CloseCode::SERVICE_RESTART;

/// What the admin listener answers from.
pub(super) struct Api {
    operator: Operator,
    guard: Guard,
    overview: Mutex<Option<(Instant, Value)>>,
    /// When a refusal was last logged.
    complained: std::sync::Mutex<Option<Instant>>,
}

type Answered = Result<Answer, Problem>;

impl Api {
    pub(super) fn new(operator: Operator, guard: Guard) -> Self {
        Self { operator, guard, overview: Mutex::default(), complained: std::sync::Mutex::default() }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, own: Own) -> Answer {
        let (head, body) = request.into_parts();
        let refused = |refused: Refused| {
            self.complain(&head, refused);
            Problem::Refused(refused).answer()
        };
        if let Err(why) = self.guard.addressed(&head.headers, own) {
            return refused(why);
        }
        let read = head.method == Method::GET || head.method == Method::HEAD;
        let open = if read { self.open(head.uri.path()) } else { None };
        if let Some(answer) = open {
            return answer;
        }
        if let Err(why) = self.guard.allows(&head.method, &head.headers) {
            return refused(why);
        }
        let patience = if SLOW.contains(&head.uri.path()) { LONG_PATIENCE } else { PATIENCE };
        let answered = timeout(patience, self.route(&head, body)).await.unwrap_or(Err(Problem::Late));
        answered.unwrap_or_else(Problem::answer)
    }

    /// Logs a refusal, but not several within a second: guesses at the token must not fill the log.
    fn complain(&self, head: &Parts, refused: Refused) {
        let now = Instant::now();
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now >= last + FRESH) {
            *last = Some(now);
            let (method, path) = (&head.method, head.uri.path());
            tracing::warn!(target: TARGET, %method, path, "refused: {}", refused.explain());
        }
    }

    /// What anyone may read who reaches the listener.
    fn open(&self, path: &str) -> Option<Answer> {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "/healthz" => Some(content(StatusCode::OK, TEXT, "ok\n")),
            "/readyz" if self.operator.ready() => Some(content(StatusCode::OK, TEXT, "ready\n")),
            "/readyz" => Some(content(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n")),
            path => page::part(path),
        }
    }

    /// Every path, and what it is asked with.
    async fn route(&self, head: &Parts, body: Incoming) -> Answered {
        let path: Vec<&str> = head.uri.path().trim_start_matches('/').split('/').collect();
        let asked = (as_verb(&head.method), path.as_slice());
        match asked {
            ("GET", ["metrics"]) => Ok(self.metrics(&head.headers)),
            ("GET", ["api", "v1", "overview"]) => self.overview().await,
            ("GET", ["api", "v1", "sessions"]) => self.list(head.uri.query().unwrap_or_default()).await,
            ("POST", ["api", "v1", "sessions", "end"]) => self.end_matching(read(body).await?),
            ("GET", ["api", "v1", "sessions", one]) => self.show(one).await,
            ("POST", ["api", "v1", "sessions", one, "end"]) => self.end(one, read(body).await?).await,
            ("GET", ["api", "v1", "endings"]) => Ok(ok(&self.endings())),
            ("GET", ["api", "v1", "endings", id]) => self.ending(id),
            ("POST", ["api", "v1", "endings", id, "cancel"]) => self.cancel(id),
            ("GET", ["api", "v1", "backends"]) => self.backends().await,
            ("POST", ["api", "v1", "backends", "drain"]) => self.drain_backends(read(body).await?).await,
            ("POST", ["api", "v1", "backends", "restore"]) => self.restore_backends(read(body).await?).await,
            ("GET", ["api", "v1", "drain"]) => Ok(ok(&self.draining().await)),
            ("POST", ["api", "v1", "drain"]) => self.drain(&read(body).await?).await,
            ("GET", ["api", "v1", "upgrade"]) => Ok(ok(&view::lineage(self.operator.lineage()))),
            ("POST", ["api", "v1", "upgrade"]) => self.upgrade().await,
            ("POST", ["api", "v1", "reload"]) => self.reload().await,
            (_, ["metrics"] | ["api", "v1", "overview" | "endings" | "backends"] | ["api", "v1", "endings", _]) => {
                Err(Problem::Method("GET"))
            }
            (_, ["api", "v1", "drain" | "upgrade"]) => Err(Problem::Method("GET, POST")),
            (_, ["api", "v1", "sessions", .., "end"] | ["api", "v1", "backends", "drain" | "restore"]) => {
                Err(Problem::Method("POST"))
            }
            (_, ["api", "v1", "endings", _, "cancel"] | ["api", "v1", "reload"]) => Err(Problem::Method("POST")),
            (_, ["api", "v1", "sessions"] | ["api", "v1", "sessions", _]) => Err(Problem::Method("GET")),
            _ => Err(Problem::NotFound("there is nothing at this path; docs/admin.md lists what is".into())),
        }
    }

    async fn overview(&self) -> Answered {
        let mut kept = self.overview.lock().await;
        if let Some((made, value)) = &*kept
            && made.elapsed() < FRESH
        {
            return Ok(ok(value));
        }
        let (overview, backends) = tokio::join!(self.operator.overview(), self.operator.backends());
        let mut value = view::overview(overview, &backends, &self.operator.endings());
        value["lineage"] = view::lineage(self.operator.lineage());
        value["drain"] = self.operator.drain_progress().map_or(Value::Null, |progress| view::drain(&progress));
        let answer = ok(&value);
        *kept = Some((Instant::now(), value));
        Ok(answer)
    }

    async fn list(&self, query: &str) -> Answered {
        let page = self.operator.sessions(query::page(query)?).await;
        Ok(ok(&object!({
            "matching": page.matching,
            "sessions": view::sessions(page.sessions),
            "next": page.next.map(|next| next.to_string()),
        })))
    }

    async fn show(&self, name: &str) -> Answered {
        let key = self.key(name).await?;
        let record = self.operator.session(key).await.ok_or_else(|| gone(name))?;
        Ok(ok(&view::session(record)))
    }

    /// A session by its key, or by a request id that no other session has.
    async fn key(&self, name: &str) -> Result<SessionKey, Problem> {
        if let Ok(key) = name.parse() {
            return Ok(key);
        }
        let id = query::decode(name).ok_or_else(|| gone(name))?;
        let filter = Filter { id: Some(id), ..Filter::default() };
        let query = crate::gateway::Query { filter, sort: Sort::Oldest, after: None, limit: 2 };
        let found = self.operator.sessions(query).await.sessions;
        match found.as_slice() {
            [] => Err(gone(name)),
            [one] => Ok(one.position.key),
            _ => Err(Problem::Conflict(format!("several sessions have the id {name}; name one by its key"))),
        }
    }

    async fn end(&self, name: &str, ask: EndOne) -> Answered {
        let parting = parting(ask.code, ask.reason)?;
        let key = self.key(name).await?;
        if !self.operator.end(key, parting).await {
            return Err(gone(name));
        }
        tracing::info!(target: TARGET, session = %key, "an operator ends a session");
        Ok(json(StatusCode::ACCEPTED, &object!({ "ended": key.to_string() })))
    }

    fn end_matching(&self, ask: EndMany) -> Answered {
        let parting = parting(ask.code, ask.reason)?;
        let mut filter = Filter::default();
        for (key, value) in &ask.filter {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            query::set(&mut filter, key, &text)?;
        }
        if filter == Filter::default() && !ask.all {
            let help = "an empty filter means every session; say \"all\": true if that is meant";
            return Err(Problem::Wrong(help.into()));
        }
        let id = self.operator.end_matching(filter, parting, rate(ask.rate)?);
        tracing::info!(target: TARGET, ending = id, "an operator ends sessions");
        self.begun(id)
    }

    fn begun(&self, id: u64) -> Answered {
        let ending = self.operator.ending(id).as_ref().map(view::ending);
        Ok(json(StatusCode::ACCEPTED, &ending))
    }

    fn endings(&self) -> Value {
        object!({ "endings": self.operator.endings().iter().map(view::ending).collect::<Vec<_>>() })
    }

    fn ending(&self, id: &str) -> Answered {
        let found = id.parse().ok().and_then(|id| self.operator.ending(id));
        found.map(|ending| ok(&view::ending(&ending))).ok_or_else(|| no_ending(id))
    }

    fn cancel(&self, id: &str) -> Answered {
        let found = id.parse().ok().and_then(|id| self.operator.cancel(id));
        found.map(|ending| ok(&view::ending(&ending))).ok_or_else(|| no_ending(id))
    }

    async fn backends(&self) -> Answered {
        let backends = self.operator.backends().await;
        Ok(ok(&object!({ "backends": backends.iter().map(view::backend).collect::<Vec<_>>() })))
    }

    async fn drain_backends(&self, ask: DrainBackend) -> Answered {
        let backends = Backends { upstream: ask.upstream, name: ask.backend };
        if !ask.evacuate {
            tracing::info!(target: TARGET, backend = backends.name, "an operator drains a backend");
            return self.set_drained(&backends, true).await;
        }
        let mut parting = parting(ask.code, ask.reason)?;
        parting.code.get_or_insert(EVACUATED);
        parting.words.get_or_insert_with(|| "backend drained".into());
        let begun = self.operator.evacuate(&backends, parting, rate(ask.rate)?).await;
        let id = begun.ok_or_else(|| no_backend(&backends))?;
        tracing::info!(target: TARGET, backend = backends.name, ending = id, "an operator evacuates a backend");
        self.begun(id)
    }

    async fn restore_backends(&self, ask: RestoreBackend) -> Answered {
        let backends = Backends { upstream: ask.upstream, name: ask.backend };
        tracing::info!(target: TARGET, backend = backends.name, "an operator puts a backend back");
        self.set_drained(&backends, false).await
    }

    async fn set_drained(&self, backends: &Backends, drained: bool) -> Answered {
        let states = self.operator.set_drained(backends, drained).await;
        if states.is_empty() {
            return Err(no_backend(backends));
        }
        Ok(ok(&object!({ "backends": states.iter().map(view::backend).collect::<Vec<_>>() })))
    }

    async fn draining(&self) -> Value {
        let phase = view::phase(self.operator.control().phase());
        let progress = self.operator.drain_progress().as_ref().map(view::drain);
        object!({ "phase": phase, "sessions": self.operator.open_sessions().await, "progress": progress })
    }

    async fn drain(&self, ask: &DrainGateway) -> Answered {
        let cause = match ask.cause {
            Cause::Stop => DrainCause::Stop,
            Cause::Shed => DrainCause::Shed,
        };
        tracing::info!(target: TARGET, cause = cause.label(), "an operator drains the gateway");
        self.operator.control().drain_for(cause);
        Ok(json(StatusCode::ACCEPTED, &self.draining().await))
    }

    /// Answers when it is decided. An operator who does not wait for that does not stop it.
    async fn upgrade(&self) -> Answered {
        tracing::info!(target: TARGET, "an operator asks for an upgrade");
        let successor = self.operator.upgrade().await.map_err(no_upgrade)?;
        Ok(ok(&object!({ "generation": successor.generation, "process": successor.process })))
    }

    /// Answers when it is done on every worker.
    async fn reload(&self) -> Answered {
        tracing::info!(target: TARGET, "an operator asks for a reload");
        let changes = self.operator.reload().await.map_err(no_reload)?;
        Ok(ok(&object!({
            "changed": !changes.is_empty(),
            "summary": changes.to_string(),
            "restart": changes.restart,
            "configured": changes.configured,
            "retired": changes.retired,
        })))
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let ranges: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let format = Format::accepted(Some(&ranges.join(",")));
        content(StatusCode::OK, format.content_type(), self.operator.metrics(format))
    }
}

/// What operators do, so that a filter can route it.
const TARGET: &str = "pulsegate::admin";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndOne {
    code: Option<u16>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndMany {
    #[serde(default)]
    filter: Map<String, Value>,
    #[serde(default)]
    all: bool,
    rate: Option<f64>,
    code: Option<u16>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBackend {
    upstream: Option<String>,
    backend: String,
    #[serde(default)]
    evacuate: bool,
    rate: Option<f64>,
    code: Option<u16>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBackend {
    upstream: Option<String>,
    backend: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainGateway {
    #[serde(default)]
    cause: Cause,
}

/// What an operator may drain a gateway for; [`Api::upgrade`] does it for an upgrade.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cause {
    #[default]
    Stop,
    Shed,
}

fn ok(value: &impl serde::Serialize) -> Answer {
    json(StatusCode::OK, value)
}

/// HEAD is answered as GET; hyper leaves the body out.
fn as_verb(method: &Method) -> &str {
    if *method == Method::HEAD { "GET" } else { method.as_str() }
}

fn parting(code: Option<u16>, words: Option<String>) -> Result<Parting, Problem> {
    let allowed = |code: u16| {
        CloseCode::new(code).ok_or_else(|| {
            let codes = "1000 to 1003, 1007 to 1014 and 3000 to 4999";
            Problem::Wrong(format!("code {code} may not stand in a close frame; these may: {codes}"))
        })
    };
    let code = code.map(allowed).transpose()?;
    if let Some(words) = words.as_ref().filter(|words| words.len() > MAX_REASON) {
        let length = words.len();
        return Err(Problem::Wrong(format!("the reason has {length} bytes; a close frame has room for {MAX_REASON}")));
    }
    Ok(Parting { code, words: words.map(Into::into) })
}

fn rate(rate: Option<f64>) -> Result<f64, Problem> {
    let rate = rate.unwrap_or(RATE);
    if (0.01..=1e6).contains(&rate) {
        Ok(rate)
    } else {
        Err(Problem::Wrong(format!("rate {rate}: write sessions a second, 0.01 to 1000000")))
    }
}
