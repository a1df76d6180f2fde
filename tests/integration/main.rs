//! Whole gateways on real sockets: few, and about wiring.
#![allow(clippy::unwrap_used)]
mod admin;
mod drain;
mod ends;
mod flow;
mod harness;
mod heartbeat;
mod program;
mod refusals;
mod resources;
mod secure;
mod spread;
mod start;
mod unix;
mod verdict;
