//! What is told, as JSON: times in milliseconds, sizes in bytes.
use crate::{
    gateway::{BackendState, Overview, Progress},
    metrics::Ejection,
    relay::{LegFigures, PerSide, Side},
    session::select::Record,
    shutdown::{DrainProgress, Phase},
    upgrade::{Lineage, Predecessor},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

#[derive(Serialize)]
pub(super) struct Session {
    key: String,
    id: Box<str>,
    route: String,
    upstream: String,
    backend: String,
    local_port: Option<u16>,
    client: String,
    user_agent: Option<Box<str>>,
    origin: Option<Box<str>>,
    age_ms: u64,
    ending: bool,
    paused: bool,
    legs: Legs<Leg>,
}

#[derive(Serialize)]
pub(super) struct Legs<T> {
    client: T,
    upstream: T,
}

impl<T> From<PerSide<T>> for Legs<T> {
    fn from(legs: PerSide<T>) -> Self {
        Self { client: legs.downstream, upstream: legs.upstream }
    }
}

#[derive(Serialize)]
struct Leg {
    round_trip_ms: Option<f64>,
    unanswered_ms: Option<u64>,
    silence_ms: u64,
    outbox: u64,
    bytes_received: u64,
    bytes_sent: u64,
    messages_received: u64,
    pings_sent: u32,
    pongs_received: u32,
    paused: bool,
}

impl From<LegFigures> for Leg {
    fn from(leg: LegFigures) -> Self {
        Self {
            round_trip_ms: leg.round_trip.map(fine),
            unanswered_ms: leg.unanswered.map(millis),
            silence_ms: millis(leg.silence),
            outbox: leg.outbox,
            bytes_received: leg.bytes_received,
            bytes_sent: leg.bytes_sent,
            messages_received: leg.messages_received,
            pings_sent: leg.pings_sent,
            pongs_received: leg.pongs_received,
            paused: leg.paused,
        }
    }
}

pub(super) fn session(record: Record) -> Session {
    let figures = record.figures;
    Session {
        key: record.position.key.to_string(),
        id: record.id,
        route: record.route,
        upstream: record.upstream,
        backend: record.backend,
        local_port: record.local_port,
        client: record.client.to_string(),
        user_agent: record.user_agent,
        origin: record.origin,
        age_ms: millis(figures.age),
        ending: figures.ending,
        paused: figures.paused(),
        legs: Legs { client: figures.legs.downstream.into(), upstream: figures.legs.upstream.into() },
    }
}

pub(super) fn sessions(records: Vec<Record>) -> Vec<Session> {
    records.into_iter().map(session).collect()
}

pub(super) fn backend(state: &BackendState) -> Value {
    json!({
        "upstream": state.upstream,
        "backend": state.name,
        "sessions": state.sessions,
        "state": standing(state),
        "cause": state.down.as_ref().map(|cause| cause.kind.label()),
        "why": state.down.as_ref().map(|cause| &cause.words),
        "down_for_ms": state.down_for.map(millis),
        "weight": state.share.weight,
        "backup": state.share.backup,
        "max_sessions": state.share.max_sessions,
        "answers_pings": state.proven,
    })
}

fn standing(state: &BackendState) -> &'static str {
    match &state.down {
        _ if state.drained => "drained",
        Some(cause) if cause.kind == Ejection::Frozen => "frozen",
        Some(_) => "down",
        None if state.part < 1.0 => "starting",
        None => "up",
    }
}

pub(super) fn ending(progress: &Progress) -> Value {
    json!({
        "id": progress.id,
        "about": progress.about,
        "rate": progress.rate,
        "total": progress.total,
        "told": progress.told,
        "state": progress.state.label(),
    })
}

pub(super) const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::Draining { .. } => "draining",
        Phase::Cutting => "cutting",
    }
}

/// Where this process stands in a row of upgrades.
pub(super) fn lineage(lineage: &Lineage) -> Value {
    let predecessors = lineage.predecessors();
    let predecessor = |process: &Predecessor| json!({ "generation": process.generation, "process": process.process, "sessions": process.sessions });
    json!({
        "generation": lineage.generation(),
        "process": std::process::id(),
        "parent": lineage.parent(),
        "predecessors": predecessors.iter().map(predecessor).collect::<Vec<_>>(),
        "under_way": lineage.under_way(),
    })
}

pub(super) fn drain(progress: &DrainProgress) -> Value {
    json!({
        "cause": progress.cause.label(),
        "elapsed_ms": millis(progress.elapsed),
        "sessions": progress.sessions,
        "told": progress.told,
        "left": progress.left,
        "cut": progress.cut,
        "until_told_ms": millis(progress.until_told),
        "until_cut_ms": millis(progress.until_cut),
    })
}

pub(super) fn overview(all: Overview, backends: &[BackendState], endings: &[Progress]) -> Value {
    let ended: Map<String, Value> =
        all.ended.iter().map(|(reason, count)| (reason.label().to_owned(), (*count).into())).collect();
    let quantiles = |side: Side| quantiles(&all.round_trips[side]);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": phase(all.phase),
        "uptime_ms": millis(all.uptime),
        "sessions": {
            "open": all.open,
            "asked": all.asked,
            "started": all.started,
            "ended": ended,
            "paused": all.paused,
            "outbox": all.outbox,
        },
        "round_trip_ms": { "client": quantiles(Side::Downstream), "upstream": quantiles(Side::Upstream) },
        "slowest": sessions(all.slowest),
        "quietest": sessions(all.quietest),
        "backends": backends.iter().map(backend).collect::<Vec<_>>(),
        "endings": endings.iter().map(ending).collect::<Vec<_>>(),
    })
}

/// Of times in order, the shortest first.
fn quantiles(times: &[Duration]) -> Value {
    let at =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().map(fine);
    json!({ "count": times.len(), "p50": at(50), "p90": at(90), "p99": at(99), "max": at(100) })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with three digits behind the point: round trips on a local network are shorter than one.
fn fine(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(quantiles(&times), json!({ "count": 100, "p50": 51.0, "p90": 91.0, "p99": 100.0, "max": 100.0 }));
        assert_eq!(quantiles(&[]), json!({ "count": 0, "p50": null, "p90": null, "p99": null, "max": null }));
    }
}
