//! Rates: who sends more is slowed down or ended.
use super::*;
use crate::protocol::rate::Rate;
use std::num::NonZeroU64;

fn rate(count: u64) -> Option<Rate> {
    NonZeroU64::new(count).map(Rate)
}

fn of_client(limits: MessageLimits) -> RelayConfig {
    RelayConfig { limits: PerSide { downstream: limits, upstream: MessageLimits::default() }, ..config() }
}

fn messages(count: u64, over_rate: OverRate) -> RelayConfig {
    of_client(MessageLimits { messages_per_second: rate(count), over_rate, ..MessageLimits::default() })
}

fn bytes(count: u64, over_rate: OverRate) -> RelayConfig {
    of_client(MessageLimits { bytes_per_second: rate(count), over_rate, ..MessageLimits::default() })
}

/// So many texts as one chunk.
fn texts(count: usize) -> Vec<u8> {
    frame(CLIENT, TEXT, b"hi").repeat(count)
}

#[test]
fn a_second_of_messages_passes_at_once_and_the_rest_when_its_time_has_come() {
    let mut play = Play::new(messages(2, OverRate::Slow));
    play.bytes(CLIENT, &texts(5)).sees(&["upstream: text hi"; 2]);
    assert!(!play.relay.wants_read(CLIENT) && play.relay.wants_read(UPSTREAM));
    play.pass(1).sees(&["upstream: text hi"; 2]);
    play.pass(1).sees(&["upstream: text hi"]);
    assert!(play.relay.wants_read(CLIENT), "who sends no more than it may is read");
    assert_eq!(play.relay.leg(CLIENT).scanner.messages(), 5);
}

#[test]
fn control_frames_count_but_fragments_do_not() {
    let mut play = Play::new(messages(3, OverRate::Slow));
    let chunk = [
        frame(CLIENT, TEXT_BEGINS, b"a"),
        frame(CLIENT, PING, b"1"),
        frame(CLIENT, GOES_ON, b"b"),
        frame(CLIENT, ENDS, b"c"),
        frame(CLIENT, PONG, b"2"),
        frame(CLIENT, PING, b"3"),
        frame(CLIENT, TEXT, b"d"),
    ];
    play.bytes(CLIENT, &chunk.concat()).sees(&[
        "upstream: text a…",
        "upstream: ping 1",
        "upstream: goes on b…",
        "upstream: goes on c",
        "upstream: pong 2",
    ]);
    play.pass(1).sees(&["upstream: ping 3", "upstream: text d"]);
}

#[test]
fn pings_that_the_gateway_answers_count_too() {
    let mut play = Play::new(RelayConfig { pings: Pings::Answer, ..messages(1, OverRate::Slow) });
    play.bytes(CLIENT, &frame(CLIENT, PING, b"x").repeat(3)).sees(&["client: pong x"]);
    play.pass(1).sees(&["client: pong x"]).pass(1).sees(&["client: pong x"]);
}

#[test]
fn pongs_to_our_own_pings_do_not_count() {
    let config = messages(1, OverRate::Close);
    let mut play = Play::new(RelayConfig { heartbeat: PerSide { downstream: PINGS, upstream: QUIET }, ..config });
    play.pass(20).sees(&["client: our ping"]);
    let pong = play.pings[CLIENT].clone();
    play.frame(CLIENT, PONG, &pong).frame(CLIENT, TEXT, b"hi").sees(&["upstream: text hi"]);
}

#[test]
fn what_does_not_count_passes_when_no_message_is_left() {
    let config = messages(1, OverRate::Close);
    let mut play = Play::new(RelayConfig { heartbeat: PerSide { downstream: PINGS, upstream: QUIET }, ..config });
    play.pass(20).sees(&["client: our ping"]);
    let pong = play.pings[CLIENT].clone();
    play.frame(CLIENT, TEXT, b"hi").frame(CLIENT, PONG, &pong).sees(&["upstream: text hi"]);
    play.frame(CLIENT, CLOSE, &close(1000, "")).sees(&["upstream: close 1000"]);

    let mut play = Play::new(messages(1, OverRate::Close));
    let chunk = [frame(CLIENT, TEXT_BEGINS, b"a"), frame(CLIENT, PING, b"1"), frame(CLIENT, ENDS, b"b")];
    play.bytes(CLIENT, &chunk.concat()).sees(&["upstream: text a…", "upstream: ping 1", "upstream: goes on b"]);
}

