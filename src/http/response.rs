//! What of a backend's answer crosses to the client.
use crate::handshake::headers::{members, remove_hop_by_hop};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE},
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
    #[error("its answer has a Transfer-Encoding other than chunked")]
    Encoded,
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
    if encoded && !(plainly(headers, b"chunked") || plainly(headers, b"identity")) {
        return Err(Unfit::Encoded);
    }
    let announced: Vec<HeaderValue> = match (encoded, trailers) {
        (true, true) => headers.get_all(TRAILER).iter().cloned().collect(),
        (true | false, _) => Vec::new(),
    };
    // Where an answer ends is for every hop, whatever `Connection` says. hyper has seen that all lengths are one.
    let length = headers.get(CONTENT_LENGTH).cloned();
    remove_hop_by_hop(headers);
    if let Some(length) = length.and_then(|lengths| one(&lengths)) {
        headers.insert(CONTENT_LENGTH, length);
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

/// Whether this is its only encoding. hyper undoes `chunked` alone.
fn plainly(headers: &HeaderMap, encoding: &[u8]) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let first = lines.next().is_some_and(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(encoding));
    first && lines.next().is_none()
}

/// The first of several lengths: `5, 5` is 5 (RFC 9110 section 8.6).
fn one(lengths: &HeaderValue) -> Option<HeaderValue> {
    let length = lengths.as_bytes().split(|byte| *byte == b',').next()?;
    HeaderValue::from_bytes(length.trim_ascii()).ok()
}

/// Whether an answer asks for a login that is tied to its connection, or goes on with such a one.
pub(super) fn binds<B>(response: &Response<B>) -> bool {
    let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
    challenges.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(is_bound)
}

/// Whether a challenge or credentials begin with a scheme that authenticates the connection, and with it whoever asks on it next:
/// NTLM, and Negotiate (RFC 4559 section 6).
pub(super) fn is_bound(credentials: &[u8]) -> bool {
    let credentials = credentials.trim_ascii();
    let scheme = credentials.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    [&b"NTLM"[..], b"Negotiate"].iter().any(|bound| scheme.eq_ignore_ascii_case(bound))
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
    fn no_other_encoding_than_chunked_passes() {
        let encoded = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("Transfer-Encoding", *line)).collect();
            passed(response(200, &lines), false).err()
        };
        for lines in [&["gzip, chunked"][..], &["gzip"], &["gzip", "chunked"], &["chunked, chunked"], &[""]] {
            assert_eq!(encoded(lines), Some(Unfit::Encoded), "{lines:?}");
        }
        for line in ["chunked", "Chunked", "identity"] {
            assert_eq!(encoded(&[line]), None, "{line}");
        }
    }

    #[test]
    fn lengths_that_agree_cross_as_one() {
        for lines in [&["3", "3"][..], &["3, 3"], &["3"]] {
            let lines: Vec<_> = lines.iter().map(|line| ("Content-Length", *line)).collect();
            let passed = passed(response(200, &lines), false).unwrap();
            let lengths: Vec<_> = passed.headers().get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(lengths, ["3"]);
        }
    }

    #[test]
    fn logins_of_a_connection_are_known_by_their_scheme() {
        for value in ["NTLM", "ntlm TlRMTVNTUAAC", "Negotiate", "Basic realm=\"a, b\", Negotiate"] {
            assert!(binds(&response(401, &[("WWW-Authenticate", value)])), "{value}");
        }
        for value in ["Basic realm=\"NTLM\"", "Bearer", "NTLMv3", ""] {
            assert!(!binds(&response(401, &[("WWW-Authenticate", value)])), "{value}");
        }
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
