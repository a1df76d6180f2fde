//! Answers: JSON, text, and why there is none; and the JSON of requests.
use super::guard::Refused;
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::time::timeout;

pub(super) type Answer = Response<Full<Bytes>>;

/// Bytes of a request's body.
const LONGEST: usize = 16 * 1024;
/// For a request's body.
const BODY: Duration = Duration::from_secs(10);

/// Why a request is not answered as asked.
#[derive(Debug)]
pub(super) enum Problem {
    Refused(Refused),
    /// What is wrong with the request.
    Wrong(String),
    NotFound(String),
    Method(&'static str),
    /// It does not go with what is there: several sessions where one is meant, a second upgrade.
    Conflict(String),
    /// The gateway could not do it.
    Failed(String),
    /// The gateway did not answer.
    Late,
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Refused(refused) => refused.status(),
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Late => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn answer(self) -> Answer {
        let status = self.status();
        let (mut allow, mut bearer) = (None, false);
        let error = match self {
            Self::Refused(refused) => {
                bearer = status == StatusCode::UNAUTHORIZED;
                refused.explain().to_owned()
            }
            Self::Wrong(text) | Self::NotFound(text) | Self::Conflict(text) | Self::Failed(text) => text,
            Self::Method(methods) => {
                allow = Some(methods);
                format!("this is asked with {methods}")
            }
            Self::Late => "the gateway gave no answer in time".into(),
        };
        let mut answer = json(status, &serde_json::json!({ "error": error }));
        if let Some(methods) = allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        if bearer {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pulsegate\""));
        }
        answer
    }
}

/// What is not to be kept by anyone, as it changes all the time.
pub(super) fn content(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => content(status, "application/json", text),
        Err(error) => content(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", format!("{error}\n")),
    }
}

/// The JSON of a request; an empty body is an empty object.
pub(super) async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Problem> {
    let collecting = timeout(BODY, Limited::new(body, LONGEST).collect()).await;
    let collected = collecting.map_err(|_| Problem::Wrong("the body did not come in time".into()))?;
    let bytes = collected.map_err(|error| Problem::Wrong(format!("the body: {error}")))?.to_bytes();
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| Problem::Wrong(format!("the body is not as documented: {error}")))
}
