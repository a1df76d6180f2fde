//! One request to a backend, and the head of its answer.
use super::{
    body::{BodyError, RequestBody, ResponseBody, Step, Upload, Waits},
    ledger::{Due, Ledger},
    pool::{Connection, Connections, Keeping},
    response::{Unfit, binds, is_bound, kept_for, passed},
};
use crate::{
    handshake::headers::has_token,
    metrics::RequestResult,
    route::{Route, RouteOptions},
    transport::Stream,
    upstream::{Affinity, Backend, Ends, OpenError, Reached, Way, told},
};
use http::{
    Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, TE, TRANSFER_ENCODING},
    request::Parts,
};
use hyper::body::{Body, Incoming};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How long a connection may have been idle that is given a request which its client may not simply ask again.
const FRESH: Duration = Duration::from_secs(1);

/// A request for the backends of a route.
pub(crate) struct Asked<'a> {
    pub(crate) route: &'a Route,
    /// All that crosses from the client or is set for the backend.
    pub(crate) head: Parts,
    /// What ties the client to one of the backends.
    pub(crate) affinity: Affinity,
    /// Whether the client came by TLS.
    pub(crate) secure: bool,
    pub(crate) body: RequestBody,
    pub(crate) connections: &'a Rc<Connections>,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) due: Rc<Due>,
}

/// Why no backend's answer can pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Open(OpenError),
    /// The connection broke before the answer's head was complete, or what came was no HTTP.
    #[error("{backend}: {}", told(.error))]
    Broke { backend: String, error: hyper::Error },
    #[error("{backend}: {unfit}")]
    Unfit { backend: String, unfit: Unfit },
    #[error("{backend}: no answer within {}s", within.as_secs_f64())]
    Silent { backend: String, within: Duration },
    /// The request's body did not come to its end.
    #[error("{0}")]
    Body(BodyError),
    #[error("{backend}: it closed the connection before the request was sent")]
    Closed { backend: String },
    #[error("{backend}: the path cannot be asked for")]
    Path { backend: String },
}

impl Failure {
    /// What it is counted as.
    pub(crate) fn result(&self) -> RequestResult {
        match self {
            Self::Open(error) if error.status == StatusCode::SERVICE_UNAVAILABLE => RequestResult::NoBackend,
            Self::Open(error) if error.status == StatusCode::GATEWAY_TIMEOUT => RequestResult::BackendTimeout,
            Self::Open(_) | Self::Broke { .. } | Self::Unfit { .. } | Self::Closed { .. } | Self::Path { .. } => {
                RequestResult::BackendFailed
            }
            Self::Silent { .. } | Self::Body(BodyError::BackendSilent) => RequestResult::BackendTimeout,
            Self::Body(BodyError::ClientStalled) => RequestResult::ClientStalled,
            Self::Body(BodyError::ClientLeft) => RequestResult::ClientLeft,
            Self::Body(BodyError::BackendBroke) => RequestResult::BackendBroke,
        }
    }

    /// What the client is told.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Open(error) => error.status,
            Self::Broke { .. } | Self::Unfit { .. } | Self::Closed { .. } | Self::Path { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::Silent { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Body(BodyError::ClientStalled) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::ClientLeft | BodyError::BackendBroke | BodyError::BackendSilent) => {
                StatusCode::BAD_REQUEST
            }
        }
    }
}

/// How asking on one connection went wrong.
enum Broken {
    /// Nothing of the request has left; its body is as it was.
    Unsent(RequestBody),
    Error(hyper::Error),
    Silent(Duration),
}

