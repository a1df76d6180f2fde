//! What proxies in front tell of the client, how far it is believed, and what the backend is told.
use super::{
    headers::{alike, retain},
    hops::{X_FORWARDED_FOR, hop_address, hops_of, named_hops, node, quoted},
};
use crate::listener::{
    Peer,
    trust::{ClientSource, Trust},
};
use crate::session::ClientAddress;
use crate::upstream::Ends;
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest `X-Request-Id` that passes.
const LONGEST_ID: usize = 128;

/// Where a request comes from, as far as it can be believed.
#[derive(Debug)]
pub(super) struct Provenance {
    pub(super) client: ClientAddress,
    /// The same as text, as logs have it.
    pub(super) name: Box<str>,
    /// Whom limits for each address count: the client, or whoever spoke for it in a way that cannot be read.
    pub(super) counted: Option<IpAddr>,
    /// Whether our peer's forwarded headers are believed.
    trusted: bool,
    /// They are not, and yet name a client.
    pub(super) contested: bool,
    /// Another header that speaks of the client, as it is asked for.
    asked: Option<HeaderName>,
    /// The hops that led to our peer, the client first, as text: those that a trusted peer named.
    hops: Vec<String>,
    peer: Option<IpAddr>,
    tls: bool,
}

impl Provenance {
    /// Walks from our peer towards the client, as long as each hop is one of `trusted_proxies`: the first that is not is the
    /// client, whatever stands before it. A Unix socket's peer is believed, as the socket's file says who may connect. Behind a
    /// hop that cannot be read anybody may be: the client is not the proxy that named it so.
    ///
    /// Unless another header is asked for, `X-Forwarded-For` is read, or `Forwarded` where it is missing: a proxy that sets
    /// one lets the other through as its client wrote it.
    pub(super) fn find(peer: &Peer, trust: &Trust, headers: &HeaderMap) -> Self {
        let address = peer.address.map(|address| address.ip().to_canonical());
        let trusted = trust.trusts(address);
        let contested = !trusted && (headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED));
        let (named, asked) = match &trust.client_address {
            ClientSource::Auto => (trusted.then(|| named_hops(headers)), None),
            ClientSource::Connection => (None, None),
            ClientSource::Header(name) => (trusted.then(|| hops_of(headers, name)), Some(name.clone())),
        };
        let hops = named.unwrap_or_default();
        let (mut client, mut counted) = (ClientAddress::from(address), address);
        for hop in hops.iter().rev() {
            let Some(before) = hop_address(hop) else {
                client = ClientAddress::Unknown;
                break;
            };
            (client, counted) = (ClientAddress::Ip(before), Some(before));
            if !trust.trusts(counted) {
                break;
            }
        }
        let name = client.to_string().into();
        Self { client, name, counted, trusted, contested, asked, hops, peer: address, tls: peer.tls }
    }

    /// Removes what is not believed and sets what we know. `headers` still hold what the client sent; `host` is the
    /// name it used for us.
    pub(super) fn tell(&self, headers: &mut HeaderMap, host: &HeaderValue) {
        retain(headers, |name| !self.hides(name.as_str()));
        let scheme = HeaderValue::from_static(if self.tls { "https" } else { "http" });
        let scheme = headers.entry(X_FORWARDED_PROTO).or_insert(scheme).clone();
        let host = headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone()).clone();
        let name = self.client.ip().and_then(|_| HeaderValue::from_str(&self.name).ok());
        let forwarded_for = if self.alone() { name.clone() } else { HeaderValue::from_str(&self.forwarded_for()).ok() };
        set(headers, X_FORWARDED_FOR, forwarded_for);
        set(headers, X_REAL_IP, name);
        set(headers, FORWARDED, HeaderValue::from_str(&self.forwarded(&host, &scheme)).ok());
    }

    /// Whether a header must not pass: it speaks of the client, and is not believed or spelled so that it may be misread.
    fn hides(&self, name: &str) -> bool {
        let believed = self.trusted || name == X_REQUEST_ID.as_str();
        let as_spelled = || match &self.asked {
            Some(asked) if alike(asked.as_str(), name) => asked.as_str() == name,
            Some(_) | None => !name.contains('_'),
        };
        self.tells(name) && !(believed && as_spelled())
    }

    /// Whether a header speaks of the client, however it is spelled.
    pub(super) fn tells(&self, name: &str) -> bool {
        self.asked.as_ref().is_some_and(|asked| alike(asked.as_str(), name)) || speaks_of_client(name)
    }

    /// The two ends of the client's connection, as far as they are known: a port is zero where only the address was named.
    pub(super) fn ends(&self, peer: &Peer) -> Option<Ends> {
        let client = self.client.ip()?;
        let ours = peer.address.filter(|address| address.ip().to_canonical() == client);
        let client = SocketAddr::new(client, ours.map_or(0, |address| address.port()));
        let any: IpAddr = if client.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let reached = peer.local.map(|local| SocketAddr::new(local.ip().to_canonical(), local.port()));
        Some(Ends { client, reached: reached.unwrap_or_else(|| SocketAddr::new(any, 0)) })
    }

    /// Whether our peer is the client, and told of nobody before it.
    fn alone(&self) -> bool {
        self.hops.is_empty() && self.client == ClientAddress::from(self.peer)
    }

    fn forwarded_for(&self) -> String {
        let mut list = self.hops.join(", ");
        if let Some(peer) = self.peer {
            next(&mut list);
            list.push_str(&peer.to_string());
        }
        list
    }

    /// RFC 7239: one element per hop; the first tells how the client spoke to the outermost proxy.
    fn forwarded(&self, host: &HeaderValue, scheme: &HeaderValue) -> String {
        let mut nodes: Vec<Cow<'_, str>> = self.hops.iter().map(|hop| node(hop)).collect();
        match self.peer {
            // An IPv4 address is a node as it is.
            Some(IpAddr::V4(_)) if self.alone() => nodes.push(Cow::Borrowed(&self.name)),
            Some(_) if self.alone() => nodes.push(node(&self.name)),
            Some(peer) => nodes.push(node(&peer.to_string()).into_owned().into()),
            None if nodes.is_empty() => nodes.push("unknown".into()),
            None => {}
        }
        let mut list = String::with_capacity(128);
        for (index, node) in nodes.iter().enumerate() {
            next(&mut list);
            list.push_str("for=");
            list.push_str(node);
            for (name, value) in [(";host=", host), (";proto=", scheme)].into_iter().filter(|_| index == 0) {
                if let Ok(value) = value.to_str() {
                    list.push_str(name);
                    list.push_str(&quoted(value));
                }
            }
        }
        list
    }
}

