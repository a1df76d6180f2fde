//! Tests of what is shown, and for how long.
use super::{text::Format, *};
use crate::relay::{EndReason, Side};

fn value(meters: &Meters, series: &str) -> Option<u64> {
    let text = meters.text(Format::Prometheus, false);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[test]
fn workers_are_added_up() {
    let meters = Meters::new(3);
    for worker in meters.workers() {
        let meter = worker.route("chat", "pool");
        meter.began();
        meter.sent(Side::Upstream, 10);
        meter.ended(EndReason::ClientGone, Duration::from_secs(5));
        meter.heartbeat(
            Side::Downstream,
            crate::protocol::heartbeat::HeartbeatEvent::Answered { round_trip: Duration::from_millis(3) },
            None,
        );
    }
    meters.workers()[1].route("chat", "pool").left();
    for (series, expected) in [
        (r#"pulsegate_sessions_open{route="chat",upstream="pool"}"#, 2),
        (r#"pulsegate_sessions_started_total{route="chat",upstream="pool"}"#, 3),
        (r#"pulsegate_sessions_ended_total{route="chat",upstream="pool",reason="client_gone",side="client"}"#, 3),
        (r#"pulsegate_traffic_bytes_total{route="chat",upstream="pool",side="upstream",direction="sent"}"#, 30),
        (r#"pulsegate_round_trip_seconds_bucket{route="chat",upstream="pool",side="client",le="0.0025"}"#, 0),
        (r#"pulsegate_round_trip_seconds_bucket{route="chat",upstream="pool",side="client",le="0.005"}"#, 3),
        (r#"pulsegate_worker_sessions{worker="1"}"#, 0),
        (r#"pulsegate_worker_sessions{worker="2"}"#, 1),
    ] {
        assert_eq!(value(&meters, series), Some(expected), "{series}");
    }
}

#[test]
fn a_removed_route_is_shown_while_its_sessions_live_and_until_the_next_reload() {
    let meters = Meters::new(2);
    let open = |route: &str| value(&meters, &format!("pulsegate_sessions_open{{route={route:?},upstream=\"pool\"}}"));
    meters.show_routes([("old", "pool"), ("kept", "pool")].into_iter());
    let session = meters.workers()[0].route("old", "pool");
    session.began();
    meters.workers()[0].route("kept", "pool").began();
    meters.show_routes([("kept", "pool"), ("new", "pool")].into_iter());
    assert_eq!((open("old"), open("kept"), open("new")), (Some(1), Some(1), Some(0)));
    session.left();
    drop(session);
    assert_eq!(open("old"), Some(0), "what happened last is still to be scraped");
    meters.show_routes([("kept", "pool"), ("new", "pool")].into_iter());
    assert_eq!((open("old"), open("kept"), open("new")), (None, Some(1), Some(0)));
}

#[test]
fn a_backend_keeps_its_counts_over_a_reload() {
    let meters = Meters::new(1);
    let dials = || value(&meters, r#"pulsegate_backend_dials_total{upstream="pool",backend="ws://b"}"#);
    let old = meters.backend("pool", "ws://b");
    old.dialled();
    let new = meters.backend("pool", "ws://b");
    drop(old);
    meters.show_routes(std::iter::empty());
    new.dialled();
    assert_eq!(dials(), Some(2));
    drop(new);
    meters.show_routes(std::iter::empty());
    assert_eq!(dials(), None);
}

#[test]
fn a_reload_is_counted_and_dated() {
    let meters = Meters::new(1);
    meters.reloaded(ReloadResult::Refused);
    meters.reloaded(ReloadResult::Applied);
    meters.reloaded(ReloadResult::Applied);
    assert_eq!(value(&meters, r#"pulsegate_reloads_total{result="applied"}"#), Some(2));
    assert_eq!(value(&meters, r#"pulsegate_reloads_total{result="refused"}"#), Some(1));
    let at = value(&meters, "pulsegate_last_reload_success_timestamp_seconds").unwrap_or(0);
    assert!(seconds(SystemTime::now()).as_secs() - at < 60);
}

#[test]
fn help_needs_no_escaping() {
    let text = Meters::new(0).text(Format::OpenMetrics, true);
    let help = text.lines().filter(|line| line.starts_with("# HELP "));
    assert!(help.clone().count() > 30 && help.clone().all(|line| line.ends_with('.') && !line.contains(['"', '\\'])));
    assert!(text.contains("\npulsegate_draining 1\n") && text.ends_with("\n# EOF\n"));
}
