//! What one worker counts of one route's sessions.
use super::{
    codes::{CODES, code},
    count::{Count, Histogram},
    handshakes::HandshakeMeter,
    requests::RequestMeter,
};
use crate::{
    protocol::{heartbeat::HeartbeatEvent, scanner::Tally},
    relay::{EndReason, PerSide, Side},
};
use std::time::Duration;

/// Round trips and opening handshakes.
pub(super) static MOMENTS: [Duration; 14] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Sessions' lives: from a second to a week.
static LIVES: [Duration; 9] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
    Duration::from_secs(14_400),
    Duration::from_secs(86_400),
    Duration::from_secs(604_800),
];

/// One worker's counters of one route, on cache lines of their own. That worker alone writes them; whoever scrapes reads.
#[derive(Debug)]
#[repr(align(128))]
pub struct Meter {
    pub(super) legs: PerSide<LegMeter>,
    pub(super) open: Count,
    pub(super) started: Count,
    pub(super) ended: [Count; EndReason::ALL.len()],
    pub(super) lives: Histogram<9>,
    pub(super) told: Count,
    pub(super) cut: Count,
    pub(super) handshakes: HandshakeMeter,
    pub(super) requests: RequestMeter,
}

/// One leg's part of it.
#[derive(Debug)]
pub(super) struct LegMeter {
    pub(super) received: Flow,
    pub(super) sent: Flow,
    /// Bytes that wait in outboxes now.
    pub(super) waiting: Count,
    /// Outboxes that began to wait.
    pub(super) stalls: Count,
    /// Sessions in which this leg is not read now, since the other does not take what comes.
    pub(super) paused: Count,
    /// Times that this leg was not read for a while, since its peer sent over its rate.
    pub(super) slowed: Count,
    pub(super) pings_sent: Count,
    pub(super) pings_answered: Count,
    pub(super) pings_late: Count,
    pub(super) pings_missed: Count,
    pub(super) pings_unproven: Count,
    pub(super) round_trips: Histogram<14>,
    pub(super) codes_received: [Count; CODES.len()],
    pub(super) codes_sent: [Count; CODES.len()],
}

/// What passed in one direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) bytes: Count,
    pub(super) frames: Count,
    pub(super) messages: Count,
}

impl Flow {
    #[inline]
    fn add(&self, tally: Tally) {
        self.frames.add(tally.frames.into());
        self.messages.add(tally.messages.into());
    }
}

impl Default for LegMeter {
    fn default() -> Self {
        Self {
            received: Flow::default(),
            sent: Flow::default(),
            waiting: Count::default(),
            stalls: Count::default(),
            paused: Count::default(),
            slowed: Count::default(),
            pings_sent: Count::default(),
            pings_answered: Count::default(),
            pings_late: Count::default(),
            pings_missed: Count::default(),
            pings_unproven: Count::default(),
            round_trips: Histogram::new(&MOMENTS),
            codes_received: Default::default(),
            codes_sent: Default::default(),
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            legs: PerSide::default(),
            open: Count::default(),
            started: Count::default(),
            ended: Default::default(),
            lives: Histogram::new(&LIVES),
            told: Count::default(),
            cut: Count::default(),
            handshakes: HandshakeMeter::default(),
            requests: RequestMeter::default(),
        }
    }
}

impl Meter {
    /// A session began; [`Meter::left`] is to follow.
    pub fn began(&self) {
        self.started.add(1);
        self.open.add(1);
    }

    /// A session is gone, its TCP connections too.
    pub fn left(&self) {
        self.open.take(1);
    }

    /// A session's verdict is known.
    pub fn ended(&self, reason: EndReason, life: Duration) {
        self.ended[reason as usize].add(1);
        self.lives.observe(life);
    }

    /// The close codes of a leg whose session's verdict is known: 1005 for a close frame without one, `None` for no close frame.
    pub fn closed(&self, side: Side, received: Option<u16>, sent: Option<u16>) {
        self.legs[side].codes_received[code(received)].add(1);
        self.legs[side].codes_sent[code(sent)].add(1);
    }

