//! Very many heartbeats in one process: first the core and its timers alone, then whole sessions over transports in memory.
//!
//! What must hold on any machine is asserted, with thousands, on every run. With a million, and figures:
//! `cargo test --release --test scale -- --ignored --nocapture`; `PULSEGATE_RELAYS=n` sets how many and
//! `PULSEGATE_SECONDS=n` for how long they are measured. A million takes 3 GiB of memory and about four minutes.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod cost;
mod peer;
mod relays;
mod sessions;

use cost::Measured;
use pulsegate::{relay::RelayConfig, route::RouteOptions};
use std::{sync::Arc, time::Duration};
use tokio::runtime::{Builder, LocalOptions};

/// Bytes on the heap that a heartbeating relay may take, with its task and its timer.
const RELAY_BYTES_MAX: usize = 1_088;
/// Bytes on the heap that a session may take, with its task, its timer and its facts, but without its transports.
const SESSION_BYTES_MAX: usize = 1_472;
/// Bytes that each may hold after some heartbeats more than before: the runtime's queue of those that are due.
const GROWTH_MAX: usize = 32;
/// Bytes that each may leave behind: its line in the registry's table, which the next one takes.
const LEFT_MAX: usize = 80;

/// What one run is to do.
struct Plan {
    count: usize,
    relay: Arc<RelayConfig>,
    /// Pings that every leg must have had answered before they are measured.
    rounds: u32,
    /// For how long they are measured after that.
    measured: Duration,
}

impl Plan {
    /// A run as short as its pings allow: they come forty times as often as by default.
    fn short(count: usize) -> Self {
        let mut relay = default_relay();
        for leg in [&mut relay.heartbeat.downstream, &mut relay.heartbeat.upstream] {
            leg.ping_interval = Some(Duration::from_millis(500));
            leg.ping_timeout = Some(Duration::from_secs(600));
        }
        Self { count, relay: Arc::new(relay), rounds: 2, measured: Duration::ZERO }
    }

    /// A run by the default heartbeat.
    fn long() -> Self {
        let count = number("PULSEGATE_RELAYS").unwrap_or(1_000_000);
        let measured = Duration::from_secs(number("PULSEGATE_SECONDS").unwrap_or(60) as u64);
        Self { count, relay: Arc::new(default_relay()), rounds: 1, measured }
    }
}

fn default_relay() -> RelayConfig {
    (*RouteOptions::default().relay).clone()
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs on a runtime like a worker's.
fn run<Measured>(test: impl Future<Output = Measured>) -> Measured {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(test)
}

/// What holds on any machine, however slow.
fn check(measured: &Measured, bytes_max: usize) {
    assert_eq!(measured.broken, 0, "pings late by their own schedule, pongs not swallowed, sessions ended");
    assert!(measured.bytes <= bytes_max, "{} bytes each, at most {bytes_max}", measured.bytes);
    assert!(measured.grown <= GROWTH_MAX, "{} bytes more for each after some heartbeats", measured.grown);
    assert!(measured.left <= LEFT_MAX, "{} bytes left of each", measured.left);
}

#[test]
fn relays_keep_their_own_schedules_and_hold_no_more_for_it() {
    let measured = run(relays::run(&Plan::short(20_000)));
    check(&measured, RELAY_BYTES_MAX);
}

#[test]
fn sessions_keep_their_heartbeats_and_leave_nothing_behind() {
    let measured = run(sessions::run(&Plan::short(2_000)));
    check(&measured, SESSION_BYTES_MAX);
}

#[test]
#[ignore = "takes minutes, and 3 GiB of memory"]
fn a_million() {
    let plan = Plan::long();
    let measured = run(relays::run(&plan));
    measured.tell("relays, core and timers");
    check(&measured, RELAY_BYTES_MAX);
    let measured = run(sessions::run(&plan));
    measured.tell("sessions in memory");
    check(&measured, SESSION_BYTES_MAX);
}
