//! When a deadline is due: dead, or only slow? TCP knows more than silence does.

use super::{Beat, Heartbeat, HeartbeatConfig, HeartbeatKind, Liveness, news::News};
use crate::protocol::moment::Moment;
use std::time::Duration;

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

/// What TCP knew when a ping left, or when one that cannot leave was last looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// `acked` once all that was given to the socket by then is acknowledged: the ping itself, if it left.
    end: u64,
    /// `acked` when last looked at.
    seen: u64,
}

impl Mark {
    pub(super) fn new(sample: PathSample) -> Self {
        Self { end: sample.acked + sample.queued, seen: sample.acked }
    }

    /// Acknowledgements since an earlier mark count.
    pub(super) fn since(self, earlier: Option<&Self>) -> Self {
        Self { seen: earlier.map_or(self.seen, |earlier| earlier.seen), ..self }
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

/// Room for our ping alone, masked and in a TLS record of its own.
const PING_ON_THE_WIRE: u64 = 64;

impl Heartbeat {
    /// When `on_timeout` has something to do.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self, config: &HeartbeatConfig) -> Option<Moment> {
        match self.beat {
            Beat::Off | Beat::Leaving { .. } => None,
            Beat::Idle { next } => Some(next),
            Beat::Due { since, .. } => {
                let judged = self.judged_at(config, since);
                [self.held_until(config), judged].into_iter().flatten().min()
            }
            Beat::Queued { since, .. } => self.judged_at(config, since),
            // An unread leg is not judged; reading it again moves the deadline.
            Beat::Sent { deadline, .. } => self.unread.is_none().then_some(deadline),
        }
    }

    fn judged_at(&self, config: &HeartbeatConfig, since: Moment) -> Option<Moment> {
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
        now: Moment,
        sample: impl FnOnce() -> Option<PathSample>,
    ) -> Result<(), Silent> {
        if self.poll_timeout(config).is_none_or(|at| at > now) {
            return Ok(());
        }
        match self.beat {
            Beat::Off | Beat::Leaving { .. } => Ok(()),
            Beat::Idle { .. } => {
                let held = self.held_until(config).is_some_and(|until| until > now);
                let asked = held && self.app_ping.is_some_and(|ping| ping.left());
                self.beat = Beat::Due { since: now, asked };
                self.set_mark(sample().map(Mark::new));
                Ok(())
            }
            Beat::Due { since, .. } | Beat::Queued { since, .. } => self.judge_waiting(config, since, now, sample),
            Beat::Sent { left, .. } => self.judge_sent(config, answers, left, now, sample),
        }
    }

    /// The ping could not leave for a whole `ping_timeout`.
    fn judge_waiting(
        &mut self,
        config: &HeartbeatConfig,
        since: Moment,
        now: Moment,
        sample: impl FnOnce() -> Option<PathSample>,
    ) -> Result<(), Silent> {
        if self.held_until(config).is_some_and(|until| now >= until) {
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
        let Some(path) = sample() else {
            // No TCP to ask: `timeouts.stall` judges.
            self.set_mark(None);
            self.wait_from(now);
            return Ok(());
        };
        let mark = self.mark.as_deref();
        let advanced = mark.is_some_and(|mark| path.acked > mark.seen);
        // What is on the way now may have left only now; what was given before must be acknowledged by now.
        let overdue = mark.is_some_and(|mark| path.acked < mark.end);
        if path.in_flight && overdue && !advanced {
            return self.look_once_more(timeout, now);
        }
        self.look_at_window(path, advanced, now);
        let from = if path.in_flight && overdue { Self::last_ack(path, now) } else { now };
        self.set_mark(Some(Mark::new(path)));
        self.wait_from(from);
        Ok(())
    }

    /// The ping left, and its deadline passed.
    fn judge_sent(
        &mut self,
        config: &HeartbeatConfig,
        answers: Answers,
        left: Moment,
        now: Moment,
        sample: impl FnOnce() -> Option<PathSample>,
    ) -> Result<(), Silent> {
        let timeout = config.ping_timeout.unwrap_or_default();
        let strict = config.liveness == Liveness::Pong;
        let own = self.asked.filter(|own| *own > left && *own + timeout > now);
        if let (Some(own), Answers::Unproven, false) = (own, answers, strict) {
            // The question was an application's ping; ours, which followed it, has its own time with TCP.
            self.beat = Beat::Sent { left: own, deadline: own + timeout };
            return Ok(());
        }
        let mut taken_by_peer = true;
        if !strict && let (Some(mark), Some(path)) = (self.mark.as_deref().copied(), sample()) {
            taken_by_peer = path.acked >= mark.end;
            let advanced = path.acked > mark.seen;
            self.look_at_window(path, advanced, now);
            let last_ack = Self::last_ack(path, now);
            let worked = advanced && mark.seen + PING_ON_THE_WIRE < mark.end;
            let (left, deadline) = if !taken_by_peer && self.blocked.is_some() {
                (left, now + timeout)
            } else if worked {
                // It works through what lay before the ping: all begins anew, where this deadline began.
                (now - timeout, last_ack + timeout)
            } else if path.acked > mark.end.max(mark.seen) {
                (left, (last_ack + timeout).min(left + 3 * timeout))
            } else {
                // The ping's own acknowledgement is no life: a frozen process's kernel gives it too.
                (left, now)
            };
            if deadline > now {
                self.last_look = false;
                self.set_mark(Some(Mark { seen: path.acked, ..mark }));
                self.beat = Beat::Sent { left, deadline };
                return Ok(());
            }
        }
        if !strict && answers == Answers::Unproven && taken_by_peer {
            self.news = Some(News::Unproven);
            // Its kernel answered long ago.
            self.settle(config, left);
            return Ok(());
        }
        self.look_once_more(timeout, now)
    }

    /// A window that is closed and stays so is slowness, whose judge is `timeouts.stall`.
    fn look_at_window(&mut self, path: PathSample, advanced: bool, now: Moment) {
        let closed = path.queued > 0 && !path.in_flight;
        let first = self.blocked.as_deref().filter(|_| !advanced).map_or(now, |(first, _)| *first);
        self.blocked = closed.then(|| Box::new((first, now)));
    }

    /// What arrived but was not delivered to us yet still counts.
    fn look_once_more(&mut self, timeout: Duration, now: Moment) -> Result<(), Silent> {
        if std::mem::replace(&mut self.last_look, true) {
            self.news = Some(News::Missed);
            return Err(Silent);
        }
        match &mut self.beat {
            Beat::Sent { deadline, .. } => *deadline = now + LAST_LOOK,
            Beat::Due { since, .. } | Beat::Queued { since, .. } => {
                *since = now + LAST_LOOK - timeout;
            }
            Beat::Off | Beat::Idle { .. } | Beat::Leaving { .. } => {}
        }
        Ok(())
    }

    fn wait_from(&mut self, from: Moment) {
        self.last_look = false;
        match &mut self.beat {
            Beat::Due { since, .. } | Beat::Queued { since, .. } => *since = from,
            Beat::Off | Beat::Idle { .. } | Beat::Leaving { .. } | Beat::Sent { .. } => {}
        }
    }

    fn last_ack(path: PathSample, now: Moment) -> Moment {
        now - path.since_ack
    }
}
