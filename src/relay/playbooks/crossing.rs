//! What crosses, and where control frames of our own go in.
use super::*;
use crate::protocol::scanner::Tally;

fn pinging(side: Side) -> RelayConfig {
    let mut config = config();
    config.heartbeat[side] = PINGS;
    config
}

#[test]
fn frames_cross_untouched_and_keep_the_clients_key() {
    let mut play = Play::new(config());
    let bytes = [frame(CLIENT, TEXT, b"hello"), frame(CLIENT, BINARY, b"")].concat();
    play.relay.arrived(CLIENT, bytes.len(), play.relay.moment(play.now));
    let step = play.relay.receive(CLIENT, &bytes, play.relay.moment(play.now));
    assert_eq!((step.used, step.pass), (bytes.len(), 0..bytes.len()), "one span, one write");
    assert_eq!(step.passed, Tally { frames: 2, messages: 2 });
}

#[test]
fn what_is_swallowed_is_not_counted_among_what_passed() {
    let mut play = Play::new(RelayConfig { pings: Pings::Answer, ..config() });
    let parts = [frame(CLIENT, TEXT, b"a"), frame(CLIENT, PING, b"p"), frame(CLIENT, BINARY, b"b")];
    let bytes = parts.concat();
    let first = play.relay.receive(CLIENT, &bytes, play.relay.moment(play.now));
    assert_eq!((first.pass.end, first.passed), (parts[0].len(), Tally { frames: 1, messages: 1 }));
    let rest = play.relay.receive(CLIENT, &bytes[first.used..], play.relay.moment(play.now));
    assert_eq!(rest.passed, Tally { frames: 1, messages: 1 });
    assert_eq!(play.relay.leg(CLIENT).scanner.tally(), Tally { frames: 3, messages: 2 });
}

#[test]
fn headers_and_control_frames_cross_only_whole() {
    let mut play = Play::new(config());
    let bytes = [frame(CLIENT, BINARY, &[9; 201]), frame(CLIENT, PING, b"abc")].concat();
    for byte in &bytes[..7] {
        play.bytes(CLIENT, &[*byte]);
        assert_eq!(play.partial(UPSTREAM), 0);
    }
    for byte in &bytes[7..] {
        play.bytes(CLIENT, &[*byte]);
    }
    play.sees(&["upstream: binary 201 bytes", "upstream: ping abc"]);
}

#[test]
fn our_ping_goes_in_between_fragments() {
    let mut play = Play::new(pinging(CLIENT));
    play.frame(UPSTREAM, TEXT_BEGINS, b"one").sees(&["client: text one…"]);
    play.pass(20).sees(&["client: our ping"]);
    let rest = [frame(UPSTREAM, GOES_ON, b"two"), frame(UPSTREAM, ENDS, b"three")].concat();
    play.bytes(UPSTREAM, &rest).sees(&["client: goes on two…", "client: goes on three"]);
}

#[test]
fn our_ping_waits_for_the_end_of_a_frame_and_splits_the_chunk() {
    let mut play = Play::new(pinging(CLIENT));
    let long = frame(UPSTREAM, BINARY, &[7; 300]);
    play.bytes(UPSTREAM, &long[..10]);
    play.pass(20).sees(&[]);
    let rest = [&long[10..], &frame(UPSTREAM, TEXT, b"next")].concat();
    play.bytes(UPSTREAM, &rest).sees(&["client: binary 300 bytes", "client: our ping", "client: text next"]);
}

#[test]
fn the_ping_to_the_backend_is_masked() {
    let mut play = Play::new(pinging(UPSTREAM));
    let mut masked = false;
    while play.relay.leg(UPSTREAM).heartbeat.sent() == 0 {
        play.now = play.relay.poll_timeout().unwrap();
        play.relay.on_timeout(play.now, Answers::Proven, |_| None);
        if let Some(control) = play.relay.take_control(UPSTREAM, play.now, || KEY) {
            masked = control.bytes()[1] & 0x80 != 0 && control.bytes()[2..6] == KEY;
            play.send(UPSTREAM, control.bytes());
            play.after();
        }
    }
    assert!(masked);
}

