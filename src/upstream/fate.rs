//! What the ends of its sessions tell of a backend: that they die young, or that it is frozen.
use std::time::Duration;
use tokio::time::Instant;

/// A session that its backend loses sooner than this after its beginning died young.
pub(super) const YOUNG: Duration = Duration::from_secs(5);
/// So many in a row are no accident.
pub(super) const DEATHS: u32 = 3;
/// Deaths further apart than this have nothing to do with each other.
const APART: Duration = Duration::from_secs(60);
/// What is known of sessions that began so long ago counts half.
const HALF_LIFE: Duration = YOUNG;
/// Of fewer sessions, half may miss a deadline together by chance.
pub(super) const FEWEST: usize = 20;

/// Notices when the sessions of a backend die young: several in a row, and as many as live.
#[derive(Debug, Default)]
pub(super) struct Youth {
    /// Sessions that began lately, and those of them that died; both fade.
    begun: f64,
    died: f64,
    /// Since when they have not been faded.
    at: Option<Instant>,
    in_a_row: u32,
    last: Option<Instant>,
    probation: Probation,
}

/// Whether one young death is enough: it is until a session begun since the return is old enough not to die young.
#[derive(Clone, Copy, Debug, Default)]
enum Probation {
    #[default]
    Over,
    /// No session has begun since the return.
    Untried,
    /// The first one began then.
    Tried(Instant),
}

impl Youth {
    /// A session began.
    pub(super) fn begin(&mut self, now: Instant) {
        self.fade(now);
        self.begun += 1.0;
        match self.probation {
            Probation::Untried => self.probation = Probation::Tried(now),
            Probation::Over | Probation::Tried(_) => {}
        }
    }

    /// A session died young; whether that is one too many.
    pub(super) fn die(&mut self, now: Instant) -> bool {
        self.fade(now);
        self.died += 1.0;
        match self.probation {
            Probation::Untried => return true,
            Probation::Tried(first) if now.saturating_duration_since(first) < YOUNG => return true,
            Probation::Tried(_) => self.probation = Probation::Over,
            Probation::Over => {}
        }
        let apart = self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) > APART);
        // A client that breaks its own sessions again and again says nothing of the others'.
        let few = self.died * 2.0 < self.begun;
        self.in_a_row = if few || apart { u32::from(!few) } else { self.in_a_row + 1 };
        self.in_a_row >= DEATHS
    }

    /// A session ended at an age, or for a reason, that speaks for the backend.
    pub(super) fn live(&mut self) {
        self.in_a_row = 0;
        self.probation = Probation::Over;
    }

    /// One that returns after its sessions died is on probation: the next one tells.
    pub(super) fn forgive(&mut self) {
        *self = Self { probation: Probation::Untried, ..Self::default() };
    }

    fn fade(&mut self, now: Instant) {
        let since = self.at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let left = 0.5_f64.powf(since.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.begun *= left;
        self.died *= left;
    }
}

/// Notices when most sessions of a backend miss their deadlines together.
#[derive(Debug, Default)]
pub(super) struct Misses {
    /// When the first of them did, how many sessions there were then, and how many had begun so far.
    first: Option<(Instant, usize, u64)>,
    count: usize,
}

impl Misses {
    /// A session, one of so many, missed its deadline; `begun` counts all that ever began. If the backend is frozen, all of them miss
    /// theirs `within` that time: so many did, of so many, if those are most of them.
    pub(super) fn miss(
        &mut self,
        now: Instant,
        within: Duration,
        sessions: usize,
        begun: u64,
    ) -> Option<(usize, usize)> {
        let together = self.first.filter(|(first, ..)| now.saturating_duration_since(*first) <= within);
        if together.is_none() {
            self.count = 0;
        }
        let (_, there, before) = *self.first.insert(together.unwrap_or((now, sessions, begun)));
        self.count += 1;
        let all = there + usize::try_from(begun.saturating_sub(before)).unwrap_or(usize::MAX);
        (all >= FEWEST && self.count * 2 > all).then_some((self.count, all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_in_a_row_are_too_many() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        let mut die = |at: u32| {
            youth.begin(t0 + SECOND * at);
            youth.die(t0 + SECOND * at)
        };
        assert_eq!([die(0), die(20), die(40)], [false, false, true]);
    }

    #[test]
    fn deaths_far_apart_or_between_lives_are_forgotten() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        for n in 0..10 {
            youth.begin(t0 + APART * 2 * n);
            assert!(!youth.die(t0 + APART * 2 * n));
        }
        let mut youth = Youth::default();
        for _ in 0..10 {
            youth.begin(t0);
            youth.begin(t0);
            assert!(!youth.die(t0) && !youth.die(t0));
            youth.live();
        }
    }

    #[test]
    fn one_bad_client_among_good_ones_ejects_nothing() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        for n in 0..1_000 {
            let now = t0 + SECOND / 100 * n;
            youth.begin(now);
            assert!(n % 4 > 0 || n == 0 || !youth.die(now));
        }
    }

    #[test]
    fn a_backend_that_loses_all_after_four_seconds_is_found_out() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        let mut found = None;
        for n in 0..2_000 {
            let now = t0 + SECOND / 100 * n;
            youth.begin(now);
            if n >= 400 && youth.die(now) {
                found = found.or(Some(n));
            }
        }
        assert!(found.is_some_and(|n| n < 1_400), "{found:?}");
    }

    #[test]
    fn on_probation_the_next_one_tells() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        youth.forgive();
        youth.begin(t0);
        assert!(youth.die(t0));
        youth.forgive();
        youth.live();
        youth.begin(t0);
        assert!(!youth.die(t0));
    }

    #[test]
    fn probation_holds_however_many_begin_and_however_late_they_do() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        youth.die(t0);
        youth.forgive();
        let late = t0 + APART * 2;
        (0..10).for_each(|_| youth.begin(late));
        assert!(youth.die(late + SECOND));
    }

    #[test]
    fn probation_is_over_once_a_session_has_outlived_it() {
        let (mut youth, t0) = (Youth::default(), Instant::now());
        youth.forgive();
        for n in 0..8 {
            youth.begin(t0 + SECOND * n);
        }
        assert!(!youth.die(t0 + SECOND * 8), "one bad client");
    }

    #[test]
    fn most_of_twenty_are_a_freeze() {
        let (mut misses, t0) = (Misses::default(), Instant::now());
        let mut miss = |sessions| misses.miss(t0, SECOND, sessions, 20);
        let mut told: Vec<_> = (0..11).map(|gone| miss(20 - gone)).collect();
        assert_eq!(told.pop(), Some(Some((11, 20))));
        assert!(told.iter().all(Option::is_none));
        let mut few = Misses::default();
        assert!((0..19).all(|gone| few.miss(t0, SECOND, 19 - gone, 19).is_none()));
    }

    #[test]
    fn misses_one_after_the_other_are_none() {
        let (mut misses, t0) = (Misses::default(), Instant::now());
        for n in 0..100 {
            assert_eq!(misses.miss(t0 + SECOND * n, SECOND * 9, 20, 20), None);
        }
        let mut busy = Misses::default();
        for n in 0..100u64 {
            assert_eq!(busy.miss(t0, SECOND, 20, 20 + n * 4), None, "many more came meanwhile");
        }
    }
}
