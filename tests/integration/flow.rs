//! Slow readers: TCP carries the backpressure to the sender, memory stays bounded, nothing is lost.
use super::harness::{Backend, Client, Raw, Running, closed_with, content, frame, one_route, request, soon};
use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tungstenite::{Message, WebSocket};

/// Messages of 64 KiB that a source sends: more than all socket buffers of a path hold.
const MESSAGES: u32 = 1024;
/// What sockets and the gateway may hold between a source and its reader.
const BOUND: u32 = 512;
const LENGTH: usize = 65536;

/// Sends everything, and counts what left.
fn pour<S: Read + Write>(mut peer: WebSocket<S>, sent: &AtomicU32) {
    for number in 0..MESSAGES {
        if peer.send(Message::binary(content(number, LENGTH))).is_err() {
            return;
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
    closed_with(&mut peer);
}

/// Reads everything, in order.
fn drink<S: Read + Write>(peer: &mut WebSocket<S>) {
    for number in 0..MESSAGES {
        assert!(peer.read().unwrap() == Message::binary(content(number, LENGTH)), "message {number}");
    }
}

/// Waits until a sender makes no headway.
pub(crate) fn blocked(sent: &AtomicU32) -> u32 {
    let start = Instant::now();
    loop {
        let before = sent.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(400));
        let now = sent.load(Ordering::Relaxed);
        if now == before && now > 0 {
            return now;
        }
        assert!(start.elapsed() < super::harness::PATIENCE);
    }
}

/// A backend that pours.
pub(crate) fn source() -> (Backend, Arc<AtomicU32>) {
    let sent = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    (Backend::websocket(move |peer| pour(peer, &counter)), sent)
}

/// A client that reads only when the source is held up.
pub(crate) fn read_late<S: Read + Write>(mut client: WebSocket<S>, sent: &AtomicU32) {
    let held = blocked(sent);
    assert!(held < BOUND, "{held} messages left before any was read");
    drink(&mut client);
    client.close(None).unwrap();
    assert!(closed_with(&mut client).is_some());
}

#[test]
fn a_slow_client_holds_up_its_backend_and_loses_nothing() {
    let (backend, sent) = source();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    read_late(gateway.connect("/"), &sent);
    let verdict = gateway.verdict();
    assert_eq!(verdict.legs.upstream.messages_received, u64::from(MESSAGES));
}

#[test]
fn a_slow_backend_holds_up_its_client_and_loses_nothing() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let (done, read) = std::sync::mpsc::channel();
    let done = std::sync::Mutex::new(done);
    let backend = Backend::websocket(move |mut peer| {
        soon(&gone.lock().unwrap());
        drink(&mut peer);
        let _ = done.lock().unwrap().send(());
        closed_with(&mut peer);
    });
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let client: Client = gateway.connect("/");
    let sent = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&sent);
    thread::spawn(move || pour(client, &counter));
    let held = blocked(&sent);
    assert!(held < BOUND, "{held} messages left before any was read");
    go.send(()).unwrap();
    soon(&read);
}

#[test]
fn frames_behind_the_handshakes_are_not_lost_on_either_leg() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        let request = raw.head();
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        answer.extend(frame(0x81, false, b"from the backend"));
        raw.send(&answer);
        // What the client sent early comes back, so that it can see it.
        let early = raw.receive::<21>();
        raw.send(&frame(0x82, false, &early));
        raw.end();
    });
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let mut client = Raw::connect(gateway.address());
    let early = frame(0x81, true, b"from the client");
    client.send(&[request("/", "").as_bytes(), &early].concat());
    client.head();
    assert_eq!(client.receive::<18>()[..], frame(0x81, false, b"from the backend"));
    assert_eq!(client.receive::<23>()[..], frame(0x82, false, &early));
}

#[test]
fn the_built_in_echo_carries_a_message_larger_than_every_buffer() {
    let gateway = Running::start(&one_route("builtin:echo", ""));
    let mut client = gateway.connect("/");
    for length in [0, 125, 126, 65535, 65536, 5_000_000] {
        let message = Message::binary(content(77, length));
        client.send(message.clone()).unwrap();
        assert!(client.read().unwrap() == message, "{length} bytes");
    }
}
