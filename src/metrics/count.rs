//! Numbers that one thread counts and any thread reads: plain loads and stores, no locked instruction.
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number with a single writer. A reader sees each of its values whole, a little late at most.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// By its one writer only: what two threads add at the same time may be lost.
    #[inline]
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// The same for what can become less.
    #[inline]
    pub(super) fn take(&self, less: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(less), Relaxed);
    }

    /// Replaces it.
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    #[must_use]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How often something took how long: one count for each bound, and one beyond. A single writer, as [`Count`].
#[derive(Debug)]
pub(super) struct Histogram<const BOUNDS: usize> {
    bounds: &'static [Duration; BOUNDS],
    counts: [Count; BOUNDS],
    beyond: Count,
    nanos: Count,
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    /// `bounds` ascend; each belongs to what is below it.
    #[must_use]
    pub(super) fn new(bounds: &'static [Duration; BOUNDS]) -> Self {
        Self { bounds, counts: array::from_fn(|_| Count::default()), beyond: Count::default(), nanos: Count::default() }
    }

    pub(super) fn observe(&self, took: Duration) {
        let place = self.bounds.iter().position(|bound| took <= *bound);
        place.map_or(&self.beyond, |place| &self.counts[place]).add(1);
        self.nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds what was observed to `sum`.
    pub(super) fn add_to(&self, sum: &mut Distribution) {
        sum.bounds = self.bounds;
        sum.counts.resize(BOUNDS + 1, 0);
        for (total, count) in sum.counts.iter_mut().zip(self.counts.iter().chain([&self.beyond])) {
            *total += count.get();
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.get());
    }
}

/// Histograms of one kind, added up.
#[derive(Debug, Default)]
pub(super) struct Distribution {
    /// In ascending order.
    pub(super) bounds: &'static [Duration],
    /// One for each bound, not cumulated, and one beyond.
    pub(super) counts: Vec<u64>,
    /// All that was observed together.
    pub(super) nanos: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOUNDS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(10)];

    #[test]
    fn what_is_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(&BOUNDS);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 90_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut sum = Distribution::default();
        histogram.add_to(&mut sum);
        histogram.add_to(&mut sum);
        assert_eq!(sum.counts, [4, 4, 4]);
        assert_eq!(sum.nanos, 2 * 112_002_000);
    }

    #[test]
    fn a_gauge_goes_down_again() {
        let count = Count::default();
        count.add(3);
        count.take(2);
        assert_eq!(count.get(), 1);
    }
}
