//! The one record of a session.
use super::harness::{Backend, Raw, Running, frame, one_route, request, soon};
use pulsegate::relay::{EndReason, Side};

#[test]
fn a_verdict_holds_what_an_operator_asks_for() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let mut client = Raw::connect(gateway.address());
    let lines = "X-Request-Id: call-7\r\nUser-Agent: tester/1\r\nOrigin: https://a.test\r\n";
    client.send(request("/chat?token=secret", lines).as_bytes());
    client.head();
    let mut server = soon(&connections);
    client.send(&[frame(0x81, true, b"hello"), frame(0x82, true, b"twice")].concat());
    server.receive::<22>();
    server.send(&frame(0x81, false, b"welcome"));
    client.receive::<9>();
    client.send(&frame(0x88, true, b"\x0f\xa0"));
    server.receive::<8>();
    server.send(&frame(0x88, false, b"\x0f\xa1"));
    assert_eq!(client.close_frame().0, 4001);
    let verdict = gateway.verdict();
    assert_eq!(&*verdict.id, "call-7");
    assert_eq!((verdict.route.as_str(), verdict.upstream.as_str()), ("all", "pool"));
    assert_eq!(verdict.backend, backend.url());
    assert_eq!(verdict.local_port, Some(server.0.peer_addr().unwrap().port()));
    assert_eq!(verdict.client.to_string(), "127.0.0.1");
    assert_eq!(verdict.user_agent.as_deref(), Some("tester/1"));
    assert_eq!(verdict.origin.as_deref(), Some("https://a.test"));
    assert!(!verdict.duration.is_zero());
    assert_eq!((verdict.reason, verdict.first, verdict.cause), (EndReason::ClientClosed, Some(Side::Downstream), None));
    let (down, up) = (verdict.legs.downstream, verdict.legs.upstream);
    assert_eq!((down.code_received, down.code_sent), (Some(4000), Some(4001)));
    assert_eq!((up.code_received, up.code_sent), (Some(4001), Some(4000)));
    assert!(!down.cut && !up.cut);
    assert_eq!((down.messages_received, down.bytes_received), (2, 30));
    assert_eq!((up.messages_received, up.bytes_received), (1, 13));
    assert!(down.silence < verdict.duration && up.silence < verdict.duration);
}
