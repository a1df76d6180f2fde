//! Attacks survived, one test each, as listed in `docs/attacks.md`: the program itself, attacked from outside, while well-behaved
//! sessions beside it are timed, its memory and its descriptors counted.
//!
//! Figures of each: `cargo test --test attacks -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod frames;
mod handshakes;
#[path = "../integration/harness.rs"]
mod harness;
mod masses;
mod siege;
mod words;

use std::collections::BTreeSet;

#[test]
fn the_list_names_every_test() {
    let sources =
        [include_str!("frames.rs"), include_str!("handshakes.rs"), include_str!("masses.rs"), include_str!("words.rs")];
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    let list = include_str!("../../docs/attacks.md");
    let rows = list.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let told: BTreeSet<&str> = rows.filter_map(|row| row.trim_end_matches("` |").rsplit('`').next()).collect();
    assert_eq!(tests, told);
}
