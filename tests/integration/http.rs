//! Plain HTTP on the routes that take it: what crosses, how it ends, and what is refused.
use super::harness::{
    Backend, PATIENCE, Raw, Running, dead_address, eventually, joined, next_head, one_route, request, soon,
};
use pulsegate::metrics::text::Format;
use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

const GET: &str = "GET /page?x=1 HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A route that proxies plain HTTP to `server`, with `extra` put before the tables.
fn proxying(server: &str, extra: &str) -> Running {
    Running::start(&one_route(server, extra).replace("name = \"all\"\n", "name = \"all\"\nhttp = \"proxy\"\n"))
}

/// A backend that gives each request's head to the test and answers all with `answer`, on as many connections as are opened.
fn answering(answer: &'static str) -> (Backend, std::sync::mpsc::Receiver<String>, Arc<AtomicUsize>) {
    let (sender, heads) = channel();
    let (sender, connections) = (Mutex::new(sender), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&connections);
    let backend = Backend::raw(move |stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut raw = Raw(stream);
        while let Some(head) = head(&mut raw) {
            let _ = sender.lock().unwrap().send(head);
            if raw.0.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    (backend, heads, connections)
}

/// A head, unless the connection ends before it begins.
fn head(raw: &mut Raw) -> Option<String> {
    next_head(&mut raw.0)
}

/// One answer of the given length of body.
fn answer(raw: &mut Raw, length: usize) -> (String, String) {
    let head = raw.head();
    let mut body = vec![0; length];
    raw.0.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn status(head: &str) -> u16 {
    head[9..12].parse().unwrap()
}

#[test]
fn unless_a_route_takes_it_plain_http_is_426_and_the_key_is_named() {
    let (backend, heads, _) = answering(OK);
    let gateway = Running::start(&one_route(&backend.url(), ""));
    for line in ["GET / HTTP/1.1", "POST / HTTP/1.1", "HEAD / HTTP/1.1"] {
        let mut raw = Raw::connect(gateway.address());
        raw.send(format!("{line}\r\nHost: gateway.test\r\n\r\n").as_bytes());
        raw.0.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        raw.0.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 426 "), "{text}");
        assert_eq!(text.contains("http = \"proxy\""), !line.starts_with("HEAD"), "{text}");
        assert_eq!(text.split("\r\n\r\n").nth(1).unwrap().lines().count(), usize::from(!line.starts_with("HEAD")));
    }
    assert!(heads.try_recv().is_err());
}

#[test]
fn requests_cross_and_both_connections_are_kept() {
    let (backend, heads, connections) =
        answering("HTTP/1.1 200 Fine\r\nX-oDD: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok");
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    for turn in 0..3 {
        client.send(
            b"GET /page?x=1 HTTP/1.1\r\nHost: gateway.test\r\nX-Own-CASE: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\
              Connection: keep-alive, x-mine\r\nX-Mine: 1\r\n\r\n",
        );
        let (head, body) = answer(&mut client, 2);
        assert!(head.starts_with("HTTP/1.1 200 Fine\r\n"), "{head}");
        assert!(head.contains("\r\nX-oDD: 1\r\n") && !head.to_lowercase().contains("x-hop"), "{head}");
        assert_eq!(body, "ok", "turn {turn}");
        let asked = soon(&heads);
        assert!(asked.starts_with("GET /page?x=1 HTTP/1.1\r\nHost: gateway.test\r\n"), "{asked}");
        for line in ["X-Own-CASE: 1", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http"] {
            assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line} in {asked}");
        }
        let asked = asked.to_lowercase();
        assert!(!asked.contains("x-mine") && !asked.contains("6.6.6.6") && !asked.contains("upgrade"), "{asked}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_connection_that_a_client_logged_in_on_serves_nobody_else() {
    const CHALLENGE: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 2\r\n\r\nno";
    let ask = |gateway: &Running, more: &str| {
        let mut client = Raw::connect(gateway.address());
        client.send(format!("GET / HTTP/1.1\r\nHost: gateway.test\r\n{more}\r\n").as_bytes());
        answer(&mut client, 2).1
    };
    for (said, more) in [(OK, "Authorization: NTLM TlRMTVNTUAAD\r\n"), (CHALLENGE, "")] {
        let (backend, _heads, connections) = answering(said);
        let gateway = proxying(&backend.url(), "gateway.workers = 1");
        for expected in 1..=3 {
            ask(&gateway, more);
            assert_eq!(connections.load(Ordering::SeqCst), expected, "{more}{said}");
        }
    }
}

#[test]
fn a_session_may_follow_on_the_connection_of_a_plain_request() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream.try_clone().unwrap());
        let mut first = [0; 9];
        raw.0.peek(&mut first).unwrap();
        if first.starts_with(b"GET /page") {
            head(&mut raw).unwrap();
            raw.send(OK.as_bytes());
            head(&mut raw);
        } else {
            let mut room = [0; 2048];
            let length = raw.0.peek(&mut room).unwrap();
            let asked = String::from_utf8_lossy(&room[..length]);
            assert!(asked.contains("\r\nX-oDD: 1\r\n"), "names keep their spelling: {asked}");
            let mut peer = tungstenite::accept(stream).unwrap();
            let message = peer.read().unwrap();
            peer.send(message).unwrap();
            let _ = peer.read();
        }
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    answer(&mut client, 2);
    client.send(request("/session", "X-oDD: 1\r\n").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send(&super::harness::frame(0x81, true, b"hello"));
    assert_eq!(&client.receive::<7>(), b"\x81\x05hello");
}

#[test]
fn bodies_of_any_size_stream_and_wait_for_a_backend_that_does_not_read() {
    const SIZE: usize = 64 << 20;
    let (go, gate) = channel::<()>();
    let (done, total) = channel();
    let parts = Mutex::new(Some((gate, done)));
    let backend = Backend::raw(move |stream| {
        let (gate, done) = parts.lock().unwrap().take().unwrap();
        let mut raw = Raw(stream);
        head(&mut raw).unwrap();
        gate.recv_timeout(PATIENCE).unwrap();
        let (mut room, mut read) = (vec![0; 1 << 16], 0);
        while read < SIZE {
            read += raw.0.read(&mut room).unwrap();
        }
        let _ = done.send(read);
        raw.send(OK.as_bytes());
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(format!("PUT / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
    client.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (piece, mut sent) = (vec![7; 1 << 16], 0);
    while sent < SIZE {
        match client.0.write(&piece[..piece.len().min(SIZE - sent)]) {
            Ok(length) => sent += length,
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < SIZE / 2, "{sent} bytes were taken for a backend that reads nothing");
    go.send(()).unwrap();
    client.0.set_write_timeout(Some(PATIENCE)).unwrap();
    while sent < SIZE {
        sent += client.0.write(&piece[..piece.len().min(SIZE - sent)]).unwrap();
    }
    assert_eq!(answer(&mut client, 2).1, "ok");
    assert_eq!(soon(&total), SIZE);
}

#[test]
fn chunks_and_trailers_cross_both_ways() {
    let (sender, bodies) = channel();
    let sender = Mutex::new(sender);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        let asked = head(&mut raw).unwrap();
        let mut body = Vec::new();
        while !body.ends_with(b"\r\nX-Sum: 5\r\n\r\n") && !body.ends_with(b"\r\nx-sum: 5\r\n\r\n") {
            body.extend(raw.receive::<1>());
        }
        let _ = sender.lock().unwrap().send((asked, String::from_utf8(body).unwrap()));
        raw.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n3\r\nyes\r\n0\r\nX-End: 3\r\n\r\n",
        );
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(
        b"POST / HTTP/1.1\r\nHost: gateway.test\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n",
    );
    let mut text = String::new();
    client.0.read_to_string(&mut text).unwrap();
    let (asked, body) = soon(&bodies);
    assert!(
        asked.contains("\r\nTransfer-Encoding: chunked\r\n") && asked.contains("\r\nTrailer: X-Sum\r\n"),
        "{asked}"
    );
    assert!(body.starts_with("5\r\nhello\r\n"), "{body}");
    let text = text.to_lowercase();
    assert!(text.contains("3\r\nyes\r\n0\r\nx-end: 3\r\n\r\n"), "{text}");
    assert!(text.contains("\r\nconnection: close\r\n"), "no request follows one in chunks: {text}");
}

#[test]
fn trailers_say_nothing_that_a_client_may_not_say_in_headers() {
    let (sender, bodies) = channel();
    let sender = Mutex::new(sender);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        let asked = head(&mut raw).unwrap();
        let body = head(&mut raw).unwrap();
        let _ = sender.lock().unwrap().send(asked + &body);
        raw.send(OK.as_bytes());
    });
    let gateway = proxying(&backend.url(), "defaults.headers.request = { set.X-User = \"me\", remove = [\"X-Old\"] }");
    let mut client = Raw::connect(gateway.address());
    let forged = ["X-User", "x_user", "X_Old", "X-Forwarded-For", "X_Real-IP", "X-Request-Id"];
    client.send(
        format!(
            "POST / HTTP/1.1\r\nHost: gateway.test\r\nTrailer: {}, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\n{}X-Sum: 5\r\n\r\n",
            forged.join(","),
            forged.map(|name| format!("{name}: forged\r\n")).concat()
        )
        .as_bytes(),
    );
    assert_eq!(answer(&mut client, 2).1, "ok");
    let told = soon(&bodies).to_lowercase();
    assert!(!told.contains("forged") && told.ends_with("\r\n0\r\nx-sum: 5\r\n\r\n"), "{told}");
    assert!(told.contains("\r\ntrailer: x-sum\r\n") && told.contains("\r\nx-user: me\r\n"), "{told}");
}

#[test]
fn events_come_as_they_are_sent_and_a_client_that_leaves_is_told_to_the_backend() {
    let (go, gate) = channel::<()>();
    let (left, gone) = channel();
    let parts = Mutex::new(Some((gate, left)));
    let backend = Backend::raw(move |stream| {
        let (gate, left) = parts.lock().unwrap().take().unwrap();
        let mut raw = Raw(stream);
        head(&mut raw).unwrap();
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        gate.recv_timeout(PATIENCE).unwrap();
        raw.send(b"data: 2\n\n");
        raw.end();
        let _ = left.send(());
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    let head = client.head().to_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(&client.receive::<14>(), b"9\r\ndata: 1\n\n\r\n");
    go.send(()).unwrap();
    assert_eq!(&client.receive::<14>(), b"9\r\ndata: 2\n\n\r\n");
    drop(client);
    soon(&gone);
}

#[test]
fn a_client_that_leaves_before_its_answer_is_told_to_the_backend() {
    let (asked, heads) = channel();
    let (left, gone) = channel();
    let parts = Mutex::new((asked, left));
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        let head = head(&mut raw).unwrap();
        let _ = parts.lock().unwrap().0.send(head);
        raw.end();
        let _ = parts.lock().unwrap().1.send(());
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    soon(&heads);
    drop(client);
    soon(&gone);
}

#[test]
fn a_backend_that_reads_no_more_does_not_keep_the_requests_that_were_given_up() {
    let (go, gate) = channel::<()>();
    let (left, gone) = channel();
    let parts = Mutex::new((gate, left));
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        let asked = head(&mut raw).unwrap();
        if asked.contains("/early") {
            raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        }
        let parts = parts.lock().unwrap();
        parts.0.recv_timeout(2 * PATIENCE).unwrap();
        raw.end();
        let _ = parts.1.send(());
    });
    let gateway = proxying(&backend.url(), "defaults.timeouts.response = \"300ms\"");
    let open = || {
        let text = gateway.operator().metrics(Format::Prometheus);
        let rest = text
            .split_once("\npulsegate_http_requests_open{route=\"all\",upstream=\"pool\"} ")
            .unwrap_or_else(|| panic!("{text}"))
            .1;
        rest.lines().next().unwrap().parse::<u64>().unwrap()
    };
    for (path, stays) in [("/", true), ("/", false), ("/early", false)] {
        let mut client = Raw::connect(gateway.address());
        client.send(
            format!("PUT {path} HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {}\r\n\r\n", 1 << 30).as_bytes(),
        );
        if path == "/early" {
            assert_eq!(answer(&mut client, 4).1, "half");
        }
        client.0.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        while client.0.write_all(&[7; 1 << 16]).is_ok() {}
        if stays {
            assert_eq!(status(&client.head()), 504);
        } else {
            drop(client);
        }
        eventually("the request is over", || open() == 0);
        go.send(()).unwrap();
        soon(&gone);
    }
}

#[test]
fn a_request_whose_length_is_not_clear_reaches_nobody() {
    let (backend, heads, _) = answering(OK);
    let gateway = proxying(&backend.url(), "");
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4\r\n X: folded\r\n",
    ] {
        for before in ["", GET] {
            let mut client = Raw::connect(gateway.address());
            let bad = format!("{before}POST / HTTP/1.1\r\nHost: gateway.test\r\n{lines}\r\n0\r\n\r\n{smuggled}");
            client.send(bad.as_bytes());
            if !before.is_empty() {
                assert_eq!(answer(&mut client, 2).1, "ok");
                soon(&heads);
            }
            let mut text = String::new();
            let _ = client.0.read_to_string(&mut text);
            assert!(text.starts_with("HTTP/1.1 400 "), "{lines}: {text}");
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{lines}: {text}");
            assert!(heads.try_recv().is_err(), "{lines}");
        }
    }
}

#[test]
fn answers_whose_length_is_not_clear_do_not_cross() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
        "who are you",
    ] {
        let (backend, _heads, _) = answering(answer);
        let gateway = proxying(&backend.url(), "");
        let mut client = Raw::connect(gateway.address());
        client.send(GET.as_bytes());
        let head = client.head();
        assert_eq!(status(&head), 502, "{answer}: {head}");
    }
}

#[test]
fn answers_without_a_body_keep_their_headers_and_their_connection() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        while let Some(asked) = head(&mut raw) {
            let answer = match &asked[..5] {
                "HEAD " => "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"a\"\r\n\r\n",
                "GET /" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 12345\r\nETag: \"a\"\r\n\r\n",
                _ => "HTTP/1.1 204 No Content\r\nETag: \"a\"\r\n\r\n",
            };
            raw.send(answer.as_bytes());
        }
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    for (method, expected) in [("HEAD", 200), ("GET", 304), ("DELETE", 204), ("HEAD", 200), ("GET", 304)] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: gateway.test\r\n\r\n").as_bytes());
        let head = client.head();
        assert_eq!(status(&head), expected, "{head}");
        assert!(head.contains("\r\nETag: \"a\"\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        assert_eq!(head.contains("Content-Length: 12345"), method == "HEAD", "{head}");
    }
}

#[test]
fn an_answer_may_come_before_the_request_is_whole() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        head(&mut raw).unwrap();
        raw.send(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge");
        raw.0.shutdown(Shutdown::Write).unwrap();
        raw.end();
    });
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(b"POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 1000000\r\n\r\nbeginning");
    let (head, body) = answer(&mut client, 5);
    assert_eq!((status(&head), body.as_str()), (413, "large"));
}

