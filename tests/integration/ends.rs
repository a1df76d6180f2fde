//! How sessions end on real sockets: what each peer sees, and what the verdict says.
use super::harness::{Backend, Raw, Running, closed_with, eventually, frame, joined, one_route, soon};
use pulsegate::relay::{EndReason, Side};
use std::{net::Shutdown, thread, time::Duration};
use tungstenite::{Message, protocol::CloseFrame};

const LOST: &str = "upstream connection lost";

#[test]
fn a_clients_close_crosses_and_the_gateway_ends_its_tcp_first() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(&connections);
    client.send(&frame(0x88, true, b"\x0f\xa0bye"));
    assert_eq!(server.close_frame(), (4000, "bye".into()));
    server.send(&frame(0x88, false, b"\x0f\xa1ok"));
    assert_eq!(client.close_frame(), (4001, "ok".into()));
    // The client has not ended anything; the server's side does (RFC 6455 section 7.1.1).
    assert_eq!(client.end(), (0, false));
    let verdict = gateway.verdict();
    assert_eq!((verdict.reason, verdict.first), (EndReason::ClientClosed, Some(Side::Downstream)));
    // On the other leg the backend is the server: its end is waited for.
    server.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(std::io::Read::read(&mut server.0, &mut [0]).is_err(), "the gateway waits for the backend to end TCP");
    server.0.shutdown(Shutdown::Write).unwrap();
    server.0.set_read_timeout(Some(super::harness::PATIENCE)).unwrap();
    assert_eq!(server.end(), (0, false));
}

#[test]
fn a_backends_close_crosses_with_its_code() {
    let backend = Backend::websocket(|mut peer| {
        let close = CloseFrame { code: 4321.into(), reason: "enough".into() };
        peer.close(Some(close)).unwrap();
        closed_with(&mut peer);
    });
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let mut client = gateway.connect("/");
    assert_eq!(closed_with(&mut client), Some((4321, "enough".into())));
    let verdict = gateway.verdict();
    assert_eq!(verdict.reason, EndReason::UpstreamClosed);
    assert_eq!(verdict.legs.upstream.code_received, Some(4321));
    assert_eq!(verdict.legs.downstream.code_sent, Some(4321));
}

#[test]
fn a_lost_client_is_told_to_the_backend() {
    for reset in [false, true] {
        let (backend, ends) = Backend::reader();
        let gateway = Running::start(&one_route(&backend.url(), ""));
        let client = Raw::upgraded(gateway.address(), "/");
        if reset {
            client.reset()
        } else {
            drop(client)
        }
        assert_eq!(soon(&ends), Some((1001, "client connection lost".into())), "by reset: {reset}");
        let verdict = gateway.verdict();
        assert_eq!((verdict.reason, verdict.first), (EndReason::ClientGone, Some(Side::Downstream)));
        assert_eq!(verdict.legs.upstream.code_sent, Some(1001));
    }
}

#[test]
fn a_client_that_only_ends_its_direction_is_gone_too() {
    let (backend, ends) = Backend::reader();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let mut client = Raw::upgraded(gateway.address(), "/");
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(soon(&ends), Some((1001, "client connection lost".into())));
    assert_eq!(client.end(), (0, false));
    assert_eq!(gateway.verdict().reason, EndReason::ClientGone);
}

#[test]
fn a_lost_backend_is_told_to_the_client() {
    for reset in [false, true] {
        let (backend, connections) = Backend::handed();
        let gateway = Running::start(&one_route(&backend.url(), ""));
        let mut client = gateway.connect("/");
        let server = soon(&connections);
        if reset {
            server.reset()
        } else {
            drop(server)
        }
        assert_eq!(closed_with(&mut client), Some((1012, LOST.into())), "by reset: {reset}");
        let verdict = gateway.verdict();
        assert_eq!((verdict.reason, verdict.first), (EndReason::UpstreamGone, Some(Side::Upstream)));
    }
}

#[test]
fn a_backend_that_dies_inside_a_frame_cuts_its_client() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(&connections);
    // 100 bytes announced, 10 sent.
    server.send(&[0x82, 100]);
    server.send(&[7; 10]);
    assert_eq!(client.receive::<12>()[..3], [0x82, 100, 7]);
    drop(server);
    assert_eq!(client.end(), (0, true), "a reset, and no byte that would complete the frame");
    let verdict = gateway.verdict();
    assert_eq!(verdict.reason, EndReason::UpstreamGone);
    assert!(verdict.legs.downstream.cut && verdict.legs.downstream.code_sent.is_none());
}

