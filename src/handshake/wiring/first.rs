//! A first request that is read here gets what hyper's would get, whatever it is; and what comes around it.

use super::*;
use proptest::prelude::*;

/// What a client and a backend see of a connection on which these bytes come, and what the session has of it.
async fn seen(bytes: &[u8], answer: &'static str, http: PlainHttp, only_hyper: bool) -> String {
    let backend = Backend::new(answer).await;
    let gate = gate(backend.address, |route| (route.options.header, route.http) = (1024, http));
    let (mut client, ours) = duplex(64 * 1024);
    let stream = Stream::Plain(Socket::Memory(ours));
    let edge = Rc::clone(&gate.edge);
    client.write_all(bytes).await.unwrap();
    let served = spawn_local(async move {
        if !only_hyper {
            return serve(stream, PEER, &edge, Arrival::now()).await;
        }
        let visit = Visit::new(Rc::clone(&edge), PEER, Arrival::now());
        match by_hyper(visit, stream, Part::of(None), &edge.terms(), (Bytes::new(), None)).await {
            Received::Session(opening) => Some(opening),
            Received::Plain(plain) => plain.run().await,
            Received::Nothing => None,
        }
    });
    let mut told = Vec::new();
    let told_all = async {
        // Until the connection is a session, or ends.
        while client.read_buf(&mut told).await.unwrap() > 0
            && !(told.starts_with(b"HTTP/1.1 101") && told.ends_with(b"\r\n\r\n"))
        {}
        client.shutdown().await.unwrap();
        client.read_to_end(&mut told).await.unwrap();
    };
    let ended = async {
        let Opening { downstream, facts, .. } = served.await.unwrap()?;
        let Opened { mut stream, early: mut behind } = downstream;
        stream.read_to_end(&mut behind).await.unwrap();
        Some(format!("{} {:?} {:?}", behind.escape_ascii(), facts.user_agent, facts.origin))
    };
    let ((), opening) = tokio::join!(told_all, ended);
    let told = String::from_utf8_lossy(&told).into_owned();
    let asked = match &opening {
        Some(_) => String::from_utf8(backend.read().await).unwrap(),
        None => String::new(),
    };
    let changing = ["date", "x-request-id", "sec-websocket-key"];
    let lasts = |line: &&str| {
        !line.split_once(':').is_some_and(|(name, _)| changing.contains(&name.to_ascii_lowercase().as_str()))
    };
    let lasting = |text: &str| text.split_inclusive('\n').filter(lasts).collect::<String>();
    // A client that says `close` is told so by hyper even in a 101, where it means nothing.
    let told = match opening {
        Some(_) => told.replacen("\r\nConnection: Upgrade, close\r\n", "\r\nConnection: Upgrade\r\n", 1),
        None => told,
    };
    format!("{}\n{}\n{opening:?}", lasting(&told), lasting(&asked))
}