#[test]
fn a_body_that_waits_for_a_word_gets_it_once_a_backend_is_there() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        let asked = head(&mut raw).unwrap();
        assert!(!asked.contains("100-continue"), "{asked}");
        assert_eq!(&raw.receive::<5>(), b"hello");
        raw.send(OK.as_bytes());
    });
    let gone = dead_address();
    let expecting = b"POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let without = proxying(&format!("ws://{gone}"), "");
    let mut client = Raw::connect(without.address());
    client.send(expecting);
    assert_eq!(status(&client.head()), 502);
    let gateway = proxying(&backend.url(), "");
    let mut client = Raw::connect(gateway.address());
    client.send(expecting);
    assert_eq!(status(&client.head()), 100);
    client.send(b"hello");
    assert_eq!(answer(&mut client, 2).1, "ok");
}

#[test]
fn what_was_sent_is_never_asked_twice() {
    // Each connection answers once, and ends with the second request unanswered.
    let (sender, heads) = channel();
    let sender = Mutex::new(sender);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        for turn in 0..2 {
            let Some(head) = head(&mut raw) else { return };
            let _ = sender.lock().unwrap().send(head);
            if turn == 0 {
                raw.send(OK.as_bytes());
            }
        }
    });
    let gateway = proxying(&backend.url(), "gateway.workers = 1");
    let ask = |method: &str, length: usize| {
        let mut client = Raw::connect(gateway.address());
        client
            .send(format!("{method} / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        client.send(&vec![b'x'; length]);
        status(&client.head())
    };
    for method in ["GET", "POST"] {
        assert_eq!(ask(method, 0), 200);
        // The kept connection ends under it. The request left, and must not be repeated.
        assert_eq!(ask(method, 0), 502);
        assert_eq!(heads.try_iter().count(), 2);
    }
}

#[test]
fn a_backend_that_cannot_be_dialled_is_left_for_the_next_whatever_the_method() {
    let (backend, heads, _) = answering(OK);
    let gone = dead_address();
    let servers = format!("ws://{gone}\", \"{}", backend.url());
    let gateway = proxying(&servers, "");
    for _ in 0..4 {
        let mut client = Raw::connect(gateway.address());
        client.send(b"POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(status(&client.head()), 200);
        soon(&heads);
    }
}

#[test]
fn answers_on_a_kept_connection_do_not_acquit_a_backend_whose_handshakes_fail() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        while let Some(head) = head(&mut raw) {
            let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            raw.send(if head.starts_with("GET /page") { OK } else { busy }.as_bytes());
        }
    });
    let gateway = proxying(&backend.url(), "");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let down = || runtime.block_on(gateway.operator().backends())[0].down.is_some();
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    answer(&mut client, 2);
    let mut session = Raw::connect(gateway.address());
    session.send(request("/session", "").as_bytes());
    assert_eq!(status(&session.head()), 503);
    assert!(down());
    client.send(GET.as_bytes());
    answer(&mut client, 2);
    assert!(down(), "the connection is older than what it did wrong");
}

