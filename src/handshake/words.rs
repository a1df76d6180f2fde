//! Parts of a request as the log has them, and the time as an answer has it.
use http::HeaderValue;
use std::time::SystemTime;

/// The longest `User-Agent` and `Origin` kept for the verdict, in bytes.
const LONGEST_TEXT: usize = 256;

/// A header as text for the log.
pub(super) fn text(value: &HeaderValue) -> Box<str> {
    bounded(&String::from_utf8_lossy(value.as_bytes())).into()
}

/// A host as the log has it. A user name and its password have no place in a `Host`, and none in a log.
pub(super) fn without_user(host: &str) -> String {
    host.rsplit_once('@').map_or(host, |(_, host)| host).to_owned()
}

/// The time now; an origin server has to tell it (RFC 9110 section 6.6.1).
pub(super) fn date() -> HeaderValue {
    let now = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::from_str(&now).expect("a date is a header value")
}

pub(super) fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_in_a_host_is_not_logged() {
        assert_eq!(without_user("eve:secret@gate.test:80"), "gate.test:80");
        assert_eq!(without_user("gate.test"), "gate.test");
    }
}