#[test]
fn pongs_that_answer_no_question_count() {
    let over = ["client: close 1008 too many messages a second", "upstream: close 1001 policy", "client: ShutDown"];
    let mut play = Play::new(messages(1, OverRate::Close));
    play.frame(CLIENT, PONG, b"a").sees(&["upstream: pong a"]).frame(CLIENT, PONG, b"b").sees(&over);
    // Those that do not cross, and an answer that is given again.
    let answer = RelayConfig { pings: Pings::Answer, ..messages(1, OverRate::Close) };
    let mut play = Play::new(answer.clone());
    play.frame(CLIENT, PONG, b"a").sees(&[]).frame(CLIENT, PONG, b"b").sees(&over);
    let mut play = Play::new(RelayConfig { heartbeat: PerSide { downstream: PINGS, upstream: QUIET }, ..answer });
    play.pass(20).sees(&["client: our ping"]);
    let pong = play.pings[CLIENT].clone();
    play.frame(CLIENT, PONG, &pong).frame(CLIENT, PONG, &pong).sees(&[]).frame(CLIENT, PONG, &pong).sees(&over);
}

#[test]
fn what_came_while_nobody_read_it_came_in_time() {
    let mut play = Play::new(messages(10, OverRate::Close));
    play.room(UPSTREAM, 0).bytes(CLIENT, &texts(10)).pass(3);
    assert!(!play.relay.wants_read(CLIENT));
    play.room(UPSTREAM, usize::MAX).sees(&["upstream: text hi"; 10]);
    play.bytes(CLIENT, &texts(30)).sees(&["upstream: text hi"; 30]);
    play.pause(3).bytes(CLIENT, &texts(30)).sees(&["upstream: text hi"; 30]);
    play.pass(2).bytes(CLIENT, &texts(10)).sees(&["upstream: text hi"; 10]);
    play.bytes(CLIENT, &texts(1)).sees(&[
        "client: close 1008 too many messages a second",
        "upstream: close 1001 policy",
        "client: ShutDown",
    ]);
}

#[test]
fn one_that_is_slowed_down_for_long_is_asked_again_and_again() {
    let heartbeat = PerSide { downstream: HeartbeatConfig { liveness: Liveness::Pong, ..PINGS }, upstream: QUIET };
    let mut play = Play::new(RelayConfig { heartbeat, ..messages(1, OverRate::Slow) });
    play.bytes(CLIENT, &texts(100)).sees(&["upstream: text hi"]);
    play.pass(80);
    let pings = play.seen.iter().filter(|line| *line == "client: our ping").count();
    assert!((3..=5).contains(&pings) && !play.relay.is_ending(), "{pings}");
}

#[test]
fn what_was_set_aside_is_no_sign_of_life() {
    let mut play = Play::new(messages(1, OverRate::Slow));
    play.bytes(CLIENT, &texts(20)).pass(10);
    assert!(play.relay.silence(CLIENT, play.now) >= Duration::from_secs(10));
}

#[test]
fn over_the_rate_the_session_ends_where_so_configured() {
    let mut play = Play::new(messages(2, OverRate::Close));
    play.bytes(CLIENT, &texts(3)).sees(&[
        "client: close 1008 too many messages a second",
        "upstream: text hi",
        "upstream: text hi",
        "upstream: close 1001 policy",
        "client: ShutDown",
    ]);
    play.frame(CLIENT, CLOSE, &close(1008, "")).lost(CLIENT, Loss::End).frame(UPSTREAM, CLOSE, &close(1001, ""));
    play.lost(UPSTREAM, Loss::End);
    let outcome = play.relay.outcome().unwrap();
    assert_eq!((outcome.reason, outcome.first), (EndReason::Policy, Some(CLIENT)));
    assert_eq!(outcome.violation, Some(Violation::TooManyMessages));
}

#[test]
fn a_steady_sender_at_the_rate_is_never_stopped() {
    for over_rate in [OverRate::Slow, OverRate::Close] {
        let mut play = Play::new(messages(10, over_rate));
        for _ in 0..100 {
            play.bytes(CLIENT, &texts(1)).sees(&["upstream: text hi"]);
            play.now += Duration::from_millis(100);
        }
    }
}

