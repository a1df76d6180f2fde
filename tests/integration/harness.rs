//! Gateways in this process, clients and backends in threads of the test. Whatever waits, waits ten seconds at most.
#![allow(dead_code, reason = "not every helper has a user in every set of tests")]
use pulsegate::{
    config::{self, Config},
    gateway::{Ended, Gateway, Load, Observer, Operator},
    listener::ListenAddress,
    protocol::heartbeat::HeartbeatEvent,
    relay::Side,
    session::{Facts, verdict::Verdict},
    shutdown::Control,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tungstenite::{
    WebSocket,
    handshake::client::Response,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// How long anything may take before its test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An address that refuses connections for as long as this process runs: bound, so that nobody else is given it, and
/// never listened on.
pub(crate) fn dead_address() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// An address that nobody listens on, to listen on later: its port is below those that the kernel gives away, and
/// each is given once.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port =
            10_000 + (std::process::id() as u16).wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A configuration from TOML, with a plain listener on a free port of 127.0.0.1 if it names none.
pub(crate) fn configured(toml: &str) -> Config {
    let listener = if toml.contains("[[listener]]") { "" } else { "\n[[listener]]\naddress = \"127.0.0.1:0\"\n" };
    let text = format!("{toml}{listener}");
    config::parse("test", &text, Path::new("")).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// One route for everything to `server`, with `extra` put before the tables of the file. It pings only if `extra` says so, since the
/// first ping comes at a random time.
pub(crate) fn one_route(server: &str, extra: &str) -> String {
    let quiet = "defaults.heartbeat = { client.ping_interval = \"off\", upstream.ping_interval = \"off\" }";
    let quiet = if extra.contains("heartbeat") { "" } else { quiet };
    format!(
        "{extra}\n{quiet}\n[[route]]\nname = \"all\"\nupstream = \"pool\"\n[upstream.pool]\nservers = [\"{server}\"]\n"
    )
}

/// A gateway under test, with what its sessions reported.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    verdicts: Mutex<Receiver<Verdict>>,
    heartbeats: Mutex<Receiver<Beat>>,
}

/// One event of a heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) session: String,
    pub(crate) side: Side,
    pub(crate) event: HeartbeatEvent,
}

impl Running {
    pub(crate) fn start(toml: &str) -> Self {
        Self::start_with(toml, |_| {})
    }

    /// The same, with `hook` called for every event of a heartbeat, on the worker's thread.
    pub(crate) fn start_with(toml: &str, hook: impl Fn(&Beat) + Send + Sync + 'static) -> Self {
        let ((verdict, verdicts), (beat, heartbeats)) = (channel(), channel());
        let hook = Box::new(hook);
        let recorder = Recorder { verdicts: Mutex::new(verdict), heartbeats: Mutex::new(beat), hook };
        let gateway = Gateway::observed(configured(toml), Some(Arc::new(recorder))).unwrap();
        Self { gateway, verdicts: Mutex::new(verdicts), heartbeats: Mutex::new(heartbeats) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self.gateway.addresses().next() {
            Some(ListenAddress::Tcp(address)) => address,
            other => panic!("the first listener is {other:?}"),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address())
    }

    /// A client of this gateway.
    pub(crate) fn connect(&self, path: &str) -> Client {
        self.try_connect(path).unwrap().0
    }

    /// The same, with the response's head, or the refusal.
    pub(crate) fn try_connect(&self, path: &str) -> tungstenite::Result<(Client, Response)> {
        let stream = patient(TcpStream::connect(self.address()).unwrap());
        match tungstenite::client(self.url(path), stream) {
            Ok((client, response)) => Ok((client, response)),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer within {PATIENCE:?}"),
        }
    }

    /// The next session's verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdicts.lock().unwrap().recv_timeout(PATIENCE).expect("a session ends")
    }

    /// The next event of a heartbeat.
    pub(crate) fn beat(&self) -> Beat {
        self.heartbeats.lock().unwrap().recv_timeout(PATIENCE).expect("a heartbeat")
    }

    /// Where it listens, in the order of the configuration.
    pub(crate) fn addresses(&self) -> Vec<ListenAddress> {
        self.gateway.addresses().collect()
    }

    pub(crate) fn operator(&self) -> Operator {
        self.gateway.operator()
    }

    /// Every verdict so far.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        self.verdicts.lock().unwrap().try_iter().collect()
    }

    pub(crate) fn control(&self) -> Control {
        self.gateway.control()
    }

    /// What each worker has to do.
    pub(crate) fn loads(&self) -> Vec<Load> {
        self.gateway.loads().collect()
    }

    /// The sessions of each worker.
    pub(crate) fn sessions(&self) -> Vec<usize> {
        self.gateway.loads().map(|load| load.sessions).collect()
    }

    /// Drains, and waits for the end.
    pub(crate) fn drained(self) -> Ended {
        self.gateway.drain();
        self.gateway.wait()
    }
}

struct Recorder {
    verdicts: Mutex<Sender<Verdict>>,
    heartbeats: Mutex<Sender<Beat>>,
    hook: Box<dyn Fn(&Beat) + Send + Sync>,
}

impl Observer for Recorder {
    fn opened(&self, _facts: &Facts) {}

    fn heartbeat(&self, session: &str, side: Side, event: HeartbeatEvent) {
        let beat = Beat { session: session.into(), side, event };
        // A test that is over no longer listens.
        let _ = self.heartbeats.lock().unwrap().send(beat.clone());
        (self.hook)(&beat);
    }

    fn ended(&self, verdict: &Verdict) {
        let _ = self.verdicts.lock().unwrap().send(verdict.clone());
    }
}

