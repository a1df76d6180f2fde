//! One beat of a heartbeat: it is due, a ping goes out, its pong comes in.

use super::{Case, Run, relay::Driven};
use pulsegate::{
    protocol::heartbeat::{Answers, PathSample},
    relay::Side,
};
use std::{hint::black_box, time::Duration};

/// Beats after which a relay is replaced, so that its virtual clock stays within a day however long a bench runs.
const LIFE: u32 = 10_000;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("heartbeat/beat", 1, beats), Case::new("heartbeat/poll-timeout", 1, deadline)]
}

fn beats() -> Run {
    const SECONDS: &str = "heartbeat.client.ping_interval = \"1s\"\nheartbeat.upstream.ping_interval = \"1s\"";
    let mut driven = Driven::new(SECONDS);
    let mut left = LIFE;
    Box::new(move || {
        if left == 0 {
            (driven, left) = (Driven::new(SECONDS), LIFE);
        }
        left -= 1;
        while !beat(&mut driven) {}
    })
}

/// Goes on to the next deadline; whether it was a ping's time.
fn beat(driven: &mut Driven) -> bool {
    let Driven { relay, now, .. } = driven;
    *now = relay.poll_timeout().expect("a heartbeat runs").max(*now);
    relay.on_timeout(*now, Answers::Proven, |_| Some(PathSample::default()));
    let mut pinged = None;
    for side in Side::BOTH {
        if let Some(ping) = relay.take_control(side, *now, || [0; 4]) {
            relay.sent(side, ping.bytes().len());
            assert!(relay.waits_for_transport(side));
            relay.on_taken(side, *now, || Some(PathSample::default()));
            let _ = black_box(relay.take_event(side));
            pinged = Some((side, ping));
        }
    }
    let Some((side, ping)) = pinged else { return false };
    *now += Duration::from_millis(20);
    // The pong repeats the ping's last twelve bytes, and is masked where the ping was not; the key is zero.
    let payload = ping.bytes().last_chunk::<12>().expect("a ping of ours");
    let mut pong = [0; 18];
    let header: &[u8] = match side {
        Side::Downstream => &[0x8a, 0x8c, 0, 0, 0, 0],
        Side::Upstream => &[0x8a, 0x0c],
    };
    let length = header.len() + payload.len();
    pong[..header.len()].copy_from_slice(header);
    pong[header.len()..length].copy_from_slice(payload);
    assert_eq!(driven.arrives(side, &pong[..length]), 0, "answers to our own pings do not cross");
    true
}

/// The question that ends each of a session's turns.
fn deadline() -> Run {
    let driven = Driven::new("");
    Box::new(move || {
        black_box(black_box(&driven).relay.poll_timeout());
    })
}
