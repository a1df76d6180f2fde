//! Gateways in this process, clients and backends in threads of the test. Whatever waits, waits ten seconds at most.
#![allow(dead_code, reason = "not every helper has a user in every set of tests")]
use pulsegate::{
    config::{self, Config},
    gateway::{Ended, Gateway, Observer},
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

/// A configuration from TOML, with a plain listener on a free port of 127.0.0.1 if it names none.
pub(crate) fn configured(toml: &str) -> Config {
    let listener = if toml.contains("[[listener]]") { "" } else { "\n[[listener]]\naddress = \"127.0.0.1:0\"\n" };
    let text = format!("{toml}{listener}");
    config::parse("test", &text, Path::new("")).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// One route for everything to `server`, with `extra` put before the tables of the file.
pub(crate) fn one_route(server: &str, extra: &str) -> String {
    format!("{extra}\n[[route]]\nname = \"all\"\nupstream = \"pool\"\n[upstream.pool]\nservers = [\"{server}\"]\n")
}

/// A gateway under test, with what its sessions reported.
pub(crate) struct Running {
    gateway: Gateway,
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
        let ((verdict, verdicts), (beat, heartbeats)) = (channel(), channel());
        let recorder = Recorder { verdicts: Mutex::new(verdict), heartbeats: Mutex::new(beat) };
        let gateway = Gateway::observed(configured(toml), Some(Arc::new(recorder))).unwrap();
        Self { gateway, verdicts: Mutex::new(verdicts), heartbeats: Mutex::new(heartbeats) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self.gateway.addresses().next() {
            Some(ListenAddress::Tcp(address)) => *address,
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

    pub(crate) fn control(&self) -> Control {
        self.gateway.control()
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
}

impl Observer for Recorder {
    fn opened(&self, _facts: &Facts) {}

    fn heartbeat(&self, session: &str, side: Side, event: HeartbeatEvent) {
        // A test that is over no longer listens.
        let _ = self.heartbeats.lock().unwrap().send(Beat { session: session.into(), side, event });
    }

    fn ended(&self, verdict: &Verdict) {
        let _ = self.verdicts.lock().unwrap().send(verdict.clone());
    }
}

/// tungstenite in either role. It answers pings and close frames while it is read.
pub(crate) type Client = WebSocket<TcpStream>;

/// Reads on to the close frame, or to the end of the stream without one.
pub(crate) fn closed_with(peer: &mut WebSocket<TcpStream>) -> Option<(u16, String)> {
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

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }
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

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}
