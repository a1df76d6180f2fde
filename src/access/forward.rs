//! Forward-auth: an HTTP service decides on each handshake.
use super::{Granted, client::Client};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONTENT_LENGTH, EXPECT, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION},
    uri::{Authority, PathAndQuery},
};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use std::{path::PathBuf, time::Duration};
use tokio::time::timeout;

/// `access.forward`.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardConfig {
    pub service: Service,
    /// For the whole of the question.
    pub timeout: Duration,
    /// Headers of its answer that go on to the backend, in the place of the client's.
    pub copy_headers: Vec<HeaderName>,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub tls: bool,
    /// With the port, if one is named; as `Host` says it.
    pub authority: Authority,
    pub target: PathAndQuery,
    /// The file and its authorities, for TLS. `None`: the platform's.
    pub ca: Option<(PathBuf, Vec<CertificateDer<'static>>)>,
}

/// What it said.
pub(super) enum Said {
    Yes(Granted),
    /// To be passed to the client.
    No(Response<Incoming>),
}

/// It gave no answer to go by.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// 503 if it could not be asked, 502 if what it said makes no sense.
    pub(super) status: StatusCode,
    pub(super) cause: String,
}

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// They concern the handshake, or this hop.
static NOT_ASKED: [HeaderName; 6] =
    [HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_EXTENSIONS, CONTENT_LENGTH, EXPECT];

impl Service {
    /// Where it is, for people: without the query, which may hold a secret.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.target.path())
    }
}

/// Asks one service.
#[derive(Debug)]
pub(super) struct Forward {
    config: ForwardConfig,
    client: Client,
}

impl Forward {
    pub(super) fn new(config: ForwardConfig, client: Client) -> Self {
        Self { config, client }
    }

    /// `headers` are the client's, without those of its hop, and with what the gateway tells of it.
    pub(super) async fn ask(
        &self,
        method: &Method,
        target: &PathAndQuery,
        mut headers: HeaderMap,
    ) -> Result<Said, NoAnswer> {
        for name in &NOT_ASKED {
            headers.remove(name);
        }
        headers.insert(HOST, self.host());
        set(&mut headers, X_FORWARDED_METHOD, method.as_str());
        set(&mut headers, X_FORWARDED_URI, target.as_str());
        let within = self.config.timeout;
        let unavailable = |cause| NoAnswer { status: StatusCode::SERVICE_UNAVAILABLE, cause: self.told(cause) };
        let answer = timeout(within, self.client.get(&self.config.service, headers)).await;
        let answer = answer.map_err(|_| unavailable(format!("no answer within {}s", within.as_secs_f64())))?;
        match answer {
            Ok(answer) => self.read(answer),
            Err(error) if error.is_nonsense() => Err(self.nonsense(error.to_string())),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    fn read(&self, answer: Response<Incoming>) -> Result<Said, NoAnswer> {
        let status = answer.status();
        if status.is_success() {
            return Ok(Said::Yes(self.granted(answer.headers())));
        }
        if status.is_redirection() || status.is_client_error() {
            return Ok(Said::No(answer));
        }
        Err(self.nonsense(format!("it answered {}", status.as_u16())))
    }

    fn nonsense(&self, cause: String) -> NoAnswer {
        NoAnswer { status: StatusCode::BAD_GATEWAY, cause: self.told(cause) }
    }

    /// A header that it did not set is removed all the same: what the client wrote there is not its word.
    fn granted(&self, answer: &HeaderMap) -> Granted {
        let mut granted = Granted::default();
        for name in &self.config.copy_headers {
            granted.set(name.clone(), None);
            for value in answer.get_all(name) {
                granted.set(name.clone(), Some(value.clone()));
            }
        }
        granted
    }

    fn host(&self) -> HeaderValue {
        HeaderValue::from_str(self.config.service.authority.as_str()).unwrap_or(HeaderValue::from_static("localhost"))
    }

    /// For the log: which service, and what.
    fn told(&self, cause: String) -> String {
        format!("nobody is let in while access.forward fails: {}: {cause}", self.config.service.url())
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
