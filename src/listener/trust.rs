//! Which peers are believed, and where they name the client.
use http::HeaderName;
use ipnet::IpNet;
use std::net::IpAddr;

/// How far peers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Networks of proxies in front.
    pub proxies: Vec<IpNet>,
    pub client_address: ClientSource,
}

/// Where a trusted proxy names the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientSource {
    /// `X-Forwarded-For`, or `Forwarded` where that is missing.
    #[default]
    Auto,
    /// Nowhere but in a PROXY header: headers are not asked.
    Connection,
    /// This header alone.
    Header(HeaderName),
}

impl Trust {
    /// Whether a peer is believed. A Unix socket's, which has no address, is: the socket's file says who may connect.
    #[must_use]
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_none_or(|peer| self.proxies.iter().any(|net| net.contains(&peer)))
    }
}
