//! What one worker counts of opening handshakes, WebSocket's and TLS's.
use super::{
    count::{Count, Histogram},
    meter::MOMENTS,
};
use std::time::Duration;

/// What became of an opening handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeResult {
    Accepted,
    /// The backend refused; its answer was passed on.
    BackendRefused,
    /// No backend could be reached, or none spoke WebSocket.
    BackendFailed,
    /// No backend is there, or all are left alone.
    NoBackend,
    BackendTimeout,
    Origin,
    Draining,
    /// `max_sessions`.
    Full,
    /// `memory_limit`.
    Memory,
    /// `limits.sessions_per_address`.
    AddressLimit,
    /// `access.allow` and `access.deny`.
    AddressDenied,
    /// `access.basic`: no password, or a wrong one.
    Credentials,
    /// `access.forward` said no; its answer was passed on.
    AuthRefused,
    /// What was to decide could not.
    AuthFailed,
    /// `gateway.rates`, for all together.
    Rate,
    /// `gateway.rates`, for one address.
    AddressRate,
    /// All the time for a handshake was used up.
    Timeout,
    ClientLeft,
    /// A bug of ours.
    Internal,
    NoRoute,
    Method,
    NotAnUpgrade,
    Version,
    Malformed,
    /// Not HTTP/1.1.
    NotHttp,
    HeadTooLarge,
    HeadTimeout,
    /// `proxy_protocol = "require"`, and no such header from a trusted proxy.
    ProxyProtocol,
    /// Too many handshakes wait for backends.
    Overloaded,
}

impl HandshakeResult {
    pub(super) const ALL: [Self; 29] = [
        Self::Accepted,
        Self::BackendRefused,
        Self::BackendFailed,
        Self::NoBackend,
        Self::BackendTimeout,
        Self::Origin,
        Self::Draining,
        Self::Full,
        Self::Memory,
        Self::AddressLimit,
        Self::AddressDenied,
        Self::Credentials,
        Self::AuthRefused,
        Self::AuthFailed,
        Self::Rate,
        Self::AddressRate,
        Self::Timeout,
        Self::ClientLeft,
        Self::Internal,
        Self::NoRoute,
        Self::Method,
        Self::NotAnUpgrade,
        Self::Version,
        Self::Malformed,
        Self::NotHttp,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::ProxyProtocol,
        Self::Overloaded,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::BackendRefused => "backend_refused",
            Self::BackendFailed => "backend_failed",
            Self::NoBackend => "no_backend",
            Self::BackendTimeout => "backend_timeout",
            Self::Origin => "origin",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Memory => "memory",
            Self::AddressLimit => "address_limit",
            Self::AddressDenied => "address_denied",
            Self::Credentials => "credentials",
            Self::AuthRefused => "auth_refused",
            Self::AuthFailed => "auth_failed",
            Self::Rate => "rate",
            Self::AddressRate => "address_rate",
            Self::Timeout => "timeout",
            Self::ClientLeft => "client_left",
            Self::Internal => "internal",
            Self::NoRoute => "no_route",
            Self::Method => "method",
            Self::NotAnUpgrade => "not_an_upgrade",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::NotHttp => "not_http",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::ProxyProtocol => "proxy_protocol",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether it comes before a route is known (`None`: before or after).
    pub(super) const fn before_route(self) -> Option<bool> {
        match self {
            Self::ClientLeft | Self::Internal => None,
            Self::NoRoute
            | Self::Method
            | Self::NotAnUpgrade
            | Self::Version
            | Self::Malformed
            | Self::NotHttp
            | Self::HeadTooLarge
            | Self::HeadTimeout
            | Self::ProxyProtocol
            | Self::Overloaded => Some(true),
            Self::Accepted
            | Self::BackendRefused
            | Self::BackendFailed
            | Self::NoBackend
            | Self::BackendTimeout
            | Self::Origin
            | Self::Draining
            | Self::Full
            | Self::Memory
            | Self::AddressLimit
            | Self::AddressDenied
            | Self::Credentials
            | Self::AuthRefused
            | Self::AuthFailed
            | Self::Rate
            | Self::AddressRate
            | Self::Timeout => Some(false),
        }
    }
}

/// Opening handshakes: of a route, or of all that did not come so far as to have one.
#[derive(Debug)]
pub struct HandshakeMeter {
    pub(super) results: [Count; HandshakeResult::ALL.len()],
    /// Those that were accepted, from the whole request head to the 101.
    pub(super) took: Histogram<14>,
}

impl Default for HandshakeMeter {
    fn default() -> Self {
        Self { results: Default::default(), took: Histogram::new(&MOMENTS) }
    }
}

impl HandshakeMeter {
    /// It came to an end.
    pub fn count(&self, result: HandshakeResult) {
        self.results[result as usize].add(1);
    }

    /// It became a session.
    pub fn accepted(&self, took: Duration) {
        self.count(HandshakeResult::Accepted);
        self.took.observe(took);
    }
}

/// What became of a TLS handshake with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsResult {
    Accepted,
    /// It ended the connection before the handshake was over.
    ClientLeft,
    Timeout,
    /// It does not speak TLS, or nothing that we offer; or it does not trust the certificate.
    Failed,
}

impl TlsResult {
    pub(super) const ALL: [Self; 4] = [Self::Accepted, Self::ClientLeft, Self::Timeout, Self::Failed];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::ClientLeft => "client_left",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// TLS handshakes with clients.
#[derive(Debug)]
pub struct TlsMeter {
    pub(super) results: [Count; TlsResult::ALL.len()],
    /// Those that were accepted.
    pub(super) took: Histogram<14>,
}

impl Default for TlsMeter {
    fn default() -> Self {
        Self { results: Default::default(), took: Histogram::new(&MOMENTS) }
    }
}

impl TlsMeter {
    pub fn count(&self, result: TlsResult, took: Duration) {
        self.results[result as usize].add(1);
        if result == TlsResult::Accepted {
            self.took.observe(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_their_place_in_the_list_of_all() {
        for (place, result) in HandshakeResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, place);
        }
        for (place, result) in TlsResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, place);
        }
    }
}
