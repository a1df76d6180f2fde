//! New settings for a heartbeat that runs.

use super::{Beat, Heartbeat, HeartbeatConfig, HeartbeatKind};
use crate::protocol::moment::Moment;
use std::time::Duration;

impl Heartbeat {
    /// From now on it obeys `new`, which stands in the place of `old`. Nobody is called dead by the change itself: a
    /// deadline that runs becomes the new one, counted from now at the earliest. Not for a leg that closes.
    pub fn configure(&mut self, old: &HeartbeatConfig, new: &HeartbeatConfig, now: Moment) {
        if old == new {
            return;
        }
        self.last_look = false;
        self.blocked = None;
        let judged = |config: &HeartbeatConfig| config.ping_timeout.filter(|_| config.kind == HeartbeatKind::Ping);
        let (was, is) = (judged(old), judged(new));
        let interval = new.ping_interval;
        match (self.beat, interval) {
            (Beat::Leaving { .. }, _) | (Beat::Off, None) => {}
            (Beat::Off, Some(interval)) => self.beat = self.first(interval, now),
            (Beat::Idle { next }, Some(interval)) => self.beat = self.rescaled(next, old.ping_interval, interval, now),
            (Beat::Idle { .. } | Beat::Due { .. }, None) => self.beat = Beat::Off,
            (Beat::Queued { end, .. }, None) => self.beat = Beat::Leaving { end },
            (Beat::Due { since, asked }, Some(_)) => self.beat = Beat::Due { since: begun(since, was, is, now), asked },
            (Beat::Queued { since, end, asked }, Some(_)) => {
                self.beat = Beat::Queued { since: begun(since, was, is, now), end, asked };
            }
            (Beat::Sent { left, deadline }, _) => match (was, is, interval) {
                (Some(was), Some(is), Some(_)) => {
                    let deadline = if is < was { deadline.min(now + is) } else { deadline + (is - was) };
                    self.beat = Beat::Sent { left: left.max(deadline - is), deadline };
                }
                // Nothing is judged any more; its answer still tells the round trip.
                _ => self.settle(new, now),
            },
        }
    }

    /// A first ping at a random phase.
    pub(super) fn first(&mut self, interval: Duration, now: Moment) -> Beat {
        Beat::Idle { next: now + interval.mul_f64(self.random()) }
    }

    /// What is left of the interval, in the new measure: pings that were spread out stay so.
    fn rescaled(&mut self, next: Moment, old: Option<Duration>, new: Duration, now: Moment) -> Beat {
        let Some(old) = old.filter(|old| !old.is_zero()) else { return self.first(new, now) };
        if old == new {
            return Beat::Idle { next };
        }
        Beat::Idle { next: now + (next - now).mul_f64(new.as_secs_f64() / old.as_secs_f64()) }
    }
}

