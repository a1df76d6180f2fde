//! A pool at run time: opens a stream to one of its backends, failing over to the next.
use super::{
    Affinity, Backend, BackendAddress, Ends, Lease, ServerConfig, UpstreamConfig, UpstreamTlsError,
    asking::request,
    choose::{Asking, Burden, Chooser, Patience},
    connect::{DialError, Dialer, Dialled, backstop},
    dials::{Resolve, Retries},
    dns::Dns,
    handshake::{HandshakeError, Shaken, shake},
    members::Members,
    resolve::Resolver,
    seconds,
    tcp::TcpDialer,
    tls::{self, Credentials},
};
use crate::{
    metrics::{DialFailure, Meters},
    otel::Attempt,
    route::{HostHeader, RouteOptions},
    transport::Stream,
};
use http::{StatusCode, request::Parts};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// A pool of backends, shared by all workers.
pub struct Upstream {
    pub(super) config: UpstreamConfig,
    credentials: Credentials,
    pub(super) members: Members,
    pub(super) dns: Dns,
    pub(super) meters: Arc<Meters>,
    pub(super) chooser: Chooser,
    pub(super) retries: Retries,
    pub(super) dialer: Dialer,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("name", &self.config.name)
            .field("backends", &self.backends())
            .finish_non_exhaustive()
    }
}

/// What a session asks of a pool.
#[derive(Debug)]
pub struct UpstreamRequest<'a> {
    /// Method GET; the URI is path and query as the backend shall see them, without its base path; the headers are all
    /// that cross from the client or are set for it, `Host` before the others. The extensions are those of the client's request: in them
    /// stand its header names as they came, and the [`Ends`](super::Ends) of the connection, if the client has an address and the pool wants them told. The headers of the handshake itself are set here.
    pub head: Parts,
    pub options: &'a RouteOptions,
    pub host_header: HostHeader,
    /// What ties the client to one of the backends.
    pub affinity: Affinity,
}

/// What a pool answers.
#[derive(Debug)]
pub enum Answer {
    Accepted(Accepted),
    Refused(Refused),
}

/// A backend said 101, and its head keeps RFC 6455 section 4.1.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Stream,
    /// Bytes that came right behind its head.
    pub early: Vec<u8>,
    pub head: http::response::Parts,
    pub lease: Lease,
    /// Our own port on the connection, for TCP.
    pub local_port: Option<u16>,
}

/// A backend's own refusal: any status but 101 and 2xx. Its connection ends when the response is dropped.
#[derive(Debug)]
pub struct Refused {
    pub response: http::Response<hyper::body::Incoming>,
    pub backend: Arc<Backend>,
}

/// No backend gave an answer that could pass.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct OpenError {
    /// 502 (dial or bad handshake), 503 (no backend) or 504 (timeout).
    pub status: StatusCode,
    /// Which backends were tried and why each failed, for the log.
    pub cause: String,
    /// The one tried last.
    pub backend: Option<String>,
}

/// Why one backend was left for the next.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("no answer to the handshake within {}", seconds(*.0))]
    Timeout(Duration),
    #[error("it answered {0}")]
    Answered(StatusCode),
    #[error("all {most} places of max_dials were taken for {}", seconds(*within))]
    Queue { most: usize, within: Duration },
    #[error("not tried, for retry_budget is spent")]
    Spent,
}

impl Failure {
    fn is_timeout(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_timeout(),
            // What was not tried changes nothing about the others.
            Self::Timeout(_) | Self::Queue { .. } | Self::Spent => true,
            Self::Handshake(_) | Self::Answered(_) => false,
        }
    }

    /// What it is counted as.
    fn label(&self) -> DialFailure {
        if self.is_ours() {
            return DialFailure::Own;
        }
        match self {
            Self::Dial(error) => error.label(),
            Self::Handshake(_) => DialFailure::Handshake,
            Self::Timeout(_) => DialFailure::AnswerTimeout,
            Self::Answered(_) => DialFailure::Unavailable,
            Self::Queue { .. } | Self::Spent => DialFailure::Queue,
        }
    }

    fn is_ours(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_ours(),
            Self::Handshake(HandshakeError::Request { .. }) => true,
            Self::Handshake(HandshakeError::Http { .. } | HandshakeError::Io { .. } | HandshakeError::Bad { .. })
            | Self::Timeout(_)
            | Self::Answered(_)
            | Self::Queue { .. }
            | Self::Spent => false,
        }
    }

    /// Whether this machine cannot dial just this backend.
    fn has_no_way(&self) -> bool {
        match self {
            Self::Dial(error) => error.has_no_way(),
            Self::Handshake(_) | Self::Timeout(_) | Self::Answered(_) | Self::Queue { .. } | Self::Spent => false,
        }
    }

    /// Whether the backend was not even dialled, for too many others are.
    fn is_of_the_queue(&self) -> bool {
        match self {
            Self::Queue { .. } | Self::Spent => true,
            Self::Dial(_) | Self::Handshake(_) | Self::Timeout(_) | Self::Answered(_) => false,
        }
    }
}

