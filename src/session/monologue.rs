//! A leg that only talks: how TCP acknowledges it.
use std::time::Duration;

/// After so many small reads in a row a leg to which nothing was sent only talks.
const BEGINS: u16 = 16;
/// TCP waits 40 ms for a second message before it acknowledges one. A peer that waits for that itself (Nagle's algorithm) is
/// silent for as long.
const HELD_UP: Duration = Duration::from_millis(30);
/// Reads after TCP was asked, in which that shows.
const TRIAL: u16 = 2;
/// In place of a number of reads.
const NEVER: u16 = u16::MAX;

/// Counts what a leg says while nothing is sent to it, and tells when TCP is to be asked to acknowledge it later, as in a
/// conversation: anew each time that it has said twice as much, since TCP takes it back after a pause. If such a pause follows at
/// once, the leg is too slow for that, or was held up by it: then it is never asked again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Monologue {
    /// They are not counted to the end: our pings come between.
    reads: u16,
    /// Reads until TCP was asked last.
    asked: u16,
}

impl Monologue {
    /// It said a little, after a `pause`. Whether TCP is to be asked.
    #[inline]
    pub(super) fn heard(&mut self, pause: impl FnOnce() -> Duration) -> bool {
        self.reads = self.reads.saturating_add(1);
        self.reads >= BEGINS && self.goes_on(pause)
    }

    fn goes_on(&mut self, pause: impl FnOnce() -> Duration) -> bool {
        if self.asked == NEVER {
            return false;
        }
        let (asked, reads) = (self.asked, self.reads);
        if asked > 0 && reads - asked <= TRIAL && pause() >= HELD_UP {
            self.asked = NEVER;
        } else if reads >= asked.saturating_mul(2) && reads < NEVER {
            self.asked = reads;
        }
        self.asked == reads
    }

    /// Something was sent to it, or it said much at once: TCP knows how to acknowledge a stream.
    #[inline]
    pub(super) fn end(&mut self) {
        self.reads = 0;
        if self.asked != NEVER {
            self.asked = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    /// The reads among so many at which TCP is asked.
    fn asks(monologue: &mut Monologue, reads: u16, pause: impl Fn(u16) -> Duration) -> Vec<u16> {
        (1..=reads).filter(|read| monologue.heard(|| pause(*read))).collect()
    }

    #[test]
    fn a_stream_is_asked_for_at_each_doubling() {
        let mut monologue = Monologue::default();
        assert_eq!(asks(&mut monologue, 200, |_| SOON), [16, 32, 64, 128]);
        monologue.end();
        assert_eq!(asks(&mut monologue, 40, |_| SOON), [16, 32], "it begins anew");
    }

    #[test]
    fn a_conversation_is_left_alone() {
        let mut monologue = Monologue::default();
        for _ in 0..100 {
            assert!(asks(&mut monologue, BEGINS - 1, |_| SOON).is_empty());
            monologue.end();
        }
    }

    #[test]
    fn who_is_held_up_by_it_is_so_once() {
        for held_up in [17, 18] {
            let pause = |read| if read == held_up { 2 * SOON } else { SOON };
            let mut monologue = Monologue::default();
            assert_eq!(asks(&mut monologue, 5000, pause), [16]);
            monologue.end();
            assert!(asks(&mut monologue, 5000, |_| SOON).is_empty());
        }
        let pause = |read| if [15, 19, 100].contains(&read) { 2 * SOON } else { SOON };
        assert_eq!(asks(&mut Monologue::default(), 64, pause), [16, 32, 64], "pauses at other times tell nothing");
    }

    #[test]
    fn the_longest_one_ends_nothing() {
        let mut monologue = Monologue { reads: NEVER - 2, asked: 1 << 15 };
        assert!(asks(&mut monologue, 9, |_| SOON).is_empty());
    }
}
