//! What a route asks of a leg's heartbeat.

use std::time::Duration;

/// How a leg is kept alive and how its silence is judged. `None` is `"off"`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatConfig {
    /// Time from a settled ping to the next. `None`: no heartbeat at all.
    pub ping_interval: Option<Duration>,
    /// How long a ping may go unanswered. `None`: pings go out, nothing is ever judged.
    pub ping_timeout: Option<Duration>,
    /// Share of the interval by which each ping is moved at random, 0.0 to 0.5.
    pub jitter: f64,
    pub kind: HeartbeatKind,
    pub liveness: Liveness,
    /// The idle limit of the strictest box on the path, as the operator declares it; only `check` uses it.
    pub path_idle_limit: Option<Duration>,
}

impl HeartbeatConfig {
    /// The longest time from the first to the last of many peers that froze at the same moment being found silent: their pings are
    /// at any phase, and TCP's acknowledgements may extend a deadline to three times its length.
    #[must_use]
    pub fn missed_within(&self) -> Duration {
        let phase = self.ping_interval.unwrap_or_default().mul_f64(1.0 + self.jitter);
        let extended = match self.liveness {
            Liveness::Traffic => self.ping_timeout.unwrap_or_default() * 2,
            Liveness::Pong => Duration::ZERO,
        };
        // Timers fire together with others', a little late.
        phase + extended + Duration::from_secs(1)
    }
}

/// What the heartbeat sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatKind {
    Ping,
    /// Unsolicited pongs (RFC 6455 section 5.5.3): keepalive without detection.
    Pong,
}

/// What counts as an answer to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Any byte received after the ping left; TCP tells a slow peer from a gone one.
    Traffic,
    /// Only a pong to that ping or a later one.
    Pong,
}
