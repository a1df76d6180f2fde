//! How much is read at once, and how much a turn moves: by what the leg gave before, and by who else shares the worker.

use super::SCRATCH;
use std::time::{Duration, Instant};

/// What a read asks for at most, unless the last one was taken whole: so an outbox stays near it. A message of 64 KiB, which
/// many send, fits with its header and its TLS records, and so is one read and one write instead of two.
const CALM_READ: usize = 68 * 1024;
/// What a leg is asked for after a read that was made of control frames and fragments.
const WARY_READ: usize = 8 * 1024;
/// What a leg is asked for at most while somebody near might say a word.
const LARGE_READ: usize = 256 * 1024;
/// A read of no more than this, after another such, is no part of a flood; and one in a row of messages, not of a stream.
pub(super) const LITTLE: usize = 4 * 1024;
/// While more than this waits in a worker's outboxes, nobody takes the largest bites: they are what an outbox may hold at worst.
pub(super) const MUCH_WAITS: u64 = 64 * 1024 * 1024;
/// For so long after a session that is sent little the others take small bites, so that the next such has not long to wait.
pub(super) const SHARED_FOR: Duration = Duration::from_millis(50);
/// For so long the others do not take the largest: it may say a word again, once in a while.
pub(super) const NEAR_FOR: Duration = Duration::from_secs(1);

/// What a leg is asked for at once, by what it gave the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appetite {
    /// Its last read was made of control frames and fragments, small ones: the next is small, so that a turn is not long.
    Wary,
    /// It was little, or there was none.
    Modest,
    Calm,
    /// It about filled its room and was taken whole: the next read may use all of the scratch.
    Eager,
}

impl Appetite {
    /// The most bytes that a read may ask for, of those that the company leaves.
    #[inline]
    pub(super) fn most(self, bite: Bite) -> usize {
        match self {
            Self::Wary => WARY_READ,
            Self::Modest | Self::Calm => CALM_READ,
            Self::Eager => bite.read,
        }
    }

    /// After a read of `length` bytes of at most `most`, that were taken whole or not.
    #[inline]
    pub(super) fn after(length: usize, most: usize, whole: bool) -> Self {
        if length <= LITTLE {
            Self::Modest
        } else if whole && length > most / 2 {
            // TLS gives whole records only, so a full read may be a record short.
            Self::Eager
        } else {
            Self::Calm
        }
    }
}

/// Bytes that a session may move before others have their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bite {
    /// In one read.
    pub(super) read: usize,
    /// In one turn: it ends after the round of reads in which it gets there, and so never moves more than a round (one read of
    /// each leg) beyond.
    pub(super) turn: usize,
}

impl Bite {
    /// Beside sessions that are sent little: they wait for a flood's turn, and then for the next one's.
    pub(super) const SMALL: Self = Self { read: CALM_READ, turn: 64 * 1024 };
    pub(super) const LARGE: Self = Self { read: LARGE_READ, turn: LARGE_READ };
    /// Among those who are flooded, or alone.
    pub(super) const WHOLE: Self = Self { read: SCRATCH, turn: SCRATCH - SCRATCH / 16 };
}

/// With whom those who are flooded share their worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Company {
    /// When a session that is sent little at a time was last served.
    served: Option<Instant>,
}

impl Company {
    /// A session that is sent little was served.
    #[inline]
    pub(super) fn came(&mut self, now: Instant) {
        self.served = Some(now);
    }

    /// What it leaves to the others, while so many bytes wait in the worker's outboxes.
    #[inline]
    pub(super) fn leaves(self, now: Instant, waiting: u64) -> Bite {
        match self.served.map(|at| now.saturating_duration_since(at)) {
            Some(ago) if ago < SHARED_FOR => Bite::SMALL,
            Some(ago) if ago < NEAR_FOR => Bite::LARGE,
            _ if waiting > MUCH_WAITS => Bite::LARGE,
            _ => Bite::WHOLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leg_is_asked_for_more_while_all_that_it_gives_is_taken() {
        assert_eq!(Appetite::Modest.most(Bite::WHOLE), CALM_READ);
        assert_eq!(Appetite::after(CALM_READ - 100, CALM_READ, true), Appetite::Eager);
        assert_eq!(Appetite::Eager.most(Bite::WHOLE), SCRATCH);
        assert_eq!(Appetite::after(SCRATCH, SCRATCH, true), Appetite::Eager);
        assert_eq!(Appetite::after(SCRATCH, SCRATCH, false), Appetite::Calm, "the receiver is slower");
        assert_eq!(Appetite::after(SCRATCH / 2, SCRATCH, true), Appetite::Calm, "the sender is slower");
        assert_eq!(Appetite::after(LITTLE, CALM_READ, true), Appetite::Modest);
    }

    #[test]
    fn company_leaves_the_less_the_later_it_was_served() {
        let mut company = Company::default();
        let now = Instant::now();
        assert_eq!(company.leaves(now, MUCH_WAITS), Bite::WHOLE);
        assert_eq!(company.leaves(now, MUCH_WAITS + 1), Bite::LARGE);
        company.came(now);
        for (ago, bite) in [
            (Duration::ZERO, Bite::SMALL),
            (SHARED_FOR - Duration::from_nanos(1), Bite::SMALL),
            (SHARED_FOR, Bite::LARGE),
            (NEAR_FOR - Duration::from_nanos(1), Bite::LARGE),
            (NEAR_FOR, Bite::WHOLE),
        ] {
            assert_eq!(company.leaves(now + ago, 0), bite, "{ago:?}");
        }
        assert_eq!(Appetite::Eager.most(Bite::SMALL), CALM_READ);
        assert_eq!(Appetite::Eager.most(Bite::LARGE), LARGE_READ);
        assert_eq!(Appetite::Wary.most(Bite::WHOLE), WARY_READ);
    }
}
