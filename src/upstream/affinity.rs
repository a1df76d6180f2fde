//! What ties a client to one backend of a pool: the key that a hash goes by, and the cookie that the gateway set.
use super::{Backend, HashKey, SameSite, StickyConfig, Upstream, balance::hash};
use aws_lc_rs::hmac;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{COOKIE, SET_COOKIE},
    uri::PathAndQuery,
};
use std::{fmt::Write, net::IpAddr, sync::Arc};

/// What is known of a client that ties it to a backend. The default: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affinity {
    key: Option<u64>,
    /// What its cookie says.
    brought: Option<Tag>,
}

/// What names a backend in a cookie. It is written as hexadecimal digits.
type Tag = [u8; 12];

impl Affinity {
    /// What a hash goes by, if the client brought it.
    pub(super) fn key(self) -> Option<u64> {
        self.key
    }
}

impl Upstream {
    /// What ties a client to one of the backends. `target` is what it asked for, before anything is stripped from its path.
    #[must_use]
    pub fn affinity(&self, client: Option<IpAddr>, target: &PathAndQuery, headers: &HeaderMap) -> Affinity {
        let key = match &self.config().balance {
            super::BalanceKind::Hash(key) => key.of(client, target, headers),
            super::BalanceKind::RoundRobin | super::BalanceKind::LeastSessions | super::BalanceKind::Random => None,
        };
        let sticky = self.config().sticky.as_ref();
        Affinity { key, brought: sticky.and_then(|sticky| tag(cookie(headers, &sticky.cookie)?)) }
    }

    /// The place of the backend that the client is stuck to. Its cookie may name one that was not known yet when it came.
    pub(super) fn stuck(&self, affinity: Affinity, backends: &[Arc<Backend>]) -> Option<usize> {
        let (sticky, brought) = (self.config().sticky.as_ref()?, affinity.brought?);
        backends.iter().position(|backend| sticky.tag(self.name(), backend) == brought)
    }

    /// Has the client come back to this backend, if the pool is sticky and it would not anyway. `secure`: it came by TLS.
    pub fn stick(&self, affinity: Affinity, backend: &Backend, secure: bool, answer: &mut HeaderMap) {
        let Some(sticky) = &self.config().sticky else { return };
        let tag = sticky.tag(self.name(), backend);
        if affinity.brought == Some(tag) {
            return;
        }
        let line = sticky.line(tag, secure);
        if let Ok(line) = HeaderValue::from_str(&line) {
            answer.append(SET_COOKIE, line);
        }
    }
}

impl HashKey {
    fn of(&self, client: Option<IpAddr>, target: &PathAndQuery, headers: &HeaderMap) -> Option<u64> {
        match self {
            Self::Address => client.map(|address| hash(address.to_canonical().to_string().as_bytes())),
            Self::Header(name) => headers.get(name).map(|value| hash(value.as_bytes())),
            Self::Cookie(name) => cookie(headers, name).map(hash),
            Self::Query(name) => parameter(target.query()?, name).map(|value| hash(value.as_bytes())),
            Self::Path(number) => {
                let segment = target.path().split('/').filter(|segment| !segment.is_empty()).nth(number - 1)?;
                Some(hash(segment.as_bytes()))
            }
        }
    }
}

