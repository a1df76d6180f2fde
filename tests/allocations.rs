//! What allocates: not a frame that is relayed, and not a beat of a heartbeat.
//!
//! Every case of `benches/cases` is counted, and a gateway on loopback sockets, on its worker's thread.
#![allow(clippy::unwrap_used)]

#[path = "../benches/cases/mod.rs"]
mod cases;

use pulsegate::{
    config,
    gateway::{Gateway, Observer},
    listener::ListenAddress,
    session::Facts,
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Runs of a case that are counted.
const RUNS: u64 = 200;

/// The system's allocator, with each allocation charged to whom its thread is charged to.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static CHARGED: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

fn charge() {
    if let Some(count) = CHARGED.get() {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: each call goes on to the system's allocator as it came. Counting neither allocates nor panics: the thread-local
// is made at compile time and has no destructor.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge();
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge();
        // SAFETY: as promised to us.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        charge();
        // SAFETY: as promised to us.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(block, layout) }
    }
}

fn counter() -> &'static AtomicU64 {
    Box::leak(Box::default())
}

/// Allocations while `work` runs, on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let count = counter();
    CHARGED.set(Some(count));
    work();
    CHARGED.set(None);
    count.load(Ordering::Relaxed)
}

/// Allocations that one frame, beat or entry of a case may cost, once warm.
fn allowed(name: &str) -> u64 {
    match name {
        // A header that is held back owns memory until the rest of it comes: an idle session does not.
        "relay/client-binary-64-header-split" => 1,
        // Once in a session's life: its entry, and now and then a node of the tree.
        "registry/enter-and-leave" => 2,
        // What TCP knew when a ping left is kept until its answer: not by idle sessions between pings.
        "heartbeat/beat" => 1,
        _ => 0,
    }
}

#[test]
fn no_case_allocates_more_than_it_may() {
    let mut mistakes = Vec::new();
    for case in cases::all() {
        let mut run = case.warm();
        let count = allocations(|| (0..RUNS).for_each(|_| run()));
        let most = allowed(case.name) * RUNS * u64::from(case.units);
        if count > most {
            mistakes.push(format!("{}: {count} allocations in {RUNS} runs, at most {most}", case.name));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1, "allocations are counted");
}

/// Observers are called on the worker's thread: from its first session on it is charged.
struct ChargesWorker(&'static AtomicU64);

impl Observer for ChargesWorker {
    fn opened(&self, _facts: &Facts) {
        CHARGED.set(Some(self.0));
    }
}

/// A gateway of one worker between a client and an echo, each on a socket.
struct Through {
    gateway: Gateway,
    client: Peer,
    worker: &'static AtomicU64,
}

impl Through {
    fn start(defaults: &str) -> Self {
        let text = format!(
            "[gateway]\nworkers = 1\n[defaults]\n{defaults}\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\n\
             upstream = \"echo\"\n[upstream.echo]\nservers = [\"ws://{}\"]\n",
            echo()
        );
        let config = config::parse("test", &text, Path::new(".")).unwrap_or_else(|errors| panic!("{errors}"));
        let worker = counter();
        let gateway = Gateway::observed(config, Some(Arc::new(ChargesWorker(worker)))).unwrap();
        let Some(ListenAddress::Tcp(address)) = gateway.addresses().next() else { panic!("no TCP address") };
        let stream = upgraded(address);
        Self { client: Peer { stream, masks: true }, gateway, worker }
    }

    /// The fewest allocations of the worker in one of several goes at `work`: what every frame did would show in each,
    /// while a starved worker that writes a warning does so in one.
    fn fewest(&mut self, mut work: impl FnMut(&mut Peer)) -> u64 {
        work(&mut self.client);
        let mut fewest = u64::MAX;
        for _ in 0..20 {
            let before = self.worker.load(Ordering::Relaxed);
            work(&mut self.client);
            fewest = fewest.min(self.worker.load(Ordering::Relaxed) - before);
            if fewest == 0 {
                break;
            }
        }
        fewest
    }

    fn end(self) {
        assert!(self.worker.load(Ordering::Relaxed) > 0, "the end of a handshake allocates: its thread is counted");
        drop(self.client);
        self.gateway.drain();
        let _ = self.gateway.wait();
    }
}

#[test]
fn a_gateway_relays_frames_without_allocating() {
    let mut through = Through::start("");
    let one_by_one = |client: &mut Peer| {
        for _ in 0..200 {
            client.send(BINARY, &[7; 64]);
            client.receive_data();
        }
    };
    assert_eq!(through.fewest(one_by_one), 0, "of 200 round trips");
    let thirty_two_at_once = |client: &mut Peer| {
        for _ in 0..10 {
            (0..32).for_each(|_| client.send(TEXT, &[b'7'; 64]));
            (0..32).for_each(|_| client.receive_data());
        }
    };
    assert_eq!(through.fewest(thirty_two_at_once), 0, "of 320 round trips");
    through.end();
}

#[test]
fn a_gateway_keeps_one_note_a_leg_for_a_ping() {
    let often = "heartbeat.client.ping_interval = \"20ms\"\nheartbeat.upstream.ping_interval = \"20ms\"";
    let mut through = Through::start(often);
    let four_pings = |client: &mut Peer| (0..4).for_each(|_| while client.receive() != PING {});
    // The other leg may beat once more in the time of four beats of this one.
    assert!(through.fewest(four_pings) <= 4 + 5, "of four beats");
    through.end();
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// One end of a WebSocket connection past its handshake, for whole frames below 126 bytes.
struct Peer {
    stream: TcpStream,
    /// It is a client; its key is zero.
    masks: bool,
}

impl Peer {
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = [0; 6 + 125];
        let header = if self.masks { 6 } else { 2 };
        frame[0] = first;
        frame[1] = payload.len() as u8 | if self.masks { 0x80 } else { 0 };
        frame[header..header + payload.len()].copy_from_slice(payload);
        self.stream.write_all(&frame[..header + payload.len()]).unwrap();
    }

    /// The next frame's first byte. It answers pings, and a server sends data back.
    fn receive(&mut self) -> u8 {
        let (mut head, mut key, mut room) = ([0; 2], [0; 4], [0; 125]);
        self.stream.read_exact(&mut head).unwrap();
        if head[1] & 0x80 != 0 {
            self.stream.read_exact(&mut key).unwrap();
        }
        let payload = &mut room[..usize::from(head[1] & 0x7f)];
        self.stream.read_exact(payload).unwrap();
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        match head[0] {
            PING => self.send(PONG, payload),
            TEXT | BINARY if !self.masks => self.send(head[0], payload),
            _ => {}
        }
        head[0]
    }

    fn receive_data(&mut self) {
        while !matches!(self.receive(), TEXT | BINARY) {}
    }
}

/// A connection past its opening handshake, and no byte further: the first ping may come right behind it.
fn upgraded(address: SocketAddr) -> TcpStream {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = patient(TcpStream::connect(address).unwrap());
    stream.write_all(REQUEST).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A backend that sends back what it gets, in a thread that ends with its session.
fn echo() -> SocketAddr {
    const CLOSE: u8 = 0x88;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let stream = patient(listener.accept().unwrap().0);
        drop(tungstenite::accept(stream.try_clone().unwrap()).unwrap());
        let mut peer = Peer { stream, masks: false };
        while peer.receive() != CLOSE {}
        peer.send(CLOSE, &[]);
    });
    address
}

/// Nothing may take longer than ten seconds.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}