#[test]
fn our_pongs_are_swallowed_late_ones_too() {
    let mut play = Play::new(pinging(CLIENT));
    play.pass(20).sees(&["client: our ping"]);
    let first = play.pings[CLIENT].clone();
    play.frame(CLIENT, PONG, &first).sees(&[]);
    play.pass(20).sees(&["client: our ping"]);
    play.frame(CLIENT, PONG, &first).sees(&[]);
    let second = play.pings[CLIENT].clone();
    play.frame(CLIENT, PONG, &second).sees(&[]);
    play.frame(CLIENT, PONG, b"theirs").sees(&["upstream: pong theirs"]);
    assert_eq!(play.relay.leg(CLIENT).heartbeat.answered(), 3);
}

#[test]
fn application_pings_cross_both_ways() {
    let mut play = Play::new(config());
    play.frame(CLIENT, PING, b"a").sees(&["upstream: ping a"]);
    play.frame(UPSTREAM, PONG, b"a").sees(&["client: pong a"]);
    play.frame(UPSTREAM, PING, b"b").sees(&["client: ping b"]);
    play.frame(CLIENT, PONG, b"b").sees(&["upstream: pong b"]);
}

#[test]
fn application_pings_are_answered_where_so_configured() {
    let mut play = Play::new(RelayConfig { pings: Pings::Answer, ..config() });
    play.frame(CLIENT, PING, b"a").sees(&["client: pong a"]);
    play.frame(UPSTREAM, PING, b"b").sees(&["upstream: pong b"]);
    play.frame(UPSTREAM, PONG, b"unsolicited").sees(&[]);
    let several = [frame(CLIENT, PING, b"1"), frame(CLIENT, TEXT, b"x"), frame(CLIENT, PING, b"2")].concat();
    play.bytes(CLIENT, &several).sees(&["client: pong 1", "client: pong 2", "upstream: text x"]);
}

#[test]
fn a_ping_flood_keeps_one_pong() {
    let mut play = Play::new(RelayConfig { pings: Pings::Answer, ..config() });
    play.room(CLIENT, 1);
    for number in 0..1000u32 {
        play.frame(CLIENT, PING, &[&number.to_be_bytes()[..], &[b'.'; 121]].concat());
    }
    assert_eq!(play.relay.outbox(CLIENT).len(), 126, "the first waits in the outbox, the newest behind it");
    play.seen.clear();
    play.room(CLIENT, usize::MAX);
    assert_eq!(play.seen.len(), 2, "{:?}", play.seen);
}

#[test]
fn what_is_not_taken_stops_the_reading_of_its_source() {
    let mut play = Play::new(config());
    play.room(UPSTREAM, 10).frame(CLIENT, BINARY, &[5; 1000]);
    play.frame(CLIENT, TEXT, b"x").sees(&["client: not read"]);
    play.frame(UPSTREAM, TEXT, b"y").sees(&["client: text y"]);
    play.room(UPSTREAM, usize::MAX).sees(&["upstream: binary 1000 bytes"]);
    play.frame(CLIENT, TEXT, b"x").sees(&["upstream: text x"]);
}

#[test]
fn the_gateways_own_pause_is_nobodys_silence() {
    let mut play = Play::new(pinging(CLIENT));
    play.pass(20).sees(&["client: our ping"]);
    play.now += Duration::from_secs(1000);
    play.relay.resume(play.now);
    play.after();
    play.sees(&["client: our ping"]);
    play.pass(19).sees(&[]);
    let payload = play.pings[CLIENT].clone();
    play.frame(CLIENT, PONG, &payload).sees(&[]);
    assert!(!play.relay.is_ending());
}

#[test]
fn a_leg_that_is_not_read_is_not_silent() {
    let mut play = Play::new(pinging(CLIENT));
    play.pass(20).sees(&["client: our ping"]);
    play.room(UPSTREAM, 0).frame(CLIENT, TEXT, b"x").sees(&[]);
    play.pass(59).sees(&["client: our ping"]);
    assert!(!play.relay.is_ending());
    play.pass(2).sees(&["client: close 1013 upstream too slow", "upstream: Reset"]);
}
