//! Whose connection a proxy passes on: its PROXY header, under a deadline, from proxies that are trusted.
use super::{Edge, RefusedHandshake, service::peer_name};
use crate::{
    listener::{
        Peer,
        proxy_protocol::{self, HeaderError, Told},
    },
    metrics::HandshakeResult,
    transport::Socket,
};
use std::borrow::Cow;
use tokio::time::timeout;

const STRANGER: &str = "PROXY protocol: the listener has proxy_protocol = \"require\", which `gateway.trusted_proxies` \
                        alone may speak, and this address is not among them";
const LATE: &str = "PROXY protocol: no whole header came within `timeouts.handshake`";

/// Makes the one that the connection's PROXY header names its peer. `None`: the connection
/// is to be dropped, and that was counted and logged.
pub(super) async fn introduced(socket: &mut Socket, mut peer: Peer, edge: &Edge) -> Option<Peer> {
    let terms = edge.terms();
    if !terms.trust.trusts(peer.address.map(|address| address.ip())) {
        return dropped(&peer, edge, STRANGER.into());
    }
    match timeout(terms.defaults.handshake, proxy_protocol::read(socket)).await {
        Ok(Ok(Told { addresses, tls, vpc_endpoint })) => {
            if let Some((source, destination)) = addresses {
                (peer.address, peer.local) = (Some(source), Some(destination));
            }
            peer.tls |= tls;
            peer.vpc_endpoint = vpc_endpoint;
            Some(peer)
        }
        Ok(Err(error @ (HeaderError::Silent | HeaderError::Io(_)))) => {
            // A balancer asks in this way whether somebody listens.
            tracing::debug!(client = peer_name(&peer), %error, "the peer left before its PROXY header");
            None
        }
        Ok(Err(
            error @ (HeaderError::Missing | HeaderError::TooLong | HeaderError::Invalid(_) | HeaderError::Unfinished),
        )) => dropped(&peer, edge, format!("PROXY protocol: {error}").into()),
        Err(_) => dropped(&peer, edge, LATE.into()),
    }
}

fn dropped(peer: &Peer, edge: &Edge, cause: Cow<'static, str>) -> Option<Peer> {
    edge.meter.strangers().count(HandshakeResult::ProxyProtocol);
    edge.refusals.record(&RefusedHandshake { cause, client: peer_name(peer), ..RefusedHandshake::default() });
    None
}
