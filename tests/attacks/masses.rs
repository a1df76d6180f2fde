//! Attacks by number: connections that say nothing, and more of them than there are descriptors.
use super::harness::{patient, request};
use super::siege::{ATTACK, Attack, Front, Plan, Siege, is_ended, reach};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};
use tungstenite::WebSocket;

/// Holds so many connections that say `first`, and nothing more; each that is ended is counted and replaced.
fn loiter(front: &Front, count: usize, first: &[u8]) -> Vec<TcpStream> {
    let mut held: Vec<TcpStream> = Vec::new();
    while front.on() {
        while held.len() < count && front.on() {
            let Some(mut stream) = reach(front.plain) else { break };
            if stream.write_all(first).is_err() {
                break;
            }
            held.push(stream);
        }
        held.retain_mut(|stream| {
            let gone = is_ended(stream);
            if gone {
                front.repelled();
            }
            !gone
        });
        thread::sleep(Duration::from_millis(50));
    }
    held
}

/// The same, and nobody leaves: it is the gateway that must end them.
fn stay(front: &Front, count: usize) {
    for mut stream in loiter(front, count, b"") {
        if stream.read_to_end(&mut Vec::new()).is_ok() {
            front.repelled();
        }
    }
}

/// Somebody who comes in from an address of their own, which has time for its request: the silent ones are all from another.
fn newcomer(gateway: SocketAddr) -> WebSocket<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
    socket.connect(&gateway.into()).unwrap();
    thread::sleep(Duration::from_millis(100));
    let (session, _) = tungstenite::client(format!("ws://{gateway}/calm"), patient(socket.into())).unwrap();
    session
}

#[test]
fn newcomers_get_past_thousands_that_say_nothing() {
    let siege = Siege::begin(&Plan { handshake: "10s", ..Plan::default() });
    let attack = Attack {
        threads: 4,
        wage: &|front, number| {
            // Half of them are refused, and stay.
            let refused = request("/nowhere", "");
            let mut held = loiter(front, 1_100, if number < 2 { refused.as_bytes() } else { b"" });
            for stream in &mut held {
                if is_ended(stream) {
                    front.repelled();
                }
            }
        },
        memory: 64 << 20,
        lasts: Duration::from_secs(3),
    };
    let newcomers = |front: &Front| {
        while front.on() {
            let begun = Instant::now();
            drop(newcomer(front.plain));
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
    };
    assert!(siege.survives_beside("newcomers among silent ones", &attack, newcomers) > 0);
}

#[test]
fn thousands_of_connections_that_say_nothing_are_ended() {
    let siege = Siege::begin(&Plan::default());
    let attack = Attack { threads: 4, wage: &|front, _| stay(front, 500), memory: 64 << 20, lasts: ATTACK };
    assert!(siege.survives("silent connections", &attack) > 1000);
}

#[test]
fn more_connections_than_descriptors_end_no_session() {
    let siege = Siege::begin(&Plan { descriptors: Some(120), ..Plan::default() });
    let attack = Attack { threads: 2, wage: &|front, _| stay(front, 200), memory: 32 << 20, lasts: ATTACK };
    siege.survives("descriptor exhaustion", &attack);
}