#[test]
fn a_backend_that_says_nothing_is_504_and_one_that_falls_silent_is_cut() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        if head(&mut raw).unwrap().starts_with("GET /half") {
            raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        }
        raw.end();
    });
    let gateway = proxying(&backend.url(), "defaults.timeouts.response = \"200ms\"");
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    assert_eq!(status(&client.head()), 504);
    let mut client = Raw::connect(gateway.address());
    client.send(GET.replace("/page", "/half").as_bytes());
    assert_eq!(answer(&mut client, 4).1, "half");
    assert_eq!(client.end().0, 0);
}

#[test]
fn a_request_that_comes_too_slowly_is_408() {
    let (backend, _heads, _) = answering("");
    let gateway = proxying(&backend.url(), "defaults.timeouts.stall = \"200ms\"");
    let mut client = Raw::connect(gateway.address());
    client.send(b"POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 9\r\n\r\nhalf");
    let head = client.head();
    assert_eq!(status(&head), 408, "{head}");
    assert!(head.to_lowercase().contains("\r\nconnection: close\r\n"), "{head}");
    drop(client);
    let counted = |name: &str, result: &str| {
        let text = gateway.operator().metrics(Format::Prometheus);
        let of = |line: &&str| line.starts_with(&format!("pulsegate_{name}_total{{")) && line.contains(result);
        let figures = text.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
        figures.sum::<u64>()
    };
    eventually("it is counted", || counted("http_requests", "result=\"client_stalled\"") == 1);
    assert_eq!(counted("handshakes", ""), 0, "it was no handshake");
}

