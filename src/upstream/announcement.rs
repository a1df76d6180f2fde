//! What a backend that wants the PROXY protocol is told before anything else (haproxy.org, doc/proxy-protocol.txt).
use ppp::v2;
use std::net::{IpAddr, SocketAddr};

/// In which version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Who a client is, and where it connected to; in the extensions of a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub reached: SocketAddr,
}

impl super::Upstream {
    /// Whether its backends are told of the client at its [`Ends`].
    #[must_use]
    pub(crate) fn announces(&self) -> bool {
        self.dialer.proxy_protocol.is_some()
    }
}

/// The header that goes before all else. No `ends`: the gateway speaks for itself, or the client has no address.
pub(super) fn announcement(version: Option<ProxyVersion>, ends: Option<&Ends>) -> Vec<u8> {
    let ends = ends.map(|ends| same_family(ends.client, ends.reached));
    match (version, ends) {
        (None, _) => Vec::new(),
        (Some(ProxyVersion::V1), None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (Some(ProxyVersion::V1), Some((client, reached))) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.ip(), reached.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), reached.port()).into_bytes()
        }
        (Some(ProxyVersion::V2), None) => {
            let nothing = v2::AddressFamily::Unspecified | v2::Protocol::Unspecified;
            built(v2::Builder::new(v2::Version::Two | v2::Command::Local, nothing))
        }
        (Some(ProxyVersion::V2), Some(ends)) => {
            let proxy = v2::Version::Two | v2::Command::Proxy;
            built(v2::Builder::with_addresses(proxy, v2::Protocol::Stream, ends))
        }
    }
}

fn built(builder: v2::Builder) -> Vec<u8> {
    builder.build().expect("a header without TLVs is never too long")
}

/// Both of one family, as a header has them: IPv6 if they differ.
fn same_family(client: SocketAddr, reached: SocketAddr) -> (SocketAddr, SocketAddr) {
    if client.is_ipv4() == reached.is_ipv4() {
        return (client, reached);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(client), mapped(reached))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(version: ProxyVersion, client: &str, reached: &str) -> Vec<u8> {
        let ends = Ends { client: client.parse().unwrap(), reached: reached.parse().unwrap() };
        announcement(Some(version), Some(&ends))
    }

    #[test]
    fn the_first_version_is_a_line() {
        let v1 = |client, reached| String::from_utf8(told(ProxyVersion::V1, client, reached)).unwrap();
        assert_eq!(v1("203.0.113.7:4711", "10.0.0.1:443"), "PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n");
        assert_eq!(v1("[2001:db8::7]:1", "[::1]:2"), "PROXY TCP6 2001:db8::7 ::1 1 2\r\n");
        assert_eq!(v1("203.0.113.7:1", "[::1]:2"), "PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n");
        assert_eq!(announcement(Some(ProxyVersion::V1), None), b"PROXY UNKNOWN\r\n");
        assert_eq!(announcement(None, None), b"");
    }

    #[test]
    fn the_second_version_is_binary() {
        let begin = b"\r\n\r\n\0\r\nQUIT\n";
        assert_eq!(
            told(ProxyVersion::V2, "203.0.113.7:4660", "10.0.0.1:443"),
            [&begin[..], &[0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 187]].concat()
        );
        assert_eq!(told(ProxyVersion::V2, "[::2]:1", "[::1]:2")[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(announcement(Some(ProxyVersion::V2), None), [&begin[..], &[0x20, 0, 0, 0]].concat());
    }
}