#[test]
fn violations_are_told_to_both_sides_and_their_codes_survive_unread_bytes() {
    let limits = "defaults.limits.client = { message = \"1KiB\", frame = \"1KiB\" }";
    for (bytes, code) in [
        // Not masked; not UTF-8; a kilobyte and one, announced.
        (frame(0x81, false, b"hello"), 1002),
        (frame(0x81, true, b"\xff\xff"), 1007),
        (vec![0x82, 0xfe, 0x04, 0x01, 0, 0, 0, 0], 1009),
    ] {
        let (backend, ends) = Backend::reader();
        let gateway = Running::start(&one_route(&backend.url(), limits));
        let mut client = Raw::upgraded(gateway.address(), "/");
        client.send(&[&bytes[..], &[0; 100_000]].concat());
        assert_eq!(client.close_frame().0, code);
        assert_eq!(client.end(), (0, false), "{code}");
        assert_eq!(soon(&ends).unwrap().0, 1001);
        let verdict = gateway.verdict();
        assert_eq!(verdict.reason, EndReason::ClientViolation);
        assert_eq!(verdict.legs.downstream.code_sent, Some(code));
        assert!(verdict.cause.is_some());
    }
}

#[test]
fn a_backends_violation_is_not_blamed_on_the_client() {
    let limits = "defaults.limits.upstream.frame = \"64B\"";
    for (bytes, code) in [
        (frame(0x81, true, b"hello"), 1002),
        (frame(0x81, false, b"\xff\xff"), 1007),
        (frame(0x82, false, &[0; 65]), 1009),
    ] {
        let (backend, connections) = Backend::handed();
        let gateway = Running::start(&one_route(&backend.url(), limits));
        let mut client = gateway.connect("/");
        let mut server = soon(&connections);
        server.send(&bytes);
        assert_eq!(closed_with(&mut client), Some((1011, "upstream protocol error".into())));
        assert_eq!(server.close_frame().0, code);
        assert_eq!(gateway.verdict().reason, EndReason::UpstreamViolation);
    }
}

#[test]
fn idle_and_old_sessions_end_with_their_codes() {
    for (key, reason, code, words) in
        [("idle", EndReason::Idle, 1001, "idle timeout"), ("max_age", EndReason::MaxAge, 1012, "session age limit")]
    {
        let (backend, ends) = Backend::reader();
        let gateway = Running::start(&one_route(&backend.url(), &format!("defaults.timeouts.{key} = \"200ms\"")));
        let mut client = gateway.connect("/");
        assert_eq!(closed_with(&mut client), Some((code, words.into())));
        assert_eq!(soon(&ends).unwrap().0, 1001);
        let verdict = gateway.verdict();
        assert_eq!((verdict.reason, verdict.first), (reason, None));
    }
}

#[test]
fn a_silent_client_is_reset_and_its_backend_told() {
    let (backend, ends) = Backend::reader();
    let extra = "defaults.heartbeat.client = { ping_interval = \"100ms\", ping_timeout = \"200ms\" }";
    let gateway = Running::start(&one_route(&backend.url(), extra));
    let mut client = Raw::upgraded(gateway.address(), "/");
    assert_eq!(client.receive::<1>(), [0x89]);
    assert_eq!(soon(&ends), Some((1001, "client keepalive timeout".into())));
    let (_, reset) = client.end();
    assert!(reset, "nothing lingers for a peer that is not there");
    let verdict = gateway.verdict();
    assert_eq!((verdict.reason, verdict.first), (EndReason::ClientUnresponsive, Some(Side::Downstream)));
    assert_eq!((verdict.legs.downstream.pings_sent, verdict.legs.downstream.pongs_received), (1, 0));
    assert!(verdict.legs.downstream.silence >= Duration::from_millis(200));
}

#[test]
fn a_silent_backend_is_reset_and_its_client_told() {
    let (backend, connections) = Backend::handed();
    let extra =
        "defaults.heartbeat.upstream = { ping_interval = \"100ms\", ping_timeout = \"200ms\", liveness = \"pong\" }";
    let gateway = Running::start(&one_route(&backend.url(), extra));
    let mut client = gateway.connect("/");
    let mut server = soon(&connections);
    assert_eq!(closed_with(&mut client), Some((1012, "upstream keepalive timeout".into())));
    assert!(server.end().1, "a reset");
    assert_eq!(gateway.verdict().reason, EndReason::UpstreamUnresponsive);
}