/// Since when a ping that waits is judged, so that its deadline is the old one or a whole new one from now, whichever
/// comes first.
fn begun(since: Moment, was: Option<Duration>, is: Option<Duration>, now: Moment) -> Moment {
    let Some(is) = is else { return since };
    let fresh = now + is;
    let due = was.map_or(fresh, |was| fresh.min(since + was));
    since.max(due - is)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{
        Answers, Liveness, Seed,
        tests::{CONFIG, Rig},
    };
    use super::*;

    fn every(seconds: u64) -> HeartbeatConfig {
        HeartbeatConfig { ping_interval: Some(Duration::from_secs(seconds)), ..CONFIG }
    }

    fn within(seconds: u64) -> HeartbeatConfig {
        HeartbeatConfig { ping_timeout: Some(Duration::from_secs(seconds)), ..CONFIG }
    }

    fn off() -> HeartbeatConfig {
        HeartbeatConfig { ping_interval: None, ..CONFIG }
    }

    impl Rig {
        fn configure(&mut self, new: HeartbeatConfig) {
            self.heart.configure(&self.config, &new, self.now);
            self.config = new;
        }
    }

    #[test]
    fn what_is_left_of_an_interval_is_scaled_so_that_spread_out_pings_stay_so() {
        for (seconds, factor) in [(5, 0.25), (60, 3.0), (20, 1.0)] {
            let mut rig = Rig::new(CONFIG);
            let left = rig.next();
            rig.configure(every(seconds));
            assert!((rig.next() - left * factor).abs() < 1e-6, "{seconds} s: {} after {left}", rig.next());
        }
    }

    #[test]
    fn switched_on_it_begins_at_a_random_phase_and_switched_off_it_rests() {
        let phases: Vec<f64> = (0..50)
            .map(|jitter| {
                let heart = Heartbeat::new(&off(), Seed { secret: 7, jitter }, Moment::START);
                let mut rig = Rig { heart, ..Rig::new(off()) };
                assert_eq!(rig.heart.poll_timeout(&rig.config), None);
                rig.configure(CONFIG);
                rig.next()
            })
            .collect();
        assert!(phases.iter().all(|phase| *phase < 20.0));
        assert!(phases.iter().any(|phase| *phase < 5.0) && phases.iter().any(|phase| *phase > 15.0));
        let mut rig = Rig::new(CONFIG);
        rig.configure(off());
        assert_eq!(rig.heart.poll_timeout(&rig.config), None);
    }

    #[test]
    fn a_ping_under_way_gets_a_whole_new_deadline_or_the_rest_of_its_old_one() {
        let mut rig = Rig::new(CONFIG);
        rig.ping();
        rig.wait(4);
        rig.configure(within(3));
        assert_eq!(rig.next(), 3.0, "not at once, though 4 s have passed");
        let mut rig = Rig::new(CONFIG);
        rig.ping();
        rig.wait(8);
        rig.configure(within(5));
        assert_eq!(rig.next(), 2.0, "never later than before");
        let mut rig = Rig::new(CONFIG);
        rig.ping();
        rig.wait(4);
        rig.configure(within(30));
        assert_eq!(rig.next(), 26.0);
    }

    #[test]
    fn a_silent_peer_is_found_by_the_new_deadline() {
        let mut rig = Rig::new(within(300));
        rig.ping();
        rig.wait(100);
        rig.configure(within(5));
        assert!(rig.tick().is_ok(), "read once more");
        assert!(rig.tick().is_err());
        assert_eq!(rig.answers, Answers::Proven);
    }

    #[test]
    fn a_ping_that_nobody_judges_any_more_still_tells_its_round_trip() {
        for new in [
            off(),
            HeartbeatConfig { ping_timeout: None, ..CONFIG },
            HeartbeatConfig { kind: HeartbeatKind::Pong, ..CONFIG },
        ] {
            let mut rig = Rig::new(CONFIG);
            let payload = rig.ping();
            rig.configure(new.clone());
            rig.wait(1);
            assert!(rig.pong(&payload));
            assert_eq!(rig.heart.round_trip(), Some(Duration::from_secs(1)));
            assert_eq!(rig.heart.poll_timeout(&new).is_some(), new.ping_interval.is_some());
        }
    }

    #[test]
    fn a_ping_that_waits_keeps_its_place_and_its_deadline() {
        let mut rig = Rig::new(CONFIG);
        while !rig.heart.due(&rig.config, rig.now) {
            rig.tick().unwrap();
        }
        rig.wait(4);
        rig.configure(within(3));
        assert!(rig.heart.due(&rig.config, rig.now));
        assert_eq!(rig.next(), 3.0);
        rig.queue();
        rig.configure(off());
        assert!(rig.heart.waits_for_transport(), "it stands in the stream already");
        rig.taken();
        assert_eq!((rig.heart.sent(), rig.heart.poll_timeout(&rig.config)), (1, None));
    }

    #[test]
    fn the_same_settings_change_nothing() {
        let mut rig = Rig::new(CONFIG);
        rig.ping();
        rig.wait(9);
        rig.configure(CONFIG);
        assert_eq!(rig.next(), 1.0);
        rig.configure(HeartbeatConfig { liveness: Liveness::Pong, ..CONFIG });
        assert_eq!(rig.next(), 1.0);
    }
}
