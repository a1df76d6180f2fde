//! Whose session it is.
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// Where a client connects from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAddress {
    Ip(IpAddr),
    /// Nowhere that has an address: on a Unix socket.
    #[default]
    Unix,
    /// A trusted proxy named it in a way that cannot be read.
    Unknown,
}

impl ClientAddress {
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Unix | Self::Unknown => None,
        }
    }
}

/// `None`: a Unix socket's.
impl From<Option<IpAddr>> for ClientAddress {
    fn from(peer: Option<IpAddr>) -> Self {
        peer.map_or(Self::Unix, Self::Ip)
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(address)) => f.write_str(dotted(*address, &mut [0; 15])),
            Self::Ip(IpAddr::V6(address)) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// An address as text: most handshakes want it, and the library's way makes four formatted numbers of it.
fn dotted(address: Ipv4Addr, room: &mut [u8; 15]) -> &str {
    let mut end = 0;
    let mut put = |byte| {
        room[end] = byte;
        end += 1;
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    std::str::from_utf8(&room[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_everybody_writes_it() {
        for octet in 0..=255u8 {
            for address in [[octet, 0, 9, 255], [10, octet, 99, octet], [255, 255, 255, octet]] {
                let address = Ipv4Addr::from(address);
                assert_eq!(ClientAddress::Ip(address.into()).to_string(), address.to_string());
            }
        }
    }
}
