//! A talk with a service: our pings, its pings, and its closing handshake.
use super::wire::{Arrived, Ending, Wire};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How it answers pings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pings {
    pub sent: u32,
    /// From a ping to its pong, shortest first.
    pub round_trips: Vec<Duration>,
}

impl Pings {
    /// The round trip that a share of them (0.0 to 1.0) did not exceed; nothing if no ping was answered.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let last = self.round_trips.len().checked_sub(1)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = (share * self.round_trips.len() as f64).ceil() as usize;
        self.round_trips.get(index.saturating_sub(1).min(last)).copied()
    }
}

/// What a service sent of its own accord.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// When its pings came, counted from the 101.
    pub pings: Vec<Duration>,
    /// Pongs that answered nothing: a one-sided heartbeat (RFC 6455 section 5.5.3).
    pub pongs: u32,
    /// Frames of messages, and their bytes.
    pub frames: u64,
    pub bytes: u64,
    /// How long it was watched.
    pub watched: Duration,
}

impl Own {
    /// The mean time between its pings; with one alone, the time until that.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        match self.pings.as_slice() {
            [] => None,
            [one] => Some(*one),
            [first, .., last] => Some((*last - *first) / u32::try_from(self.pings.len() - 1).unwrap_or(u32::MAX)),
        }
    }
}

/// How it keeps the closing handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// From our close frame to its answer.
    pub answered: Option<(Duration, Ending)>,
    /// From its answer to the end of the connection.
    pub ended: Option<(Duration, Ending)>,
}

/// One connection, watched from its 101 on.
pub(super) struct Talk {
    pub(super) wire: Wire,
    since: Instant,
    pub(super) own: Own,
    pub(super) pings: Pings,
}

impl Talk {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, since: Instant::now(), own: Own::default(), pings: Pings::default() }
    }

    /// Time since the 101.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Waits until one thing came, and answers it if it is a ping; a pong's payload. Dropping the future loses nothing but
    /// an answer under way.
    pub(super) async fn stir(&mut self) -> Result<Option<Vec<u8>>, Ending> {
        match self.wire.arrived().await {
            Arrived::Pong(payload) => return Ok(Some(payload)),
            Arrived::Ping(payload) => {
                self.own.pings.push(self.since.elapsed());
                self.wire.pong(payload).await?;
            }
            Arrived::Data(bytes) => {
                self.own.frames += 1;
                self.own.bytes += bytes;
            }
            Arrived::Ended(ending) => return Err(ending),
        }
        Ok(None)
    }

    /// The next pong.
    async fn pong(&mut self) -> Result<Vec<u8>, Ending> {
        loop {
            if let Some(payload) = self.stir().await? {
                return Ok(payload);
            }
        }
    }

    /// Sends a ping and waits for its pong; `None` if it does not come in time.
    pub(super) async fn round_trip(&mut self, within: Duration) -> Result<Option<Duration>, Ending> {
        let secret = fastrand::u64(..).to_be_bytes();
        let start = Instant::now();
        self.wire.ping(&secret).await?;
        let answered = timeout(within, async {
            while self.pong().await? != secret {
                self.own.pongs += 1;
            }
            Ok(start.elapsed())
        });
        answered.await.ok().transpose()
    }

    /// Sends `count` pings, one each `every`; the first that is not answered is the last. What was learned stands in `pings`, also
    /// of a future that was dropped.
    pub(super) async fn ping(&mut self, count: u32, every: Duration, within: Duration) -> Result<(), Ending> {
        for index in 0..count {
            let next = Instant::now() + every;
            self.pings.sent += 1;
            let Some(round_trip) = self.round_trip(within).await? else { break };
            let shorter = self.pings.round_trips.partition_point(|other| *other < round_trip);
            self.pings.round_trips.insert(shorter, round_trip);
            if index + 1 < count {
                self.watch(next).await?;
            }
        }
        Ok(())
    }

    /// Listens until a time.
    pub(super) async fn watch(&mut self, until: Instant) -> Result<(), Ending> {
        loop {
            tokio::select! {
                biased;
                pong = self.pong() => {
                    pong?;
                    self.own.pongs += 1;
                }
                () = sleep_until(until) => return Ok(()),
            }
        }
    }

    /// Our close frame, its answer, its end.
    pub(super) async fn close(mut self, within: Duration) -> Closing {
        let start = Instant::now();
        let answer = match self.wire.close().await {
            Ok(()) => timeout(within, self.ending()).await.ok(),
            Err(ending) => Some(ending),
        };
        let Some(answer) = answer else { return Closing { answered: None, ended: None } };
        let answered = start.elapsed();
        match answer {
            Ending::Close { .. } => {
                let start = Instant::now();
                let end = timeout(within, self.ending()).await.ok().map(|end| (start.elapsed(), end));
                Closing { answered: Some((answered, answer)), ended: end }
            }
            Ending::End | Ending::Reset | Ending::Broken(_) => {
                Closing { answered: None, ended: Some((answered, answer)) }
            }
        }
    }

    /// Waits for the next end, whatever comes before it.
    pub(super) async fn ending(&mut self) -> Ending {
        loop {
            if let Arrived::Ended(ending) = self.wire.arrived().await {
                return ending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_round_trips_that_were_measured() {
        let pings = |count: u64| Pings { sent: 1, round_trips: (1..=count).map(Duration::from_millis).collect() };
        assert_eq!(pings(0).percentile(0.5), None);
        let of = |count, share| pings(count).percentile(share).map(|time| time.as_millis());
        assert_eq!([of(1, 0.0), of(1, 0.5), of(1, 1.0)], [Some(1); 3]);
        assert_eq!([of(10, 0.0), of(10, 0.5), of(10, 0.9), of(10, 0.99)], [Some(1), Some(5), Some(9), Some(10)]);
    }

    #[test]
    fn its_interval_is_a_mean_or_the_time_until_the_only_ping() {
        let own =
            |times: &[u64]| Own { pings: times.iter().copied().map(Duration::from_secs).collect(), ..Own::default() };
        assert_eq!(own(&[]).interval(), None);
        assert_eq!(own(&[20]).interval(), Some(Duration::from_secs(20)));
        assert_eq!(own(&[3, 23, 43]).interval(), Some(Duration::from_secs(20)));
    }
}