/// tungstenite in either role. It answers pings and close frames while it is read.
pub(crate) type Client = WebSocket<TcpStream>;

/// Reads on to the close frame, or to the end of the stream without one.
pub(crate) fn closed_with<S: Read + Write>(peer: &mut WebSocket<S>) -> Option<(u16, String)> {
    let mut said = None;
    loop {
        match peer.read() {
            Ok(tungstenite::Message::Close(frame)) => {
                let none = CloseFrame { code: CloseCode::Status, reason: "".into() };
                let CloseFrame { code, reason } = frame.unwrap_or(none);
                said = Some((code.into(), reason.to_string()));
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no end within {PATIENCE:?}")
            }
            Err(_) => return said,
        }
    }
}

/// A backend: a listener whose connections each get a thread that runs `serve`.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
}

impl Backend {
    /// Speaks WebSocket: `serve` starts after the handshake.
    pub(crate) fn websocket(serve: impl Fn(WebSocket<TcpStream>) + Send + Sync + 'static) -> Self {
        Self::raw(move |stream| {
            if let Ok(peer) = tungstenite::accept(stream) {
                serve(peer);
            }
        })
    }

    /// Speaks bytes.
    pub(crate) fn raw(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = Arc::new(serve);
        // Both kinds of threads end with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(patient(stream)));
            }
        });
        Self { address }
    }

    /// Speaks WebSocket and says how each session ended for it.
    pub(crate) fn reader() -> (Self, Receiver<Option<(u16, String)>>) {
        let (sender, ends) = channel();
        let sender = Mutex::new(sender);
        let backend = Self::websocket(move |mut peer| {
            let end = closed_with(&mut peer);
            // A test that is over no longer listens.
            let _ = sender.lock().unwrap().send(end);
        });
        (backend, ends)
    }

    /// Hands its connections, past the backend's opening handshake, to the test.
    pub(crate) fn handed() -> (Self, Receiver<Raw>) {
        let (sender, connections) = channel();
        let sender = Mutex::new(sender);
        let backend = Self::raw(move |stream| {
            if let Ok(peer) = tungstenite::accept(stream.try_clone().unwrap()) {
                drop(peer);
                let _ = sender.lock().unwrap().send(Raw(stream));
            }
        });
        (backend, connections)
    }

    /// Accepts every WebSocket with `more` header lines, each ending in CRLF, and tells the test all that came up to the end of
    /// each request's head.
    pub(crate) fn recorder(more: &'static str) -> (Self, Receiver<Vec<u8>>) {
        let (sender, heads) = channel();
        let sender = Mutex::new(sender);
        let backend = Self::raw(move |stream| {
            let (mut stream, mut head) = (patient(stream), Vec::new());
            while !head.ends_with(b"Sec-WebSocket-Version: 13\r\n\r\n") {
                let mut byte = [0];
                // The gateway may give a backend up.
                if stream.read_exact(&mut byte).is_err() {
                    return;
                }
                head.extend(byte);
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
            let _ = sender.lock().unwrap().send(head);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
            );
            stream.write_all(answer.as_bytes()).unwrap();
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        (backend, heads)
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
}

/// What a channel brings soon.
pub(crate) fn soon<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("news within the time")
}

/// A frame with a payload below 126 bytes, masked with zeros if it is a client's (RFC 6455 section 5.2).
pub(crate) fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![first, if masked { 0x80 | length } else { length }];
    frame.extend(if masked { &[0; 4][..] } else { &[] });
    frame.extend(payload);
    frame
}

/// A message's content that no other number has, so that loss and disorder show.
pub(crate) fn content(number: u32, length: usize) -> Vec<u8> {
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// A connection without any protocol, for what tungstenite would not send.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self(patient(TcpStream::connect(address).unwrap()))
    }

    /// A connection past a client's opening handshake.
    pub(crate) fn upgraded(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.send(request(path, "").as_bytes());
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// An HTTP head, to its empty line and no further.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.receive::<1>());
        }
        String::from_utf8(head).unwrap()
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        reset(&self.0);
    }

    /// A close frame: code and reason.
    pub(crate) fn close_frame(&mut self) -> (u16, String) {
        let [first, length] = self.receive::<2>();
        assert_eq!(first, 0x88);
        let key = if length & 0x80 == 0 { [0; 4] } else { self.receive::<4>() };
        let mut payload = vec![0; usize::from(length & 0x7f)];
        self.0.read_exact(&mut payload).unwrap();
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        (u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8(payload.split_off(2)).unwrap())
    }

    /// Reads to the end: how many bytes came, and whether the end was a reset.
    pub(crate) fn end(&mut self) -> (usize, bool) {
        let (mut count, mut room) = (0, [0; 65536]);
        loop {
            match self.0.read(&mut room) {
                Ok(0) => return (count, false),
                Ok(length) => count += length,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return (count, true),
                Err(error) => panic!("no end: {error}"),
            }
        }
    }

    pub(crate) fn receive<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// A client's opening handshake (RFC 6455 section 1.3), with more header lines, each ending in CRLF.
pub(crate) fn request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A head, unless the connection ends before it.
pub(crate) fn next_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    String::from_utf8(head).ok()
}

/// Waits for a condition that nothing announces.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The result of a thread that should be done soon.
pub(crate) fn joined<T>(what: &str, thread: JoinHandle<T>) -> T {
    eventually(what, || thread.is_finished());
    thread.join().unwrap()
}

/// Makes the end of this socket a reset, and ends it.
pub(crate) fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The address of a TCP listener.
pub(crate) fn tcp(address: &ListenAddress) -> SocketAddr {
    match address {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(path) => panic!("{}", path.display()),
    }
}
