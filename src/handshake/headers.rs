//! Header lists, and the headers that end at each hop (RFC 9110 sections 5.6.1 and 7.6.1).
use http::{
    HeaderMap, HeaderName,
    header::{
        CONNECTION, HOST, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};

/// Whether two names, in lower case, are one for CGI-like backends, which make underscores of dashes.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}

/// Whether a list is one token and nothing else, as most are.
fn is_only(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next().is_some_and(|line| line.as_bytes().eq_ignore_ascii_case(token.as_bytes()));
    first && lines.next().is_none()
}

/// Headers that concern one connection only, besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The members of a comma-separated list, from all lines of that name, without empty ones.
pub(crate) fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| split(line, ','))
}

/// Splits at a separator outside quoted strings; trims spaces and tabs, drops empty parts.
pub(crate) fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let at_separator = move |c: char| {
        let separates = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        separates
    };
    text.split(at_separator).map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty())
}

/// Whether a list holds a token, whatever its case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    is_only(headers, name, token) || members(headers, name).any(|member| member.eq_ignore_ascii_case(token))
}

/// What must not pass a proxy: the headers of one hop, for one head.
pub(crate) struct HopByHop {
    /// Those that `Connection` names besides the well-known ones.
    named: Vec<HeaderName>,
}

impl HopByHop {
    /// A `Connection` that names what a handshake cannot do without is not obeyed in that.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if is_only(headers, &CONNECTION, "upgrade") {
            return Self { named: Vec::new() };
        }
        let named = members(headers, &CONNECTION)
            .filter_map(|name| name.parse::<HeaderName>().ok())
            .filter(|name| *name != HOST && *name != ORIGIN && !name.as_str().starts_with("sec-websocket-"))
            .filter(|name| !HOP_BY_HOP.contains(name))
            .collect();
        Self { named }
    }

    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        HOP_BY_HOP.contains(name) || self.named.contains(name)
    }
}

/// Removes what must not pass a proxy.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let hop_by_hop = HopByHop::of(headers);
    retain(headers, |name| !hop_by_hop.has(name));
}

/// Moves the headers that `passes` lets through to the end of others.
pub(crate) fn pass(headers: HeaderMap, to: &mut HeaderMap, passes: impl Fn(&HeaderName) -> bool) {
    let mut passing = None;
    for (name, value) in headers {
        // Further lines of a header come without its name.
        if let Some(name) = name {
            passing = passes(&name).then_some(name);
        }
        if let Some(name) = &passing {
            to.append(name, value);
        }
    }
}

/// Removes headers and leaves the others in their order, which `HeaderMap::remove` does not.
pub(crate) fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    if headers.keys().all(&keep) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| keep(name)) {
        kept.append(name, value.clone());
    }
    *headers = kept;
}

/// Whether text is a token (RFC 9110 section 5.6.2).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
}

fn is_mark(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}

/// Whether a header offers or grants permessage-deflate (RFC 7692).
pub(crate) fn is_deflate(extension: &str) -> bool {
    split(extension, ';').next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(in crate::handshake) fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let parsed = lines.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in parsed {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn lists_as_found_in_the_wild() {
        for lines in [
            &[("connection", "Upgrade")][..],
            &[("connection", "keep-alive, Upgrade")],
            &[("connection", "keep-alive,\tupgrade")],
            &[("connection", "keep-alive"), ("connection", ",, UPGRADE ,")],
        ] {
            assert!(has_token(&headers(lines), &CONNECTION, "upgrade"), "{lines:?}");
        }
        for line in ["", "keep-alive", "upgrades", "\"upgrade\"", "close upgrade"] {
            assert!(!has_token(&headers(&[("connection", line)]), &CONNECTION, "upgrade"), "{line}");
        }
    }

    #[test]
    fn names_are_alike_whichever_way_they_are_spelled() {
        for (one, other) in [("x-user", "x_user"), ("x_user", "x-user"), ("x_a-b", "x-a_b"), ("x", "x")] {
            assert!(alike(one, other), "{one} {other}");
        }
        assert!(!alike("x-user", "xuser") && !alike("x-user", "x-users"));
    }

    #[test]
    fn quoted_separators_do_not_separate() {
        let parts: Vec<_> = split(r#"a; x="1, \" 2" , b;y=3"#, ',').collect();
        assert_eq!(parts, [r#"a; x="1, \" 2""#, "b;y=3"]);
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_are_removed() {
        let mut map = headers(&[
            ("connection", "Upgrade, X-Trace, Host"),
            ("connection", "keep-alive, sec-websocket-key"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic eDp5"),
            ("x-trace", "1"),
            ("host", "gate.test"),
            ("sec-websocket-key", "k"),
            ("authorization", "Bearer t"),
        ]);
        remove_hop_by_hop(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host", "sec-websocket-key"]);
    }

    #[test]
    fn deflate_is_known_by_its_name_alone() {
        assert!(is_deflate("permessage-deflate"));
        assert!(is_deflate("Permessage-Deflate ; client_max_window_bits"));
        assert!(!is_deflate("x-webkit-deflate-frame"));
        assert!(!is_deflate("permessage-deflate2"));
    }
}
