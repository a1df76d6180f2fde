//! Data frames through a relay, driven as a session drives it, over transports that take all at once.

use super::{Case, KEY, Kind, Run, ascii, frame, route};
use pulsegate::{
    protocol::heartbeat::Seed,
    relay::{PerSide, Relay, Side},
};
use std::{hint::black_box, time::Instant};

const SMALL: usize = 64;
const LARGE: usize = 64 * 1024;
/// Small frames that come in one chunk.
const MANY: u32 = 1000;

pub(super) fn cases() -> Vec<Case> {
    use Kind::{Binary, Text};
    use Side::{Downstream, Upstream};
    vec![
        Case::new("relay/client-binary-64", 1, || relayed(Downstream, Binary, SMALL, 1)),
        Case::new("relay/client-text-64", 1, || relayed(Downstream, Text, SMALL, 1)),
        Case::new("relay/upstream-binary-64", 1, || relayed(Upstream, Binary, SMALL, 1)),
        Case::new("relay/upstream-text-64", 1, || relayed(Upstream, Text, SMALL, 1)),
        Case::new("relay/client-binary-64x1000", MANY, || relayed(Downstream, Binary, SMALL, MANY)),
        Case::new("relay/client-text-64x1000", MANY, || relayed(Downstream, Text, SMALL, MANY)),
        Case::new("relay/upstream-binary-64x1000", MANY, || relayed(Upstream, Binary, SMALL, MANY)),
        Case::new("relay/upstream-text-64x1000", MANY, || relayed(Upstream, Text, SMALL, MANY)),
        Case::new("relay/client-binary-64KiB", 1, || relayed(Downstream, Binary, LARGE, 1)),
        Case::new("relay/client-text-64KiB", 1, || relayed(Downstream, Text, LARGE, 1)),
        Case::new("relay/upstream-binary-64KiB", 1, || relayed(Upstream, Binary, LARGE, 1)),
        Case::new("relay/upstream-text-64KiB", 1, || relayed(Upstream, Text, LARGE, 1)),
        Case::new("relay/client-text-64KiB-in-16", 1, in_sixteen_chunks),
        Case::new("relay/client-binary-64-header-split", 1, header_split),
    ]
}

/// One relay with the settings of `route`, and a clock that the case moves.
pub(super) struct Driven {
    pub(super) relay: Relay,
    pub(super) now: Instant,
    room: Vec<u8>,
}

impl Driven {
    pub(super) fn new(defaults: &str) -> Self {
        let now = Instant::now();
        let seed = |secret| Seed { secret, jitter: secret };
        let seeds = PerSide { downstream: seed(0x0123_4567_89ab_cdef), upstream: seed(0xfedc_ba98_7654_3210) };
        Self { relay: Relay::new(route(defaults).options.relay, false, seeds, now), now, room: vec![0; 2 * LARGE] }
    }

    /// A chunk arrives on `side`; how many bytes of it cross.
    pub(super) fn arrives(&mut self, side: Side, chunk: &[u8]) -> usize {
        let Self { relay, now, room } = self;
        assert!(relay.wants_read(side));
        let held = relay.held(side);
        // A session reads right behind what was held; here the copy is made only if there is any.
        let chunk = if held > 0 {
            relay.take_held(side, &mut room[..held]);
            room[held..held + chunk.len()].copy_from_slice(chunk);
            &room[..held + chunk.len()]
        } else {
            chunk
        };
        relay.arrived(side, chunk.len() - held, relay.moment(*now));
        let (mut at, mut crossed) = (0, 0);
        while at < chunk.len() {
            let step = relay.receive(side, &chunk[at..], relay.moment(*now));
            if !step.pass.is_empty() {
                relay.sent(side.other(), step.pass.len());
                if relay.waits_for_transport(side.other()) {
                    relay.on_taken(side.other(), *now, || None);
                }
                crossed += step.pass.len();
            }
            at += step.used;
            for side in Side::BOTH {
                assert!(relay.take_control(side, *now, || KEY).is_none(), "nothing of ours is due");
            }
        }
        let _ = black_box(relay.take_event(side));
        crossed
    }
}

/// `count` frames from `side` in one chunk.
fn relayed(side: Side, kind: Kind, length: usize, count: u32) -> Run {
    let mut driven = Driven::new("");
    let chunk = made_by(side, kind, length).repeat(count as usize);
    Box::new(move || assert_eq!(driven.arrives(side, black_box(&chunk)), chunk.len()))
}

/// A large masked text in pieces that end anywhere, as TCP brings it.
fn in_sixteen_chunks() -> Run {
    let mut driven = Driven::new("");
    let frame = made_by(Side::Downstream, Kind::Text, LARGE);
    Box::new(move || {
        let crossed: usize = frame.chunks(4097).map(|chunk| driven.arrives(Side::Downstream, black_box(chunk))).sum();
        assert_eq!(crossed, frame.len());
    })
}

/// A small frame whose header ends in the next chunk.
fn header_split() -> Run {
    let mut driven = Driven::new("");
    let frame = made_by(Side::Downstream, Kind::Binary, SMALL);
    Box::new(move || {
        let (begin, rest) = black_box(&frame).split_at(3);
        assert_eq!(driven.arrives(Side::Downstream, begin), 0);
        assert_eq!(driven.arrives(Side::Downstream, rest), frame.len());
    })
}

/// A frame as the peer on this side sends it.
pub(super) fn made_by(side: Side, kind: Kind, length: usize) -> Vec<u8> {
    let key = match side {
        Side::Downstream => Some(KEY),
        Side::Upstream => None,
    };
    frame(kind, key, &ascii(length))
}
