//! A client whose backend is lost waits its turn to be told.
use super::*;

/// The backend is lost, and the client's turn comes in ten seconds.
fn held() -> Play {
    let mut play = Play::new(config());
    play.frame(UPSTREAM, TEXT, b"last words").sees(&["client: text last words"]);
    play.relay.lost(UPSTREAM, Loss::Failed, play.now);
    assert!(play.relay.farewell_can_wait());
    play.relay.hold_farewell(play.now + Duration::from_secs(10));
    assert!(!play.relay.farewell_can_wait(), "it waits for one turn only");
    play.after();
    play.sees(&["upstream: Drop"]);
    play
}

const TOLD: &str = "client: close 1012 upstream connection lost";

fn waited(play: &Play) -> Option<Duration> {
    play.relay.outcome().unwrap().told_after
}

#[test]
fn the_client_of_a_lost_backend_is_told_when_its_turn_comes() {
    let mut play = held();
    play.pass(9).sees(&[]);
    play.pass(1).sees(&[TOLD]);
    play.frame(CLIENT, CLOSE, &close(1012, "")).sees(&["client: ShutDown", "outcome: upstream_gone by upstream"]);
    assert_eq!(waited(&play), Some(Duration::from_secs(10)));
    assert_eq!(play.relay.outcome().unwrap().at, play.relay.clock.moment(play.relay.started()));
}

#[test]
fn it_has_its_whole_time_to_answer_then() {
    let mut play = held();
    play.pass(19).sees(&[TOLD]);
    play.pass(1).sees(&["client: Drop", "outcome: upstream_gone by upstream"]);
}

#[test]
fn what_a_client_sends_meanwhile_is_read_and_goes_nowhere() {
    let mut play = held();
    play.frame(CLIENT, TEXT, b"hello?").frame(CLIENT, PING, b"?").frame(CLIENT, PONG, b"").sees(&[]);
    play.pass(10).sees(&[TOLD]);
}

#[test]
fn a_client_that_closes_is_answered_at_once() {
    let mut play = held();
    play.pass(3).frame(CLIENT, CLOSE, &close(1000, "")).sees(&[
        TOLD,
        "client: ShutDown",
        "outcome: upstream_gone by upstream",
    ]);
    assert_eq!(waited(&play), Some(Duration::from_secs(3)));
}

#[test]
fn a_client_that_goes_ends_the_wait() {
    for loss in [Loss::End, Loss::Failed] {
        let mut play = held();
        play.lost(CLIENT, loss).sees(&["client: Drop", "outcome: upstream_gone by upstream"]);
        assert!(play.relay.is_done());
        assert_eq!((waited(&play), play.codes(CLIENT)), (None, (None, None)));
        assert_eq!(play.relay.poll_timeout(), None);
    }
}

#[test]
fn an_order_or_a_violation_ends_the_wait() {
    let mut play = held();
    play.pass(2).order(EndReason::Draining, CloseCode::new(1001)).sees(&[TOLD]);
    let mut play = held();
    play.pass(2).frame(CLIENT, 0x83, b"").sees(&[TOLD, "client: ShutDown", "outcome: upstream_gone by upstream"]);
    let mut play = held();
    play.relay.cut(EndReason::Draining, play.now);
    play.after();
    play.sees(&["client: Reset", "outcome: upstream_gone by upstream"]);
}

#[test]
fn a_pause_of_the_gateway_makes_nobody_lose_its_turn() {
    let mut play = held();
    play.pause(5).pass(4).sees(&[]);
    play.pass(1).sees(&[TOLD]);
    let mut play = held();
    play.pause(60).pass(0).sees(&[TOLD]);
}

#[test]
fn a_backend_that_stops_answering_is_lost_as_well() {
    let mut play = Play::new(RelayConfig { heartbeat: PerSide { downstream: QUIET, upstream: PINGS }, ..config() });
    while !play.relay.is_ending() {
        play.after();
        play.now = play.relay.poll_timeout().unwrap();
        play.relay.on_timeout(play.now, Answers::Proven, |_| None);
    }
    assert!(play.relay.farewell_can_wait());
    play.relay.hold_farewell(play.now + Duration::from_secs(10));
    play.after();
    play.sees(&["upstream: our ping", "upstream: close 1011 keepalive ping timeout", "upstream: Reset"]);
    play.pass(10).sees(&["client: close 1012 upstream keepalive timeout"]);
}

#[test]
fn only_the_clients_of_lost_backends_wait() {
    let mut play = Play::new(config());
    play.relay.lost(CLIENT, Loss::End, play.now);
    assert!(!play.relay.farewell_can_wait());
    let mut play = Play::new(config());
    play.relay.end(EndReason::Draining, None, play.now);
    assert!(!play.relay.farewell_can_wait());
    play.relay.hold_farewell(play.now + Duration::from_secs(10));
    play.after();
    play.sees(&["client: close 1001 draining", "upstream: close 1001 draining"]);
    // A client in the middle of a frame can be told nothing.
    let mut play = Play::new(config());
    let message = frame(UPSTREAM, BINARY, &[7; 50]);
    play.bytes(UPSTREAM, &message[..20]);
    play.relay.lost(UPSTREAM, Loss::Failed, play.now);
    assert!(!play.relay.farewell_can_wait());
}
