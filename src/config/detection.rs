//! What a heartbeat promises and costs: the longest a dead peer goes unnoticed, and bytes a day.
use crate::protocol::heartbeat::{HeartbeatConfig, HeartbeatKind, Liveness};
use std::time::Duration;

/// The longest time from a peer's last sign of life until its leg is given up. `None`: it may never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// It vanished: nothing comes, not even acknowledgements.
    pub silent: Option<Duration>,
    /// Its process hangs while its kernel still acknowledges what is sent to it.
    pub acknowledging: Option<Duration>,
    /// It takes no data, so that no ping can reach it.
    pub blocked: Option<Duration>,
}

/// The bounds of one leg, with the route's `timeouts.stall`.
#[must_use]
pub fn detection(heartbeat: &HeartbeatConfig, stall: Option<Duration>) -> Detection {
    const EXTENSIONS: u32 = 3;
    let judged = match heartbeat.kind {
        HeartbeatKind::Ping => heartbeat.ping_interval.zip(heartbeat.ping_timeout),
        HeartbeatKind::Pong => None,
    };
    let Some((interval, timeout)) = judged else {
        return Detection { silent: None, acknowledging: None, blocked: stall };
    };
    let until_ping = interval.mul_f64(1.0 + heartbeat.jitter);
    let extended = match heartbeat.liveness {
        Liveness::Traffic => timeout * EXTENSIONS,
        Liveness::Pong => timeout,
    };
    Detection {
        silent: Some(until_ping + timeout),
        acknowledging: Some(until_ping + extended),
        blocked: stall.map(|stall| until_ping + stall.max(timeout)),
    }
}

/// Bytes a day that the heartbeat of an idle leg takes on the wire, both directions together.
///
/// Counted for each ping: three packets (ping, pong, its acknowledgement) with 40 bytes of TCP and IPv4 headers each, two
/// frame headers of 2 bytes, two payloads of 12, one masking key of 4 (RFC 6455 section 5.2), and over TLS 1.3 two records of
/// 22 bytes more. An unsolicited pong is one packet, its acknowledgement another.
#[must_use]
pub fn idle_bytes_per_day(heartbeat: &HeartbeatConfig, tls: bool) -> u64 {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const PACKET: u64 = 40;
    const FRAME: u64 = 2 + 12;
    const MASK: u64 = 4;
    const RECORD: u64 = 22;
    let Some(interval) = heartbeat.ping_interval else { return 0 };
    let record = if tls { RECORD } else { 0 };
    let each = match heartbeat.kind {
        HeartbeatKind::Ping => 3 * PACKET + 2 * (FRAME + record) + MASK,
        HeartbeatKind::Pong => 2 * PACKET + FRAME + record + MASK,
    };
    let bytes = u128::from(each) * DAY.as_nanos() / interval.as_nanos().max(1);
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn heartbeat(interval: u32, timeout: u32) -> HeartbeatConfig {
        HeartbeatConfig {
            ping_interval: Some(interval * SECOND),
            ping_timeout: Some(timeout * SECOND),
            jitter: 0.1,
            kind: HeartbeatKind::Ping,
            liveness: Liveness::Traffic,
            path_idle_limit: None,
        }
    }

    #[test]
    fn a_dead_peer_is_found_after_the_longest_interval_and_the_deadline() {
        let found = detection(&heartbeat(20, 20), Some(60 * SECOND));
        assert_eq!(found.silent, Some(42 * SECOND));
        assert_eq!(found.acknowledging, Some(82 * SECOND));
        assert_eq!(found.blocked, Some(82 * SECOND));
        let strict = HeartbeatConfig { liveness: Liveness::Pong, ..heartbeat(20, 20) };
        assert_eq!(detection(&strict, None).acknowledging, Some(42 * SECOND));
    }

    #[test]
    fn without_a_deadline_only_stalls_are_found() {
        let off = HeartbeatConfig { ping_timeout: None, ..heartbeat(20, 20) };
        let pongs = HeartbeatConfig { kind: HeartbeatKind::Pong, ..heartbeat(20, 20) };
        for leg in [off, pongs] {
            let found = detection(&leg, Some(60 * SECOND));
            assert_eq!((found.silent, found.acknowledging, found.blocked), (None, None, Some(60 * SECOND)));
        }
        assert_eq!(detection(&heartbeat(20, 20), None).blocked, None);
    }

    #[test]
    fn an_idle_leg_costs_three_packets_a_ping() {
        assert_eq!(idle_bytes_per_day(&heartbeat(20, 20), false), 4320 * 152);
        assert_eq!(idle_bytes_per_day(&heartbeat(20, 20), true), 4320 * 196);
        let pongs = HeartbeatConfig { kind: HeartbeatKind::Pong, ..heartbeat(20, 20) };
        assert_eq!(idle_bytes_per_day(&pongs, false), 4320 * 98);
        assert_eq!(idle_bytes_per_day(&HeartbeatConfig { ping_interval: None, ..pongs }, true), 0);
    }
}
