//! Rates: how much may come in a second, with one second saved up at most.
use super::moment::Moment;
use std::{num::NonZeroU64, time::Duration};

/// What may be saved up: after a second of silence, a second's worth may come at once.
const SAVED: Duration = Duration::from_secs(1);
/// Who has used up all there was comes back for at least so much, rather than for each single byte.
const PORTION: Duration = Duration::from_millis(50);

/// Units a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub NonZeroU64);

impl Rate {
    /// How long so many take.
    fn time_for(self, count: u64) -> Duration {
        let nanos = u128::from(count) * 1_000_000_000 / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many such a time has room for.
    fn count_in(self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos() * u128::from(self.0.get()) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

/// What a sender has used of its rate: a moment that each unit pushes on, and that may not lie in the future.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    paid: Moment,
    /// What may be saved up beyond [`SAVED`] until then: what came while nobody read it comes all at once.
    credit: Duration,
    credit_until: Moment,
}

impl Allowance {
    /// With a second's worth saved up.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self { paid: now - SAVED, credit: Duration::ZERO, credit_until: now }
    }

    /// What came in so much time was not read: once it is, it counts as having come then.
    pub fn credit(&mut self, time: Duration, now: Moment) {
        self.credit = self.saved(now).saturating_add(time).saturating_sub(SAVED);
        self.credit_until = now + SAVED;
    }

    /// The gateway itself was paused, for no longer than nothing was taken.
    pub fn resume(&mut self, now: Moment) {
        self.credit(now - self.paid, now);
    }

    fn saved(&self, now: Moment) -> Duration {
        if now <= self.credit_until { SAVED.saturating_add(self.credit) } else { SAVED }
    }

    /// Takes so many, whether there is room for them or not: what is taken too much is waited for longer.
    pub fn take(&mut self, rate: Rate, count: u64, now: Moment) {
        self.paid = self.paid.max(now - self.saved(now)) + rate.time_for(count);
    }

    /// How many there is room for.
    #[must_use]
    pub fn room(&self, rate: Rate, now: Moment) -> u64 {
        rate.count_in((now - self.paid).min(self.saved(now)))
    }

    /// Whether more was taken than there was room for.
    #[must_use]
    pub fn overdrawn(&self, now: Moment) -> bool {
        self.paid > now
    }

    /// When there is room for one more, and for a portion worth coming back for.
    #[must_use]
    pub fn ready_at(&self, rate: Rate) -> Moment {
        self.paid + Duration::from_nanos(1_000_000_000u64.div_ceil(rate.0.get())).max(PORTION)
    }

    /// Debts are forgiven down to a second: a rate that was far lower made them.
    pub fn forgive(&mut self, now: Moment) {
        self.paid = self.paid.min(now + SAVED);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn rate(count: u64) -> Rate {
        Rate(NonZeroU64::new(count).unwrap())
    }

    #[test]
    fn a_second_is_saved_up_and_no_more() {
        let (start, rate) = (Moment::START, rate(10));
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.room(rate, start), 10);
        allowance.take(rate, 10, start);
        assert_eq!((allowance.room(rate, start), allowance.overdrawn(start)), (0, false));
        let later = start + Duration::from_millis(250);
        assert_eq!(allowance.room(rate, later), 2);
        assert_eq!(allowance.room(rate, start + Duration::from_secs(3600)), 10);
    }

    #[test]
    fn what_came_unread_counts_as_having_come_then_and_not_later() {
        let (start, rate) = (Moment::START + Duration::from_secs(60), rate(10));
        let mut allowance = Allowance::new(start);
        allowance.take(rate, 10, start);
        let later = start + Duration::from_secs(3);
        allowance.credit(Duration::from_secs(3), later);
        assert_eq!(allowance.room(rate, later), 30, "three seconds, and nothing was saved up before");
        allowance.take(rate, 25, later);
        assert_eq!(allowance.room(rate, later), 5);
        assert_eq!(allowance.room(rate, start + Duration::from_secs(10)), 10, "it is not kept");
        allowance.resume(start + Duration::from_secs(20));
        assert_eq!(allowance.room(rate, start + Duration::from_secs(20)), 175);
    }

    #[test]
    fn a_debt_is_waited_for() {
        let (start, rate) = (Moment::START, rate(100));
        let mut allowance = Allowance::new(start);
        allowance.take(rate, 300, start);
        assert!(allowance.overdrawn(start));
        assert_eq!(allowance.ready_at(rate), start + Duration::from_millis(2050));
        assert_eq!(allowance.room(rate, allowance.ready_at(rate)), 5);
    }

    proptest! {
        /// However it comes, no second and no hour brings more than its share and what was saved up.
        #[test]
        fn never_more_than_time_allows(count in 1u64..2_000_000, steps in prop::collection::vec((0u64..3_000_000_000, 1u64..5_000), 1..200)) {
            let rate = rate(count);
            let mut allowance = Allowance::new(Moment::START);
            let (mut now, mut taken) = (Moment::START, 0u128);
            for (pause, wanted) in steps {
                now += Duration::from_nanos(pause);
                let take = wanted.min(allowance.room(rate, now));
                allowance.take(rate, take, now);
                taken += u128::from(take);
                prop_assert!(!allowance.overdrawn(now));
                let elapsed = (now - Moment::START).as_nanos();
                // A unit may be rounded in its favour each time.
                prop_assert!(taken <= u128::from(count) * (elapsed + 1_000_000_000) / 1_000_000_000 + 1);
            }
        }

        /// Who waits until it is ready finds room.
        #[test]
        fn waiting_helps(count in 1u64..u64::MAX, taken in 0u64..1 << 40) {
            let rate = rate(count);
            let mut allowance = Allowance::new(Moment::START);
            allowance.take(rate, taken, Moment::START);
            allowance.forgive(Moment::START);
            prop_assert!(allowance.room(rate, allowance.ready_at(rate)) >= 1);
        }
    }
}
