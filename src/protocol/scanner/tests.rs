#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const RULES: Rules = Rules {
    role: Role::Client,
    deflate: false,
    utf8: true,
    frame_limit: u64::MAX,
    message_limit: u64::MAX,
    fragment_limit: u16::MAX,
};

fn stop(rules: Rules, chunk: &[u8]) -> (usize, Stop) {
    let scan = Scanner::default().scan(&rules, chunk, 0, false);
    (scan.at, scan.stop)
}

/// All that passes when `bytes` arrive in chunks of `size`, and the violation that ended it.
fn passed(rules: Rules, bytes: &[u8], size: usize) -> (Vec<u8>, Option<Violation>) {
    let mut scanner = Scanner::default();
    let mut out = Vec::new();
    for piece in bytes.chunks(size) {
        let (passed, violation) = pass(&mut scanner, rules, piece);
        out.extend(passed);
        if violation.is_some() {
            return (out, violation);
        }
    }
    (out, None)
}

/// What passes when `piece` arrives, and the violation that ended it.
fn pass(scanner: &mut Scanner, rules: Rules, piece: &[u8]) -> (Vec<u8>, Option<Violation>) {
    let mut out = Vec::new();
    let mut chunk = vec![0; 256 + piece.len()];
    let held = scanner.take_held(&mut chunk);
    chunk[held..held + piece.len()].copy_from_slice(piece);
    chunk.truncate(held + piece.len());
    let mut from = 0;
    loop {
        let scan = scanner.scan(&rules, &chunk, from, false);
        out.extend_from_slice(&chunk[from..scan.at]);
        match scan.stop {
            Stop::End | Stop::Boundary => return (out, None),
            Stop::Partial => {
                scanner.hold(&chunk[scan.at..]);
                return (out, None);
            }
            Stop::Control(control) => {
                out.extend_from_slice(&chunk[scan.at..control.end()]);
                from = control.end();
            }
            Stop::Violation(violation) => return (out, Some(violation)),
        }
    }
}

#[test]
fn many_frames_are_one_span() {
    let chunk = [0x82, 1, 9, 0x81, 1, b'a', 0x82, 0];
    assert_eq!(stop(RULES, &chunk), (8, Stop::End));
}

#[test]
fn frames_and_messages_are_counted_once_whole_however_they_arrive() {
    // Two messages, a ping between the three fragments of a third, and a long one.
    let long = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65536]].concat();
    let short = [0x81, 1, b'a', 0x82, 0, 0x01, 1, b'a', 0x89, 1, b'p', 0x00, 0, 0x80, 1, b'b'];
    let bytes = [&short[..], &long].concat();
    for size in [1, 2, 3, 7, 1000, bytes.len()] {
        let (mut scanner, mut frames) = (Scanner::default(), Vec::new());
        for piece in bytes.chunks(size) {
            let before = scanner.tally();
            pass(&mut scanner, RULES, piece);
            frames.push(scanner.tally().since(before).frames);
        }
        assert_eq!(scanner.tally(), Tally { frames: 7, messages: 4 }, "in chunks of {size}");
        assert_eq!(frames.iter().sum::<u32>(), 7);
    }
}

#[test]
fn tallies_differ_rightly_where_they_wrap() {
    let (before, now) = (Tally { frames: u32::MAX, messages: u32::MAX - 1 }, Tally { frames: 1, messages: 0 });
    assert_eq!(now.since(before), Tally { frames: 2, messages: 2 });
}

#[test]
fn fragmentation_order() {
    assert_eq!(stop(RULES, &[0x80, 0]), (0, Stop::Violation(Violation::ContinuationWithoutMessage)));
    assert_eq!(stop(RULES, &[0x01, 0, 0x81, 0]), (2, Stop::Violation(Violation::MessageInsideMessage)));
    assert_eq!(stop(RULES, &[0x01, 0, 0x00, 0, 0x80, 0, 0x82, 0]), (8, Stop::End));
}

