//! Ten thousand sessions on a virtual clock: seeded networks and peers, and what must hold whatever they do.
//!
//! `PULSEGATE_SEED=n cargo test --test simulation` runs one seed and prints its trace; `PULSEGATE_SEEDS=n` sets how many.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::wildcard_enum_match_arm)]

mod check;
mod codec;
mod network;
mod peer;
mod scenario;
mod world;

use pulsegate::relay::EndReason;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};
use world::World;

const SEEDS: u64 = 10_000;

/// How a seed's session ended, or what did not hold.
fn run(seed: u64, trace: bool) -> Result<EndReason, String> {
    let base = Instant::now();
    let mut world = World::new(seed, base, trace);
    let end = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|_| Err("panicked".to_owned()));
    end.map_err(|error| format!("PULSEGATE_SEED={seed}: {error}"))?;
    world.outcome.map(|outcome| outcome.reason).ok_or_else(|| "no outcome".to_owned())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn whatever_peers_and_networks_do() {
    if let Some(seed) = number("PULSEGATE_SEED") {
        eprintln!("{:?}", run(seed, true).unwrap());
        return;
    }
    let seeds = number("PULSEGATE_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        let (mut ends, mut failures) = (BTreeMap::<EndReason, u64>::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return (ends, failures);
            }
            match run(seed, false) {
                Ok(reason) => *ends.entry(reason).or_default() += 1,
                Err(failure) => failures.push(failure),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut ends, mut failures) = (BTreeMap::<EndReason, u64>::new(), Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (reasons, failed) = worker.join().unwrap();
            failures.extend(failed);
            for (reason, count) in reasons {
                *ends.entry(reason).or_default() += count;
            }
        }
    });
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {seeds} seeds failed; a trace: PULSEGATE_SEED=n\n{shown}", failures.len());
    if seeds >= SEEDS {
        for reason in EndReason::ALL {
            let reached = !matches!(reason, EndReason::Policy | EndReason::Terminated | EndReason::Internal);
            let count = ends.get(&reason).copied().unwrap_or(0);
            assert!(!reached || count >= seeds / 1000, "too few sessions end as {reason:?}: {ends:?}");
        }
    }
}
