//! Limits, UTF-8 and pace: what must not pass, and what happens where it stops.
use super::*;

fn limited() -> RelayConfig {
    let limits = MessageLimits { message: Some(10), frame: Some(6), ..MessageLimits::default() };
    RelayConfig { limits: PerSide { downstream: limits, upstream: MessageLimits::default() }, ..config() }
}

#[test]
fn reaching_a_limit_is_allowed() {
    let mut play = Play::new(limited());
    play.frame(CLIENT, TEXT_BEGINS, b"sixsix").sees(&["upstream: text sixsix…"]);
    play.frame(CLIENT, ENDS, b"four").sees(&["upstream: goes on four"]);
    play.frame(CLIENT, TEXT, b"sixsix").sees(&["upstream: text sixsix"]);
}

#[test]
fn a_frame_over_the_limit_does_not_begin_to_cross() {
    let mut play = Play::new(limited());
    let bytes = [&frame(CLIENT, TEXT, b"before")[..], &frame(CLIENT, BINARY, &[0; 7])[..6]].concat();
    play.bytes(CLIENT, &bytes).sees(&[
        "client: close 1009 frame over the limit",
        "upstream: text before",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
    assert_eq!(play.partial(UPSTREAM), 0);
}

#[test]
fn a_message_over_the_limit_ends_between_fragments() {
    let mut play = Play::new(limited());
    play.frame(CLIENT, TEXT_BEGINS, b"sixsix").frame(CLIENT, ENDS, b"fives").sees(&[
        "upstream: text sixsix…",
        "client: close 1009 message over the limit",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
}

#[test]
fn limits_are_per_side() {
    let mut play = Play::new(limited());
    play.frame(UPSTREAM, BINARY, &[0; 1000]).sees(&["client: binary 1000 bytes"]);
}

#[test]
fn bad_text_that_has_not_begun_to_cross() {
    let mut play = Play::new(config());
    play.frame(CLIENT, TEXT, b"a\xff").sees(&[
        "client: close 1007 text message is not UTF-8",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
}

#[test]
fn bad_text_in_a_frame_half_forwarded_cuts_the_receiver() {
    let mut play = Play::new(config());
    let text = frame(UPSTREAM, TEXT, &[&[b'a'; 100][..], b"\xff"].concat());
    play.bytes(UPSTREAM, &text[..50]).sees(&[]);
    play.bytes(UPSTREAM, &text[50..]).sees(&[
        "upstream: close 1007 text message is not UTF-8",
        "client: Reset",
        "outcome: upstream_violation by upstream",
    ]);
    assert_eq!(play.codes(CLIENT), (None, None));
}

#[test]
fn text_passes_unchecked_where_so_configured() {
    let mut play = Play::new(RelayConfig { utf8: Utf8::Pass, ..config() });
    play.frame(CLIENT, TEXT, b"\xff\xfe");
    assert_eq!(play.relay.leg(CLIENT).scanner.messages(), 1);
    assert!(!play.relay.is_ending());
}

#[test]
fn a_receiver_above_the_pace_is_kept_and_below_it_is_not() {
    let mut play = Play::new(RelayConfig { pace: Some(10), ..config() });
    play.room(CLIENT, 0).frame(UPSTREAM, BINARY, &[0; 5000]);
    for _ in 0..8 {
        play.pass(15).room(CLIENT, 200);
    }
    play.sees(&[]);
    assert!(!play.relay.is_ending());
    for _ in 0..8 {
        play.room(CLIENT, 20).pass(15);
    }
    play.sees(&[
        "upstream: close 1001 client too slow",
        "client: Reset",
        "upstream: Drop",
        "outcome: client_stalled by client",
    ]);
}

#[test]
fn a_sender_that_trickles_is_stalled() {
    let mut play = Play::new(config());
    let long = frame(UPSTREAM, BINARY, &[0; 500]);
    for byte in &long[..60] {
        play.bytes(UPSTREAM, &[*byte]).pass(1);
    }
    play.sees(&["client: Reset", "upstream: Reset", "outcome: upstream_stalled by upstream"]);
}

#[test]
fn many_frames_in_two_packets_each_are_no_stall() {
    let mut play = Play::new(config());
    let small = frame(CLIENT, TEXT, b"tiny");
    for _ in 0..3000 {
        play.bytes(CLIENT, &small[..6]);
        play.now += Duration::from_millis(40);
        play.bytes(CLIENT, &small[6..]);
        play.pass(0);
    }
    assert!(!play.relay.is_ending());
    assert_eq!(play.relay.leg(CLIENT).scanner.messages(), 3000);
}

#[test]
fn an_outbox_holds_one_read_and_a_close_frame_at_most() {
    let mut play = Play::new(config());
    play.room(CLIENT, 0).bytes(UPSTREAM, &frame(UPSTREAM, BINARY, &[0; 60_000]));
    play.frame(UPSTREAM, BINARY, &[0; 60_000]);
    play.order(EndReason::Draining, None);
    assert!(play.relay.outbox(CLIENT).len() <= 60_004 + 131, "{}", play.relay.outbox(CLIENT).len());
    play.frame(UPSTREAM, BINARY, &[0; 60_000]);
    assert!(play.relay.outbox(CLIENT).len() <= 60_004 + 131, "what comes now is discarded");
}

#[test]
fn a_message_in_too_many_fragments_ends_before_the_one_too_many() {
    let limits = MessageLimits { fragments: Some(3), ..MessageLimits::default() };
    let mut play = Play::new(RelayConfig {
        limits: PerSide { downstream: limits, upstream: MessageLimits::default() },
        ..config()
    });
    for _ in 0..2 {
        play.frame(CLIENT, TEXT_BEGINS, b"a")
            .frame(CLIENT, GOES_ON, b"")
            .frame(CLIENT, PING, b"")
            .frame(CLIENT, ENDS, b"c");
        play.sees(&["upstream: text a…", "upstream: goes on …", "upstream: ping", "upstream: goes on c"]);
    }
    play.frame(CLIENT, TEXT_BEGINS, b"a").frame(CLIENT, GOES_ON, b"").frame(CLIENT, GOES_ON, b"");
    play.frame(CLIENT, GOES_ON, b"").sees(&[
        "upstream: text a…",
        "upstream: goes on …",
        "upstream: goes on …",
        "client: close 1009 message in too many fragments",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
}
