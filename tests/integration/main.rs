//! Whole gateways on real sockets: few, and about wiring.
#![allow(clippy::unwrap_used)]
mod access_log;
mod admin;
mod documents;
mod drain;
mod ejection;
mod ends;
mod flow;
mod harness;
mod heartbeat;
mod metrics;
mod namespace;
mod otel;
mod pools;
mod ports;
mod probe;
mod program;
mod proxied;
mod refusals;
mod reload;
mod resources;
mod secure;
mod spread;
mod start;
mod unix;
mod upgrade;
mod verdict;
