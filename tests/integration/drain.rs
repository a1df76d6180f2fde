//! Drains: close frames first, resets last.
use super::harness::{Backend, Raw, Running, closed_with, joined, one_route};
use pulsegate::{gateway::Ended, relay::EndReason, shutdown::Phase};
use std::{
    io::Read,
    thread,
    time::{Duration, Instant},
};
use tungstenite::Message;

#[test]
fn a_drain_without_sessions_is_over_at_once() {
    let gateway = Running::start(&one_route("builtin:echo", ""));
    assert_eq!(gateway.drained(), Ended::default());
}

#[test]
fn a_drain_ends_every_session_with_a_close_frame() {
    let gateway = Running::start(&one_route("builtin:echo", "gateway.drain = { spread = \"200ms\" }"));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = gateway.connect("/");
            client.send(Message::text("hello")).unwrap();
            assert_eq!(client.read().unwrap(), Message::text("hello"));
            thread::spawn(move || closed_with(&mut client))
        })
        .collect();
    gateway.control().drain();
    for client in clients {
        assert_eq!(joined("a close frame", client).unwrap().0, 1001);
        assert_eq!(gateway.verdict().reason, EndReason::Draining);
    }
    assert_eq!(gateway.drained(), Ended { told: 20, cut: 0, failed_workers: 0 });
}

#[test]
fn a_second_request_cuts_a_session_that_does_not_answer() {
    let backend = Backend::websocket(|mut peer| while peer.read().is_ok() {});
    let gateway = Running::start(&one_route(&backend.url(), "gateway.drain = { spread = \"0s\" }"));
    let mut client = Raw::upgraded(gateway.address(), "/");
    gateway.control().drain();
    // The close frame arrives, and stays unanswered.
    assert_eq!(client.receive::<1>(), [0x88]);
    gateway.control().cut();
    assert_eq!(gateway.control().phase(), Phase::Cutting);
    assert_eq!(gateway.drained().cut, 1);
    let mut rest = Vec::new();
    let ended = client.0.read_to_end(&mut rest);
    assert!(ended.is_err() || ended.is_ok_and(|bytes| bytes < 64), "only the rest of the close frame");
}

#[test]
fn what_does_not_answer_until_the_timeout_is_cut() {
    let backend = Backend::websocket(|mut peer| while peer.read().is_ok() {});
    let extra = "gateway.drain = { spread = \"0s\", timeout = \"500ms\" }";
    let gateway = Running::start(&one_route(&backend.url(), extra));
    let _silent = Raw::upgraded(gateway.address(), "/");
    let start = Instant::now();
    assert_eq!(gateway.drained().cut, 1);
    assert!(start.elapsed() < Duration::from_secs(5));
}
