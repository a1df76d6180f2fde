//! Which silences to try, and what their fates say of the idle limit. Pure: time is only counted here.
use std::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Just below and just above the limits that are met most: 30, 60, 100, 120, 300, 350 seconds, 10 minutes, an hour.
const LADDER: [Duration; 17] = [
    s(15),
    s(28),
    s(35),
    s(55),
    s(65),
    s(95),
    s(115),
    s(125),
    s(180),
    s(290),
    s(320),
    s(400),
    s(590),
    s(620),
    s(1200),
    s(3500),
    s(4000),
];
/// Rungs when a limit is too small for the ladder.
const PARTS: u32 = 8;
/// Silences tried side by side when a bracket is narrowed.
const STEPS: u32 = 6;
const ROUNDS_MOST: u32 = 8;
/// How often a connection that ended alone may be taken for an accident.
const ACCIDENTS_MOST: usize = 20;

/// What became of a connection that was left in silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It answered afterwards.
    Lived,
    /// It was ended during the silence, at the time given, by this.
    Told(String),
    /// It was found dead when it was spoken to after the silence.
    Dead(String),
}

/// What is known of the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdleLimit {
    /// Silent connections are ended after this time, in this way.
    Cut { after: Duration, how: String },
    /// A silence of `lived` is survived, and one of `dead` is not: nobody is told when, only `how` it showed.
    Between { lived: Duration, dead: Duration, how: String },
    /// The longest silence that was tried, and survived.
    Beyond { lived: Duration },
    /// Nothing was found out.
    Unknown,
}

/// What to try next, from what was learned.
#[derive(Debug)]
pub(super) struct Plan {
    limit: Duration,
    /// The least difference that matters.
    resolution: Duration,
    lived: Vec<Duration>,
    cuts: Vec<(Duration, Fate)>,
    /// Ends that others outlived.
    pub(super) accidents: Vec<(Duration, String)>,
    rounds: u32,
}

impl Plan {
    pub(super) fn new(limit: Duration, resolution: Duration) -> Self {
        Self { limit, resolution, lived: Vec::new(), cuts: Vec::new(), accidents: Vec::new(), rounds: 0 }
    }