/// What stands before the next member of a list.
fn next(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) if !value.is_empty() => drop(headers.insert(name, value)),
        Some(_) | None => drop(headers.remove(name)),
    }
}

/// Headers that speak of the client. Their underscore spellings, which CGI-like backends take for the same name, pass from nobody.
fn speaks_of_client(name: &str) -> bool {
    let dashed = if name.contains('_') { Cow::Owned(name.replace('_', "-")) } else { Cow::Borrowed(name) };
    dashed.starts_with("x-forwarded-")
        || ["forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip", "x-request-id"].contains(&&*dashed)
}

/// The request's id: the one that came along if it is fit for logs and headers (up to 128 letters, digits and `-_.:=+/@`),
/// from anybody, as clients use it to find their own session; else a new one of 128 random bits. An id that came along
/// need not be unique. It is left in `headers`.
pub(super) fn request_id(headers: &mut HeaderMap) -> Box<str> {
    let fit = |id: &&str| {
        (1..=LONGEST_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:=+/@".contains(&byte))
    };
    let mut came = headers.get_all(X_REQUEST_ID).iter();
    let id = match (came.next().and_then(|id| id.to_str().ok()).filter(fit), came.next()) {
        (Some(id), None) => id.to_owned(),
        (Some(_) | None, _) => HEXLOWER.encode(&fastrand::u128(..).to_be_bytes()),
    };
    set(headers, X_REQUEST_ID, HeaderValue::from_str(&id).ok());
    id.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::headers::tests::headers, *};

    fn peer(address: &str) -> Peer {
        Peer::new(Some(SocketAddr::new(address.parse().unwrap(), 4711)), true)
    }

    const UNIX: Peer = Peer::new(None, false);

    fn trusted() -> Trust {
        let proxies = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()];
        Trust { proxies, ..Trust::default() }
    }

    fn by(header: &'static str) -> Trust {
        Trust { client_address: ClientSource::Header(HeaderName::from_static(header)), ..trusted() }
    }

    fn client(peer: &Peer, lines: &[(&str, &str)]) -> String {
        Provenance::find(peer, &trusted(), &headers(lines)).client.to_string()
    }

    /// What the backend sees of a request with these lines, sorted.
    fn told(peer: &Peer, lines: &[(&str, &str)]) -> Vec<String> {
        told_by(&trusted(), peer, lines)
    }

    fn told_by(trust: &Trust, peer: &Peer, lines: &[(&str, &str)]) -> Vec<String> {
        let mut map = headers(lines);
        Provenance::find(peer, trust, &map).tell(&mut map, &HeaderValue::from_static("gate.test"));
        let mut told: Vec<_> = map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        told.sort_unstable();
        told
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_not_trusted() {
        let xff = "x-forwarded-for";
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&[(xff, "203.0.113.7")], "203.0.113.7"),
            (&[(xff, "1.1.1.1, 203.0.113.7, 10.0.0.9")], "203.0.113.7"),
            (&[(xff, "1.1.1.1"), (xff, "203.0.113.7")], "203.0.113.7"),
            (&[(xff, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            (&[(xff, " ,")], "10.0.0.1"),
            (&[(xff, "\", 203.0.113.7")], "203.0.113.7"),
            (&[(xff, "203.0.113.7:1234")], "203.0.113.7"),
            (&[(xff, "2001:db8::7")], "2001:db8::7"),
            (&[(xff, "[2001:db8::7]:443, 2001:db8:ffff::1")], "2001:db8::7"),
            (&[(xff, "::ffff:203.0.113.7")], "203.0.113.7"),
            (&[("forwarded", "for=203.0.113.7;proto=https, for=10.0.0.9")], "203.0.113.7"),
            (&[("forwarded", "proto=http; For=\"[2001:db8::7]:443\"")], "2001:db8::7"),
            (&[("forwarded", "for=1.1.1.1;by=\"a\\\"b, c\", for=\"203.0.113.7\" , for=10.0.0.9")], "203.0.113.7"),
            (&[("forwarded", "for=1.1.1.1"), (xff, "203.0.113.7")], "203.0.113.7"),
        ] {
            assert_eq!(client(&peer("10.0.0.1"), lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn behind_a_hop_that_cannot_be_read_is_nobody_that_is_known() {
        let (xff, forwarded) = ("x-forwarded-for", "forwarded");
        for (line, counted) in [
            ((xff, "1.1.1.1, unknown, 10.0.0.9"), "10.0.0.9"),
            ((xff, "what?"), "10.0.0.1"),
            ((forwarded, "for=1.1.1.1, for=_hidden"), "10.0.0.1"),
            ((forwarded, "proto=https"), "10.0.0.1"),
            // As a client begins, and its proxy goes on.
            ((forwarded, "for=\", for=203.0.113.7"), "10.0.0.1"),
            ((forwarded, "for=1.1.1.1;by=\", for=203.0.113.7"), "10.0.0.1"),
            ((forwarded, "for=1.1.1.1;by=\", for=\"[2001:db8::7]:443\";by=x, for=10.0.0.9"), "10.0.0.1"),
            ((forwarded, "for=1.1.1.1;by=\"\\, for=\"[2001:db8::7]:443\""), "10.0.0.1"),
            ((forwarded, "for=1.1.1.1;by=a\"b\", for=_x"), "10.0.0.1"),
            ((forwarded, "for=\"1.1.1.1\"\"2.2.2.2\""), "10.0.0.1"),
            ((forwarded, "for"), "10.0.0.1"),
        ] {
            let found = Provenance::find(&peer("10.0.0.1"), &trusted(), &headers(&[line]));
            assert_eq!((found.client, &*found.name), (ClientAddress::Unknown, "unknown"), "{line:?}");
            assert_eq!(found.counted, Some(counted.parse().unwrap()), "{line:?}");
            assert!(!told(&peer("10.0.0.1"), &[line]).iter().any(|line| line.starts_with("x-real-ip")), "{line:?}");
        }
        let mut map = headers(&[]);
        map.insert(FORWARDED, HeaderValue::from_bytes(b"\xff, for=203.0.113.7").unwrap());
        assert_eq!(&*Provenance::find(&peer("10.0.0.1"), &trusted(), &map).name, "203.0.113.7");
        assert_eq!(client(&UNIX, &[(xff, "what?")]), "unknown");
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client() {
        let lines = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];
        assert_eq!(client(&peer("203.0.113.7"), &lines), "203.0.113.7");
        assert_eq!(client(&peer("::ffff:203.0.113.7"), &lines), "203.0.113.7");
    }

    #[test]
    fn a_unix_peer_is_believed() {
        assert_eq!(client(&UNIX, &[]), "unix");
        assert_eq!(client(&UNIX, &[("x-forwarded-for", "203.0.113.7")]), "203.0.113.7");
        assert_eq!(
            told(&UNIX, &[]),
            [
                "forwarded: for=unknown;host=gate.test;proto=http",
                "x-forwarded-host: gate.test",
                "x-forwarded-proto: http"
            ]
        );
    }

    #[test]
    fn what_a_stranger_says_of_the_client_is_removed() {
        let lines = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-anything", "1"),
            ("x-real-ip", "1.1.1.1"),
            ("true-client-ip", "1.1.1.1"),
            ("cf-connecting-ip", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_host", "evil.test"),
            ("x_real_ip", "1.1.1.1"),
            ("cookie", "a=b"),
        ];
        assert_eq!(
            told(&peer("203.0.113.7"), &lines),
            [
                "cookie: a=b",
                "forwarded: for=203.0.113.7;host=gate.test;proto=https",
                "x-forwarded-for: 203.0.113.7",
                "x-forwarded-host: gate.test",
                "x-forwarded-proto: https",
                "x-real-ip: 203.0.113.7",
            ]
        );
    }

    #[test]
    fn what_a_trusted_peer_says_is_kept_and_continued() {
        let lines = [
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-for", "2001:db8::7, 10.0.0.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "outer.test:81"),
            ("x-forwarded-port", "81"),
            ("cf-connecting-ip", "2001:db8::7"),
            ("x-real-ip", "10.0.0.9"),
            ("x_forwarded_for", "6.6.6.6"),
        ];
        assert_eq!(
            told(&peer("10.0.0.1"), &lines),
            [
                "cf-connecting-ip: 2001:db8::7",
                "forwarded: for=\"[2001:db8::7]\";host=\"outer.test:81\";proto=http, for=10.0.0.9, for=10.0.0.1",
                "x-forwarded-for: 2001:db8::7, 10.0.0.9, 10.0.0.1",
                "x-forwarded-host: outer.test:81",
                "x-forwarded-port: 81",
                "x-forwarded-proto: http",
                "x-real-ip: 2001:db8::7",
            ]
        );
    }

    #[test]
    fn the_header_that_is_asked_for_names_the_client_alone() {
        let lines = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.7"), ("fly-client-ip", "203.0.113.7")];
        assert_eq!(
            told_by(&by("fly-client-ip"), &peer("10.0.0.1"), &lines),
            [
                "fly-client-ip: 203.0.113.7",
                "forwarded: for=203.0.113.7;host=gate.test;proto=https, for=10.0.0.1",
                "x-forwarded-for: 203.0.113.7, 10.0.0.1",
                "x-forwarded-host: gate.test",
                "x-forwarded-proto: https",
                "x-real-ip: 203.0.113.7",
            ]
        );
        let client = |trust: &Trust, from: &str| {
            let found = Provenance::find(&peer(from), trust, &headers(&lines));
            (found.name.to_string(), found.contested)
        };
        assert_eq!(client(&by("forwarded"), "10.0.0.1"), ("6.6.6.7".into(), false));
        assert_eq!(client(&by("x-real-ip"), "10.0.0.1"), ("10.0.0.1".into(), false));
        assert_eq!(client(&by("fly-client-ip"), "203.0.113.9"), ("203.0.113.9".into(), true));
        let connection = Trust { client_address: ClientSource::Connection, ..trusted() };
        assert_eq!(client(&connection, "10.0.0.1"), ("10.0.0.1".into(), false));
    }

    #[test]
    fn a_stranger_cannot_set_the_header_that_is_asked_for() {
        let told = told_by(
            &by("fly-client-ip"),
            &peer("203.0.113.7"),
            &[("fly-client-ip", "6.6.6.6"), ("fly_client_ip", "6.6.6.6")],
        );
        assert!(!told.iter().any(|line| line.contains("6.6.6.6")), "{told:?}");
        let lines = [("fly-client-ip", "6.6.6.6"), ("fly_client_ip", "7.7.7.7")];
        let told = |address| told_by(&by("fly_client_ip"), &peer(address), &lines);
        assert!(!told("203.0.113.7").iter().any(|line| line.contains("7.7.7.7") || line.contains("6.6.6.6")));
        let told = told("10.0.0.1");
        assert!(told.contains(&"fly_client_ip: 7.7.7.7".to_owned()), "as it is asked for: {told:?}");
        assert!(!told.iter().any(|line| line.contains("6.6.6.6")), "{told:?}");
    }

    #[test]
    fn hops_that_are_no_addresses_are_quoted() {
        let told = told(&peer("10.0.0.1"), &[("x-forwarded-for", "a\"b")]);
        assert_eq!(told[0], r#"forwarded: for="a\"b";host=gate.test;proto=https, for=10.0.0.1"#);
    }

    #[test]
    fn a_fit_request_id_passes_and_another_is_replaced() {
        let mut map = headers(&[("x-request-id", "5f3c-1.2:3")]);
        assert_eq!(&*request_id(&mut map), "5f3c-1.2:3");
        let long = "x".repeat(LONGEST_ID + 1);
        for lines in [
            &[][..],
            &[("x-request-id", "")],
            &[("x-request-id", "two words")],
            &[("x-request-id", long.as_str())],
            &[("x-request-id", "a"), ("x-request-id", "b")],
        ] {
            let mut map = headers(lines);
            let id = request_id(&mut map);
            assert_eq!(id.len(), 32, "{lines:?}");
            let told: Vec<_> = map.get_all(X_REQUEST_ID).iter().collect();
            assert_eq!(told, [&*id]);
        }
    }
}