/// A request that goes on to the end of the connection: the last one closes it.
fn requests() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        8 => Just("GET /chat HTTP/1.1\r\n"), 2 => Just("GET /chat?a=b%20c HTTP/1.1\r\n"), 1 => Just("\r\nGET /chat HTTP/1.1\r\n"),
        1 => Just("GET /other HTTP/1.1\r\n"), 1 => Just("GET http://gate.test/chat HTTP/1.1\r\n"), 1 => Just("GET * HTTP/1.1\r\n"),
        1 => Just("GET /chat/../x HTTP/1.1\r\n"), 1 => Just("GET /chat#x HTTP/1.1\r\n"), 1 => Just("GET /ch\u{e4}t HTTP/1.1\r\n"),
        1 => Just("GET /chat HTTP/1.0\r\n"), 1 => Just("POST /chat HTTP/1.1\r\n"), 1 => Just("get /chat HTTP/1.1\r\n"),
        1 => Just("GET /chat HTTP/1.1\n"), 1 => Just("GET  /chat HTTP/1.1\r\n"), 1 => Just("GET chat HTTP/1.1\r\n"),
    ];
    let host = prop_oneof![9 => Just("Host: gate.test\r\n"), 1 => Just(""), 1 => Just("Host: a\r\nHost: b\r\n"), 1 => Just("HOST:gate.test:80 \r\n")];
    let upgrade = prop_oneof![
        12 => Just("Upgrade: websocket\r\nConnection: Upgrade\r\n"), 2 => Just("UPGRADE: h2c, WebSocket\r\nconnection: keep-alive, x-odd\r\nconnection: upgrade\r\n"),
        1 => Just("Connection: Upgrade\r\n"), 1 => Just("Upgrade: websocket\r\n"), 1 => Just("Upgrade: websockets\r\nConnection: Upgrade\r\n"),
        1 => Just("Upgrade: websocket\r\nConnection: Upgrade, close\r\n"),
    ];
    let key = prop_oneof![
        12 => Just("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"),
        1 => Just("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n"), 1 => Just("Sec-WebSocket-Version: 13\r\n"),
    ];
    let more = prop_oneof![
        4 => Just("X-oDD: 1\r\n"), 2 => Just("x-odd:2 \t\r\n"), 1 => Just("Cookie: a=b\r\ncookie: c=d\r\n"), 1 => Just("X: caf\u{e9}\r\n"),
        1 => Just("User-Agent: A b/c\r\nOrigin: https://gate.test\r\n"), 1 => Just("X:\r\n"), 1 => Just("X : 1\r\n"), 1 => Just(" folded\r\n"),
        1 => Just("X: a\0b\r\n"), 1 => Just(": 1\r\n"), 1 => Just("X: only a line feed\n"), 1 => Just("no colon\r\n"), 1 => Just("X-Request-Id: a b\r\n"),
        1 => Just("Content-Length: 0\r\n"), 1 => Just("Content-Length: 3\r\n"), 1 => Just("Content-Length: x\r\n"), 1 => Just("Transfer-Encoding: chunked\r\n"),
        1 => Just("Expect: 100-continue\r\n"), 1 => Just("Keep-Alive: timeout=5\r\n"), 1 => Just("Sec-WebSocket-Protocol: x\r\n"),
    ];
    let many = prop_oneof![12 => Just(String::new()), 1 => (90usize..105).prop_map(|many| "Y:1\r\n".repeat(many)), 1 => (500usize..1500).prop_map(|long| format!("Y: {}\r\n", "y".repeat(long)))];
    let behind = prop_oneof![4 => Just(""), 1 => Just("0\r\n\r\n"), 1 => Just("\u{1}\u{2}frames"), 1 => Just("GET /other HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")];
    let parts = (line, host, upgrade, key, prop::collection::vec(more, 0..3), many, behind);
    parts.prop_map(|(line, host, upgrade, key, more, many, behind)| {
        let last = "GET /last HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
        [line, host, upgrade, key, &more.concat(), &many, "\r\n", behind, last].concat()
    })
}

const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nX-Why: not you\r\nContent-Length: 3\r\n\r\nno\n";
const ODD: &str = "HTTP/1.1 101 Web Socket\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSet-Cookie: a=b\r\nSET-COOKIE: c=d\r\n\
    Transfer-Encoding: chunked\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\nearly";

/// One that hyper reads.
const LATER: &str = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: ACCEPT\r\nX-oDD: 2\r\n\r\n";

proptest! {
    #[test]
    fn a_first_request_is_served_as_hyper_serves_it(
        requests in requests(),
        answer in prop_oneof![4 => Just(ACCEPTED), 1 => Just(REFUSED), 1 => Just(ODD), 1 => Just(LATER)],
        http in prop_oneof![Just(PlainHttp::Refuse), Just(PlainHttp::Proxy)],
    ) {
        local(async {
            let whole = seen(requests.as_bytes(), answer, http, false).await;
            let by_hyper = seen(requests.as_bytes(), answer, http, true).await;
            assert_eq!(whole, by_hyper, "{requests}");
        });
    }
}

