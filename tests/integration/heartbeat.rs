//! Pings of our own on both legs, seen by the observer and by the peers.
use super::harness::{Backend, Running, closed_with, joined, one_route};
use pulsegate::{protocol::heartbeat::HeartbeatEvent, relay::Side};
use std::thread;

#[test]
fn both_legs_are_pinged_and_their_answers_measured() {
    let (backend, _ends) = Backend::reader();
    let extra = "defaults.heartbeat = { client.ping_interval = \"100ms\", upstream.ping_interval = \"100ms\" }";
    let gateway = Running::start(&one_route(&backend.url(), extra));
    let mut client = gateway.connect("/");
    let socket = client.get_ref().try_clone().unwrap();
    let reading = thread::spawn(move || closed_with(&mut client));
    let mut answered = (0, 0);
    while answered.0 < 2 || answered.1 < 2 {
        let beat = gateway.beat();
        if let HeartbeatEvent::Answered { round_trip } = beat.event {
            assert!(round_trip < super::harness::PATIENCE);
            match beat.side {
                Side::Downstream => answered.0 += 1,
                Side::Upstream => answered.1 += 1,
            }
        }
    }
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    let verdict = gateway.verdict();
    for leg in [&verdict.legs.downstream, &verdict.legs.upstream] {
        assert!(leg.pings_sent >= leg.pongs_received && leg.pongs_received >= 2);
        assert!(leg.last_round_trip.is_some());
        assert_eq!(leg.messages_received, 0, "our pings and their pongs are no messages, and cross to nobody");
    }
    joined("the client ends", reading);
}

#[test]
fn a_client_that_answers_stays_until_the_drain() {
    let extra = "gateway.drain = { spread = \"0s\" }\n\
                 defaults.heartbeat.client = { ping_interval = \"100ms\", ping_timeout = \"1s\" }";
    let gateway = Running::start(&one_route("builtin:echo", extra));
    let mut client = gateway.connect("/");
    // It answers from a thread that reads; five rounds are five deadlines met.
    let reading = thread::spawn(move || closed_with(&mut client));
    let mut rounds = 0;
    while rounds < 5 {
        let beat = gateway.beat();
        rounds += usize::from(beat.side == Side::Downstream && matches!(beat.event, HeartbeatEvent::Answered { .. }));
    }
    assert!(!reading.is_finished());
    assert_eq!(gateway.drained().cut, 0);
    assert_eq!(joined("the drain's close", reading).unwrap().0, 1001);
}
