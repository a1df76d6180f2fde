//! When a deadline is due: dead, or only slow? TCP knows more than silence does.

use super::{Beat, Heartbeat, HeartbeatConfig, HeartbeatEvent, HeartbeatKind, Liveness};
use std::time::{Duration, Instant};

/// What TCP knows of a path (`TCP_INFO` and `SIOCOUTQ`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSample {
    /// Bytes that the peer has acknowledged, from an arbitrary start.
    pub acked: u64,
    /// Bytes given to the socket that the peer has not acknowledged.
    pub queued: u64,
    /// Whether some of them are on the way (and not held back by a closed window).
    pub in_flight: bool,
    /// Time since the last acknowledgement of any kind.
    pub since_ack: Duration,
}

/// What TCP knew when a ping left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// `acked` once the ping itself is acknowledged.
    ping: u64,
    /// `acked` when last looked at.
    seen: u64,
}

impl Mark {
    pub(super) fn new(sample: PathSample) -> Self {
        Self { ping: sample.acked + sample.queued, seen: sample.acked }
    }
}

/// How sure we are that this peer answers pings at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It must, or it answered one before: silence is death.
    Proven,
    /// Nobody of its kind ever did: TCP's word is taken for it.
    Unproven,
}

/// A deadline passed without a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent;

/// Long enough for the event loop to bring what has arrived meanwhile.
const LAST_LOOK: Duration = Duration::from_millis(2);

impl Heartbeat {
    /// When `on_timeout` has something to do.
    #[must_use]
    pub fn poll_timeout(&self, config: &HeartbeatConfig) -> Option<Instant> {
        match self.beat {
            Beat::Off => None,
            Beat::Idle { next } => Some(next),
            Beat::Due { since } => {
                let held = self.app_ping.map(|since| since + Self::patience(config));
                let judged = self.judged_at(config, since);
                [held, judged].into_iter().flatten().min()
            }
            Beat::Queued { since, .. } => self.judged_at(config, since),
            // An unread leg is not judged; reading it again moves the deadline.
            Beat::Sent { deadline, .. } => self.unread.is_none().then_some(deadline),
        }
    }

    fn judged_at(&self, config: &HeartbeatConfig, since: Instant) -> Option<Instant> {
        let judged = config.kind == HeartbeatKind::Ping && self.unread.is_none();
        config.ping_timeout.filter(|_| judged).map(|timeout| since + timeout)
    }

    /// Does what is due now.
    ///
    /// # Errors
    /// `Silent`: the peer is dead.
    pub fn on_timeout(
        &mut self,
        config: &HeartbeatConfig,
        answers: Answers,
        now: Instant,
        sample: impl FnOnce() -> Option<PathSample>,
    ) -> Result<(), Silent> {
        if self.poll_timeout(config).is_none_or(|at| at > now) {
            return Ok(());
        }
        match self.beat {
            Beat::Off => Ok(()),
            Beat::Idle { .. } => {
                self.beat = Beat::Due { since: now };
                Ok(())
            }
            Beat::Due { since } | Beat::Queued { since, .. } => self.judge_waiting(config, since, now, sample),
            Beat::Sent { left, mark, .. } => self.judge_sent(config, answers, left, mark, now, sample),
        }
    }

    /// The ping could not leave for a whole `ping_timeout`.
    fn judge_waiting(
        &mut self,
        config: &HeartbeatConfig,
        since: Instant,
        now: Instant,
        sample: impl FnOnce() -> Option<PathSample>,
    ) -> Result<(), Silent> {
        if self.app_ping.is_some_and(|asked| now >= asked + Self::patience(config)) {
            // The patience with an application's ping is over.
            self.app_ping = None;
        }
        let (Some(timeout), Some(due)) = (config.ping_timeout, self.judged_at(config, since)) else { return Ok(()) };
        if now < due {
            return Ok(());
        }
        if self.heard + timeout > now {
            self.wait_from(self.heard);
            return Ok(());
        }
        match sample() {
            Some(path) if path.in_flight && path.since_ack >= timeout => self.look_once_more(timeout, now),
            Some(path) if path.in_flight => {
                self.wait_from(Self::last_ack(path, now));
                Ok(())
            }
            // A closed window whose probes are answered, or no TCP to ask: slow, and `timeouts.stall` judges.
            Some(_) | None => {
                self.wait_from(now);
                Ok(())
            }
        }
    }

    /// The ping left, and its deadline passed.
    fn judge_sent(
        &mut self,
        config: &HeartbeatConfig,
        answers: Answers,
        left: Instant,
        mark: Option<Mark>,
        now: Instant,
        sample: impl FnOnce() -> Option<PathSample>,
    ) -> Result<(), Silent> {
        let timeout = config.ping_timeout.unwrap_or_default();
        let strict = config.liveness == Liveness::Pong;
        let mut taken_by_peer = true;
        if !strict && let (Some(mut mark), Some(path)) = (mark, sample()) {
            taken_by_peer = path.acked >= mark.ping;
            // The ping's own acknowledgement is no life: a frozen process's kernel gives it too.
            let advanced = path.acked > if taken_by_peer { mark.seen.max(mark.ping) } else { mark.seen };
            mark.seen = path.acked;
            let mut deadline = Self::last_ack(path, now) + timeout;
            if taken_by_peer {
                deadline = deadline.min(left + 3 * timeout);
            }
            if advanced && deadline > now {
                self.beat = Beat::Sent { left, deadline, mark: Some(mark) };
                return Ok(());
            }
        }
        if !strict && answers == Answers::Unproven && taken_by_peer {
            self.event = Some(HeartbeatEvent::Unproven);
            self.settle(config, now);
            return Ok(());
        }
        self.look_once_more(timeout, now)
    }

    /// What arrived but was not delivered to us yet still counts.
    fn look_once_more(&mut self, timeout: Duration, now: Instant) -> Result<(), Silent> {
        if std::mem::replace(&mut self.last_look, true) {
            return Err(Silent);
        }
        match &mut self.beat {
            Beat::Sent { deadline, .. } => *deadline = now + LAST_LOOK,
            Beat::Due { since } | Beat::Queued { since, .. } => {
                *since = (now + LAST_LOOK).checked_sub(timeout).unwrap_or(*since);
            }
            Beat::Off | Beat::Idle { .. } => {}
        }
        Ok(())
    }

    fn wait_from(&mut self, from: Instant) {
        match &mut self.beat {
            Beat::Due { since } | Beat::Queued { since, .. } => *since = from,
            Beat::Off | Beat::Idle { .. } | Beat::Sent { .. } => {}
        }
    }

    fn last_ack(path: PathSample, now: Instant) -> Instant {
        now.checked_sub(path.since_ack).unwrap_or(now)
    }
}
