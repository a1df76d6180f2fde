//! Opening handshakes from end to end: a client that writes raw bytes, and backends on loopback that do, too.
#![allow(clippy::unwrap_used)]
mod first;
mod leaving;

use super::*;
use crate::{
    access::{AccessConfig, ForwardConfig, Guard, Service},
    listener::accept::{Listener, Waiting, accept},
    route::{HostPattern, Route, RouteConfig, tests::route},
    session::Opened,
    upstream::{BackendAddress, Upstream, UpstreamConfig, unheard},
};
use http::uri::{Authority, PathAndQuery};
use std::{cell::RefCell, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    task::spawn_local,
    time::timeout,
};
use tungstenite::handshake::derive_accept_key;

const SOON: Duration = Duration::from_secs(10);
const PEER: Peer = Peer::new(Some(SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4711)), false);
const REQUEST: &str = "GET /chat?token=x HTTP/1.1\r\nHost: gate.test\r\nUPGRADE: WebSocket\r\n\
    Connection: keep-alive,\tUpgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    X-Odd-CASE: 1\r\nX-Forwarded-For: 6.6.6.6\r\nX-Request-Id: call-1\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: Upgrade, x-hop\r\n\
    X-Hop: 1\r\nsec-websocket-accept: ACCEPT\r\nX-oDD: 2\r\nDate: today\r\n\r\n";

/// Runs a test on the runtime that a worker has.
fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { timeout(SOON, test).await.expect("the test takes too long") });
}

/// A backend: takes one connection after the other, reads a head, answers (`ACCEPT` stands for the right key) and keeps the
/// connection until its end. What it read is kept.
struct Backend {
    address: SocketAddr,
    read: Rc<RefCell<Vec<Vec<u8>>>>,
    connections: Rc<Semaphore>,
    ended: Rc<Semaphore>,
}

impl Backend {
    async fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (read, connections, ended) = (Rc::default(), Rc::new(Semaphore::new(0)), Rc::new(Semaphore::new(0)));
        let this =
            Self { address, read: Rc::clone(&read), connections: Rc::clone(&connections), ended: Rc::clone(&ended) };
        spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = head_of(&mut stream).await;
                connections.add_permits(1);
                let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
                let answer = answer.replace("ACCEPT", &derive_accept_key(key.as_bytes()));
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut all = head.into_bytes();
                stream.read_to_end(&mut all).await.ok();
                read.borrow_mut().push(all);
                ended.add_permits(1);
            }
        });
        this
    }

    /// What it read of its first connection, once that has ended.
    async fn read(&self) -> Vec<u8> {
        self.ended.acquire().await.unwrap().forget();
        self.read.borrow_mut().remove(0)
    }
}

async fn head_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

struct Gate {
    edge: Rc<Edge>,
    admission: Arc<Admission>,
}

/// A gateway with one route to one backend.
fn gate(backend: SocketAddr, change: impl FnOnce(&mut RouteConfig)) -> Gate {
    gate_with(backend, Semaphore::new(9), change)
}

fn gate_with(backend: SocketAddr, dials: Semaphore, change: impl FnOnce(&mut RouteConfig)) -> Gate {
    let mut config = route(HostPattern::Any, "/chat");
    change(&mut config);
    let address = BackendAddress::Tcp { tls: false, host: "127.0.0.1".into(), port: backend.port(), path: "/".into() };
    let pool = UpstreamConfig::new("pool", vec![address.into()]);
    let defaults = config.options.clone();
    let guard = Arc::new(Guard::new(&config.options.access).unwrap());
    let route = Route { config: Arc::new(config), upstream: Upstream::new(&pool).unwrap(), guard };
    let admission = Admission::new(9, None);
    let router = Arc::new(Router::new(vec![route]));
    let (refusals, dials) = (Refusals::new(), Arc::new(dials));
    let terms = Terms::new(defaults, Trust::default(), router);
    let edge = Edge::new(terms, Arc::clone(&admission), refusals, dials, Arc::default());
    Gate { edge, admission }
}

impl Gate {
    /// Serves a connection with room for `room` bytes each way; its other end, and what becomes of it.
    fn connect(&self, room: usize) -> (DuplexStream, tokio::task::JoinHandle<Option<Opening>>) {
        let (client, ours) = duplex(room);
        let edge = Rc::clone(&self.edge);
        let served =
            spawn_local(async move { serve(Stream::Plain(Socket::Memory(ours)), PEER, &edge, Arrival::now()).await });
        (client, served)
    }

    /// All that a client is answered that writes `request` and ends.
    async fn answer(&self, request: &str) -> String {
        let (mut client, served) = self.connect(64 * 1024);
        client.write_all(request.as_bytes()).await.unwrap();
        let head = head_of(&mut client).await;
        client.shutdown().await.unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(served.await.unwrap().is_none());
        assert_eq!(self.admission.sessions(), 0);
        head + &rest
    }
}

