//! Attacks by number: connections that say nothing, and more of them than there are descriptors.
use super::harness::Raw;
use super::siege::{ATTACK, Attack, Front, Plan, Siege, is_ended, reach};
use std::{
    io::Read,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Holds so many connections that say nothing; each that is ended is counted and replaced.
fn loiter(front: &Front, count: usize) -> Vec<TcpStream> {
    let mut held: Vec<TcpStream> = Vec::new();
    while front.on() {
        while held.len() < count && front.on() {
            let Some(stream) = reach(front.plain) else { break };
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
    for mut stream in loiter(front, count) {
        if stream.read_to_end(&mut Vec::new()).is_ok() {
            front.repelled();
        }
    }
}

#[test]
fn newcomers_get_past_thousands_that_say_nothing() {
    let siege = Siege::begin(&Plan { handshake: "10s", ..Plan::default() });
    let attack = Attack {
        threads: 5,
        wage: &|front, number| {
            if number < 4 {
                let mut held = loiter(front, 1_100);
                for stream in &mut held {
                    if is_ended(stream) {
                        front.repelled();
                    }
                }
                return;
            }
            while front.on() {
                let begun = Instant::now();
                drop(Raw::upgraded(front.plain, "/calm"));
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
                thread::sleep(Duration::from_millis(10));
            }
        },
        memory: 64 << 20,
        lasts: Duration::from_secs(3),
    };
    assert!(siege.survives("newcomers among silent ones", &attack) > 0);
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
