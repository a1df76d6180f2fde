//! Which backend of a pool is tried first.
use super::BalanceKind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A pool's rule and its rotation, shared by all workers.
#[derive(Debug)]
pub(super) struct Balance {
    kind: BalanceKind,
    rotation: AtomicUsize,
}

impl Balance {
    pub(super) fn new(kind: BalanceKind) -> Self {
        Self { kind, rotation: AtomicUsize::new(0) }
    }

    /// Picks one of `candidates` (indices into the pool); `sessions` tells how busy one is.
    pub(super) fn pick(&self, candidates: &[usize], sessions: impl Fn(usize) -> usize) -> Option<usize> {
        if candidates.is_empty() {
            return None;
        }
        let start = match self.kind {
            BalanceKind::RoundRobin | BalanceKind::LeastSessions => {
                self.rotation.fetch_add(1, Ordering::Relaxed) % candidates.len()
            }
            BalanceKind::Random => fastrand::usize(..candidates.len()),
        };
        match self.kind {
            BalanceKind::RoundRobin | BalanceKind::Random => Some(candidates[start]),
            BalanceKind::LeastSessions => {
                let (before, after) = candidates.split_at(start);
                after.iter().chain(before).copied().min_by_key(|&index| sessions(index))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(kind: BalanceKind, sessions: &[usize], times: usize) -> Vec<usize> {
        let balance = Balance::new(kind);
        let all: Vec<usize> = (0..sessions.len()).collect();
        (0..times).filter_map(|_| balance.pick(&all, |index| sessions[index])).collect()
    }

    #[test]
    fn round_robin_takes_turns() {
        assert_eq!(picks(BalanceKind::RoundRobin, &[9, 0, 0], 5), [0, 1, 2, 0, 1]);
    }

    #[test]
    fn least_sessions_prefers_the_idle_and_rotates_ties() {
        assert_eq!(picks(BalanceKind::LeastSessions, &[2, 1, 1], 3), [1, 1, 2]);
        assert_eq!(picks(BalanceKind::LeastSessions, &[0, 0, 0], 4), [0, 1, 2, 0]);
    }

    #[test]
    fn random_reaches_every_backend() {
        let mut seen = picks(BalanceKind::Random, &[0, 0, 0], 300);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn no_candidate_no_pick() {
        assert!(picks(BalanceKind::Random, &[], 1).is_empty());
    }
}