#[test]
fn heads_cross_with_their_spelling_and_bytes_behind_them_are_kept() {
    local(async {
        let backend = Backend::new(concat!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: Upgrade, x-hop\r\n",
            "X-Hop: 1\r\nsec-websocket-accept: ACCEPT\r\nX-oDD: 2\r\nX-Twice: 1\r\nDate: today\r\n",
            "x-twice: 2\r\nX-TWICE: 3\r\n\r\nfirst words"
        ))
        .await;
        let gate = gate(backend.address, |_| {});
        let (mut client, served) = gate.connect(64 * 1024);
        client.write_all(format!("{REQUEST}early").as_bytes()).await.unwrap();
        let opening = served.await.unwrap().unwrap();
        assert_eq!(
            head_of(&mut client).await,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-oDD: 2\r\nX-Twice: 1\r\nx-twice: 2\r\nX-TWICE: 3\r\n\
             Date: today\r\n\r\n"
        );
        assert_eq!(opening.downstream.early, b"early");
        assert_eq!(opening.upstream.early, b"first words");
        assert!(!opening.deflate);
        assert_eq!((&*opening.facts.id, &*opening.facts.client.to_string()), ("call-1", "127.0.0.1"));
        assert!(opening.facts.local_port.is_some());
        assert_eq!(gate.admission.sessions(), 1);
        drop(opening);
        assert_eq!(gate.admission.sessions(), 0);
        let read = String::from_utf8(backend.read().await).unwrap();
        assert!(read.starts_with("GET /chat?token=x HTTP/1.1\r\n"), "{read}");
        for line in ["X-Odd-CASE: 1", "X-Forwarded-For: 127.0.0.1", "X-Request-Id: call-1", "X-Real-IP: 127.0.0.1"] {
            assert!(read.contains(&format!("\r\n{line}\r\n")), "{line} in {read}");
        }
        assert!(!read.contains("6.6.6.6") && !read.contains("dGhlIHNhbXBsZSBub25jZQ=="), "{read}");
    });
}

#[test]
fn a_refused_client_may_ask_again_on_its_connection() {
    local(async {
        let backend = Backend::new(ACCEPTED).await;
        let gate = gate(backend.address, |_| {});
        let (mut client, served) = gate.connect(64 * 1024);
        client.write_all(b"GET /chat HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.unwrap();
        let head = head_of(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{head}");
        assert!(head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        client.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(head_of(&mut client).await.starts_with("HTTP/1.1 101 "));
        assert!(served.await.unwrap().is_some());
    });
}

#[test]
fn refusals_have_their_status() {
    local(async {
        let backend =
            Backend::new("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nwho??")
                .await;
        let (_socket, gone) = unheard();
        let elsewhere = REQUEST.replace("/chat", "/other");
        let large = REQUEST.replace("X-Odd-CASE: 1", &format!("X-Large: {}", "x".repeat(16 * 1024)));
        let draining = gate(gone, |_| {});
        draining.admission.drain();
        let origins = gate(gone, |route| route.origins = Some(vec!["https://gate.test".into()]));
        let stranger = REQUEST.replace("X-Odd-CASE: 1", "Origin: https://evil.test");
        for (gate, request, status) in [
            (gate(backend.address, |_| {}), REQUEST, "401 Unauthorized"),
            (gate(gone, |_| {}), REQUEST, "502 Bad Gateway"),
            (gate(gone, |_| {}), &elsewhere, "404 Not Found"),
            (gate(gone, |_| {}), &large, "431 Request Header Fields Too Large"),
            (gate(gone, |_| {}), "not HTTP at all\r\n\r\n", "400 Bad Request"),
            (gate(gone, |route| route.options.sessions_per_address = Some(0)), REQUEST, "429 Too Many Requests"),
            (gate_with(gone, Semaphore::new(0), |_| {}), REQUEST, "503 Service Unavailable"),
            (draining, REQUEST, "503 Service Unavailable"),
            (origins, &stranger, "403 Forbidden"),
        ] {
            let answer = gate.answer(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}: {answer}");
        }
        let answer = gate(backend.address, |_| {}).answer(REQUEST).await;
        assert!(answer.contains("\r\nWWW-Authenticate: Basic\r\n") && answer.ends_with("\r\n\r\nwho??"), "{answer}");
    });
}

#[test]
fn a_101_has_the_date_of_its_backend_or_none_and_a_refusal_has_ours() {
    local(async {
        let without = ACCEPTED.replace("Date: today\r\n", "").leak();
        for (answer, date) in [(ACCEPTED, Some("Date: today")), (&*without, None)] {
            let backend = Backend::new(answer).await;
            let gate = gate(backend.address, |_| {});
            let (mut client, served) = gate.connect(64 * 1024);
            client.write_all(REQUEST.as_bytes()).await.unwrap();
            let head = head_of(&mut client).await;
            assert_eq!(head.lines().find(|line| line.to_ascii_lowercase().starts_with("date:")), date, "{head}");
            drop(served.await.unwrap());
        }
        let gone = SocketAddr::from(([127, 0, 0, 1], 9));
        let refused = gate(gone, |_| {}).answer("GET / HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n").await;
        let date = refused.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date");
        assert!(httpdate::parse_http_date(date).is_ok(), "{refused}");
    });
}

#[test]
fn who_waits_to_be_let_in_has_one_of_the_places_for_handshakes() {
    local(async {
        let (_socket, gone) = unheard();
        let asked = "GET /chat HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
        for (places, expected) in [(0, "the gateway is full"), (1, "whether you may connect cannot be found out")] {
            let gate = gate_with(gone, Semaphore::new(places), |route| {
                let (authority, target) = (gone.to_string().parse().unwrap(), "/".parse().unwrap());
                let service = Service { tls: false, authority, target, ca: None };
                route.http = PlainHttp::Proxy;
                let forward = Some(ForwardConfig { service, timeout: SOON, copy_headers: Vec::new() });
                route.options.access = AccessConfig { forward, ..AccessConfig::default() }.into();
            });
            let answer = gate.answer(asked).await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(expected), "{answer}");
        }
    });
}

#[test]
fn a_bug_is_one_500() {
    local(async {
        let gone = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut gate = gate(gone, |_| {});
        let memory = admission::MemoryLimit { limit: Some(8), held: Box::new(|| panic!("on purpose")) };
        gate.admission = Admission::new(9, Some(memory));
        let mut edge = Rc::try_unwrap(gate.edge).ok().unwrap();
        edge.admission = Arc::clone(&gate.admission);
        gate.edge = Rc::new(edge);
        assert!(gate.answer(REQUEST).await.starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
    });
}

#[test]
fn tls_that_fails_is_no_session() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["gate.test".to_owned()]).unwrap();
        let files = crate::listener::CertificateFiles {
            certificate: folder.path().join("gate.crt"),
            key: folder.path().join("gate.key"),
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let tls = crate::listener::ListenerTls {
            certificates: vec![files],
            min_version: crate::listener::TlsVersion::Tls12,
            clients: None,
        };
        let secured = crate::listener::tls::Secured::read(&tls, None).unwrap();
        let acceptor = Acceptor::new(secured.configs().clone(), crate::transport::RecordRoom::default());
        let gate = gate(SocketAddr::from(([127, 0, 0, 1], 9)), |_| {});
        let (mut client, ours) = duplex(64 * 1024);
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(secure(&acceptor, Socket::Memory(ours), &PEER, &gate.edge).await.is_none());
    });
}

