//! Whose session it is.
use std::{fmt, net::IpAddr};

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
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
