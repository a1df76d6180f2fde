//! The hops that headers name: `X-Forwarded-For` and its like, and `Forwarded` (RFC 7239).
use super::headers::{is_token, split};
use http::{HeaderMap, HeaderName, header::FORWARDED};
use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The hops that the headers of a trusted peer name, the client first.
pub(super) fn named_hops(headers: &HeaderMap) -> Vec<String> {
    let header = if headers.contains_key(X_FORWARDED_FOR) { X_FORWARDED_FOR } else { FORWARDED };
    hops_of(headers, &header)
}

/// The hops that one header names.
pub(super) fn hops_of(headers: &HeaderMap, header: &HeaderName) -> Vec<String> {
    if *header != FORWARDED {
        // Not by `members`: these headers know no quotes, and a client's lone one must not hide the hops behind it.
        let lines = headers.get_all(header).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
        let hops: Vec<String> =
            lines.flat_map(|line| line.split(',').map(|hop| hop.trim().to_owned()).collect::<Vec<_>>()).collect();
        return hops.into_iter().filter(|hop| !hop.is_empty()).collect();
    }
    let lines = headers.get_all(FORWARDED).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let hop = |element: &str| named_by(element).unwrap_or("unknown").to_owned();
    lines.flat_map(|line| split(&line, ',').map(hop).collect::<Vec<_>>()).collect()
}

/// The node that an element of `Forwarded` names. One with a quote out of place names none: a client that leaves one open would
/// hide in it what a proxy appends.
fn named_by(element: &str) -> Option<&str> {
    let pairs = split(element, ';').map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim(), unquoted(value.trim())?))
    });
    let pairs: Vec<(&str, &str)> = pairs.collect::<Option<_>>()?;
    pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, value)| value)
}

/// What stands in a whole quoted string, its escapes as they are, or in a value without quotes.
fn unquoted(value: &str) -> Option<&str> {
    let Some(open) = value.strip_prefix('"') else { return (!value.contains('"')).then_some(value) };
    let mut escaped = false;
    let end = open.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    (end + 1 == open.len()).then(|| &open[..end])
}

/// The address of a hop, however written: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
pub(super) fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// A hop as a node of RFC 7239 section 6: IPv6 in brackets and quotes.
pub(super) fn node(hop: &str) -> Cow<'_, str> {
    match hop_address(hop) {
        Some(IpAddr::V6(address)) => format!("\"[{address}]\"").into(),
        // An address without a port is written in one way only.
        Some(IpAddr::V4(_)) if hop.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => hop.into(),
        Some(IpAddr::V4(address)) => address.to_string().into(),
        None => quoted(hop),
    }
}

pub(super) fn quoted(text: &str) -> Cow<'_, str> {
    if is_token(text) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for part in text.split_inclusive(['"', '\\']) {
        match part.strip_suffix(['"', '\\']) {
            Some(plain) => quoted.extend([plain, "\\", &part[plain.len()..]]),
            None => quoted.push_str(part),
        }
    }
    quoted.push('"');
    Cow::Owned(quoted)
}
