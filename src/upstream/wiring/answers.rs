//! A 101 that is read here is what hyper would have read, whatever comes and in whichever pieces.

use super::{super::handshake::shake_by_hyper, *};
use crate::transport::{Socket, Stream};
use hyper::ext::ReasonPhrase;
use proptest::prelude::*;

const MOST: usize = 400;

/// What came of a handshake, and of what stood behind it.
async fn outcome(shaken: Result<Shaken, HandshakeError>) -> String {
    match shaken {
        Ok(Shaken::Accepted { mut stream, mut early, head }) => {
            stream.read_to_end(&mut early).await.unwrap();
            let reason = head.extensions.get::<ReasonPhrase>();
            format!("{reason:?} {:?} {:?}, then {}", head.version, head.headers, early.escape_ascii())
        }
        Ok(Shaken::Refused(response)) => {
            let (head, body) = response.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes());
            format!("{} {:?} {:?}, then {body:?}", head.status, head.version, head.headers)
        }
        Err(error) => error.to_string(),
    }
}

/// Asks a backend that answers in these pieces and ends.
async fn asked(answer: &[u8], pieces: &[usize], by_hyper: bool) -> String {
    let (ours, mut backend) = tokio::io::duplex(4096);
    let address = Backend::new("pool", BackendAddress::Echo);
    let mut asking = asking::request(&address, plain(), HostHeader::Client).unwrap();
    "dGhlIHNhbXBsZSBub25jZQ==".clone_into(&mut asking.key);
    let mut stream = Stream::Plain(Socket::Memory(ours));
    let shaking = async {
        if by_hyper {
            stream.write_all(&asking.written()).await.unwrap();
            outcome(shake_by_hyper(stream, bytes::Bytes::new(), &asking, MOST).await).await
        } else {
            outcome(shake(stream, asking, MOST).await).await
        }
    };
    let answering = async {
        head_of(&mut backend).await;
        let (mut rest, mut sizes) = (answer, pieces.iter().cycle());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            if backend.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
            rest = more;
        }
        backend.shutdown().await.ok();
    };
    tokio::join!(shaking, answering).0
}

fn answer() -> impl Strategy<Value = String> {
    let first = prop_oneof![
        12 => Just("HTTP/1.1 101 Switching Protocols\r\n"),
        1 => Just("HTTP/1.1 101\r\n"), 1 => Just("HTTP/1.1 101 Web Socket Protocol Handshake\r\n"), 1 => Just("HTTP/1.1 101 caf\u{e9}\r\n"), 1 => Just("HTTP/1.1 101\n"), 1 => Just("HTTP/1.1 1010 X\r\n"), 1 => Just("HTTP/1.0 101 X\r\n"),
        1 => Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 X\r\n"), 1 => Just("\r\nHTTP/1.1 101 X\r\n"),
        1 => Just("HTTP/1.1 403 No\r\n"), 1 => Just("HTTP/1.1 200 OK\r\n"), 1 => Just("HTTP/1"), 1 => Just("SSH-2.0\r\n"),
    ];
    let line = prop_oneof![
        4 => Just("X-oDD: 1\r\n"), 2 => Just("x-odd:2 \t\r\n"), 2 => Just("Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n"),
        1 => Just("Content-Length: 3\r\n"), 1 => Just("Transfer-Encoding: chunked\r\n"), 1 => Just("X: caf\u{e9}\r\n"),
        1 => Just("X:\r\n"), 1 => Just("X : 1\r\n"), 1 => Just(" folded\r\n"), 1 => Just("X: a\0b\r\n"), 1 => Just("X: a\x7fb\r\n"),
        1 => Just(": 1\r\n"), 1 => Just("X: only a line feed\n"), 1 => Just("no colon\r\n"), 1 => Just("\r"),
        1 => Just("Sec-WebSocket-Protocol: x\r\n"),
    ];
    let many = prop_oneof![20 => Just(0usize), 1 => 95usize..105, 1 => 8usize..20];
    let good = prop_oneof![
        9 => Just("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        1 => Just("Upgrade: websocket\r\n"),
    ];
    let end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("")];
    let parts = (first, prop::collection::vec(line, 0..3), many, good, end, "\\PC{0,20}");
    parts.prop_map(|(first, lines, many, good, end, behind)| {
        let many = "Y: 1\r\n".repeat(if many > 90 { many } else { 0 })
            + &format!("Y: {}\r\n", "y".repeat(20)).repeat(many % 90);
        [first, good, &lines.concat(), &many, end, &behind].concat()
    })
}

proptest! {
    #[test]
    fn an_answer_is_read_as_hyper_reads_it(answer in answer(), pieces in prop::collection::vec(1usize..200, 1..4)) {
        local(async {
            let (here, by_hyper) = (asked(answer.as_bytes(), &pieces, false).await, asked(answer.as_bytes(), &pieces, true).await);
            // Of two faults hyper finds the one or the other, by the pieces.
            let other = ["it closed the connection", "the head of its answer is larger"];
            let faulty = here.starts_with("its answer is not HTTP/1.1") && other.iter().any(|fault| by_hyper.starts_with(fault));
            assert!(here == by_hyper || faulty, "{here}\nby hyper: {by_hyper}");
        });
    }
}

#[test]
fn a_backend_that_breaks_the_connection_is_told_of_so() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = pool(vec![ws(listener.local_addr().unwrap())], None);
        let backend = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            head_of(&mut tcp).await;
            socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
        };
        let (answer, ()) = tokio::join!(open(&upstream, plain()), backend);
        let error = error(answer);
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert!(error.cause.contains("the connection broke: Connection reset"), "{}", error.cause);
    });
}

/// It says why before it has read all that it is asked, and reads no more.
#[test]
fn a_refusal_passes_before_the_whole_request_was_taken() {
    local(async {
        let mut head = plain();
        head.headers.insert("x-long", "x".repeat(2000).parse().unwrap());
        let address = Backend::new("pool", BackendAddress::Echo);
        for answer in ["HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n", GOOD] {
            let asking = asking::request(&address, head.clone(), HostHeader::Client).unwrap();
            let (ours, mut backend) = tokio::io::duplex(256);
            backend.write_all(answer.as_bytes()).await.unwrap();
            match shake(Stream::Plain(Socket::Memory(ours)), asking, MOST).await {
                Ok(Shaken::Refused(response)) => assert_eq!(response.status(), 431),
                Ok(Shaken::Accepted { .. }) => panic!("it cannot know the key"),
                Err(error) => assert!(error.to_string().contains("before it had the whole request"), "{error}"),
            }
        }
    });
}

#[test]
fn an_answer_is_read_however_slowly_it_comes() {
    local(async {
        let answer = GOOD.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let whole = asked(answer.as_bytes(), &[4096], false).await;
        assert!(whole.contains("x-served-by") && whole.ends_with("early"), "{whole}");
        for piece in 1..9 {
            assert_eq!(asked(answer.as_bytes(), &[piece], false).await, whole);
        }
        for length in 0..answer.len() - 6 {
            let answer = &answer.as_bytes()[..length];
            let cut = asked(answer, &[4096], false).await;
            assert!(cut.starts_with("it closed the connection before"), "{length}: {cut}");
        }
    });
}
