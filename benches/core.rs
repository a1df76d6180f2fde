//! Times and allocations of what a frame, a heartbeat and a session's entry cost: `cargo bench --bench core [FILTER]`.
//!
//! Wall-clock times move with the machine and its load: `--bench instructions` compares versions.

mod cases;

use divan::{AllocProfiler, Bencher, counter::ItemsCount};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = cases::all().into_iter().map(|case| case.name))]
fn case(bencher: Bencher<'_, '_>, name: &str) {
    let case = cases::all().into_iter().find(|case| case.name == name).expect("a case of the list");
    let mut run = case.warm();
    bencher.counter(ItemsCount::new(case.units)).bench_local(&mut *run);
}