/// Asks a backend. A kept connection that turns out to be closed before anything was sent on it is replaced by another. What was
/// sent is never repeated: RFC 9110 section 9.2.2 would let a GET be, but old services do things on a GET, too.
/// Dropping the future ends the connection.
///
/// # Errors
/// No answer came that could pass.
pub(crate) async fn exchange(asked: Asked<'_>) -> Result<Response<ResponseBody>, Failure> {
    let Asked { route, head, affinity, secure, body, connections, ledger, due } = asked;
    let (config, upload) = (&route.config, body.upload());
    let options = &config.options;
    let mut bound = head.headers.get_all(AUTHORIZATION).iter().any(|credentials| is_bound(credentials.as_bytes()));
    let trailers = has_token(&head.headers, &TE, "trailers") && head.method != Method::HEAD;
    let mut fresh = if repeatable(&head, &body) { Duration::MAX } else { FRESH };
    let ends = head.extensions.get::<Ends>().copied();
    let (mut head, mut body) = (Some(head), Some(body));
    loop {
        let kept = |backend: &Arc<Backend>| connections.take(backend, fresh);
        let reached = Box::pin(route.upstream.reach(options, affinity, ends.as_ref(), kept)).await;
        let Reached { way, lease } = reached.map_err(Failure::Open)?;
        let backend = lease.backend();
        ledger.asks(&backend.name);
        let (mut connection, dialled) = match way {
            Way::Kept(connection) => (connection, None),
            Way::Fresh { stream, began } => (opened(*stream, options.header, backend).await?, Some(began)),
        };
        let old = dialled.is_none();
        let asking = if old { head.clone() } else { head.take() };
        let (Some(asking), Some(asked_body)) = (asking, body.take()) else {
            return Err(Failure::Body(BodyError::ClientLeft));
        };
        let whole =
            backend.plain_head(asking, config.host_header).map_err(|_| Failure::Path { backend: name(backend) })?;
        connection.speller.arm_with(Arc::clone(&options.headers.request.spellings));
        let broken = match ask(&mut connection, Request::from_parts(whole, asked_body), &upload, options.response).await
        {
            Ok(response) => {
                // What a kept connection carries tells nothing of new ones.
                if let Some(began) = dialled.filter(|_| !response.status().is_server_error()) {
                    route.upstream.answered(backend, began);
                }
                let told = kept_for(&response);
                bound |= binds(&response);
                let mut response =
                    passed(response, trailers).map_err(|unfit| Failure::Unfit { backend: name(backend), unfit })?;
                route.upstream.stick(affinity, backend, secure, response.headers_mut());
                let keeping = if route.upstream.may_keep() && !bound { Keeping::Others } else { Keeping::Nobody };
                ledger.answers(response.status());
                let giving = connections.settle(Arc::clone(backend), connection, keeping, told);
                let waits = waits(options);
                return Ok(response.map(|body| ResponseBody::new(body, waits, due, ledger, lease, giving)));
            }
            Err(broken) => broken,
        };
        // Another connection may do better than one that was old.
        fresh = Duration::ZERO;
        match broken {
            Broken::Unsent(unsent) if old => body = Some(unsent),
            Broken::Unsent(_) => return Err(Failure::Closed { backend: name(backend) }),
            Broken::Error(error) => {
                if let Some(error) = upload.failed() {
                    return Err(Failure::Body(error));
                }
                backend.broke();
                return Err(Failure::Broke { backend: name(backend), error });
            }
            Broken::Silent(within) => return Err(Failure::Silent { backend: name(backend), within }),
        }
    }
}

fn name(backend: &Backend) -> String {
    backend.name.clone()
}

async fn opened(stream: Stream, header: usize, backend: &Backend) -> Result<Connection, Failure> {
    Box::pin(Connection::open(stream, header)).await.map_err(|error| Failure::Broke { backend: name(backend), error })
}

/// Whether its client may ask again (RFC 9110 section 9.2.2).
fn repeatable(head: &Parts, body: &RequestBody) -> bool {
    head.method.is_idempotent() && body.is_end_stream() && !head.headers.contains_key(TRANSFER_ENCODING)
}

/// Sends a request and waits for the head of its answer. The backend may be silent for `limit`, but for as long as the client
/// is waited for.
async fn ask(
    connection: &mut Connection,
    request: Request<RequestBody>,
    upload: &Upload,
    limit: Option<Duration>,
) -> Result<Response<Incoming>, Broken> {
    let mut sending = pin!(connection.sender.try_send_request(request));
    let far = Duration::from_secs(86_400);
    let mut alarm = pin!(sleep_until(Instant::now() + limit.unwrap_or(far)));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = sending.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                Some(request) => Broken::Unsent(request.into_body()),
                None => Broken::Error(error.into_error()),
            }));
        }
        let Some(limit) = limit else { return Poll::Pending };
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let since = match upload.step() {
                Step::Waits => now,
                Step::Passed(at) => at,
            };
            let due = since + limit;
            if due <= now {
                return Poll::Ready(Err(Broken::Silent(limit)));
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await
}

fn waits(options: &RouteOptions) -> Waits {
    Waits { response: options.response, stall: options.relay.timeouts.stall, keep_alive: options.keep_alive }
}