#[test]
fn a_client_that_does_not_read_is_stalled() {
    let (sender, blocked) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let backend = Backend::websocket(move |mut peer| {
        while peer.send(Message::binary(vec![0; 65536])).is_ok() {}
        let _ = sender.lock().unwrap().send(());
    });
    // It pours on, and so never comes to read its close frame.
    let times = "defaults.timeouts = { stall = \"300ms\", close = \"300ms\" }";
    let gateway = Running::start(&one_route(&backend.url(), times));
    let mut client = Raw::upgraded(gateway.address(), "/");
    let verdict = gateway.verdict();
    assert_eq!((verdict.reason, verdict.first), (EndReason::ClientStalled, Some(Side::Downstream)));
    assert!(verdict.legs.downstream.cut);
    assert_eq!(verdict.legs.upstream.code_sent, Some(1001));
    assert!(client.end().1, "a reset");
    soon(&blocked);
    joined("nothing is left of it", thread::spawn(move || gateway.drained()));
}

#[test]
fn a_backend_that_does_not_read_is_stalled() {
    let (backend, connections) = Backend::handed();
    let times = "defaults.timeouts = { stall = \"300ms\", close = \"300ms\" }";
    let gateway = Running::start(&one_route(&backend.url(), times));
    let mut client = gateway.connect("/");
    let mut server = soon(&connections);
    client.get_ref().set_nonblocking(true).unwrap();
    eventually("the client is told", || {
        // Write errors say that there is no room, or that the gateway has ended.
        let _ = client.send(Message::binary(vec![0; 65536]));
        match client.read() {
            Ok(Message::Close(Some(frame))) => {
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1013, "upstream too slow"));
                true
            }
            Ok(_) => false,
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("no close frame: {error}"),
        }
    });
    assert_eq!(gateway.verdict().reason, EndReason::UpstreamStalled);
    assert!(server.end().1, "a reset");
}

#[test]
fn a_close_frame_that_nobody_answers_is_waited_for_only_so_long() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), "defaults.timeouts.close = \"300ms\""));
    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(&connections);
    client.send(&frame(0x88, true, b"\x03\xe8"));
    assert_eq!(server.close_frame(), (1000, String::new()));
    // Its own code is echoed to the client, and the backend is left.
    assert_eq!(client.close_frame().0, 1000);
    assert_eq!(client.end(), (0, false));
    assert_eq!(server.end(), (0, false));
    let verdict = gateway.verdict();
    assert_eq!(verdict.reason, EndReason::ClientClosed);
    assert_eq!(verdict.legs.upstream.code_received, None);
}

#[test]
fn a_flood_does_not_hold_up_the_end() {
    let backend = Backend::websocket(|mut peer| while peer.send(Message::binary(vec![0; 65536])).is_ok() {});
    let times = "defaults.timeouts = { max_age = \"300ms\", close = \"300ms\" }";
    let gateway = Running::start(&one_route(&backend.url(), times));
    let mut client = gateway.connect("/");
    assert_eq!(closed_with(&mut client).unwrap().0, 1012);
    let verdict = gateway.verdict();
    assert_eq!(verdict.reason, EndReason::MaxAge);
    joined("nothing is left of it", thread::spawn(move || gateway.drained()));
}

#[test]
fn a_bug_in_one_session_ends_that_one_alone() {
    let (backend, _ends) = Backend::reader();
    let extra =
        "gateway.workers = 1\ndefaults = { heartbeat.client.ping_interval = \"100ms\", timeouts.close = \"300ms\" }";
    let gateway = Running::start_with(&one_route(&backend.url(), extra), |beat| {
        assert_ne!(beat.session, "unlucky", "what a bug would do");
    });
    let mut unlucky = Raw::connect(gateway.address());
    unlucky.send(super::harness::request("/", "X-Request-Id: unlucky\r\n").as_bytes());
    unlucky.head();
    let mut lucky = gateway.connect("/");
    let verdict = gateway.verdict();
    assert_eq!((&*verdict.id, verdict.reason), ("unlucky", EndReason::Internal));
    assert_eq!(verdict.legs.downstream.code_sent, Some(1011));
    assert_eq!(verdict.legs.upstream.code_sent, Some(1011));
    lucky.close(None).unwrap();
    assert!(closed_with(&mut lucky).is_some());
    assert_eq!(gateway.verdict().reason, EndReason::ClientClosed);
    assert_eq!(gateway.drained().failed_workers, 0);
}
