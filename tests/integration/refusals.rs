//! Handshakes that end as HTTP.
use super::harness::{Backend, Raw, Running, closed_with, dead_address, eventually, one_route, request};
use std::{io::Read, sync::mpsc::channel};
use tungstenite::Message;

/// What one connection's bytes are answered with: the status, and all of the answer.
pub(super) fn asked(gateway: &Running, bytes: &str) -> (u16, String) {
    let mut raw = Raw::connect(gateway.address());
    raw.send(bytes.as_bytes());
    let mut text = raw.head();
    let length = text
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse::<u64>().ok());
    raw.0.by_ref().take(length.unwrap_or(0)).read_to_string(&mut text).unwrap();
    (text[9..12].parse().unwrap(), text)
}

fn status(gateway: &Running, bytes: &str) -> u16 {
    asked(gateway, bytes).0
}

#[test]
fn what_is_no_handshake_is_refused_by_kind() {
    let toml = "[[route]]\npath = \"/chat\"\nupstream = \"pool\"\norigins = [\"https://a.test\"]\n\
                [upstream.pool]\nservers = [\"builtin:echo\"]\n";
    let gateway = Running::start(toml);
    let good = request("/chat", "");
    let (key, version) = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n");
    for (bytes, expected) in [
        (good.clone(), 101),
        (request("/chat/room", ""), 101),
        (request("/chat", "Origin: https://a.test\r\n"), 101),
        (request("/chat", "Origin: https://b.test\r\n"), 403),
        (request("/chat", "Origin: null\r\n"), 403),
        (request("/chatter", ""), 404),
        (request("/chat/../chat", ""), 400),
        (request("/chat/%2e%2e/", ""), 400),
        (request("/chat%2fa", ""), 400),
        (request("/chat\\a", ""), 400),
        (good.replace(key, ""), 400),
        (good.replace(key, "Sec-WebSocket-Key: short\r\n"), 400),
        (good.replace(key, &key.repeat(2)), 400),
        (good.replace("Host: gateway.test\r\n", ""), 400),
        (good.replace("GET ", "POST "), 405),
        (good.replace("Upgrade: websocket\r\n", ""), 426),
        (good.replace(version, "Sec-WebSocket-Version: 8\r\n"), 426),
        (request("/chat", &format!("X: {}\r\n", "x".repeat(20_000))), 431),
    ] {
        let (status, answer) = asked(&gateway, &bytes);
        assert_eq!(status, expected, "{bytes}\n{answer}");
        if status == 426 {
            assert!(answer.contains("\r\nUpgrade: websocket\r\n"), "{answer}");
            assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
        }
    }
}

#[test]
fn one_address_gets_so_many_sessions_and_another_when_one_ended() {
    let gateway = Running::start(&one_route("builtin:echo", "defaults.limits.sessions_per_address = 1"));
    let mut client = gateway.connect("/");
    assert_eq!(status(&gateway, &request("/", "")), 429);
    client.close(None).unwrap();
    closed_with(&mut client);
    drop(client);
    eventually("its place is free", || status(&gateway, &request("/", "")) == 101);
}

#[test]
fn a_full_gateway_says_so_before_it_dials() {
    let gateway = Running::start(&one_route("builtin:echo", "gateway.max_sessions = 1"));
    let _client = gateway.connect("/");
    let (status, answer) = asked(&gateway, &request("/", ""));
    assert_eq!(status, 503);
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
}

#[test]
fn waiting_bytes_near_the_memory_limit_refuse_new_sessions_and_no_old_one() {
    let (backend, sent) = super::flow::source();
    let gateway = Running::start(&one_route(&backend.url(), "gateway = { memory_limit = \"1B\", workers = 1 }"));
    let client = gateway.connect("/");
    super::flow::blocked(&sent);
    assert_eq!(status(&gateway, &request("/", "")), 503);
    super::flow::read_late(client, &sent);
    eventually("what waited has gone", || status(&gateway, &request("/", "")) == 101);
}

#[test]
fn a_dead_backend_fails_over_and_none_left_is_502() {
    let dead = dead_address();
    let gateway = Running::start(&one_route(&format!("ws://{dead}"), ""));
    assert_eq!(status(&gateway, &request("/", "")), 502);
    let busy = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        raw.head();
        raw.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    });
    let (alive, _ends) = Backend::reader();
    let servers = format!("ws://{dead}\", \"{}\", \"{}", busy.url(), alive.url());
    let gateway = Running::start(&one_route(&servers, ""));
    for _ in 0..6 {
        gateway.connect("/").send(Message::text("hello")).unwrap();
        assert_eq!(gateway.verdict().backend, alive.url());
    }
}

#[test]
fn a_backends_refusal_passes_with_its_body() {
    let backend = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        raw.head();
        raw.send(b"HTTP/1.1 401 Who\r\nWWW-Authenticate: Basic\r\nContent-Length: 6\r\n\r\nlog in");
    });
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let (status, answer) = asked(&gateway, &request("/", ""));
    assert_eq!(status, 401);
    assert!(answer.contains("Basic") && answer.ends_with("\r\n\r\nlog in"), "{answer}");
}

#[test]
fn a_backend_that_does_not_answer_is_504() {
    let backend = Backend::raw(|stream| {
        Raw(stream).end();
    });
    let gateway = Running::start(&one_route(&backend.url(), "defaults.timeouts.handshake = \"200ms\""));
    assert_eq!(status(&gateway, &request("/", "")), 504);
}

#[test]
fn a_client_that_leaves_during_the_dial_frees_the_backend() {
    let (sender, ended) = channel();
    let sender = std::sync::Mutex::new(sender);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        raw.head();
        let _ = sender.lock().unwrap().send(());
        raw.end();
        let _ = sender.lock().unwrap().send(());
    });
    let gateway = Running::start(&one_route(&backend.url(), "defaults.timeouts.handshake = \"1m\""));
    let mut client = Raw::connect(gateway.address());
    client.send(request("/", "").as_bytes());
    super::harness::soon(&ended);
    drop(client);
    super::harness::soon(&ended);
}
