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
