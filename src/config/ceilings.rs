//! How many sessions the machine allows, whatever the configuration says.
use super::GatewayConfig;

/// What bounds the number of sessions from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Descriptors that the process may have open (`RLIMIT_NOFILE`).
    pub descriptors: u64,
    /// Local ports for connections to one backend address (`ip_local_port_range`, ip(7)).
    pub ports: u32,
}

impl Ceilings {
    /// Descriptors kept for listeners, workers, logs and handshakes under way.
    pub const RESERVE: u64 = 64;

    /// With the descriptor limit given and the port range of this machine, or Linux's usual one if it cannot be read.
    #[must_use]
    pub fn new(descriptors: u64) -> Self {
        const USUAL: u32 = 60_999 - 32_768 + 1;
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        Self { descriptors, ports: ports_in(&range).unwrap_or(USUAL) }
    }

    /// Sessions that the descriptors allow, two for each.
    #[must_use]
    pub fn sessions(&self) -> usize {
        let sessions = self.descriptors.saturating_sub(Self::RESERVE) / 2;
        usize::try_from(sessions).unwrap_or(usize::MAX).max(1)
    }

    /// Sessions at a time under `max_sessions`, which `"auto"` leaves to the descriptors.
    #[must_use]
    pub fn max_sessions(&self, gateway: &GatewayConfig) -> usize {
        gateway.max_sessions.unwrap_or_else(|| self.sessions())
    }

    /// Connections of clients that ask plain HTTP at a time, under `max_http_connections`, which `"auto"` makes a quarter of
    /// what the descriptors allow sessions: such a connection has one of its own, and one to a backend while it is answered.
    #[must_use]
    pub fn max_http_connections(&self, gateway: &GatewayConfig) -> usize {
        gateway.max_http_connections.unwrap_or_else(|| (self.sessions() / 4).max(1))
    }
}

/// The number of ports in `LOW HIGH`.
fn ports_in(range: &str) -> Option<u32> {
    let mut bounds = range.split_whitespace().map(str::parse::<u32>);
    let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    high.checked_sub(low)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_take_two_descriptors_beside_the_reserve() {
        assert_eq!(Ceilings { descriptors: 1024, ports: 1 }.sessions(), 480);
        assert_eq!(Ceilings { descriptors: 0, ports: 1 }.sessions(), 1);
    }

    #[test]
    fn ports_are_counted_with_both_ends() {
        assert_eq!(ports_in("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_in("2 1"), None);
        assert_eq!(ports_in(""), None);
    }
}