    /// The silences of the next round, shortest first; none when there is nothing more to learn.
    pub(super) fn next(&mut self) -> Vec<Duration> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MOST || self.accidents.len() > ACCIDENTS_MOST {
            return Vec::new();
        }
        let lived = self.longest();
        match self.shortest_cut() {
            None => self.ladder(lived),
            Some((cut, Fate::Dead(_))) if cut.saturating_sub(lived) > self.slack(cut) || !self.confirmed(cut) => {
                let step = cut.saturating_sub(lived) / STEPS;
                (1..=STEPS).map(|index| if index == STEPS { cut } else { lived + step * index }).collect()
            }
            // Whoever is silent for longer is cut too, or was not.
            Some((cut, Fate::Told(_))) if !self.confirmed(cut) => vec![cut + cut / 4 + self.resolution; 3],
            Some((_, Fate::Dead(_) | Fate::Told(_) | Fate::Lived)) => Vec::new(),
        }
    }

    /// Takes what became of silences; each time is how long it was truly silent.
    pub(super) fn learn(&mut self, results: impl IntoIterator<Item = (Duration, Fate)>) {
        for (silence, fate) in results {
            match fate {
                Fate::Lived => self.lived.push(silence),
                Fate::Told(_) | Fate::Dead(_) => self.cuts.push((silence, fate)),
            }
        }
        let longest = self.longest_of_all();
        let (cuts, accidents): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.cuts).into_iter().partition(|(cut, fate)| longest < self.outlived(*cut, fate));
        self.cuts = cuts;
        self.accidents.extend(accidents.into_iter().map(|(cut, fate)| match fate {
            Fate::Told(how) | Fate::Dead(how) => (cut, how),
            Fate::Lived => (cut, String::new()),
        }));
    }

    /// What is known now.
    pub(super) fn limit(&self) -> IdleLimit {
        let lived = self.longest();
        match self.shortest_cut() {
            Some((cut, Fate::Told(how))) => IdleLimit::Cut { after: cut, how: how.clone() },
            Some((cut, Fate::Dead(how))) => IdleLimit::Between { lived, dead: cut, how: how.clone() },
            Some((_, Fate::Lived)) | None if lived > Duration::ZERO => IdleLimit::Beyond { lived },
            Some((_, Fate::Lived)) | None => IdleLimit::Unknown,
        }
    }

    /// How many connections ended at about the shortest silence that was not survived.
    pub(super) fn agreeing(&self) -> usize {
        let Some((cut, _)) = self.shortest_cut() else { return 0 };
        self.cuts.iter().filter(|(other, _)| *other <= cut + self.slack(cut)).count()
    }

    fn ladder(&self, above: Duration) -> Vec<Duration> {
        // What was meant as the last rung may have been a little shorter.
        if above + self.slack(self.limit) >= self.limit {
            return Vec::new();
        }
        let mut rungs: Vec<Duration> =
            LADDER.into_iter().filter(|rung| *rung > above && *rung < self.limit.mul_f64(0.98)).collect();
        if rungs.len() < 3 {
            rungs = (1..PARTS).map(|part| self.limit * part / PARTS).filter(|rung| *rung > above).collect();
        }
        rungs.push(self.limit);
        rungs
    }

    /// The longest silence survived that is shorter than any that was not.
    fn longest(&self) -> Duration {
        let cut = self.shortest_cut().map_or(Duration::MAX, |(cut, _)| cut);
        self.lived.iter().copied().filter(|lived| *lived < cut).max().unwrap_or_default()
    }

    fn longest_of_all(&self) -> Duration {
        self.lived.iter().copied().max().unwrap_or_default()
    }

    fn shortest_cut(&self) -> Option<(Duration, &Fate)> {
        self.cuts.iter().map(|(cut, fate)| (*cut, fate)).min_by_key(|(cut, _)| *cut)
    }

    fn confirmed(&self, cut: Duration) -> bool {
        self.cuts.iter().filter(|(other, _)| *other <= cut + self.slack(cut)).count() >= 2
    }

    /// The silence that shows a cut to have been an accident, when it is survived.
    fn outlived(&self, cut: Duration, fate: &Fate) -> Duration {
        match fate {
            Fate::Told(_) | Fate::Lived => cut + self.slack(cut),
            Fate::Dead(_) => cut,
        }
    }

    /// Times that differ by less are taken for the same.
    fn slack(&self, time: Duration) -> Duration {
        self.resolution.max(time / 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a path against the plan: what becomes of a silence there, and how many rounds it took.
    fn played(limit: u64, mut path: impl FnMut(Duration) -> (Duration, Fate)) -> (IdleLimit, usize, Plan) {
        let mut plan = Plan::new(s(limit), s(1));
        let mut rounds = 0;
        loop {
            let silences = plan.next();
            if silences.is_empty() {
                return (plan.limit(), rounds, plan);
            }
            assert!(silences.len() <= 17 && silences.iter().all(|silence| *silence <= s(limit)), "{silences:?}");
            rounds += 1;
            plan.learn(silences.into_iter().map(&mut path).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cut_that_is_told_is_exact_after_one_round() {
        let path = |silence| if silence < s(60) { (silence, Fate::Lived) } else { (s(60), Fate::Told("FIN".into())) };
        let (limit, rounds, _) = played(600, path);
        assert_eq!((limit, rounds), (IdleLimit::Cut { after: s(60), how: "FIN".into() }, 1));
    }

    #[test]
    fn a_cut_that_nobody_is_told_of_is_narrowed_down() {
        for true_limit in [7, 31, 100, 350, 599] {
            let path = |silence| {
                if silence < s(true_limit) { (silence, Fate::Lived) } else { (silence, Fate::Dead("no pong".into())) }
            };
            let (limit, rounds, _) = played(600, path);
            let IdleLimit::Between { lived, dead, .. } = limit else { panic!("{limit:?}") };
            assert!(lived < s(true_limit) && dead >= s(true_limit), "{lived:?} {dead:?}");
            assert!(dead - lived <= (dead / 20).max(s(1)), "{lived:?} {dead:?}");
            assert!(rounds <= 4, "{rounds} rounds for {true_limit}");
        }
    }

    #[test]
    fn a_path_without_a_limit_is_tried_up_to_the_end() {
        let (limit, rounds, _) = played(600, |silence| (silence, Fate::Lived));
        assert_eq!((limit, rounds), (IdleLimit::Beyond { lived: s(600) }, 1));
        let (limit, _, _) = played(3, |silence| (silence, Fate::Lived));
        assert_eq!(limit, IdleLimit::Beyond { lived: s(3) });
    }

    #[test]
    fn one_end_that_others_outlive_is_an_accident() {
        let mut restarted = false;
        let (limit, _, plan) = played(600, |silence| {
            if silence > s(90) && !std::mem::replace(&mut restarted, true) {
                (s(42), Fate::Told("reset".into()))
            } else {
                (silence, Fate::Lived)
            }
        });
        assert_eq!(limit, IdleLimit::Beyond { lived: s(600) });
        assert_eq!(plan.accidents, [(s(42), "reset".to_owned())]);
    }

    #[test]
    fn a_lost_pong_is_found_to_have_been_one() {
        let mut lost = false;
        let (limit, _, _) = played(300, |silence| {
            if silence == s(125) && !std::mem::replace(&mut lost, true) {
                (silence, Fate::Dead("no pong".into()))
            } else {
                (silence, Fate::Lived)
            }
        });
        assert_eq!(limit, IdleLimit::Beyond { lived: s(300) });
    }

    #[test]
    fn nothing_learned_is_unknown_and_ends() {
        let mut plan = Plan::new(s(60), s(1));
        while !plan.next().is_empty() {}
        assert_eq!((plan.limit(), plan.agreeing()), (IdleLimit::Unknown, 0));
    }
}