impl StickyConfig {
    /// What names a backend in the cookie. It tells nothing about its address, but to whom guesses it, and without the secret
    /// not even that.
    fn tag(&self, pool: &str, backend: &Backend) -> Tag {
        let secret = self.secret.as_ref().map_or(&b"pulsegate"[..], |secret| secret.0.as_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signed = hmac::sign(&key, format!("{pool}\0{}", backend.name).as_bytes());
        let mut tag = Tag::default();
        tag.iter_mut().zip(signed.as_ref()).for_each(|(byte, signed)| *byte = *signed);
        tag
    }

    /// RFC 6265 section 4.1. Browsers take `SameSite=None` from `Secure` cookies alone.
    fn line(&self, tag: Tag, secure: bool) -> String {
        let mut line = format!("{}=", self.cookie);
        for byte in tag {
            // Writing to a text does not fail.
            let _ = write!(line, "{byte:02x}");
        }
        line += &format!("; Path={}", self.path);
        if let Some(age) = self.max_age {
            line += &format!("; Max-Age={}", age.as_secs().max(1));
        }
        line += "; HttpOnly; SameSite=";
        line += self.same_site.label();
        if secure || self.same_site == SameSite::None {
            line += "; Secure";
        }
        line
    }
}

impl SameSite {
    fn label(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

/// The value of the first cookie of this name, without quotes (RFC 6265 section 5.4). Other cookies beside it may be of any bytes.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs
        .find_map(|pair| {
            let end = pair.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (pair[..end].trim_ascii_start(), pair[end + 1..].trim_ascii_end());
            (key == name.as_bytes()).then_some(value)
        })
        .map(unquoted)
        .filter(|value| !value.is_empty())
}

fn unquoted(value: &[u8]) -> &[u8] {
    let begun = value.strip_prefix(b"\"").unwrap_or(value);
    begun.strip_suffix(b"\"").unwrap_or(begun)
}

/// The tag that these digits stand for, as they are written in a cookie.
fn tag(digits: &[u8]) -> Option<Tag> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    let mut tag = Tag::default();
    if pairs.len() != tag.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in tag.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(tag)
}

/// The value of the first parameter of this name, as it is written.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// Whether the client's side of the request came by TLS, by what the backend is told of it.
#[must_use]
pub fn is_secure(head: &HeaderMap) -> bool {
    const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    let scheme = head.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    scheme.is_some_and(|scheme| ["https", "wss"].iter().any(|secure| scheme.trim().eq_ignore_ascii_case(secure)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{BackendAddress, BalanceKind, Secret, UpstreamConfig},
        *,
    };
    fn pool(balance: BalanceKind, sticky: Option<StickyConfig>) -> Arc<Upstream> {
        let server = |port| BackendAddress::Tcp { tls: false, host: "10.0.0.1".into(), port, path: "/".into() }.into();
        let config = UpstreamConfig {
            balance,
            sticky,
            ..UpstreamConfig::new("chat", vec![server(8001), server(8002), server(8003)])
        };
        Upstream::new(&config).unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn sticky(secret: Option<&str>) -> StickyConfig {
        StickyConfig {
            cookie: "gate".into(),
            path: "/".into(),
            max_age: None,
            same_site: SameSite::Lax,
            secret: secret.map(|secret| Secret(secret.into())),
        }
    }

    #[test]
    fn a_key_is_found_where_the_pool_looks_for_it() {
        let client = Some("192.0.2.7".parse().unwrap());
        let target: PathAndQuery = "/chat//room-7/x?user=u%201&room=7&empty=".parse().unwrap();
        let head = headers(&[("x-user", "u1"), ("cookie", "a=1; sid=\"s1\""), ("cookie", "b=2")]);
        for (key, found) in [
            (HashKey::Address, Some("192.0.2.7")),
            (HashKey::Header("x-user".parse().unwrap()), Some("u1")),
            (HashKey::Header("x-other".parse().unwrap()), None),
            (HashKey::Cookie("sid".into()), Some("s1")),
            (HashKey::Cookie("b".into()), Some("2")),
            (HashKey::Cookie("id".into()), None),
            (HashKey::Query("room".into()), Some("7")),
            (HashKey::Query("user".into()), Some("u%201")),
            (HashKey::Query("empty".into()), None),
            (HashKey::Path(2), Some("room-7")),
            (HashKey::Path(4), None),
        ] {
            let affinity = pool(BalanceKind::Hash(key.clone()), None).affinity(client, &target, &head);
            assert_eq!(affinity.key(), found.map(|found| hash(found.as_bytes())), "{key:?}");
        }
        let none = pool(BalanceKind::Random, None).affinity(client, &target, &head);
        assert_eq!(none.key(), None);
        let unix = pool(BalanceKind::Hash(HashKey::Address), None).affinity(None, &target, &head);
        assert_eq!(unix.key(), None);
    }

    fn cookie_of(pool: &Upstream, brought: &str, backend: usize, secure: bool) -> Option<String> {
        let affinity = pool.affinity(None, &PathAndQuery::from_static("/"), &headers(&[("cookie", brought)]));
        let mut answer = HeaderMap::new();
        pool.stick(affinity, &pool.backends()[backend], secure, &mut answer);
        answer.get(SET_COOKIE).map(|line| line.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_cookie_names_a_backend_and_is_set_once() {
        let pool = pool(BalanceKind::LeastSessions, Some(sticky(None)));
        let line = cookie_of(&pool, "x=1", 1, false).unwrap();
        let (pair, rest) = line.split_once("; ").unwrap();
        assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
        let affinity = pool.affinity(None, &PathAndQuery::from_static("/"), &headers(&[("cookie", pair)]));
        assert_eq!(pool.stuck(affinity, &pool.backends()), Some(1));
        assert_eq!(cookie_of(&pool, pair, 1, false), None, "it brought it");
        assert!(cookie_of(&pool, pair, 2, false).is_some(), "it went elsewhere");
        assert!(cookie_of(&pool, "gate=10.0.0.1:8001", 0, true).unwrap().ends_with("; Secure"));
        for part in ["10", "8002", "0a000001"] {
            assert!(!pair.trim_start_matches("gate=").contains("10.0.0.1") && pair.len() == 29, "{pair} has {part}");
        }
    }

    #[test]
    fn a_cookie_is_found_beside_others_of_any_bytes() {
        let pool = pool(BalanceKind::Hash(HashKey::Cookie("sid".into())), Some(sticky(None)));
        let line = cookie_of(&pool, "", 2, false).unwrap();
        let pair = line.split_once(';').unwrap().0;
        let brought = [b"name=J\xf6rg; ; odd; ", pair.as_bytes(), b";sid=\"\xe4\""].concat();
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(&brought).unwrap());
        let affinity = pool.affinity(None, &PathAndQuery::from_static("/"), &headers);
        assert_eq!(pool.stuck(affinity, &pool.backends()), Some(2));
        assert_eq!(affinity.key(), Some(hash(b"\xe4")));
        for other in ["gate=0", "gate=zz0000000000000000000000", "gate=000000000000000000000000"] {
            let affinity = pool.affinity(None, &PathAndQuery::from_static("/"), &self::headers(&[("cookie", other)]));
            assert_eq!(pool.stuck(affinity, &pool.backends()), None, "{other}");
        }
    }

    #[test]
    fn another_secret_makes_other_cookies() {
        let open = cookie_of(&pool(BalanceKind::Random, Some(sticky(None))), "", 0, false);
        let one = pool(BalanceKind::Random, Some(sticky(Some("0123456789abcdef"))));
        let one = [cookie_of(&one, "", 0, false), cookie_of(&one, "", 0, false)];
        assert_eq!(one[0], one[1]);
        assert_ne!(one[0], open);
        assert_eq!(format!("{:?}", Secret("x".into())), "Secret(..)");
    }

    #[test]
    fn a_cookie_has_the_attributes_it_was_given() {
        let config = StickyConfig {
            path: "/app".into(),
            max_age: Some(std::time::Duration::from_secs(3600)),
            same_site: SameSite::None,
            ..sticky(None)
        };
        let line = cookie_of(&pool(BalanceKind::Random, Some(config)), "", 0, false).unwrap();
        assert!(line.ends_with("; Path=/app; Max-Age=3600; HttpOnly; SameSite=None; Secure"), "{line}");
    }

    #[test]
    fn tls_is_known_by_what_the_backend_is_told() {
        for (line, secure) in [("https", true), ("WSS", true), ("http", false)] {
            assert_eq!(is_secure(&headers(&[("x-forwarded-proto", line)])), secure);
        }
        assert!(!is_secure(&HeaderMap::new()));
    }
}