#[test]
fn bytes_over_the_rate_are_not_read() {
    let mut play = Play::new(bytes(1000, OverRate::Slow));
    assert_eq!(play.relay.most(CLIENT, play.relay.moment(play.now)), 1000);
    play.bytes(CLIENT, &frame(CLIENT, BINARY, &[0; 992])).sees(&["upstream: binary 992 bytes"]);
    assert!(!play.relay.wants_read(CLIENT));
    play.pass(1);
    assert!(play.relay.wants_read(CLIENT));
    assert!((900..=1000).contains(&play.relay.most(CLIENT, play.relay.moment(play.now))));
}

#[test]
fn bytes_over_the_rate_end_the_session_where_so_configured() {
    let mut play = Play::new(bytes(1000, OverRate::Close));
    assert_eq!(play.relay.most(CLIENT, play.relay.moment(play.now)), usize::MAX);
    play.bytes(CLIENT, &frame(CLIENT, BINARY, &[0; 992])).sees(&["upstream: binary 992 bytes"]);
    play.frame(CLIENT, BINARY, &[0; 100]).sees(&[
        "client: close 1008 too many bytes a second",
        "upstream: close 1001 policy",
        "client: ShutDown",
    ]);
}

#[test]
fn a_slowed_leg_cannot_be_called_silent_or_slow() {
    let limits = MessageLimits { bytes_per_second: rate(10), ..MessageLimits::default() };
    let heartbeat = PerSide { downstream: PINGS, upstream: QUIET };
    let mut play = Play::new(RelayConfig { heartbeat, ..of_client(limits) });
    // A transport that gives more than it was asked for: a debt of five minutes, within a frame.
    play.bytes(CLIENT, &frame(CLIENT, BINARY, &[0; 4000])[..3010]).pass(290).sees(&["client: our ping"]);
    assert!(!play.relay.wants_read(CLIENT) && !play.relay.is_ending());
    play.pass(20).sees(&[]);
    assert!(play.relay.wants_read(CLIENT));
    play.pass(60).sees(&[
        "client: close 1001 keepalive ping timeout",
        "client: Reset",
        "upstream: Reset",
        "outcome: client_unresponsive by client",
    ]);
}

#[test]
fn an_end_is_not_slowed_down() {
    let mut play = Play::new(messages(1, OverRate::Slow));
    let chunk = [texts(3), frame(CLIENT, CLOSE, &close(1000, ""))].concat();
    play.bytes(CLIENT, &chunk).sees(&["upstream: text hi"]);
    play.order(EndReason::Draining, None).sees(&[
        "client: close 1001 draining",
        "upstream: close 1001 draining",
        "client: ShutDown",
    ]);
    assert_eq!(play.relay.leg(CLIENT).close_received, Some(1000));
}

#[test]
fn backpressure_and_a_rate_do_not_release_each_other() {
    let mut play = Play::new(bytes(1000, OverRate::Slow));
    play.room(UPSTREAM, 0).bytes(CLIENT, &frame(CLIENT, BINARY, &[0; 992])).pass(2);
    assert!(!play.relay.wants_read(CLIENT), "nobody takes it");
    play.room(UPSTREAM, usize::MAX);
    assert!(play.relay.wants_read(CLIENT));
    play.room(UPSTREAM, 500).bytes(CLIENT, &frame(CLIENT, BINARY, &[0; 992])).room(UPSTREAM, 1000);
    assert!(play.relay.outbox(UPSTREAM).is_empty() && !play.relay.wants_read(CLIENT), "it is too early");
}

#[test]
fn a_rate_that_is_lifted_lets_go_at_once() {
    let mut play = Play::new(messages(1, OverRate::Slow));
    play.bytes(CLIENT, &texts(4)).sees(&["upstream: text hi"]);
    play.configure(|config| config.limits.downstream.messages_per_second = None).sees(&["upstream: text hi"; 3]);
    play.configure(|config| config.limits.downstream.messages_per_second = rate(2));
    play.bytes(CLIENT, &texts(4)).sees(&["upstream: text hi"; 2]);
    play.configure(|config| config.limits.downstream.over_rate = OverRate::Close)
        .pass(1)
        .sees(&["upstream: text hi", "upstream: text hi"]);
}
