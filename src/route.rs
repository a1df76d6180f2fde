//! Host and path to a route, most specific first.
use crate::relay::RelayConfig;
use std::{sync::Arc, time::Duration};

/// A route as configured: complete, typed, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Its identity in logs, metrics and reload.
    pub name: String,
    pub host: HostPattern,
    /// A prefix that matches on segment borders; `/` matches everything. Never ends in `/` but for `/` itself.
    pub path: String,
    /// Whether the backend sees the path without the prefix.
    pub strip_prefix: bool,
    /// Name of the upstream pool.
    pub upstream: String,
    pub host_header: HostHeader,
    /// Who may open a session from a browser (lower-case `scheme://host[:port]`, or `null`). `None`: anyone.
    pub origins: Option<Vec<String>>,
    pub options: RouteOptions,
}

/// Which hosts a route serves. Names are lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Any,
    Exact(String),
    /// `*.example.com`, kept as `.example.com`: any name that ends so.
    Wildcard(String),
}

/// Which `Host` the backend sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    Client,
    Upstream,
}

/// Every key of `[defaults]`, as it stands for one route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteOptions {
    pub relay: Arc<RelayConfig>,
    pub compression: Compression,
    /// For resolving a backend's name and its TCP connection (and TLS, for `wss`), per backend tried.
    pub connect: Duration,
    /// For the whole opening handshake: TLS, the client's request head, and the backend's 101, each.
    pub handshake: Duration,
    /// Bytes of a request or response head.
    pub header: usize,
    /// Sessions at a time from one address (IPv6: one /64). `None`: no limit.
    pub sessions_per_address: Option<u32>,
}

/// What happens to permessage-deflate offers (RFC 7692).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Pass,
    Strip,
}