#[test]
fn a_client_that_takes_nothing_is_given_up_and_its_backend_with_it() {
    let (left, gone) = channel();
    let left = Mutex::new(left);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        head(&mut raw).unwrap();
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let piece = vec![0; 1 << 16];
        while raw.0.write_all(&piece).is_ok() {}
        let _ = left.lock().unwrap().send(());
    });
    let gateway = proxying(&backend.url(), "defaults.timeouts.stall = \"300ms\"");
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    soon(&gone);
}

#[test]
fn connections_of_plain_requests_have_a_bound_of_their_own() {
    let (backend, _heads, _) = answering(OK);
    let gateway = proxying(&backend.url(), "gateway = { max_http_connections = 2, max_sessions = 1 }");
    let ask = || {
        let mut client = Raw::connect(gateway.address());
        client.send(GET.as_bytes());
        let head = client.head();
        (client, head)
    };
    let (first, head) = ask();
    assert_eq!(status(&head), 200, "{head}");
    assert!(!head.to_lowercase().contains("connection: close"), "{head}");
    let (second, head) = ask();
    assert_eq!(status(&head), 200, "{head}");
    assert!(head.to_lowercase().contains("connection: close"), "places run short: {head}");
    drop(second);
    eventually("its place is free", || status(&ask().1) == 200);
    drop(first);
}

