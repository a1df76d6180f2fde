//! Which of several backends that are as good as each other gets a session.
use super::BalanceKind;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Backends that are not there now, and whose turns are known still: they may be back soon.
const SPARE_CREDITS: usize = 256;

/// A pool's rule and its rotation, shared by all workers.
#[derive(Debug)]
pub(super) struct Balance {
    kind: BalanceKind,
    rotation: AtomicUsize,
    /// What each backend is owed in turns, by its seed; those of backends that have left are forgotten when there are too many.
    credits: Mutex<HashMap<u64, i64>>,
}

/// A backend that may be picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its place in the pool.
    pub(super) index: usize,
    pub(super) weight: u32,
    /// How busy it is.
    pub(super) sessions: usize,
    /// The same number for the same backend in every gateway.
    pub(super) seed: u64,
}

impl Balance {
    pub(super) fn new(kind: BalanceKind) -> Self {
        Self { kind, rotation: AtomicUsize::new(0), credits: Mutex::default() }
    }

    /// Picks one of `candidates`; `key` is what a hash goes by. A client without one goes where most room is.
    pub(super) fn pick(&self, candidates: &[Candidate], key: Option<u64>) -> Option<usize> {
        match (&self.kind, key) {
            (BalanceKind::RoundRobin, _) => self.in_turn(candidates),
            (BalanceKind::Random, _) => at_random(candidates),
            (BalanceKind::Hash(_), Some(key)) => by_hash(candidates, key),
            (BalanceKind::LeastSessions, _) | (BalanceKind::Hash(_), None) => self.least_busy(candidates),
        }
    }

    /// Each is owed its weight in each turn, and who is owed most pays for all: heavy ones come often, but not in a row.
    fn in_turn(&self, candidates: &[Candidate]) -> Option<usize> {
        let mut credits = self.credits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chosen: Option<(i64, &Candidate)> = None;
        for candidate in candidates {
            let credit = credits.entry(candidate.seed).or_default();
            *credit += i64::from(candidate.weight);
            if chosen.is_none_or(|(most, _)| *credit > most) {
                chosen = Some((*credit, candidate));
            }
        }
        let (_, chosen) = chosen?;
        if credits.len() > 2 * candidates.len() + SPARE_CREDITS {
            let seeds: HashSet<u64> = candidates.iter().map(|candidate| candidate.seed).collect();
            credits.retain(|seed, _| seeds.contains(seed));
        }
        let all: i64 = candidates.iter().map(|candidate| i64::from(candidate.weight)).sum();
        credits.entry(chosen.seed).and_modify(|credit| *credit -= all);
        Some(chosen.index)
    }

    /// Ties go round.
    fn least_busy(&self, candidates: &[Candidate]) -> Option<usize> {
        let start = self.rotation.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
        let (before, after) = candidates.split_at(start);
        let least = after.iter().chain(before).min_by(|one, other| one.load().total_cmp(&other.load()));
        least.map(|candidate| candidate.index)
    }
}

