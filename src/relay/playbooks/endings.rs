//! Every line of the table of ends, and the closing rules.
use super::*;

#[test]
fn client_closed_and_the_backend_answers() {
    let mut play = Play::new(config());
    play.frame(CLIENT, CLOSE, &close(4001, "bye")).sees(&["upstream: close 4001 bye"]);
    play.frame(UPSTREAM, TEXT, b"still").sees(&["client: text still"]);
    play.frame(CLIENT, TEXT, b"after the close frame").sees(&[]);
    play.frame(UPSTREAM, CLOSE, &close(4001, "ok")).sees(&[
        "client: close 4001 ok",
        "client: ShutDown",
        "outcome: client_closed by client",
    ]);
    play.lost(CLIENT, Loss::End).sees(&["client: Drop"]);
    play.lost(UPSTREAM, Loss::End).sees(&["upstream: Drop"]);
    assert!(play.relay.is_done());
    assert_eq!(play.codes(CLIENT), (Some(4001), Some(4001)));
}

#[test]
fn client_closed_and_no_answer_comes() {
    let mut play = Play::new(config());
    play.frame(CLIENT, CLOSE, &close(1000, "bye")).sees(&["upstream: close 1000 bye"]);
    play.pass(9).sees(&[]);
    play.pass(1).sees(&[
        "client: close 1000",
        "client: ShutDown",
        "upstream: Drop",
        "outcome: client_closed by client",
    ]);
    play.pass(10).sees(&["client: Drop"]);
}

#[test]
fn a_pause_of_the_gateway_is_no_peers_slowness_to_close() {
    let mut play = Play::new(config());
    play.frame(CLIENT, CLOSE, &close(1000, "bye")).sees(&["upstream: close 1000 bye"]);
    play.pause(30).pass(9).sees(&[]);
    play.frame(UPSTREAM, CLOSE, &close(1000, "ok")).sees(&[
        "client: close 1000 ok",
        "client: ShutDown",
        "outcome: client_closed by client",
    ]);
    play.pause(30).pass(9).sees(&[]);
    play.pass(1).sees(&["client: Drop", "upstream: Drop"]);
}

#[test]
fn terminated_as_an_operator_says() {
    let mut play = Play::new(config());
    play.terminate(Some(4000), Some("log in again"));
    play.sees(&["client: close 4000 log in again", "upstream: close 1001 terminated"]);
    play.terminate(Some(4001), None).sees(&[]);
    let mut play = Play::new(config());
    play.terminate(None, None).sees(&["client: close 1001 terminated", "upstream: close 1001 terminated"]);
}

#[test]
fn terminated_by_the_routes_code_unless_another_is_given() {
    let mut of_route = config();
    let set = PerSide { downstream: CloseCode::new(4999).map(Farewell::Code), upstream: None };
    of_route.close_codes.0.insert(EndReason::Terminated, set);
    let told = |code, words: Option<&str>, seen: &str| {
        let mut play = Play::new(of_route.clone());
        play.terminate(code, words).sees(&[seen, "upstream: close 1001 terminated"]);
    };
    told(None, Some("moved"), "client: close 4999 moved");
    told(Some(1012), None, "client: close 1012 terminated");
    let message = frame(CLIENT, BINARY, &[7; 50]);
    let mut play = Play::new(config());
    play.bytes(CLIENT, &message[..20]).terminate(None, Some("bye"));
    play.sees(&["client: close 1001 bye"]);
}

#[test]
fn a_close_frame_that_waits_for_a_border_waits_on_after_a_pause() {
    let mut play = Play::new(config());
    let message = frame(CLIENT, BINARY, &[7; 50]);
    play.bytes(CLIENT, &message[..20]).order(EndReason::Draining, None);
    play.sees(&["client: close 1001 draining"]);
    play.pause(30).pass(9).bytes(CLIENT, &message[20..]);
    let payload = "binary ".to_owned() + &"\u{7}".repeat(50);
    play.sees(&[&format!("upstream: {payload}"), "upstream: close 1001 draining"]);
}

#[test]
fn what_comes_after_the_end_began_does_not_break_the_silence_before_it() {
    let mut play = Play::new(config());
    play.pass(5).order(EndReason::Draining, None).pass(3).frame(CLIENT, TEXT, b"late");
    play.frame(CLIENT, CLOSE, &close(1001, "")).frame(UPSTREAM, CLOSE, &close(1001, ""));
    let silence = play.relay.outcome().unwrap().silence;
    assert_eq!(silence, PerSide { downstream: Duration::from_secs(5), upstream: Duration::from_secs(5) });
}

#[test]
fn upstream_closed_without_a_code() {
    let mut play = Play::new(config());
    play.frame(UPSTREAM, CLOSE, b"").sees(&["client: close"]);
    play.lost(CLIENT, Loss::Failed).sees(&["upstream: close", "client: Drop", "outcome: upstream_closed by upstream"]);
    assert_eq!(play.codes(UPSTREAM), (Some(1005), Some(1005)));
    play.lost(UPSTREAM, Loss::End).sees(&["upstream: Drop"]);
}

