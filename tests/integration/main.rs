//! Whole gateways on real sockets: few, and about wiring.
#![allow(clippy::unwrap_used)]
mod access_log;
mod admin;
mod drain;
mod ends;
mod flow;
mod harness;
mod heartbeat;
mod metrics;
mod otel;
mod program;
mod refusals;
mod resources;
mod secure;
mod spread;
mod start;
mod unix;
mod upgrade;
mod verdict;
