//! Whole gateways on real sockets: few, and about wiring.
#![allow(clippy::unwrap_used)]
mod drain;
mod harness;
mod program;
mod start;