#[test]
fn the_first_cause_stays_the_reason() {
    let mut play = Play::new(config());
    play.frame(UPSTREAM, CLOSE, &close(1000, "")).sees(&["client: close 1000"]);
    play.order(EndReason::Draining, None).sees(&[]);
    play.frame(CLIENT, CLOSE, &close(1000, "")).sees(&[
        "upstream: close 1000",
        "client: ShutDown",
        "outcome: upstream_closed by upstream",
    ]);
}

#[test]
fn client_gone() {
    for loss in [Loss::End, Loss::Failed] {
        let mut play = Play::new(config());
        play.lost(CLIENT, loss).sees(&["upstream: close 1001 client connection lost", "client: Drop"]);
        play.frame(UPSTREAM, CLOSE, &close(1001, "")).sees(&["outcome: client_gone by client"]);
        assert_eq!(play.codes(UPSTREAM), (Some(1001), Some(1001)));
        play.lost(UPSTREAM, Loss::End).sees(&["upstream: Drop"]);
    }
}

#[test]
fn upstream_gone() {
    let mut play = Play::new(config());
    play.lost(UPSTREAM, Loss::Failed).sees(&["client: close 1012 upstream connection lost", "upstream: Drop"]);
    play.frame(CLIENT, CLOSE, &close(1012, "")).sees(&["client: ShutDown", "outcome: upstream_gone by upstream"]);
}

#[test]
fn unresponsive_peers_are_told_and_reset() {
    let mut play = Play::new(RelayConfig { heartbeat: PerSide { downstream: PINGS, upstream: QUIET }, ..config() });
    play.pass(60).sees(&[
        "client: our ping",
        "client: close 1001 keepalive ping timeout",
        "upstream: close 1001 client keepalive timeout",
        "client: Reset",
        "upstream: Drop",
        "outcome: client_unresponsive by client",
    ]);
    let mut play = Play::new(RelayConfig { heartbeat: PerSide { downstream: QUIET, upstream: PINGS }, ..config() });
    play.pass(60).sees(&[
        "upstream: our ping",
        "client: close 1012 upstream keepalive timeout",
        "upstream: close 1011 keepalive ping timeout",
        "upstream: Reset",
        "client: Drop",
        "outcome: upstream_unresponsive by upstream",
    ]);
}

#[test]
fn tcp_that_gives_up_is_unresponsive_not_gone() {
    let mut play = Play::new(config());
    play.lost(CLIENT, Loss::TimedOut).sees(&["upstream: close 1001 client keepalive timeout", "client: Drop"]);
    play.frame(UPSTREAM, CLOSE, b"").sees(&["outcome: client_unresponsive by client"]);
}

#[test]
fn tcp_that_gives_up_later_does_not_unsay_a_close_frame() {
    let mut play = Play::new(config());
    play.order(EndReason::Draining, None);
    play.lost(UPSTREAM, Loss::TimedOut).pass(10);
    assert_eq!(play.codes(UPSTREAM), (None, Some(1001)));
    assert!(play.relay.is_ending() && play.told);
}