    /// Bytes arrived on a leg, and frames and messages became whole with them.
    #[inline]
    pub fn received(&self, side: Side, bytes: usize, tally: Tally) {
        let flow = &self.legs[side].received;
        flow.bytes.add(bytes as u64);
        flow.add(tally);
    }

    /// Frames and messages of the other leg's peer were given to a leg.
    #[inline]
    pub fn passed(&self, side: Side, tally: Tally) {
        self.legs[side].sent.add(tally);
    }

    /// A control frame of our own was given to a leg.
    pub fn controlled(&self, side: Side) {
        self.legs[side].sent.frames.add(1);
    }

    /// A leg's transport took bytes.
    #[inline]
    pub fn sent(&self, side: Side, bytes: usize) {
        self.legs[side].sent.bytes.add(bytes as u64);
    }

    /// A leg's outbox holds `now` bytes instead of `before`; while it holds any, the other leg is not read.
    pub fn waits(&self, side: Side, before: u64, now: u64) {
        let (leg, other) = (&self.legs[side], &self.legs[side.other()]);
        leg.waiting.add(now);
        leg.waiting.take(before);
        if before == 0 {
            leg.stalls.add(1);
            other.paused.add(1);
        }
        if now == 0 {
            other.paused.take(1);
        }
    }

    /// A leg was not read for a while, since its peer sent over its rate.
    pub fn slowed(&self, side: Side) {
        self.legs[side].slowed.add(1);
    }

    /// How often a leg was slowed down.
    #[cfg(test)]
    pub(crate) fn slowed_count(&self, side: Side) -> u64 {
        self.legs[side].slowed.get()
    }

    /// Something happened to our heartbeat on a leg, whose answers are late after `ping_timeout`.
    pub fn heartbeat(&self, side: Side, event: HeartbeatEvent, ping_timeout: Option<Duration>) {
        let leg = &self.legs[side];
        match event {
            HeartbeatEvent::Sent => leg.pings_sent.add(1),
            HeartbeatEvent::Answered { round_trip } => {
                leg.pings_answered.add(1);
                leg.round_trips.observe(round_trip);
                if ping_timeout.is_some_and(|timeout| round_trip > timeout) {
                    leg.pings_late.add(1);
                }
            }
            HeartbeatEvent::AnsweredLate => {
                leg.pings_answered.add(1);
                leg.pings_late.add(1);
            }
            HeartbeatEvent::Missed => leg.pings_missed.add(1),
            HeartbeatEvent::Unproven => leg.pings_unproven.add(1),
        }
    }

    /// A drain told a session to end.
    pub fn told(&self) {
        self.told.add(1);
    }

    /// A drain cut a session before its closing handshakes were over.
    pub fn cut(&self) {
        self.cut.add(1);
    }

    /// The opening handshakes of this route.
    #[must_use]
    pub fn handshakes(&self) -> &HandshakeMeter {
        &self.handshakes
    }

    /// The plain HTTP requests of this route.
    #[must_use]
    pub fn requests(&self) -> &RequestMeter {
        &self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_their_place_in_the_list_of_all() {
        for (place, reason) in EndReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }

    #[test]
    fn an_outbox_stalls_once_until_it_is_empty_and_pauses_the_other_leg() {
        let meter = Meter::default();
        let state = || {
            let PerSide { downstream: down, upstream: up } = &meter.legs;
            (down.waiting.get(), down.stalls.get(), down.paused.get(), up.paused.get())
        };
        meter.waits(Side::Downstream, 0, 100);
        meter.waits(Side::Downstream, 100, 40);
        assert_eq!(state(), (40, 1, 0, 1));
        meter.waits(Side::Downstream, 40, 0);
        assert_eq!(state(), (0, 1, 0, 0));
    }

    #[test]
    fn an_answer_after_the_deadline_or_the_next_ping_is_late() {
        let meter = Meter::default();
        let answered = |millis| HeartbeatEvent::Answered { round_trip: Duration::from_millis(millis) };
        for event in [answered(5), answered(50), HeartbeatEvent::AnsweredLate] {
            meter.heartbeat(Side::Upstream, event, Some(Duration::from_millis(10)));
        }
        let leg = &meter.legs.upstream;
        assert_eq!((leg.pings_answered.get(), leg.pings_late.get()), (3, 2));
    }
}