fn at_random(candidates: &[Candidate]) -> Option<usize> {
    let all: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    let mut left = if all == 0 { 0 } else { fastrand::u64(..all) };
    let chosen = candidates.iter().find(|candidate| match left.checked_sub(candidate.weight.into()) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    chosen.map(|candidate| candidate.index)
}

/// Rendezvous hashing: each backend draws a number for the key, and the best one has it. One that goes gives up its own keys
/// and no others, one that comes takes its share from all.
fn by_hash(candidates: &[Candidate], key: u64) -> Option<usize> {
    let best = candidates.iter().max_by(|one, other| one.draw(key).total_cmp(&other.draw(key)));
    best.map(|candidate| candidate.index)
}

impl Candidate {
    /// How busy it will be with one session more, for its weight.
    fn load(&self) -> f64 {
        (self.sessions as f64 + 1.0) / f64::from(self.weight)
    }

    /// Above 0 and below 1: always the same for a key, else by chance.
    pub(super) fn lot(&self, key: Option<u64>) -> f64 {
        key.map_or_else(fastrand::f64, |key| portion(!key ^ self.seed))
    }

    /// At most zero; twice the weight wins twice as many keys.
    fn draw(&self, key: u64) -> f64 {
        portion(key ^ self.seed).ln() / f64::from(self.weight)
    }
}

/// A number above 0 and below 1 that only chance would guess, always the same for the same key.
fn portion(key: u64) -> f64 {
    ((mixed(key) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// The same number for the same text, in every gateway and every version of it (FNV-1a, then mixed).
pub(super) fn hash(text: &[u8]) -> u64 {
    mixed(text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)))
}

/// Spreads what differs in a few bits over all of them (the last steps of SplitMix64).
fn mixed(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::HashKey, *};

    fn candidates(sessions: &[usize], weights: &[u32]) -> Vec<Candidate> {
        let seed = |index: usize| hash(format!("ws://h:{index}").as_bytes());
        let each = sessions.iter().zip(weights).enumerate();
        each.map(|(index, (&sessions, &weight))| Candidate { index, weight, sessions, seed: seed(index) }).collect()
    }

    fn picks(kind: BalanceKind, sessions: &[usize], times: usize) -> Vec<usize> {
        let balance = Balance::new(kind);
        let all = candidates(sessions, &[1; 8]);
        (0..times).filter_map(|_| balance.pick(&all, None)).collect()
    }

    #[test]
    fn round_robin_takes_turns() {
        assert_eq!(picks(BalanceKind::RoundRobin, &[9, 0, 0], 5), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_heavy_one_comes_often_but_not_in_a_row() {
        let balance = Balance::new(BalanceKind::RoundRobin);
        let all = candidates(&[0, 0, 0], &[3, 1, 1]);
        let picked: Vec<usize> = (0..5).filter_map(|_| balance.pick(&all, None)).collect();
        assert_eq!(picked, [0, 1, 0, 2, 0]);
    }

    #[test]
    fn turns_of_backends_that_left_are_forgotten() {
        let balance = Balance::new(BalanceKind::RoundRobin);
        for seed in 0..2_000 {
            let one = [Candidate { index: 0, weight: 1, sessions: 0, seed }];
            assert_eq!(balance.pick(&one, None), Some(0));
        }
        assert!(balance.credits.lock().unwrap().len() <= SPARE_CREDITS + 3);
    }

    #[test]
    fn least_sessions_prefers_the_idle_and_rotates_ties() {
        assert_eq!(picks(BalanceKind::LeastSessions, &[2, 1, 1], 3), [1, 1, 2]);
        assert_eq!(picks(BalanceKind::LeastSessions, &[0, 0, 0], 4), [0, 1, 2, 0]);
        let balance = Balance::new(BalanceKind::LeastSessions);
        assert_eq!(balance.pick(&candidates(&[10, 6], &[2, 1]), None), Some(0), "twice the weight, twice the sessions");
    }

    #[test]
    fn random_reaches_every_backend_by_its_weight() {
        let balance = Balance::new(BalanceKind::Random);
        let all = candidates(&[0, 0, 0], &[1, 2, 7]);
        let mut counts = [0; 3];
        (0..10_000).filter_map(|_| balance.pick(&all, None)).for_each(|index| counts[index] += 1);
        for (count, tenths) in counts.into_iter().zip([1, 2, 7]) {
            assert!((tenths * 800..=tenths * 1_200).contains(&count), "{counts:?}");
        }
    }

    #[test]
    fn no_candidate_no_pick() {
        for kind in [BalanceKind::Random, BalanceKind::RoundRobin, BalanceKind::LeastSessions] {
            assert!(picks(kind, &[], 1).is_empty());
        }
    }

    fn hashed(candidates: &[Candidate], keys: u64) -> Vec<usize> {
        let balance = Balance::new(BalanceKind::Hash(HashKey::Address));
        (0..keys).filter_map(|key| balance.pick(candidates, Some(hash(&key.to_be_bytes())))).collect()
    }

    #[test]
    fn keys_spread_by_weight() {
        let picked = hashed(&candidates(&[0; 4], &[1, 1, 1, 2]), 10_000);
        for (index, weight) in [1, 1, 1, 2].into_iter().enumerate() {
            let count = picked.iter().filter(|one| **one == index).count();
            assert!((weight * 1_850..=weight * 2_150).contains(&count), "{count} of weight {weight}");
        }
    }

    #[test]
    fn only_the_keys_of_one_that_goes_move() {
        let all = candidates(&[0; 5], &[1; 5]);
        let (before, after) = (hashed(&all, 5_000), hashed(&all[..4], 5_000));
        assert!(before.iter().zip(&after).all(|(before, after)| *before == 4 || before == after));
        let moved = before.iter().filter(|index| **index == 4).count();
        assert!((850..=1_150).contains(&moved), "{moved}");
    }

    /// Another version, another gateway: a key stays where it is.
    #[test]
    fn hashes_never_change() {
        assert_eq!(hashed(&candidates(&[0; 4], &[1; 4]), 12), PINNED);
    }

    const PINNED: [usize; 12] = [3, 1, 3, 0, 1, 0, 1, 1, 0, 0, 0, 0];
}