#[test]
fn an_accepted_connection_becomes_a_session_and_gives_back_its_slot() {
    local(async {
        let backend = Backend::new(ACCEPTED).await;
        let gate = gate(backend.address, |_| {});
        let address = crate::listener::ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let config = crate::listener::ListenerConfig::plain(address);
        let mut bound = crate::listener::bind::bind(&[config], 1).unwrap().remove(0);
        let crate::listener::ListenAddress::Tcp(address) = bound.address else { panic!("a TCP listener") };
        let slots = Arc::new(Semaphore::new(1));
        let (opened, mut openings) = tokio::sync::mpsc::unbounded_channel();
        let edge = Rc::clone(&gate.edge);
        let each = move |connection| {
            let (edge, opened) = (Rc::clone(&edge), opened.clone());
            spawn_local(async move { opened.send(receive(connection, None, &edge).await).unwrap() });
        };
        let stop = Rc::new(tokio::sync::Notify::new());
        let stopped = Rc::clone(&stop);
        let listener = Rc::new(Listener::new(bound.sockets.remove(0)).unwrap());
        let stopped = async move {
            stopped.notified().await;
            Waiting::Accepted
        };
        let accepting = spawn_local(accept(listener, || false, Arc::clone(&slots), stopped, each));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(head_of(&mut client).await.starts_with("HTTP/1.1 101 "));
        let Some(Received::Session(opening)) = openings.recv().await else { panic!("no session") };
        assert!(matches!(opening.downstream.stream, Stream::Plain(Socket::Tcp(_))));
        stop.notify_one();
        accepting.await.unwrap();
        assert_eq!(slots.available_permits(), 1);
    });
}

#[test]
fn the_time_for_a_handshake_has_room_for_password_and_service() {
    let backend = "127.0.0.1:1".parse().unwrap();
    let plain = gate(backend, |_| {}).edge.terms().patience;
    let service = Service {
        tls: false,
        authority: Authority::from_static("auth.test"),
        target: PathAndQuery::from_static("/"),
        ca: None,
    };
    let timeout = Duration::from_secs(40);
    let forward = Some(ForwardConfig { service, timeout, copy_headers: Vec::new() });
    let access = Arc::new(AccessConfig { forward, ..AccessConfig::default() });
    let guarded = gate(backend, |config| config.options.access = access);
    assert_eq!(guarded.edge.terms().patience, plain + timeout);
}
