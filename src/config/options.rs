//! The keys of `[defaults]`, which every `[[route]]` may override one by one.
use super::{access, file::Table, headers, keys, limits, problem::Wrong, value};
use crate::{
    protocol::heartbeat::{HeartbeatConfig, HeartbeatKind, Liveness},
    relay::{CloseCodes, EndReason, MessageLimits, PerSide, Pings, RelayConfig, RelayTimeouts, Side, Utf8},
    route::{Compression, RouteOptions},
};
use std::{path::Path, sync::Arc, time::Duration};
use toml::de::DeValue;

const SECOND: Duration = Duration::from_secs(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The built-in defaults, for a file that sets nothing.
impl Default for RouteOptions {
    fn default() -> Self {
        let heartbeat = |timeout: u32| HeartbeatConfig {
            ping_interval: Some(20 * SECOND),
            ping_timeout: Some(timeout * SECOND),
            jitter: 0.1,
            kind: HeartbeatKind::Ping,
            liveness: Liveness::Traffic,
            path_idle_limit: None,
        };
        let relay = RelayConfig {
            heartbeat: PerSide { downstream: heartbeat(20), upstream: heartbeat(60) },
            pings: Pings::Forward,
            utf8: Utf8::Check,
            timeouts: RelayTimeouts { close: 10 * SECOND, stall: Some(60 * SECOND), idle: None, max_age: None },
            limits: PerSide {
                downstream: MessageLimits {
                    message: Some(64 * MIB),
                    frame: Some(64 * MIB),
                    ..MessageLimits::default()
                },
                upstream: MessageLimits::default(),
            },
            pace: Some(256),
            close_codes: CloseCodes::default(),
        };
        Self {
            relay: Arc::new(relay),
            compression: Compression::Pass,
            connect: 5 * SECOND,
            handshake: 10 * SECOND,
            header: 16 << 10,
            sessions_per_address: None,
            headers: Arc::default(),
            access: Arc::default(),
            response: Some(60 * SECOND),
            keep_alive: 75 * SECOND,
        }
    }
}

/// The options of `base`, with those keys replaced that `table` has.
pub(super) fn read(table: &Table<'_>, base: &RouteOptions, folder: &Path) -> RouteOptions {
    let mut options = base.clone();
    let mut relay = (*base.relay).clone();

    table.set("pings", &mut relay.pings, value::word(&[("forward", Pings::Forward), ("answer", Pings::Answer)]));
    table.set("utf8", &mut relay.utf8, value::word(&[("check", Utf8::Check), ("pass", Utf8::Pass)]));
    let compression = value::word(&[("pass", Compression::Pass), ("strip", Compression::Strip)]);
    table.set("compression", &mut options.compression, compression);

    let heartbeat = table.child("heartbeat", &keys::HEARTBEAT);
    for side in Side::BOTH {
        let leg = heartbeat.child(side.label(), &keys::HEARTBEAT_SIDE);
        read_heartbeat(&leg, &mut relay.heartbeat[side]);
    }

    let timeouts = table.child("timeouts", &keys::TIMEOUTS);
    timeouts.set("connect", &mut options.connect, value::duration);
    timeouts.set("handshake", &mut options.handshake, value::duration);
    timeouts.set("close", &mut relay.timeouts.close, value::duration);
    timeouts.set("stall", &mut relay.timeouts.stall, value::unless("off", value::duration));
    timeouts.set("idle", &mut relay.timeouts.idle, value::unless("off", value::duration));
    timeouts.set("max_age", &mut relay.timeouts.max_age, value::unless("off", value::duration));
    timeouts.set("response", &mut options.response, value::unless("off", value::duration));
    timeouts.set("keep_alive", &mut options.keep_alive, value::duration);

    let limits = table.child("limits", &keys::LIMITS);
    for side in Side::BOTH {
        limits::read(&limits.child(side.label(), &keys::LIMITS_SIDE), side, &mut relay.limits[side]);
    }
    limits.set("pace", &mut relay.pace, value::unless("off", value::size));
    limits.set("header", &mut options.header, header_size);
    limits.set("sessions_per_address", &mut options.sessions_per_address, value::unless("off", sessions));

    options.access = access::read(&table.child("access", &keys::ACCESS), &base.access, folder);
    read_close_codes(&table.child("close_codes", &keys::CLOSE_CODES), &mut relay.close_codes);
    options.headers = Arc::new(headers::read(table, &base.headers));
    options.relay = Arc::new(relay);
    options
}

fn read_heartbeat(table: &Table<'_>, leg: &mut HeartbeatConfig) {
    table.set("ping_interval", &mut leg.ping_interval, value::unless("off", value::duration));
    table.set("ping_timeout", &mut leg.ping_timeout, value::unless("off", value::duration));
    table.set("jitter", &mut leg.jitter, |value| value::share(value, 0.5));
    table.set("kind", &mut leg.kind, value::word(&[("ping", HeartbeatKind::Ping), ("pong", HeartbeatKind::Pong)]));
    let liveness = value::word(&[("traffic", Liveness::Traffic), ("pong", Liveness::Pong)]);
    table.set("liveness", &mut leg.liveness, liveness);
    table.set("path_idle_limit", &mut leg.path_idle_limit, value::unless("off", value::duration));
}

/// The least is what hyper needs, the most what a head may cost before its route is known.
fn header_size(value: &DeValue<'_>) -> Result<usize, Wrong> {
    let bytes = value::size(value)?;
    usize::try_from(bytes).ok().filter(|_| (8 * KIB..=MIB).contains(&bytes)).ok_or_else(|| {
        Wrong::new(format!("{} is out of range", value::shown(value)), "write a size from \"8KiB\" to \"1MiB\"")
    })
}

fn sessions(value: &DeValue<'_>) -> Result<u32, Wrong> {
    value::count(value, 1, u64::from(u32::MAX)).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// Which leg a set code speaks to: see [`CloseCodes`]. A peer's own close frame always crosses untouched.
fn told_side(reason: EndReason) -> Option<Side> {
    match reason {
        EndReason::ClientClosed | EndReason::UpstreamClosed => None,
        EndReason::ClientGone | EndReason::ClientUnresponsive | EndReason::ClientStalled => Some(Side::Upstream),
        EndReason::UpstreamGone
        | EndReason::UpstreamUnresponsive
        | EndReason::ClientViolation
        | EndReason::UpstreamViolation
        | EndReason::UpstreamStalled
        | EndReason::Idle
        | EndReason::MaxAge
        | EndReason::Draining
        | EndReason::Policy
        | EndReason::Terminated
        | EndReason::Internal => Some(Side::Downstream),
    }
}

fn read_close_codes(table: &Table<'_>, codes: &mut CloseCodes) {
    for reason in EndReason::ALL {
        let Some(side) = told_side(reason) else { continue };
        if let Some(farewell) = table.read(reason.label(), value::farewell) {
            codes.0.entry(reason).or_default()[side] = Some(farewell);
        }
    }
}
