//! Our own ping schedule and deadline on one leg (RFC 6455 sections 5.5.2 and 5.5.3).
//!
//! A ping is *due* (it waits for a frame border, for room, or for the answer to an application's ping), then
//! *queued* in the outgoing stream, then *sent*: its last byte was taken by the transport, and the deadline runs.

mod chance;
mod config;
mod configure;
mod judge;
mod news;

use super::moment::{Moment, nanos};
pub use chance::Seed;
pub use config::{HeartbeatConfig, HeartbeatKind, Liveness};
use judge::Mark;
pub use judge::{Answers, PathSample, Silent};
pub use news::HeartbeatEvent;
use news::News;
use std::{num::NonZeroU64, time::Duration};

/// The bytes of a ping's payload: the secret and a counter.
pub const PING_PAYLOAD: usize = 12;

/// The heartbeat of one leg.
#[derive(Debug)]
pub struct Heartbeat {
    secret: u64,
    jitter: u64,
    counter: u32,
    beat: Beat,
    /// What TCP knew when the ping that is due or under way began to be judged. Boxed: for most of the time there is none.
    mark: Option<Box<Mark>>,
    /// When the last byte arrived.
    heard: Moment,
    /// When the newest ping left, while unanswered.
    asked: Option<Moment>,
    /// An application's ping that crossed to this leg and is unanswered.
    app_ping: Option<AppPing>,
    /// Since when this leg is not read, because the other one does not take what comes.
    unread: Option<Moment>,
    /// TCP holds bytes for a peer whose window is closed: first and last time that this was seen. Boxed: it is rare.
    blocked: Option<Box<(Moment, Moment)>>,
    /// The leg was found silent; it is read once more before that is said.
    last_look: bool,
    news: Option<News>,
    sent: u32,
    answered: u32,
    /// In nanoseconds, at least one.
    round_trip: Option<NonZeroU64>,
}

/// An unanswered ping of the application at the other end.
#[derive(Clone, Copy, Debug)]
struct AppPing {
    since: Moment,
    /// The stream position behind its frame, until the transport took it.
    end: Option<NonZeroU64>,
}

impl AppPing {
    fn left(&self) -> bool {
        self.end.is_none()
    }
}

/// Where the present ping is. At most one is under way. `asked`: ours was held for an application's ping that had
/// left by `since`. That one is the question then, and its deadline ours.
#[derive(Clone, Copy, Debug)]
enum Beat {
    Off,
    Idle {
        next: Moment,
    },
    Due {
        since: Moment,
        asked: bool,
    },
    Queued {
        since: Moment,
        end: u64,
        asked: bool,
    },
    /// `left`: where the deadline, however often extended, began.
    Sent {
        left: Moment,
        deadline: Moment,
    },
    /// The last one, of a leg that closes: it still counts when it leaves.
    Leaving {
        end: u64,
    },
}

impl Heartbeat {
    /// A heartbeat whose first ping comes at a random phase of the interval, so that sessions opened together
    /// do not ping together.
    #[must_use]
    pub fn new(config: &HeartbeatConfig, seed: Seed, now: Moment) -> Self {
        let mut heartbeat = Self {
            secret: seed.secret,
            jitter: seed.jitter,
            counter: 0,
            beat: Beat::Off,
            mark: None,
            heard: now,
            asked: None,
            app_ping: None,
            unread: None,
            blocked: None,
            last_look: false,
            news: None,
            sent: 0,
            answered: 0,
            round_trip: None,
        };
        if let Some(interval) = config.ping_interval {
            heartbeat.beat = heartbeat.first(interval, now);
        }
        heartbeat
    }

    /// Pings (or unsolicited pongs) that left.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// Pongs to our pings, late ones too.
    #[must_use]
    pub fn answered(&self) -> u32 {
        self.answered
    }

