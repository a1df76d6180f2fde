//! What a build with the feature `otel` does with a client's trace: by itself, so that such a build is a short one.
//!
//! `cargo test --features otel --test traces`
#![allow(clippy::unwrap_used)]

#[path = "../integration/harness.rs"]
mod harness;
#[path = "../integration/otel.rs"]
mod otel;
#[allow(dead_code, reason = "it is made for more tests than these")]
#[path = "../integration/program.rs"]
mod program;
