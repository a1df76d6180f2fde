//! The short way of small messages does what the long way does, whatever else happens.
use super::*;
use crate::protocol::scanner::Tally;
use proptest::prelude::*;

/// What one side sends, in pieces of these sizes at most, and what happens before.
#[derive(Clone, Debug)]
struct Scene {
    side: Side,
    frames: Vec<(u8, Vec<u8>)>,
    pieces: usize,
    seconds: u64,
    room: Option<usize>,
}

fn scene() -> impl Strategy<Value = Scene> {
    let side = prop_oneof![Just(CLIENT), Just(UPSTREAM)];
    let first = prop_oneof![
        6 => Just(BINARY), 6 => Just(TEXT), 2 => Just(PING), 2 => Just(PONG), 1 => Just(0x02),
        1 => Just(ENDS), 1 => Just(CLOSE), 1 => Just(0xc1), 1 => any::<u8>(),
    ];
    let payload = prop_oneof![6 => "[ -~]{2,150}", 1 => Just(String::new()), 1 => "\\PC{0,40}"];
    let frames = prop::collection::vec((first, payload.prop_map(String::into_bytes)), 0..4);
    let pieces = prop_oneof![4 => Just(usize::MAX), 1 => 1usize..100];
    let room = prop_oneof![3 => Just(None), 1 => (0usize..300).prop_map(Some), 1 => Just(Some(1 << 20))];
    (side, frames, pieces, 0u64..15, room).prop_map(|(side, frames, pieces, seconds, room)| Scene {
        side,
        frames,
        pieces,
        seconds,
        room,
    })
}

fn play(config: &RelayConfig, scenes: &[Scene], now: Instant, long_way: bool) -> (Vec<String>, String) {
    let mut play = Play { long_way, ..Play::at(config.clone(), now) };
    for Scene { side, frames, pieces, seconds, room } in scenes {
        play.pass(*seconds);
        if let Some(room) = room {
            play.room(side.other(), *room);
        }
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| frame(*side, *first, payload)).collect();
        bytes.chunks(*pieces).for_each(|piece| {
            play.bytes(*side, piece);
        });
    }
    (play.seen, format!("{:?}", play.relay))
}

proptest! {
    #[test]
    fn the_short_way_and_the_long_way_agree(
        scenes in prop::collection::vec(scene(), 1..16), pings: bool, limited: bool, idle: bool,
    ) {
        let mut config = config();
        if pings {
            config.heartbeat = PerSide { downstream: PINGS, upstream: PINGS };
        }
        if limited {
            config.limits.downstream.message = Some(100);
        }
        config.timeouts.idle = idle.then_some(Duration::from_secs(40));
        let now = Instant::now();
        prop_assert_eq!(play(&config, &scenes, now, false), play(&config, &scenes, now, true));
    }
}

#[test]
fn a_ping_that_waits_goes_out_before_a_second_message() {
    let now = Instant::now();
    let mut config = config();
    config.heartbeat.upstream = PINGS;
    let mut relay = Play::at(config, now).relay;
    let later = now + Duration::from_secs(21);
    relay.on_timeout(later, Answers::Proven, |_| None);
    assert!(relay.legs[UPSTREAM].control_waits(), "nobody has taken it yet");
    let message = frame(CLIENT, BINARY, b"one");
    let step = relay.receive(CLIENT, &[&message[..], &message].concat(), relay.moment(later));
    let passed = Tally { frames: 1, messages: 1 };
    assert_eq!(step, Step { used: message.len(), pass: 0..message.len(), passed });
}

#[test]
fn a_message_in_two_parts_leaves_no_slow_sender() {
    let mut play = Play::new(config());
    let message = frame(CLIENT, BINARY, &[7; 100]);
    play.bytes(CLIENT, &message[..50]);
    assert!(play.relay.legs[CLIENT].sender.runs(), "the rest is waited for");
    play.bytes(CLIENT, &message[50..]);
    assert!(!play.relay.legs[CLIENT].sender.runs());
    play.bytes(CLIENT, &message);
    assert!(!play.relay.legs[CLIENT].sender.runs());
}

#[test]
fn what_comes_behind_a_close_frame_does_not_cross() {
    let mut play = Play::new(config());
    play.frame(CLIENT, CLOSE, &close(1000, "")).sees(&["upstream: close 1000"]);
    let message = frame(CLIENT, BINARY, b"late");
    let step = play.relay.receive(CLIENT, &message, play.relay.moment(play.now));
    assert_eq!(step, Step { used: message.len(), pass: 0..0, passed: Tally::default() });
}