#[test]
fn a_client_that_was_refused_a_session_may_ask_again() {
    local(async {
        let backend = Backend::new(ACCEPTED).await;
        let other = REQUEST.replace("/chat", "/other");
        // At once, and one after the other.
        for together in [true, false] {
            let gate = gate(backend.address, |_| {});
            let (mut client, served) = gate.connect(64 * 1024);
            client.write_all(other.as_bytes()).await.unwrap();
            if together {
                client.write_all(format!("{REQUEST}early").as_bytes()).await.unwrap();
            }
            let head = head_of(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            client.read_exact(&mut vec![0; length.parse().unwrap()]).await.unwrap();
            if !together {
                client.write_all(format!("{REQUEST}early").as_bytes()).await.unwrap();
            }
            assert!(head_of(&mut client).await.starts_with("HTTP/1.1 101 "));
            assert_eq!(served.await.unwrap().unwrap().downstream.early, b"early");
            let read = String::from_utf8(backend.read().await).unwrap();
            assert!(read.contains("\r\nX-Odd-CASE: 1\r\n"), "{read}");
        }
    });
}

/// What a client says while its backend thinks: kept for the session, or asked next.
#[test]
fn what_comes_while_a_backend_is_asked_is_kept() {
    local(async {
        for (status, early) in [("101", "first words"), ("403", REQUEST)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let gate = gate(listener.local_addr().unwrap(), |_| {});
            let (mut client, served) = gate.connect(64 * 1024);
            client.write_all(REQUEST.as_bytes()).await.unwrap();
            let (mut tcp, _) = listener.accept().await.unwrap();
            let asked = head_of(&mut tcp).await;
            let (one, two) = early.split_at(7);
            client.write_all(one.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(two.as_bytes()).await.unwrap();
            let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let accept = ACCEPTED.replace("ACCEPT", &derive_accept_key(key.as_bytes()));
            if status == "101" {
                tcp.write_all(accept.as_bytes()).await.unwrap();
                assert!(head_of(&mut client).await.starts_with("HTTP/1.1 101 "));
                let Opened { mut stream, early: mut begun } = served.await.unwrap().unwrap().downstream;
                drop(client);
                stream.read_to_end(&mut begun).await.unwrap();
                assert_eq!(begun, early.as_bytes());
                continue;
            }
            tcp.write_all(REFUSED.as_bytes()).await.unwrap();
            assert!(head_of(&mut client).await.starts_with("HTTP/1.1 403 "));
            client.read_exact(&mut [0; 3]).await.unwrap();
            let (mut tcp, _) = listener.accept().await.unwrap();
            assert!(head_of(&mut tcp).await.contains("\r\nX-Odd-CASE: 1\r\n"));
            drop((tcp, client));
            served.await.unwrap();
        }
    });
}

#[test]
fn a_usual_handshake_spares_hyper() {
    local(async {
        let names = REQUEST.replace("\r\n\r\n", "\r\nUser-Agent: x\r\n\r\n");
        for (request, answer, told) in [
            (REQUEST, ACCEPTED, true),
            (&*names, ACCEPTED, true),
            (REQUEST, ODD, false),
            (REQUEST, LATER, false),
            (REQUEST, REFUSED, false),
            ("GET / HTTP/1.1\r\n\r\n", ACCEPTED, false),
        ] {
            let backend = Backend::new(answer).await;
            let gate = gate(backend.address, |_| {});
            let (mut client, ours) = duplex(64 * 1024);
            client.write_all(request.as_bytes()).await.unwrap();
            let visit = Visit::new(gate.edge, PEER, Arrival::now());
            let mut stream = Stream::Plain(Socket::Memory(ours));
            let first = super::super::first::serve(&visit, &mut stream, 1024).await;
            assert_eq!(matches!(first, First::Told(_)), told, "{request}{answer}");
        }
    });
}