impl Upstream {
    /// Builds a pool. Names are not resolved yet, so that a backend that is down does not hinder a start.
    ///
    /// # Errors
    /// It has `wss` backends, and the authorities to trust cannot be read.
    pub fn new(config: &UpstreamConfig) -> Result<Arc<Self>, UpstreamTlsError> {
        Self::with(config, &Meters::new(0), |_| Vec::new())
    }

    /// The same, counted among `meters`, with those backends that are `known` already: what is known of them stays.
    ///
    /// # Errors
    /// As [`Upstream::new`].
    pub fn with(
        config: &UpstreamConfig,
        meters: &Arc<Meters>,
        known: impl Fn(&BackendAddress) -> Vec<Arc<Backend>>,
    ) -> Result<Arc<Self>, UpstreamTlsError> {
        let credentials = Credentials::read(config)?;
        let fresh = |server: &ServerConfig| {
            let address = server.address.clone();
            let backend = Backend::metered(&config.name, address, |name| meters.backend(&config.name, name));
            hold(config, server, &backend);
            Arc::new(backend)
        };
        let all = config.dials.resolve == Resolve::All;
        let members = Members::new(&config.servers, all, known, fresh);
        let dns = Dns { server: config.dials.resolver };
        let dialer = Dialer {
            resolver: Resolver::new(dns.clone()),
            tcp: TcpDialer::new(&config.dials.sources),
            tls: tls::connector(config, &credentials)?,
            server_name: config.dials.server_name.clone(),
            proxy_protocol: config.dials.proxy_protocol,
        };
        Ok(Arc::new(Self {
            members,
            dns,
            meters: Arc::clone(meters),
            chooser: Chooser::new(config),
            retries: Retries::new(&config.dials),
            dialer,
            credentials,
            config: config.clone(),
        }))
    }