#[test]
fn a_connection_that_asks_nothing_more_ends() {
    let (backend, _heads, _) = answering(OK);
    let gateway = proxying(&backend.url(), "defaults.timeouts = { keep_alive = \"200ms\", stall = \"100ms\" }");
    let mut client = Raw::connect(gateway.address());
    client.send(GET.as_bytes());
    answer(&mut client, 2);
    assert_eq!(client.end(), (0, false));
}

#[test]
fn a_drain_ends_idle_connections_and_waits_for_answers_under_way() {
    let (go, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let (asked, heads) = channel();
    let asked = Mutex::new(asked);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        while let Some(head) = head(&mut raw) {
            let slow = head.starts_with("GET /slow");
            let _ = asked.lock().unwrap().send(head);
            if slow {
                gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            raw.send(OK.as_bytes());
        }
    });
    let gateway = proxying(&backend.url(), "");
    let mut idle = Raw::connect(gateway.address());
    idle.send(GET.as_bytes());
    answer(&mut idle, 2);
    soon(&heads);
    let mut slow = Raw::connect(gateway.address());
    slow.send(GET.replace("/page", "/slow").as_bytes());
    soon(&heads);
    let drained = thread::spawn(move || gateway.drained());
    assert_eq!(idle.end(), (0, false));
    assert!(!drained.is_finished());
    go.send(()).unwrap();
    let (head, body) = answer(&mut slow, 2);
    assert_eq!((status(&head), body.as_str()), (200, "ok"));
    assert!(head.to_lowercase().contains("\r\nconnection: close\r\n"), "{head}");
    joined("the gateway has drained", drained);
}