#[test]
fn control_frames_between_fragments_leave_the_message_alone() {
    let chunk = [0x01, 1, b'a', 0x89, 0, 0x80, 1, b'b'];
    let mut scanner = Scanner::default();
    let scan = scanner.scan(&RULES, &chunk, 0, false);
    let Stop::Control(control) = scan.stop else { panic!("{scan:?}") };
    assert_eq!((scan.at, control.opcode, control.end()), (3, Opcode::Ping, 5));
    assert_eq!(scanner.scan(&RULES, &chunk, 5, false), Scan { at: 8, stop: Stop::End });
    assert_eq!(scanner.messages(), 1);
}

#[test]
fn limits_count_fragments_and_reaching_one_is_allowed() {
    let rules = Rules { frame_limit: 3, message_limit: 5, ..RULES };
    assert_eq!(stop(rules, &[0x02, 3, 0, 0, 0, 0x80, 2, 0, 0]), (9, Stop::End));
    assert_eq!(stop(rules, &[0x02, 3, 0, 0, 0, 0x80, 3]), (5, Stop::Violation(Violation::MessageTooBig)));
    assert_eq!(stop(rules, &[0x82, 4]), (0, Stop::Violation(Violation::FrameTooBig)), "before the header crosses");
}

#[test]
fn bad_text_in_the_chunk_of_its_header_does_not_cross_at_all() {
    let mut scanner = Scanner::default();
    let scan = scanner.scan(&RULES, &[0x82, 1, 0, 0x81, 2, b'a', 0xff], 0, false);
    assert_eq!(scan, Scan { at: 3, stop: Stop::Violation(Violation::TextNotUtf8) });
    assert!(!scanner.inside_frame());
}

#[test]
fn bad_text_in_a_later_chunk_leaves_the_frame_unfinished() {
    let mut scanner = Scanner::default();
    assert_eq!(scanner.scan(&RULES, &[0x81, 4, b'a'], 0, false).stop, Stop::End);
    let scan = scanner.scan(&RULES, &[b'b', b'c', 0xff], 0, false);
    assert_eq!(scan, Scan { at: 0, stop: Stop::Violation(Violation::TextNotUtf8) });
    assert!(scanner.inside_frame(), "what crossed can never be completed");
}

#[test]
fn compressed_text_is_not_checked() {
    let rules = Rules { deflate: true, ..RULES };
    assert_eq!(stop(rules, &[0xc1, 1, 0xff]), (3, Stop::End));
    assert_eq!(stop(rules, &[0x81, 1, 0xff]), (0, Stop::Violation(Violation::TextNotUtf8)));
    assert_eq!(stop(Rules { utf8: false, ..rules }, &[0x81, 1, 0xff]), (3, Stop::End));
}

