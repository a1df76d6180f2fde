//! Who may ask what: by host, origin and token.
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
    uri::Authority,
};
use std::{fmt, net::IpAddr};
use subtle::ConstantTimeEq;

/// The address of ours that a connection came to; `None` on a Unix socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own(pub(super) Option<IpAddr>);

/// The rules of one admin listener.
pub(super) struct Guard {
    /// Nobody from another machine reaches it.
    pub(super) local: bool,
    /// Its file says who may connect: they may do everything.
    pub(super) unix: bool,
    pub(super) token: Option<String>,
    pub(super) hosts: Vec<String>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("local", &self.local).field("unix", &self.unix).finish_non_exhaustive()
    }
}

/// Why somebody may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No host, or several.
    NoHost,
    Host,
    Origin,
    NoToken,
    WrongToken,
    /// It would need a token, and there is none.
    NoTokenFile,
}

impl Refused {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::Host | Self::Origin | Self::NoTokenFile => StatusCode::FORBIDDEN,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
        }
    }

    pub(super) const fn explain(self) -> &'static str {
        match self {
            Self::NoHost => "the request needs one Host header",
            Self::Host => "this Host is not the listener's own; add its name to admin.hosts",
            Self::Origin => "a page of another origin may not ask here",
            Self::NoToken => "this needs the token of admin.token_file: Authorization: Bearer TOKEN",
            Self::WrongToken => "the token is not that of admin.token_file",
            Self::NoTokenFile => {
                "changing something needs a token: set admin.token_file, or let admin.address be a Unix socket"
            }
        }
    }
}

impl Guard {
    /// Whether the request is addressed to this listener, by nobody else's page. No answer is given to any other.
    pub(super) fn addressed(&self, headers: &HeaderMap, own: Own) -> Result<(), Refused> {
        let host = only(headers, &HOST).ok_or(Refused::NoHost)?.to_ascii_lowercase();
        let authority: Authority = host.parse().map_err(|_| Refused::NoHost)?;
        if host.contains('@') || !self.is_ours(authority.host(), own) {
            return Err(Refused::Host);
        }
        if !headers.contains_key(ORIGIN) {
            return Ok(());
        }
        let origin = only(headers, &ORIGIN).ok_or(Refused::Origin)?.to_ascii_lowercase();
        let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if from == Some(host.as_str()) { Ok(()) } else { Err(Refused::Origin) }
    }

    fn is_ours(&self, host: &str, own: Own) -> bool {
        if self.hosts.iter().any(|ours| ours == host) {
            return true;
        }
        let near = own.0.is_none_or(|own| own.is_loopback());
        if host == "localhost" {
            return near;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        bare.parse::<IpAddr>().is_ok_and(|host| own.0 == Some(host.to_canonical()))
    }

    /// Whether this may be asked: who is near reads without a token; all else needs it.
    pub(super) fn allows(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        if self.unix {
            return Ok(());
        }
        match (&self.token, headers.contains_key(AUTHORIZATION)) {
            (Some(token), true) => {
                let given = only(headers, &AUTHORIZATION).and_then(bearer).ok_or(Refused::NoToken)?;
                if bool::from(given.as_bytes().ct_eq(token.as_bytes())) { Ok(()) } else { Err(Refused::WrongToken) }
            }
            (_, _) if self.local && (*method == Method::GET || *method == Method::HEAD) => Ok(()),
            (Some(_), false) => Err(Refused::NoToken),
            (None, _) => Err(Refused::NoTokenFile),
        }
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn guard(local: bool, unix: bool, token: Option<&str>) -> Guard {
        Guard { local, unix, token: token.map(Into::into), hosts: vec!["ops.example".into()] }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn addressed(own: Option<&str>, lines: &[(&'static str, &str)]) -> Result<(), Refused> {
        let own = Own(own.map(|own| own.parse().unwrap()));
        guard(true, own.0.is_none(), None).addressed(&headers(lines), own)
    }

    #[test]
    fn hosts_are_our_own_address_or_listed() {
        let near = Some("127.0.0.1");
        for host in ["127.0.0.1:9464", "127.0.0.1", "localhost:1", "LOCALHOST", "ops.example:443", "Ops.Example"] {
            assert_eq!(addressed(near, &[("host", host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9464", "10.0.0.1:9464", "127.0.0.1.evil.example", "localhost.evil.example"]
        {
            assert_eq!(addressed(near, &[("host", host)]), Err(Refused::Host), "{host}");
        }
        for far in ["localhost", "127.0.0.1"] {
            assert_eq!(addressed(Some("10.0.0.1"), &[("host", far)]), Err(Refused::Host));
        }
        assert_eq!(addressed(Some("10.0.0.1"), &[("host", "10.0.0.1:9464")]), Ok(()));
        assert_eq!(addressed(Some("::1"), &[("host", "[::1]:9464")]), Ok(()));
        assert_eq!(addressed(None, &[("host", "localhost")]), Ok(()));
        assert_eq!(addressed(None, &[("host", "evil.example")]), Err(Refused::Host));
        for none in [&[][..], &[("host", "")], &[("host", "localhost"), ("host", "localhost")]] {
            assert_eq!(addressed(near, none), Err(Refused::NoHost), "{none:?}");
        }
        assert!(addressed(near, &[("host", "user@localhost")]).is_err());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let asked = |origin| addressed(Some("127.0.0.1"), &[("host", "localhost:9464"), ("origin", origin)]);
        assert_eq!(asked("http://localhost:9464"), Ok(()));
        for origin in ["http://localhost", "http://localhost:1", "https://evil.example", "null", "localhost:9464", ""] {
            assert_eq!(asked(origin), Err(Refused::Origin), "{origin}");
        }
    }

    #[test]
    fn reading_nearby_is_free_and_all_else_needs_the_token() {
        let (none, right, wrong) = (String::new(), format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}x"));
        let asked = |guard: &Guard, method: Method, value: &str| {
            let lines = [("authorization", value)];
            guard.allows(&method, &headers(if value.is_empty() { &[] } else { &lines }))
        };
        let near = guard(true, false, Some(TOKEN));
        assert_eq!(asked(&near, Method::GET, &none), Ok(()));
        assert_eq!(asked(&near, Method::GET, &wrong), Err(Refused::WrongToken));
        assert_eq!(asked(&near, Method::POST, &none), Err(Refused::NoToken));
        assert_eq!(asked(&near, Method::POST, &wrong), Err(Refused::WrongToken));
        assert_eq!(asked(&near, Method::POST, &right), Ok(()));
        assert_eq!(asked(&near, Method::POST, &format!("Basic {TOKEN}")), Err(Refused::NoToken));
        let far = guard(false, false, Some(TOKEN));
        assert_eq!(asked(&far, Method::GET, &none), Err(Refused::NoToken));
        assert_eq!(asked(&far, Method::GET, &right), Ok(()));
        let tokenless = guard(true, false, None);
        assert_eq!(asked(&tokenless, Method::GET, &right), Ok(()));
        assert_eq!(asked(&tokenless, Method::POST, &right), Err(Refused::NoTokenFile));
        assert_eq!(asked(&guard(true, true, None), Method::POST, &none), Ok(()));
    }
}
