//! Tests of a pool against backends on loopback that speak raw bytes.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    protocol::heartbeat::{HeartbeatConfig, HeartbeatKind, Liveness},
    relay::{CloseCodes, PerSide, Pings, RelayConfig, RelayTimeouts, Utf8},
    route::{Compression, HostHeader, RouteOptions},
};
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode, request::Parts};
use http_body_util::BodyExt;
use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    time::timeout,
};
use tungstenite::{Message, handshake::derive_accept_key, protocol::Role};

const SOON: Duration = Duration::from_secs(10);

/// Runs a test on the runtime that a worker has.
fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async { timeout(SOON, test).await.expect("the test takes too long") });
}

fn options(handshake: Duration) -> RouteOptions {
    let heartbeat = HeartbeatConfig {
        ping_interval: None,
        ping_timeout: None,
        jitter: 0.0,
        kind: HeartbeatKind::Ping,
        liveness: Liveness::Traffic,
        path_idle_limit: None,
    };
    let relay = RelayConfig {
        heartbeat: PerSide { downstream: heartbeat.clone(), upstream: heartbeat },
        pings: Pings::Forward,
        utf8: Utf8::Check,
        timeouts: RelayTimeouts { close: SOON, stall: None, idle: None, max_age: None },
        limits: PerSide::default(),
        pace: None,
        close_codes: CloseCodes::default(),
    };
    RouteOptions {
        response: None,
        keep_alive: Duration::from_secs(1),
        relay: Arc::new(relay),
        compression: Compression::Pass,
        connect: SOON,
        handshake,
        header: 4096,
        sessions_per_address: None,
        headers: Arc::default(),
        access: Arc::default(),
    }
}

fn ws(address: SocketAddr) -> BackendAddress {
    BackendAddress::Tcp { tls: false, host: address.ip().to_string(), port: address.port(), path: "/".into() }
}

fn pool(servers: Vec<BackendAddress>, ca: Option<PathBuf>) -> Arc<Upstream> {
    let servers = servers.into_iter().map(ServerConfig::from).collect();
    let balance = BalanceKind::RoundRobin;
    Upstream::new(&UpstreamConfig { balance, ca, ..UpstreamConfig::new("chat", servers) }).unwrap()
}

fn plain() -> Parts {
    Request::get("/chat").header("Host", "chat.example.com").body(()).unwrap().into_parts().0
}

async fn open(upstream: &Upstream, head: Parts) -> Result<Answer, OpenError> {
    open_within(upstream, head, SOON).await
}

async fn open_within(upstream: &Upstream, head: Parts, handshake: Duration) -> Result<Answer, OpenError> {
    let options = options(handshake);
    let (host_header, affinity) = (HostHeader::Client, Affinity::default());
    upstream.open(UpstreamRequest { head, options: &options, host_header, affinity }).await
}

fn accepted(answer: Result<Answer, OpenError>) -> Accepted {
    match answer {
        Ok(Answer::Accepted(accepted)) => accepted,
        Ok(Answer::Refused(refused)) => panic!("refused with {}", refused.response.status()),
        Err(error) => panic!("{}: {error}", error.status),
    }
}

fn refused(answer: Result<Answer, OpenError>) -> Refused {
    match answer {
        Ok(Answer::Refused(refused)) => refused,
        Ok(Answer::Accepted(_)) => panic!("accepted"),
        Err(error) => panic!("{}: {error}", error.status),
    }
}

fn error(answer: Result<Answer, OpenError>) -> OpenError {
    match answer {
        Err(error) => error,
        Ok(Answer::Accepted(_)) => panic!("accepted"),
        Ok(Answer::Refused(refused)) => panic!("refused with {}", refused.response.status()),
    }
}

