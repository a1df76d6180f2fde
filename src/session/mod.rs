//! A session: a relay plus its two transports, driven by one task, from the 101 to the last byte.
pub mod pause;
pub mod registry;
pub mod verdict;
use crate::{handshake::admission::Permit, route::RouteConfig, transport::Stream, upstream::Lease};
use std::sync::Arc;

/// Everything a session starts from: both 101s have been said.
pub struct Opening {
    pub downstream: Opened,
    pub upstream: Opened,
    /// permessage-deflate was agreed end to end, so RSV1 may pass (RFC 7692 section 6).
    pub deflate: bool,
    pub facts: Facts,
}

/// One upgraded stream.
pub struct Opened {
    pub stream: Stream,
    /// Bytes that arrived right behind the handshake, copied out of hyper's buffer.
    pub early: Vec<u8>,
}

/// What is known of a session besides its bytes; its verdict tells it.
pub struct Facts {
    /// `X-Request-Id`, made or passed.
    pub id: Box<str>,
    pub route: Arc<RouteConfig>,
    /// The backend, counted as busy while this lives.
    pub lease: Lease,
    /// The client's address as found through trusted proxies, as text (`unix` on a Unix socket without one).
    pub client: Box<str>,
    pub user_agent: Option<Box<str>>,
    pub origin: Option<Box<str>>,
    /// Our own port on the connection to the backend.
    pub local_port: Option<u16>,
    /// Given back when the session ends.
    pub permit: Permit,
}
