//! Drains: close frames first, resets last.
use super::harness::{Backend, Raw, Running, closed_with, eventually, frame, joined, one_route, soon};
use pulsegate::{
    gateway::Ended,
    relay::EndReason,
    shutdown::{DrainCause, Phase},
};
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
fn a_drain_keeps_to_its_rate_and_tells_how_it_goes() {
    let extra = "gateway = { workers = 1, drain = { rate = \"20/s\", order = \"random\" } }";
    let gateway = Running::start(&one_route("builtin:echo", extra));
    let clients: Vec<_> = (0..10).map(|_| gateway.connect("/")).collect();
    let operator = gateway.operator();
    assert_eq!(operator.drain_progress(), None);
    let clients: Vec<_> =
        clients.into_iter().map(|mut client| thread::spawn(move || closed_with(&mut client))).collect();
    let start = Instant::now();
    gateway.control().drain_for(DrainCause::Upgrade);
    eventually("some are told and some are not", || {
        operator.drain_progress().is_some_and(|drain| (1..10).contains(&drain.told) && drain.left > 0)
    });
    let progress = operator.drain_progress().unwrap();
    assert_eq!((progress.cause, progress.sessions), (DrainCause::Upgrade, 10));
    for client in clients {
        assert_eq!(joined("a close frame", client).unwrap().0, 1012);
    }
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    assert_eq!(gateway.drained(), Ended { told: 10, cut: 0, failed_workers: 0 });
    let progress = operator.drain_progress().unwrap();
    assert_eq!((progress.told, progress.left, progress.cut), (10, 0, 0));
    assert!(progress.estimate().is_zero());
}

/// A gateway whose backend has this many sessions, and loses them all now.
fn loses_all(count: usize, extra: &str) -> (Running, Vec<Raw>, Instant) {
    // Four for each session, in one process with other tests.
    let _ = pulsegate::descriptors::raise();
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), extra));
    let clients: Vec<Raw> = (0..count).map(|_| Raw::upgraded(gateway.address(), "/")).collect();
    let servers: Vec<Raw> = (0..count).map(|_| soon(&connections)).collect();
    let now = Instant::now();
    servers.into_iter().for_each(Raw::reset);
    (gateway, clients, now)
}

#[test]
fn the_clients_of_a_backend_that_loses_many_are_told_one_by_one() {
    const ALL: usize = 160;
    let (gateway, clients, start) = loses_all(ALL, "gateway.drain.spread = \"4s\"");
    for mut client in clients {
        assert_eq!(client.close_frame(), (1012, "upstream connection lost".into()));
        client.send(&frame(0x88, true, b"\x03\xf4"));
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let verdicts: Vec<_> = (0..ALL).map(|_| gateway.verdict()).collect();
    assert!(verdicts.iter().all(|verdict| verdict.reason == EndReason::UpstreamGone));
    let waited: Vec<Duration> = verdicts.iter().filter_map(|verdict| verdict.told_after).collect();
    assert!((1..=ALL - 101).contains(&waited.len()), "{} waited", waited.len());
    // Timers are up to a 32nd late.
    assert!(waited.iter().all(|waited| *waited <= Duration::from_secs(5)), "{waited:?}");
    assert!(verdicts.iter().all(|verdict| verdict.duration >= verdict.told_after.unwrap_or_default()));
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