async fn head_of(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn accept_of(head: &str) -> String {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key:")).unwrap();
    derive_accept_key(line.split_once(": ").unwrap().1.as_bytes())
}

/// A backend that answers each connection's head with `answer` (`ACCEPT` stands for the right key) and keeps the
/// connection. Counts the heads.
async fn backend(answer: &'static str) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Rc::new(Cell::new(0));
    let counter = Rc::clone(&count);
    tokio::task::spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counter.set(counter.get() + 1);
            tokio::task::spawn_local(async move { answered(&mut tcp, answer).await });
        }
    });
    (address, count)
}

async fn answered(io: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &str) {
    let accept = accept_of(&head_of(io).await);
    io.write_all(answer.replace("ACCEPT", &accept).as_bytes()).await.unwrap();
    io.read_to_end(&mut Vec::new()).await.ok();
}

/// An address that refuses connections.
fn dead() -> SocketAddr {
    let (socket, address) = unheard();
    std::mem::forget(socket);
    address
}

const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: ACCEPT\r\nX-Served-BY: one\r\n\r\n\u{1}early";

#[test]
fn a_101_hands_over_the_stream_its_early_bytes_and_its_names() {
    local(async {
        let (address, _) = backend(GOOD).await;
        let upstream = pool(vec![ws(address)], None);
        let accepted = accepted(open(&upstream, plain()).await);
        let mut early = accepted.early;
        let mut stream = accepted.stream;
        while early.len() < 6 {
            early.push(stream.read_u8().await.unwrap());
        }
        assert_eq!(early, b"\x01early");
        assert_eq!(accepted.head.headers["x-served-by"], "one");
        assert!(accepted.local_port.is_some());
        assert_eq!(upstream.backends()[0].sessions(), 1);
        drop(accepted.lease);
        assert_eq!(upstream.backends()[0].sessions(), 0);
    });
}

#[test]
fn bad_handshakes_are_502_and_say_why() {
    let cases: [(&'static str, &str); 8] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK"),
        ("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "Sec-WebSocket-Accept"),
        (
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "fit the key",
        ),
        ("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", "Connection"),
        (
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n",
            "`chat`, which was not offered",
        ),
        (
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "`permessage-deflate`, which was not offered",
        ),
        ("220 smtp.example.com ESMTP\r\n\r\n", "not HTTP/1.1"),
        ("HTTP/1.1 101 S\r\nX: LONG\r\n\r\n", "limits.header"),
    ];
    local(async move {
        for (answer, cause) in cases {
            let answer: &'static str = answer.replace("LONG", &"x".repeat(5000)).leak();
            let (address, _) = backend(answer).await;
            let error = error(open(&pool(vec![ws(address)], None), plain()).await);
            assert_eq!(error.status, StatusCode::BAD_GATEWAY);
            assert!(error.cause.contains(cause), "{} lacks {cause}", error.cause);
            assert_eq!(error.backend, Some(format!("ws://{address}")));
        }
    });
}

#[test]
fn a_refusal_passes_whole_and_ends_with_its_response() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = pool(vec![ws(listener.local_addr().unwrap())], None);
        let asked = async { refused(open(&upstream, plain()).await) };
        let backend = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            head_of(&mut tcp).await;
            tcp.write_all(
                b"HTTP/1.1 401 Who are you\r\nWWW-Authenticate: Basic\r\nContent-Length: 500000\r\n\r\nlog in",
            )
            .await
            .unwrap();
            tcp
        };
        let (refused, mut tcp) = tokio::join!(asked, backend);
        assert_eq!(refused.response.status(), StatusCode::UNAUTHORIZED);
        let mut body = refused.response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "log in");
        drop(body);
        // Reset or end: either way the descriptor on our side is gone.
        while matches!(tcp.read(&mut [0; 64]).await, Ok(n) if n > 0) {}
        no_task_left().await;
        assert_eq!(upstream.backends()[0].sessions(), 0);
    });
}