    /// What it was built from.
    #[must_use]
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// Whether the files of its authorities and of our certificate still say what they said.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn credentials_stand(&self) -> Result<bool, UpstreamTlsError> {
        Ok(Credentials::read(&self.config)? == self.credentials)
    }

    /// It serves from now on: backends that another pool had before are held to its terms.
    pub fn settle(&self) {
        self.members.hold(&self.config.servers, |server, backend| self.hold(server, backend));
    }

    /// Another pool serves from now on, and has its backends: its lookups change them no more.
    pub fn supersede(&self) {
        self.members.supersede();
    }

    /// Holds a backend to what is said of this server of its.
    pub(super) fn hold(&self, server: &ServerConfig, backend: &Backend) {
        hold(&self.config, server, backend);
    }

    /// Its name in `gateway.toml`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its backends at this moment, in the order of `gateway.toml`.
    #[must_use]
    pub fn backends(&self) -> Arc<[Arc<Backend>]> {
        self.members.now()
    }

    /// Opens a WebSocket to a backend; each is tried at most once. Needs a local runtime. Dropping the future drops
    /// the dial, its descriptor and its lease.
    ///
    /// # Errors
    /// No backend gave an answer: 502, 503 or 504.
    pub async fn open(&self, request: UpstreamRequest<'_>) -> Result<Answer, OpenError> {
        let UpstreamRequest { head, options, host_header, affinity } = request;
        let mut head = Some(head);
        self.look_up(options.connect).await;
        let backends = self.backends();
        let stuck = self.stuck(affinity, &backends);
        let patience = Patience { began: Instant::now(), options };
        let mut tried = vec![false; backends.len()];
        let mut failures: Vec<(&Arc<Backend>, Failure)> = Vec::new();
        let mut answered = None;
        while let Some(index) =
            self.chooser.choose(&backends, Asking { burden: Burden::Session, affinity, stuck, patience, tried: &tried })
        {
            let backend = &backends[index];
            // It may have become full since; the next choice passes over it.
            let Some(lease) = Lease::claim(backend) else { continue };
            tried[index] = true;
            if !self.retries.admit(failures.len()).await {
                failures.push((backend, Failure::Spent));
                break;
            }
            backend.meter().dialled();
            let last = tried.iter().all(|tried| *tried);
            let Some(head) = (if last { head.take() } else { head.clone() }) else { break };
            let start = Instant::now();
            let failure = match attempt(self, lease, UpstreamRequest { head, options, host_header, affinity }).await {
                Ok(Answer::Refused(refused)) if fails_over(refused.response.status()) => {
                    let status = refused.response.status();
                    answered = Some(refused);
                    Failure::Answered(status)
                }
                Ok(answer) => {
                    backend.answered(start);
                    if let Answer::Accepted(_) = answer {
                        backend.session_began();
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.failed(backend, start, &failure);
            failures.push((backend, failure));
        }
        // A backend's own words say more than ours.
        match answered {
            Some(refused) => Ok(Answer::Refused(refused)),
            None => Err(self.error(&backends, &failures, &tried)),
        }
    }

    pub(super) fn failed(&self, backend: &Backend, start: Instant, failure: &Failure) {
        backend.meter().failed(failure.label());
        if failure.is_of_the_queue() {
            return;
        }
        if !failure.is_ours() || failure.has_no_way() {
            backend.dial_failed(start, failure.to_string());
        } else if self.dialer.tcp.complains() {
            let (upstream, backend) = (&self.config.name, &backend.name);
            tracing::error!(upstream, backend, cause = %failure, "this machine cannot dial");
        }
    }

    pub(super) fn error(
        &self,
        backends: &[Arc<Backend>],
        failures: &[(&Arc<Backend>, Failure)],
        tried: &[bool],
    ) -> OpenError {
        let untried = backends.iter().zip(tried).filter(|(_, tried)| !**tried).map(|(backend, _)| backend);
        let full: Vec<&str> = untried
            .filter(|backend| !backend.drained() && backend.full())
            .map(|backend| backend.name.as_str())
            .collect();
        let causes = failures.iter().map(|(backend, failure)| format!("{}: {failure}", backend.name));
        if !full.is_empty() {
            let full = full.iter().map(|name| format!("{name}: it has max_sessions sessions"));
            let cause = causes.chain(full).collect::<Vec<_>>().join("; ");
            let backend = failures.last().map(|(backend, _)| backend.name.clone());
            return OpenError { status: StatusCode::SERVICE_UNAVAILABLE, cause, backend };
        }
        let Some((last, _)) = failures.last() else {
            let drained = if backends.is_empty() { "" } else { " that is not drained" };
            let cause = format!("upstream {} has no backend{drained}", self.config.name);
            return OpenError { status: StatusCode::SERVICE_UNAVAILABLE, cause, backend: None };
        };
        let queued = failures.iter().all(|(_, failure)| failure.is_of_the_queue());
        let all_timeouts = failures.iter().all(|(_, failure)| failure.is_timeout());
        OpenError {
            status: match (queued, all_timeouts) {
                (true, _) => StatusCode::SERVICE_UNAVAILABLE,
                (false, true) => StatusCode::GATEWAY_TIMEOUT,
                (false, false) => StatusCode::BAD_GATEWAY,
            },
            cause: causes.collect::<Vec<_>>().join("; "),
            backend: Some(last.name.clone()),
        }
    }
}

fn hold(config: &UpstreamConfig, server: &ServerConfig, backend: &Backend) {
    backend.set_terms(config.terms(server));
    backend.places.limit(config.dials.max_dials);
}

/// Whether a backend's answer sends the session to the next one.
fn fails_over(status: StatusCode) -> bool {
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&status)
}

/// Dials one backend and shakes hands with it.
async fn attempt(upstream: &Upstream, lease: Lease, asked: UpstreamRequest<'_>) -> Result<Answer, Failure> {
    let UpstreamRequest { mut head, options, host_header, affinity: _ } = asked;
    let backend = Arc::clone(lease.backend());
    let mut trace = Attempt::begin(&mut head, &backend.name);
    let ends = head.extensions.get::<Ends>().copied();
    let asking = request(&backend, head, host_header)?.spelled(&options.headers.request.spellings);
    let backstop = backstop(&options.relay.heartbeat.upstream);
    let within = options.connect;
    let _place = backend.places.enter(within).await.map_err(|most| Failure::Queue { most, within })?;
    let Dialled { stream, local_port } = upstream.dialer.dial(&backend, within, backstop, ends.as_ref()).await?;
    trace.dialled();
    let shaking = pin!(shake(stream, asking, options.header));
    let shaken = timeout(options.handshake, shaking).await.map_err(|_| Failure::Timeout(options.handshake))??;
    Ok(match shaken {
        Shaken::Accepted { stream, early, head } => {
            trace.answered(head.status);
            Answer::Accepted(Accepted { stream, early, head, lease, local_port })
        }
        Shaken::Refused(response) => {
            trace.answered(response.status());
            Answer::Refused(Refused { response, backend })
        }
    })
}