    /// The latest round-trip time.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|nanos| Duration::from_nanos(nanos.get()))
    }

    /// When the last byte arrived.
    #[must_use]
    pub fn heard(&self) -> Moment {
        self.heard
    }

    /// How long TCP has been seen to hold bytes, our ping or what lies before it, for a peer that closed its window:
    /// that is slow, not silent, so `timeouts.stall` judges.
    #[must_use]
    pub fn blocked(&self) -> Option<Duration> {
        self.blocked.as_deref().map(|(first, last)| *last - *first)
    }

    /// A ping left and nothing answered it yet: when it left.
    #[must_use]
    pub fn asked(&self) -> Option<Moment> {
        self.asked
    }

    /// Bytes arrived. They settle a ping that has left, unless only pongs count.
    #[inline]
    pub fn on_bytes(&mut self, config: &HeartbeatConfig, now: Moment) {
        self.heard = now;
        self.last_look = false;
        if config.liveness == Liveness::Traffic {
            self.answered_by_anything(config, now);
        }
    }

    /// The peer lives, and we or the application had asked it.
    #[inline]
    fn answered_by_anything(&mut self, config: &HeartbeatConfig, now: Moment) {
        match &mut self.beat {
            Beat::Sent { .. } | Beat::Due { asked: true, .. } => self.settle(config, now),
            Beat::Queued { asked, .. } => *asked = false,
            Beat::Off | Beat::Idle { .. } | Beat::Due { asked: false, .. } | Beat::Leaving { .. } => {}
        }
    }

    /// A pong arrived: whether it answers one of our pings (and so must not cross to the other leg).
    pub fn on_pong(&mut self, config: &HeartbeatConfig, payload: &[u8], now: Moment) -> bool {
        let Some(number) = self.recognise(payload) else {
            if self.app_ping.take().is_some() {
                match &mut self.beat {
                    Beat::Due { .. } | Beat::Sent { .. } => self.settle(config, now),
                    Beat::Queued { asked, .. } => *asked = false,
                    Beat::Off | Beat::Idle { .. } | Beat::Leaving { .. } => {}
                }
            }
            return false;
        };
        self.answered = self.answered.saturating_add(1);
        if number == self.counter {
            if let Some(left) = self.asked.take() {
                self.round_trip = Some(NonZeroU64::new(nanos(now - left)).unwrap_or(NonZeroU64::MIN));
                self.news = Some(News::Answered);
            }
            if matches!(self.beat, Beat::Queued { .. }) {
                // It left, though its transport always held back something behind it and never said so.
                self.sent = self.sent.saturating_add(1);
                self.news = Some(News::Sent);
            }
            if matches!(self.beat, Beat::Queued { .. } | Beat::Sent { .. }) {
                self.settle(config, now);
            }
        } else {
            self.news.get_or_insert(News::AnsweredLate);
        }
        true
    }

    /// A ping of the application at the other end crosses to this leg; `end` is the stream position behind its frame.
    pub fn on_app_ping(&mut self, end: u64, now: Moment) {
        self.app_ping.get_or_insert(AppPing { since: now, end: NonZeroU64::new(end) });
    }

    /// Whether a ping is due, though an application's may hold it back.
    #[inline]
    #[must_use]
    pub fn waits_to_leave(&self) -> bool {
        matches!(self.beat, Beat::Due { .. })
    }

    /// Whether a ping should go out at the next frame border.
    #[inline]
    #[must_use]
    pub fn due(&self, config: &HeartbeatConfig, now: Moment) -> bool {
        self.waits_to_leave() && self.held_until(config).is_none_or(|until| now >= until)
    }

    /// The payload of the ping that is due; `end` is the stream position behind its frame.
    pub fn queue(&mut self, end: impl FnOnce(usize) -> u64) -> [u8; PING_PAYLOAD] {
        self.counter = self.counter.wrapping_add(1);
        self.app_ping = None;
        self.asked = None;
        if let Beat::Due { since, asked } = self.beat {
            self.beat = Beat::Queued { since, end: end(PING_PAYLOAD), asked };
        }
        let mut payload = [0; PING_PAYLOAD];
        payload[..8].copy_from_slice(&self.secret.to_be_bytes());
        payload[8..].copy_from_slice(&self.counter.to_be_bytes());
        payload
    }

    /// Whether `on_taken` waits for the transport to take a ping.
    #[inline]
    #[must_use]
    pub fn waits_for_transport(&self) -> bool {
        matches!(self.beat, Beat::Queued { .. } | Beat::Leaving { .. })
            || self.app_ping.is_some_and(|ping| !ping.left())
    }

    /// The transport took the outgoing stream up to `taken`.
    pub fn on_taken(
        &mut self,
        config: &HeartbeatConfig,
        taken: u64,
        now: Moment,
        sample: impl FnOnce() -> Option<PathSample>,
    ) {
        if let Some(ping) = &mut self.app_ping {
            ping.end = ping.end.filter(|end| taken < end.get());
        }
        let (Beat::Queued { end, .. } | Beat::Leaving { end }) = self.beat else { return };
        if taken < end {
            return;
        }
        self.sent = self.sent.saturating_add(1);
        self.news = Some(News::Sent);
        if matches!(self.beat, Beat::Leaving { .. }) {
            self.beat = Beat::Off;
            return;
        }
        match (config.kind, config.ping_timeout) {
            (HeartbeatKind::Pong, _) => self.settle(config, now),
            (HeartbeatKind::Ping, None) => {
                self.asked = Some(now);
                self.settle(config, now);
            }
            (HeartbeatKind::Ping, Some(timeout)) => {
                self.asked = Some(now);
                let left = sample().map(Mark::new);
                if let Beat::Queued { since, asked: true, .. } = self.beat {
                    self.set_mark(left.map(|left| left.since(self.mark.as_deref())));
                    self.beat = Beat::Sent { left: since, deadline: since + timeout };
                } else {
                    // The deadline stands still while the leg is not read.
                    self.unread = self.unread.map(|_| now);
                    self.set_mark(left);
                    self.beat = Beat::Sent { left: now, deadline: now + timeout };
                }
            }
        }
    }

    /// The leg is read, or no longer: what is not read cannot be called silent.
    #[inline]
    pub fn reading(&mut self, reading: bool, now: Moment) {
        match (reading, self.unread) {
            (true, None) | (false, Some(_)) => {}
            (false, None) => self.unread = Some(now),
            (true, Some(since)) => {
                self.unread = None;
                let paused = now - since;
                match &mut self.beat {
                    Beat::Sent { left, deadline } => {
                        *left += paused;
                        *deadline += paused;
                    }
                    Beat::Due { since, .. } | Beat::Queued { since, .. } => *since += paused,
                    Beat::Off | Beat::Idle { .. } | Beat::Leaving { .. } => {}
                }
            }
        }
    }

    /// A leg that is read later than its peer sends cannot be called silent, so nothing judges a ping that it does not answer.
    /// It is asked again when its time comes, as if it had: what is written to a peer that has left fails.
    pub fn ask_again(&mut self, config: &HeartbeatConfig, now: Moment) {
        let long = |left| config.ping_interval.is_some_and(|interval| now - left >= interval);
        if matches!(self.beat, Beat::Sent { .. }) && self.asked.is_some_and(long) {
            self.mark = None;
            self.beat = Beat::Due { since: now, asked: false };
        }
    }

    /// The gateway itself was paused: whatever was asked before is asked anew.
    pub fn resume(&mut self, now: Moment) {
        self.last_look = false;
        self.blocked = None;
        self.mark = None;
        self.unread = self.unread.map(|_| now);
        self.app_ping = None;
        match self.beat {
            Beat::Off | Beat::Idle { .. } | Beat::Leaving { .. } => {}
            Beat::Due { .. } | Beat::Sent { .. } => self.beat = Beat::Due { since: now, asked: false },
            Beat::Queued { end, .. } => self.beat = Beat::Queued { since: now, end, asked: false },
        }
    }

    /// A closing leg knows no ping.
    pub fn stop(&mut self) {
        self.blocked = None;
        self.mark = None;
        self.app_ping = None;
        self.beat = match self.beat {
            Beat::Queued { end, .. } | Beat::Leaving { end } => Beat::Leaving { end },
            Beat::Off | Beat::Idle { .. } | Beat::Due { .. } | Beat::Sent { .. } => Beat::Off,
        };
    }

    fn settle(&mut self, config: &HeartbeatConfig, now: Moment) {
        self.last_look = false;
        self.blocked = None;
        self.mark = None;
        self.beat = match config.ping_interval {
            Some(interval) => Beat::Idle { next: now + interval.mul_f64(self.spread(config.jitter)) },
            None => Beat::Off,
        };
    }

    fn set_mark(&mut self, mark: Option<Mark>) {
        match (&mut self.mark, mark) {
            (Some(place), Some(mark)) => **place = mark,
            (place, mark) => *place = mark.map(Box::new),
        }
    }

    /// When ours goes out though an application's ping is unanswered.
    fn held_until(&self, config: &HeartbeatConfig) -> Option<Moment> {
        self.app_ping.map(|ping| ping.since + Self::patience(config))
    }

    /// How long an application's ping may hold ours back.
    fn patience(config: &HeartbeatConfig) -> Duration {
        config.ping_timeout.or(config.ping_interval).unwrap_or_default()
    }

    /// The number of the ping of ours that this payload answers.
    fn recognise(&self, payload: &[u8]) -> Option<u32> {
        let (secret, number) = payload.split_first_chunk::<8>()?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        (u64::from_be_bytes(*secret) == self.secret && number.wrapping_sub(1) < self.counter).then_some(number)
    }
}

#[cfg(test)]
mod tests;
