//! Bytes in arbitrary chunks: the verdict is that of one chunk, and that of tungstenite.
#![no_main]
use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use pulsegate_fuzz::{
    input, leniencies,
    protocol::{
        Role, close,
        frame::Opcode,
        scanner::{Rules, Scanner, Stop},
        violation::Violation,
    },
    wire::{Item, Wire},
};
use std::io::{Cursor, Read, Write};
use tungstenite::{
    Message,
    protocol::{Role as TheirRole, WebSocket, WebSocketConfig},
};

fuzz_target!(|bytes: &[u8]| {
    // An input that ends early is no finding.
    run(&mut Unstructured::new(bytes)).ok();
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let role = if u.arbitrary()? { Role::Server } else { Role::Client };
    let limits: (u16, u16) = u.arbitrary()?;
    let rules = Rules {
        role,
        deflate: u.ratio(1, 4)?,
        utf8: u.ratio(3, 4)?,
        frame_limit: u64::from(limits.0).max(leniencies::LEAST_FRAME_LIMIT),
        message_limit: u64::from(limits.1).max(1),
        fragment_limit: u16::MAX,
    };
    let mut sizes = Vec::new();
    for _ in 0..u.int_in_range(1..=6)? {
        sizes.push((u.int_in_range(1..=40usize)?, u.arbitrary::<bool>()?));
    }
    let mut bytes = Vec::new();
    while !u.is_empty() {
        input::say(u, role == Role::Server, &mut bytes)?;
    }
    let whole = scan(rules, &bytes, &[(bytes.len().max(1), false)]);
    agrees_with_itself(&whole, &scan(rules, &bytes, &sizes), &bytes);
    if !rules.deflate && rules.utf8 {
        agrees_with_tungstenite(rules, &whole, &bytes);
    }
    Ok(())
}

/// What a scanner made of a stream.
#[derive(Debug)]
struct Scanned {
    /// Bytes that passed.
    passed: usize,
    /// Where the frame of the violation begins, or the close frame ends.
    violation: Option<Violation>,
    closed: bool,
    messages: u64,
    /// The scanner says that the other side holds the beginning of a frame.
    inside: bool,
}

fn scan(rules: Rules, bytes: &[u8], sizes: &[(usize, bool)]) -> Scanned {
    let mut scanner = Scanner::default();
    let mut passed = 0;
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    let mut violation = None;
    let mut closed = false;
    while let (false, false, None, Some((size, to_boundary))) = (rest.is_empty(), closed, violation, sizes.next()) {
        let (piece, later) = rest.split_at((*size).min(rest.len()));
        rest = later;
        let mut chunk = vec![0; 138 + piece.len()];
        let held = scanner.take_held(&mut chunk);
        assert!(held <= 138, "{held} bytes held");
        chunk[held..held + piece.len()].copy_from_slice(piece);
        chunk.truncate(held + piece.len());
        let mut from = 0;
        loop {
            let scan = scanner.scan(&rules, &chunk, from, *to_boundary);
            assert!((from..=chunk.len()).contains(&scan.at), "{scan:?} from {from} of {}", chunk.len());
            passed += scan.at - from;
            from = scan.at;
            match scan.stop {
                Stop::End => {
                    assert_eq!(scan.at, chunk.len());
                    break;
                }
                Stop::Partial => {
                    scanner.hold(&chunk[scan.at..]);
                    break;
                }
                Stop::Boundary => assert!(*to_boundary && !scanner.inside_frame()),
                Stop::Violation(found) => {
                    violation = Some(found);
                    break;
                }
                Stop::Control(control) => {
                    let mut room = [0; 125];
                    let parsed = match control.opcode {
                        Opcode::Close => close::parse(control.payload(&chunk, &mut room)).map(|_| closed = true),
                        Opcode::Ping | Opcode::Pong => Ok(()),
                        Opcode::Continuation | Opcode::Text | Opcode::Binary => panic!("{control:?} is no control"),
                    };
                    if let Err(found) = parsed {
                        violation = Some(found);
                        break;
                    }
                    passed += control.end() - from;
                    from = control.end();
                    if closed {
                        break;
                    }
                }
            }
        }
    }
    Scanned { passed, violation, closed, messages: scanner.messages(), inside: scanner.inside_frame() }
}

fn agrees_with_itself(whole: &Scanned, chunked: &Scanned, bytes: &[u8]) {
    assert_eq!(whole.violation, chunked.violation, "{}", bytes.escape_ascii());
    assert_eq!((whole.closed, whole.messages), (chunked.closed, chunked.messages));
    if whole.violation != Some(Violation::TextNotUtf8) {
        assert_eq!((whole.passed, whole.inside), (chunked.passed, chunked.inside));
        return;
    }
    // Bad text may show only after the beginning of its frame has passed; then the scanner knows of it.
    assert!(!whole.inside && whole.passed <= chunked.passed);
    assert_eq!(chunked.inside, whole.passed < chunked.passed, "{whole:?} {chunked:?}");
}

fn agrees_with_tungstenite(rules: Rules, ours: &Scanned, bytes: &[u8]) {
    let mut wire = Wire::new(rules.role == Role::Server, false);
    let readable = wire.push(&bytes[..ours.passed]);
    assert_eq!(readable, Ok(()), "passed, but cannot be read: {}", bytes[..ours.passed].escape_ascii());
    let items: Vec<Item> = wire.items.into_iter().map(leniencies::as_told).collect();
    let (theirs, failed) = tungstenite(rules, bytes);
    match ours.violation {
        None => {
            assert_eq!(items, theirs);
            assert!(!failed, "tungstenite refuses what we let pass: {}", bytes.escape_ascii());
        }
        Some(violation) => {
            assert_eq!(items, theirs[..items.len().min(theirs.len())], "before {violation:?}");
            let seen = leniencies::sees_frame(&bytes[ours.passed..]) && !leniencies::passes(violation);
            assert!(!seen || failed, "tungstenite lets {violation:?} pass: {}", bytes.escape_ascii());
            assert!(!failed || items.len() == theirs.len() || leniencies::passes(violation));
        }
    }
}

/// What tungstenite reads, up to a close frame, and whether it refused something (and did not just come to the end).
fn tungstenite(rules: Rules, bytes: &[u8]) -> (Vec<Item>, bool) {
    let role = match rules.role {
        Role::Server => TheirRole::Server,
        Role::Client => TheirRole::Client,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_frame_size(usize::try_from(rules.frame_limit).ok())
        .max_message_size(usize::try_from(rules.message_limit).ok());
    let mut socket = WebSocket::from_raw_socket(Stream(Cursor::new(bytes)), role, Some(config));
    let mut items = Vec::new();
    loop {
        items.push(match socket.read() {
            Ok(Message::Text(text)) => Item::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(payload)) => Item::Binary(payload.to_vec()),
            Ok(Message::Ping(payload)) => Item::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Item::Pong(payload.to_vec()),
            Ok(Message::Close(frame)) => {
                let payload = frame.map(|frame| {
                    let code: u16 = frame.code.into();
                    [&code.to_be_bytes()[..], frame.reason.as_bytes()].concat()
                });
                items.push(Item::Close(payload.unwrap_or_default()));
                return (items, false);
            }
            Ok(Message::Frame(frame)) => panic!("a frame by itself: {frame}"),
            Err(tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (items, false);
            }
            Err(_) => return (items, true),
        });
    }
}

/// Reads the input; what tungstenite answers goes nowhere.
struct Stream<'a>(Cursor<&'a [u8]>);

impl Read for Stream<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