#[test]
fn text_split_over_fragments_and_masked() {
    let rules = Rules { role: Role::Server, ..RULES };
    let key = [9, 8, 7, 6];
    let text = "κόσμε".as_bytes();
    for cut in 0..text.len() {
        let mut bytes = Vec::new();
        for (head, part) in [(0x01u8, &text[..cut]), (0x80, &text[cut..])] {
            bytes.extend_from_slice(&[head, 0x80 | part.len() as u8]);
            bytes.extend_from_slice(&key);
            bytes.extend(part.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
        }
        for size in 1..bytes.len() {
            assert_eq!(passed(rules, &bytes, size), (bytes.clone(), None), "cut {cut}, chunks of {size}");
        }
    }
}

#[test]
fn a_boundary_is_found_inside_a_chunk() {
    let chunk = [0x82, 1, 7, 0x82, 1, 7];
    let mut scanner = Scanner::default();
    assert_eq!(scanner.scan(&RULES, &chunk, 0, true), Scan { at: 3, stop: Stop::Boundary });
    assert_eq!(scanner.scan(&RULES, &chunk, 3, false), Scan { at: 6, stop: Stop::End });
}

#[test]
fn whole_messages_pass_at_once_and_nothing_else_does() {
    let mut scanner = Scanner::default();
    assert_eq!(scanner.whole(&RULES, &[0x82, 1, 7, 0x81, 1, b'a']), Some(2));
    for other in [&[0x82, 2, 7][..], &[0x02, 1, 7], &[0x89, 0], &[0x82, 0, 0x8a, 0], &[0x81, 1, 0xff]] {
        assert_eq!(scanner.whole(&RULES, other), None, "{other:?}");
    }
    assert_eq!(scanner.messages(), 2);
    assert_eq!(scanner.scan(&RULES, &[0x02, 1, 7], 0, false).stop, Stop::End);
    assert_eq!(scanner.whole(&RULES, &[0x82, 1, 7]), None, "inside a message");
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (any::<bool>(), 0u8..16, prop::collection::vec(any::<u8>(), 0..140));
    prop::collection::vec(frame, 0..8).prop_map(|frames| {
        let mut bytes = Vec::new();
        for (fin, opcode, payload) in frames {
            bytes.push(u8::from(fin) << 7 | opcode);
            if payload.len() < 126 {
                bytes.push(payload.len() as u8);
            } else {
                bytes.extend_from_slice(&[126, 0, payload.len() as u8]);
            }
            bytes.extend_from_slice(&payload);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn chunking_changes_no_verdict_and_no_byte(bytes in frames(), size in 1usize..64) {
        let rules = Rules { utf8: false, ..RULES };
        prop_assert_eq!(passed(rules, &bytes, size), passed(rules, &bytes, bytes.len().max(1)));
    }
}

/// All that passes when the scanner is made to stop at each frame border, and so never takes the short way.
fn frame_by_frame(rules: Rules, chunk: &[u8]) -> (usize, Stop, u64) {
    let mut scanner = Scanner::default();
    let mut from = 0;
    loop {
        let scan = scanner.scan(&rules, chunk, from, true);
        match scan.stop {
            Stop::Boundary => from = scan.at,
            stop @ (Stop::End | Stop::Partial | Stop::Control(_) | Stop::Violation(_)) => {
                return (scan.at, stop, scanner.messages());
            }
        }
    }
}

/// Mostly messages of one frame, short ones and text too; now and then something else.
fn messages() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let text = prop_oneof![4 => "[ -~]{0,140}", 1 => "\\PC{0,60}"].prop_map(String::into_bytes);
    let payload = prop_oneof![text, prop::collection::vec(any::<u8>(), 0..300)];
    let first = prop_oneof![8 => Just(0x81u8), 8 => Just(0x82u8), 2 => Just(0xc1u8), 1 => Just(0x01u8), 1 => Just(0x80u8), 1 => any::<u8>()];
    prop::collection::vec((first, payload), 0..12)
}

proptest! {
    #[test]
    fn the_short_way_and_the_long_way_agree(
        messages in messages(), masked: bool, deflate: bool, limited: bool, cut in 0usize..40,
    ) {
        let mut bytes = Vec::new();
        for (first, payload) in messages {
            let bit = if masked { 0x80 } else { 0 };
            bytes.push(first);
            match payload.len() {
                short @ 0..126 => bytes.push(short as u8 | bit),
                long => bytes.extend_from_slice(&[126 | bit, (long >> 8) as u8, long as u8]),
            }
            if masked {
                let key = [7, 200, 33, first];
                bytes.extend_from_slice(&key);
                bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            } else {
                bytes.extend_from_slice(&payload);
            }
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let role = if masked { Role::Server } else { Role::Client };
        let limit = if limited { 120 } else { u64::MAX };
        let rules = Rules { role, deflate, frame_limit: limit, ..RULES };
        let mut scanner = Scanner::default();
        let scan = scanner.scan(&rules, &bytes, 0, false);
        prop_assert_eq!((scan.at, scan.stop, scanner.messages()), frame_by_frame(rules, &bytes));
        let mut short = Scanner::default();
        if let Some(messages) = short.whole(&rules, &bytes) {
            prop_assert_eq!((scan, scanner.messages()), (Scan { at: bytes.len(), stop: Stop::End }, messages.into()));
            prop_assert_eq!(format!("{short:?}"), format!("{scanner:?}"), "and nothing is left behind");
        } else {
            prop_assert_eq!(format!("{short:?}"), format!("{:?}", Scanner::default()), "nothing has happened");
        }
    }
}