#[test]
fn a_refusal_passes_however_its_backend_ends_it() {
    let cases = [
        ("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "no"),
        ("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "no"),
        ("HTTP/1.0 403 Forbidden\r\n\r\nno", "no"),
        ("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", ""),
    ];
    local(async move {
        for (answer, expected) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let upstream = pool(vec![ws(listener.local_addr().unwrap())], None);
            tokio::task::spawn_local(async move {
                let (mut tcp, _) = listener.accept().await.unwrap();
                head_of(&mut tcp).await;
                tcp.write_all(answer.as_bytes()).await.unwrap();
                // Closes its side; ours follows.
                tcp.shutdown().await.unwrap();
                assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
            });
            let refused = refused(open(&upstream, plain()).await);
            assert_eq!(refused.response.status(), StatusCode::FORBIDDEN);
            let body = refused.response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, expected);
        }
    });
}

#[test]
fn a_dead_backend_fails_over_and_is_left_alone() {
    local(async {
        let (good, count) = backend(GOOD).await;
        let (bad, visits) = backend("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
        let upstream = pool(vec![ws(dead()), ws(bad), ws(good)], None);
        for opened in 1..=6 {
            accepted(open(&upstream, plain()).await);
            assert_eq!(count.get(), opened);
        }
        assert_eq!(visits.get(), 1, "after its failure it is tried last");
    });
}

#[test]
fn the_last_backend_is_never_left_alone() {
    local(async {
        let (socket, address) = unheard();
        let upstream = pool(vec![ws(address)], None);
        for _ in 0..2 {
            let error = error(open(&upstream, plain()).await);
            assert_eq!(error.status, StatusCode::BAD_GATEWAY);
            assert!(error.cause.contains("connecting to"), "{}", error.cause);
        }
        let listener = socket.listen(16).unwrap();
        tokio::task::spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            answered(&mut tcp, GOOD).await;
        });
        accepted(open(&upstream, plain()).await);
    });
}

#[test]
fn the_last_answer_passes_when_nobody_does_better() {
    local(async {
        let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        let (one, _) = backend(answer).await;
        let (two, count) = backend(answer).await;
        let upstream = pool(vec![ws(one), ws(two), ws(dead())], None);
        let refused = refused(open(&upstream, plain()).await);
        assert_eq!(refused.response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.response.headers()["retry-after"], "7");
        assert_eq!(refused.backend.name, format!("ws://{two}"));
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn silence_is_504_and_an_empty_pool_503() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = pool(vec![ws(listener.local_addr().unwrap())], None);
        let late = error(open_within(&upstream, plain(), Duration::from_millis(50)).await);
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(late.cause.contains("no answer to the handshake within 0.05s"), "{}", late.cause);
        let none = error(open(&pool(Vec::new(), None), plain()).await);
        assert_eq!((none.status, none.backend), (StatusCode::SERVICE_UNAVAILABLE, None));
    });
}

#[test]
fn an_unknown_name_is_502() {
    local(async {
        let host = "no-such-host.invalid".into();
        let upstream = pool(vec![BackendAddress::Tcp { tls: false, host, port: 80, path: "/".into() }], None);
        let error = error(open(&upstream, plain()).await);
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert!(error.cause.contains("does not resolve"), "{}", error.cause);
    });
}

#[test]
fn a_client_that_leaves_takes_the_dial_with_it() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = pool(vec![ws(listener.local_addr().unwrap())], None);
        let mut tcp: TcpStream = {
            let opening = open(&upstream, plain());
            let backend = async {
                let (mut tcp, _) = listener.accept().await.unwrap();
                head_of(&mut tcp).await;
                tcp
            };
            tokio::select! { tcp = backend => tcp, _ = opening => panic!("nobody answered") }
        };
        assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(upstream.backends()[0].sessions(), 0);
    });
}

/// Waits until no task is left: what was spawned has ended with its stream.
async fn no_task_left() {
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
        tokio::task::yield_now().await;
    }
}

mod answers;
mod asked;
mod dials;
mod log;
mod other;
mod sharing;
