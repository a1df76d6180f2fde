//! Active checks: whether a backend that nobody may have asked for long would answer.
use super::{
    Backend, Upstream,
    connect::Dialled,
    probe::{Outcome, answers},
    seconds,
};
use http::{
    HeaderValue, Request,
    header::{CONNECTION, HOST, USER_AGENT},
};
use http_body_util::Empty;
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How backends are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    pub kind: CheckKind,
    /// From one to the next.
    pub interval: Duration,
    /// For a whole one.
    pub timeout: Duration,
    /// What is asked for, behind the backend's base path. TCP asks for nothing.
    pub path: String,
    /// The `Host` it is asked by. `None`: the backend's own.
    pub host: Option<HeaderValue>,
    /// So many in a row bring it back.
    pub rise: u32,
    /// So many in a row put it out.
    pub fall: u32,
}

/// What a check asks of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// To take a connection, and to shake hands by TLS if it is a `wss` one.
    Tcp,
    /// To answer a GET with 2xx or 3xx.
    Http,
    /// To open a WebSocket and to answer a ping.
    WebSocket,
}

impl CheckConfig {
    /// A check as it is if nothing but its kind is given.
    #[must_use]
    pub fn new(kind: CheckKind) -> Self {
        let time = Duration::from_secs(5);
        Self { kind, interval: time, timeout: time, path: "/".into(), host: None, rise: 2, fall: 3 }
    }
}

/// Makes the checks that are due, until the workers end. `spawn` runs one.
pub fn due(upstream: &Arc<Upstream>, spawn: impl Fn(Pin<Box<dyn Future<Output = ()>>>)) {
    let now = Instant::now();
    for backend in upstream.backends().iter() {
        if backend.takes_check(upstream.config().check.as_ref(), now) {
            let guard = Guard(Arc::clone(backend));
            let upstream = Arc::clone(upstream);
            spawn(Box::pin(async move {
                let check = upstream.config().check.as_ref();
                match run(&upstream, &guard.0).await {
                    Some(found) => guard.0.checked(found, check),
                    None => guard.0.runs_again(),
                }
            }));
        }
    }
}

/// The next check waits for this one, however it ends.
struct Guard(Arc<Backend>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.check_over();
    }
}

/// One check of a backend, as its pool wants it: what is wrong, for the log. A frozen one is asked for a pong, as its kernel takes
/// connections. `None`: it runs, but has no WebSocket for us to ping.
async fn run(upstream: &Upstream, backend: &Backend) -> Option<Result<(), String>> {
    let check = upstream.config().check.as_ref();
    if let Some(check) = check.filter(|_| !backend.health.frozen()) {
        return Some(once(upstream, backend, check).await);
    }
    let check = check.cloned().unwrap_or_else(|| CheckConfig::new(CheckKind::WebSocket));
    match Box::pin(answers(upstream, backend, &check)).await {
        Outcome::Answers { .. } => Some(Ok(())),
        Outcome::Refuses { unwell: false, .. } => None,
        Outcome::Refuses { step, cause, unwell: true } | Outcome::Failed { step, cause } => {
            Some(Err(format!("{step}: {cause}")))
        }
    }
}

/// One check.
///
/// # Errors
/// What is wrong, for the log.
pub async fn once(upstream: &Upstream, backend: &Backend, check: &CheckConfig) -> Result<(), String> {
    let asked = async {
        match check.kind {
            CheckKind::Tcp => connected(upstream, backend, check).await.map(drop),
            CheckKind::Http => get(upstream, backend, check).await,
            CheckKind::WebSocket => match Box::pin(answers(upstream, backend, check)).await {
                Outcome::Answers { .. } => Ok(()),
                Outcome::Refuses { step, cause, .. } | Outcome::Failed { step, cause } => {
                    Err(format!("{step}: {cause}"))
                }
            },
        }
    };
    let late = |_| format!("no answer to the check within {}", seconds(check.timeout));
    timeout(check.timeout, asked).await.map_err(late)?.map_err(|cause| format!("its check failed: {cause}"))
}

async fn connected(upstream: &Upstream, backend: &Backend, check: &CheckConfig) -> Result<Dialled, String> {
    upstream.dialer.dial(backend, check.timeout, None, None).await.map_err(|error| error.to_string())
}

async fn get(upstream: &Upstream, backend: &Backend, check: &CheckConfig) -> Result<(), String> {
    let Dialled { stream, .. } = connected(upstream, backend, check).await?;
    let base = backend.base_path().trim_end_matches('/');
    let request = Request::get(format!("{base}{}", check.path))
        .header(HOST, check.host.clone().unwrap_or_else(|| backend.host()))
        .header(USER_AGENT, "pulsegate-check")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // Old servers compare bytes.
    let (mut sender, connection) = http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut answered = pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answered => response,
        // It is done only after it has handed over a response or an error.
        _ = connection => answered.await,
    };
    let status = response.map_err(|error| error.to_string())?.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("it answered {status} to GET {}", check.path))
}
