//! What of a backend's answer crosses to the client.
use crate::handshake::headers::{members, remove_hop_by_hop};
use http::{
    HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use std::time::Duration;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Why an answer cannot pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it answered 101 to a request that asked for no upgrade")]
    Switching,
    #[error("its answer has both a Content-Length and a Transfer-Encoding")]
    TwoLengths,
}

/// The answer for the client's hop. `trailers`: the client takes them.
///
/// # Errors
/// The answer is no answer to a plain request, or where it ends is not clear.
pub(super) fn passed<B>(mut response: Response<B>, trailers: bool) -> Result<Response<B>, Unfit> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Unfit::Switching);
    }
    let headers = response.headers_mut();
    let encoded = headers.contains_key(TRANSFER_ENCODING);
    if encoded && headers.contains_key(CONTENT_LENGTH) {
        return Err(Unfit::TwoLengths);
    }
    let announced: Vec<HeaderValue> = match (encoded, trailers) {
        (true, true) => headers.get_all(TRAILER).iter().cloned().collect(),
        (true | false, _) => Vec::new(),
    };
    // Where an answer ends is for every hop, whatever `Connection` says.
    let lengths: Vec<HeaderValue> = headers.get_all(CONTENT_LENGTH).iter().cloned().collect();
    remove_hop_by_hop(headers);
    if let ([length, ..], false) = (lengths.as_slice(), headers.contains_key(CONTENT_LENGTH)) {
        headers.insert(CONTENT_LENGTH, length.clone());
    }
    for names in announced {
        headers.append(TRAILER, names);
    }
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        // Each hop says it for itself (RFC 9110 section 15.5.22).
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// How long a backend says that it keeps an idle connection: `Keep-Alive: timeout=5`.
pub(super) fn kept_for<B>(response: &Response<B>) -> Option<Duration> {
    let mut told = members(response.headers(), &KEEP_ALIVE).filter_map(|member| member.split_once('='));
    let (_, seconds) = told.find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn response(status: u16, lines: &[(&str, &str)]) -> Response<()> {
        let builder = Response::builder().status(status);
        lines.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn an_answer_whose_end_is_not_clear_does_not_pass() {
        let two = response(200, &[("Content-Length", "3"), ("Transfer-Encoding", "chunked")]);
        assert_eq!(passed(two, false).unwrap_err(), Unfit::TwoLengths);
        assert_eq!(passed(response(101, &[]), false).unwrap_err(), Unfit::Switching);
    }

    #[test]
    fn headers_of_one_hop_stay() {
        let lines = [
            ("Connection", "close, X-Hop, Content-Length"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2c"),
            ("Content-Length", "3"),
            ("Set-Cookie", "a=b"),
        ];
        let passed = passed(response(200, &lines), true).unwrap();
        let mut names: Vec<_> = passed.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "set-cookie"]);
    }

    #[test]
    fn trailers_are_announced_to_those_who_take_them() {
        let lines = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")];
        for takes in [true, false] {
            let passed = passed(response(200, &lines), takes).unwrap();
            assert_eq!(passed.headers().contains_key(TRAILER), takes);
            assert!(!passed.headers().contains_key(TRANSFER_ENCODING));
        }
    }

    #[test]
    fn a_backend_says_how_long_it_keeps_a_connection() {
        for (value, kept) in [("timeout=5, max=100", Some(5)), ("max=3, Timeout = 20", Some(20)), ("timeout", None)] {
            let response = response(200, &[("Keep-Alive", value)]);
            assert_eq!(kept_for(&response), kept.map(Duration::from_secs), "{value}");
        }
    }
}
