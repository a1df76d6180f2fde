//! Messages at their times: an open loop, whose load does not wait for answers.
use crate::tally::Tally;
use rustix::{
    fs::Timespec,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use std::{
    cell::Cell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt, net::unix::pipe};

/// The timer does not fire more often: messages that are due together are sent together.
const TICK: Duration = Duration::from_micros(20);

/// Message k of all is due k / rate after the beginning, on connection k modulo their number.
pub(crate) struct Pace {
    begun: Instant,
    rate: f64,
    connections: u64,
    /// Messages that are due so far, and those of them that came back.
    due: Cell<u64>,
    answered: Cell<u64>,
    frozen: Cell<bool>,
}

impl Pace {
    pub(crate) fn new(rate: f64, connections: usize) -> Rc<Self> {
        Rc::new(Self {
            begun: Instant::now(),
            rate,
            connections: connections as u64,
            due: Cell::new(0),
            answered: Cell::new(0),
            frozen: Cell::new(false),
        })
    }

    /// Messages due so far on one connection.
    pub(crate) fn due(&self, index: usize) -> u64 {
        (self.due.get() + self.connections - 1 - index as u64) / self.connections
    }

    /// How long ago the `nth` message of a connection was due.
    pub(crate) fn late(&self, index: usize, nth: u64, now: Instant) -> Duration {
        let place = nth * self.connections + index as u64;
        now.saturating_duration_since(self.begun + Duration::from_secs_f64(place as f64 / self.rate))
    }

    pub(crate) fn answered(&self, messages: u64) {
        self.answered.set(self.answered.get() + messages);
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.due.get() - self.answered.get()
    }

    /// No more messages become due.
    pub(crate) fn freeze(&self) {
        self.frozen.set(true);
    }

    /// Wakes each connection when a message of its is due. Tokio's own timer is exact to a millisecond only.
    pub(crate) async fn run(self: Rc<Self>, tally: Rc<Tally>) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let every = Duration::from_secs_f64(1.0 / self.rate).max(TICK);
        let every = Timespec { tv_sec: every.as_secs() as i64, tv_nsec: every.subsec_nanos().into() };
        let at = Itimerspec { it_interval: every, it_value: every };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &at)?;
        // It reads like a pipe: eight bytes, and then nothing until it fires again.
        let mut timer = pipe::Receiver::from_owned_fd_unchecked(timer)?;
        loop {
            if timer.read(&mut [0; 16]).await? == 0 {
                return Ok(());
            }
            if self.frozen.get() {
                return Ok(());
            }
            let (before, now) = (self.due.get(), self.due_at(Instant::now()));
            self.due.set(now);
            for message in before..now.min(before + self.connections) {
                tally.wake((message % self.connections) as usize);
            }
        }
    }

    fn due_at(&self, now: Instant) -> u64 {
        (now.duration_since(self.begun).as_secs_f64() * self.rate) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_round_the_connections() {
        let pace = Pace::new(1000.0, 3);
        pace.due.set(7);
        assert_eq!([0, 1, 2].map(|index| pace.due(index)), [3, 2, 2]);
        assert_eq!(pace.due_at(pace.begun), 1);
        assert_eq!(pace.due_at(pace.begun + Duration::from_micros(6500)), 7);
    }

    #[test]
    fn latency_counts_from_when_a_message_was_due() {
        let pace = Pace::new(1000.0, 3);
        let now = pace.begun + Duration::from_millis(10);
        // The second message of the second connection is the fifth of all, due after 4 ms.
        let late = pace.late(1, 1, now);
        assert!(late.abs_diff(Duration::from_millis(6)) < Duration::from_nanos(2), "{late:?}");
        pace.due.set(7);
        pace.answered(5);
        assert_eq!(pace.unanswered(), 2);
    }
}