#[test]
fn violations() {
    let mut play = Play::new(config());
    play.bytes(CLIENT, &[0x83, 0x80]).sees(&[
        "client: close 1002 reserved opcode",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
    let mut play = Play::new(config());
    play.bytes(UPSTREAM, &frame(CLIENT, TEXT, b"masked"))
        .sees(&["client: close 1011 upstream protocol error", "upstream: close 1002 a frame from a server is masked"]);
    let mut play = Play::new(config());
    play.frame(CLIENT, CLOSE, &close(1005, "")).sees(&[
        "client: close 1002 close code that must not be sent",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
}

#[test]
fn a_client_that_leaves_a_frame_unfinished_is_stalled() {
    let mut play = Play::new(config());
    play.bytes(CLIENT, &frame(CLIENT, BINARY, &[0; 100])[..3]).sees(&[]);
    play.pass(60).sees(&["client: close 1013 too slow", "upstream: close 1001 client too slow", "client: Reset"]);
}

#[test]
fn a_client_that_does_not_take_what_waits_is_stalled() {
    let mut play = Play::new(config());
    play.room(CLIENT, 1).frame(UPSTREAM, BINARY, &[0; 100]);
    play.frame(UPSTREAM, BINARY, b"x").sees(&["upstream: not read"]);
    play.pass(60).sees(&["upstream: close 1001 client too slow", "client: Reset"]);
    assert_eq!(play.codes(CLIENT), (None, None));
}

#[test]
fn a_backend_that_stalls_is_reset() {
    let mut play = Play::new(config());
    play.room(UPSTREAM, 1).frame(CLIENT, BINARY, &[0; 100]);
    play.pass(60).sees(&["client: close 1013 upstream too slow", "upstream: Reset"]);
}

#[test]
fn gateway_reasons() {
    let both = |reason| {
        let mut play = Play::new(config());
        play.order(reason, None);
        std::mem::take(&mut play.seen)
    };
    assert_eq!(both(EndReason::Draining), ["client: close 1001 draining", "upstream: close 1001 draining"]);
    assert_eq!(both(EndReason::Policy), ["client: close 1008 policy", "upstream: close 1001 policy"]);
    assert_eq!(both(EndReason::Terminated), ["client: close 1001 terminated", "upstream: close 1001 terminated"]);
    assert_eq!(both(EndReason::Internal), ["client: close 1011 internal error", "upstream: close 1011 internal error"]);
    let mut play = Play::new(config());
    play.order(EndReason::Terminated, CloseCode::new(4999));
    play.sees(&["client: close 4999 terminated", "upstream: close 1001 terminated"]);
}

#[test]
fn idle_and_max_age() {
    let timeouts = RelayTimeouts { idle: Some(Duration::from_secs(30)), ..config().timeouts };
    let mut play = Play::new(RelayConfig { timeouts, ..config() });
    play.pass(20).frame(CLIENT, TEXT, b"a").sees(&["upstream: text a"]);
    play.pass(20).frame(CLIENT, PING, b"no data").sees(&["upstream: ping no data"]);
    play.pass(9).sees(&[]);
    play.pass(1).sees(&["client: close 1001 idle timeout", "upstream: close 1001 idle timeout"]);
    let timeouts = RelayTimeouts { max_age: Some(Duration::from_secs(100)), ..config().timeouts };
    let mut play = Play::new(RelayConfig { timeouts, ..config() });
    play.pass(89).sees(&[]);
    play.pass(11).sees(&["client: close 1012 session age limit", "upstream: close 1001 session age limit"]);
}

#[test]
fn codes_set_by_the_operator() {
    let set = PerSide { downstream: Some(Farewell::Cut), upstream: None };
    let close_codes = CloseCodes([(EndReason::UpstreamGone, set)].into());
    let mut play = Play::new(RelayConfig { close_codes, ..config() });
    play.lost(UPSTREAM, Loss::End).sees(&["client: Reset", "upstream: Drop", "outcome: upstream_gone by upstream"]);
}

#[test]
fn a_route_s_own_code_stands_in_a_drain_with_a_code() {
    let set = PerSide { downstream: CloseCode::new(4000).map(Farewell::Code), upstream: None };
    let own = CloseCodes([(EndReason::Draining, set)].into());
    for (close_codes, told) in [(CloseCodes::default(), 1012), (own, 4000)] {
        let mut play = Play::new(RelayConfig { close_codes, ..config() });
        let client = format!("client: close {told} draining");
        play.order(EndReason::Draining, CloseCode::new(1012)).sees(&[&client, "upstream: close 1001 draining"]);
    }
}

#[test]
fn death_inside_a_frame_cuts_the_other_leg() {
    let mut play = Play::new(config());
    play.bytes(UPSTREAM, &frame(UPSTREAM, BINARY, &[0; 100])[..50]);
    play.lost(UPSTREAM, Loss::Failed).sees(&["client: Reset", "upstream: Drop", "outcome: upstream_gone by upstream"]);
    assert_eq!((play.partial(CLIENT), play.codes(CLIENT)), (50, (None, None)));
}

#[test]
fn a_drain_waits_for_the_frame_under_way_and_then_discards() {
    let mut play = Play::new(config());
    let long = frame(UPSTREAM, BINARY, &[7; 300]);
    play.bytes(UPSTREAM, &long[..50]);
    play.order(EndReason::Draining, None).sees(&["upstream: close 1001 draining"]);
    let rest = [&long[50..], &frame(UPSTREAM, TEXT, b"next")].concat();
    play.bytes(UPSTREAM, &rest).sees(&["client: binary 300 bytes", "client: close 1001 draining"]);
    play.frame(UPSTREAM, CLOSE, &close(1001, "")).sees(&[]);
    play.frame(CLIENT, CLOSE, &close(1001, "")).sees(&["client: ShutDown", "outcome: draining by gateway"]);
    assert_eq!(play.codes(UPSTREAM), (Some(1001), Some(1001)));
}

#[test]
fn a_drain_cuts_where_the_frame_does_not_end_in_time() {
    let mut play = Play::new(config());
    play.bytes(UPSTREAM, &frame(UPSTREAM, BINARY, &[7; 300])[..50]);
    play.order(EndReason::Draining, None).sees(&["upstream: close 1001 draining"]);
    play.pass(10).sees(&["client: Reset", "upstream: Drop", "outcome: draining by gateway"]);
}

#[test]
fn a_closing_leg_knows_no_backpressure() {
    let mut play = Play::new(config());
    play.room(CLIENT, 0).order(EndReason::Draining, None).sees(&["upstream: close 1001 draining"]);
    play.frame(UPSTREAM, CLOSE, &close(1001, "")).sees(&[]);
    assert_eq!(play.codes(UPSTREAM), (Some(1001), Some(1001)), "the answer was seen");
    play.room(CLIENT, 1000).sees(&["client: close 1001 draining"]);
}

#[test]
fn a_cut_ends_at_once() {
    let mut play = Play::new(config());
    play.relay.cut(EndReason::Draining, play.now);
    play.after();
    play.sees(&["client: Reset", "upstream: Reset", "outcome: draining by gateway"]);
    assert!(play.relay.is_done());
}
