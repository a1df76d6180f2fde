//! What a heartbeat has to tell: one thing at a time, the newest.

use super::Heartbeat;
use std::time::Duration;

/// Something worth telling: to a log, a histogram, a person who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatEvent {
    /// A ping (or an unsolicited pong) of ours left.
    Sent,
    /// Our newest ping was answered.
    Answered { round_trip: Duration },
    /// A ping of ours was answered, but a newer one has left since.
    AnsweredLate,
    /// The deadline passed without a sign of life: the session ends.
    Missed,
    /// The peer's TCP took our ping, but it never answered one: it is kept, unproven.
    Unproven,
}

/// An event to be told; the round trip of an answer is kept beside it.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    Sent,
    Answered,
    AnsweredLate,
    Missed,
    Unproven,
}

impl Heartbeat {
    /// What happened since the last call.
    pub fn take_event(&mut self) -> Option<HeartbeatEvent> {
        Some(match self.news.take()? {
            News::Sent => HeartbeatEvent::Sent,
            News::Answered => HeartbeatEvent::Answered { round_trip: self.round_trip()? },
            News::AnsweredLate => HeartbeatEvent::AnsweredLate,
            News::Missed => HeartbeatEvent::Missed,
            News::Unproven => HeartbeatEvent::Unproven,
        })
    }
}
