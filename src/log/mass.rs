//! Notices that many sessions of one backend end by one cause at once.
use crate::{pacing::Burst, relay::EndReason};
use std::{collections::HashMap, time::Instant};

/// Counts ends over all workers, per backend and cause.
#[derive(Debug, Default)]
pub(super) struct MassEnds {
    recent: HashMap<String, [Option<Recent>; EndReason::ALL.len()]>,
}

/// The latest ends of one backend by one cause.
#[derive(Clone, Debug, Default)]
struct Recent {
    ends: Burst,
    told: bool,
}

impl MassEnds {
    /// Counts one end; `true` if it is the one that crosses the threshold. It answers so once, until the rate was
    /// below the threshold again.
    pub(super) fn count(&mut self, now: Instant, backend: &str, reason: EndReason) -> bool {
        if !concerns(reason) {
            return false;
        }
        if !self.recent.contains_key(backend) {
            self.recent.insert(backend.to_owned(), Default::default());
        }
        let slot = self.recent.get_mut(backend).and_then(|by_reason| by_reason.get_mut(reason as usize));
        slot.is_some_and(|slot| slot.get_or_insert_default().count(now))
    }
}

impl Recent {
    fn count(&mut self, now: Instant) -> bool {
        let many = self.ends.count(now);
        let news = many && !self.told;
        self.told = many;
        news
    }
}

/// Whether many such ends at once are news: not those that clients or the operator's own settings bring about.
fn concerns(reason: EndReason) -> bool {
    reason.is_fault() || reason == EndReason::UpstreamClosed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pacing::{MANY, WINDOW};
    use std::time::Duration;

    fn burst(ends: &mut MassEnds, start: Instant, count: usize, step: Duration, backend: &str) -> usize {
        (0..count)
            .filter(|i| {
                ends.count(start + step * u32::try_from(*i).unwrap_or(u32::MAX), backend, EndReason::UpstreamGone)
            })
            .count()
    }

    #[test]
    fn a_hundred_at_once_are_not_told_one_more_is() {
        let now = Instant::now();
        let mut ends = MassEnds::default();
        assert_eq!(burst(&mut ends, now, MANY, Duration::ZERO, "a"), 0);
        assert!(ends.count(now + WINDOW, "a", EndReason::UpstreamGone));
    }

    #[test]
    fn a_long_burst_is_told_once() {
        let mut ends = MassEnds::default();
        assert_eq!(burst(&mut ends, Instant::now(), 5_000, Duration::from_millis(1), "a"), 1);
    }

    #[test]
    fn a_second_burst_after_quiet_is_told_again() {
        let now = Instant::now();
        let mut ends = MassEnds::default();
        assert_eq!(burst(&mut ends, now, 200, Duration::ZERO, "a"), 1);
        assert_eq!(burst(&mut ends, now + WINDOW * 2, 200, Duration::ZERO, "a"), 1);
    }

    #[test]
    fn a_slow_trickle_is_never_told() {
        let mut ends = MassEnds::default();
        assert_eq!(burst(&mut ends, Instant::now(), 1_000, Duration::from_millis(11), "a"), 0);
    }

    #[test]
    fn backends_and_causes_count_apart() {
        let now = Instant::now();
        let mut ends = MassEnds::default();
        assert_eq!(burst(&mut ends, now, MANY, Duration::ZERO, "a"), 0);
        assert_eq!(burst(&mut ends, now, MANY, Duration::ZERO, "b"), 0);
        assert!(!ends.count(now, "a", EndReason::ClientGone));
    }

    #[test]
    fn ends_that_clients_or_settings_bring_about_are_no_news() {
        let now = Instant::now();
        let mut ends = MassEnds::default();
        for reason in EndReason::ALL.into_iter().filter(|reason| !concerns(*reason)) {
            assert!((0..1_000).all(|_| !ends.count(now, "a", reason)), "{}", reason.label());
        }
    }
}
