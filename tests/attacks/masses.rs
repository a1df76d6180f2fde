//! Attacks by number: connections that say nothing, and more of them than there are descriptors.
use super::siege::{Attack, Front, Plan, Siege, is_ended, reach};
use std::{io::Read, net::TcpStream, thread, time::Duration};

/// Holds so many connections that say nothing; each that is ended is counted and replaced.
fn loiter(front: &Front, count: usize) {
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
    // Nobody leaves: it is the gateway that must end them.
    for mut stream in held {
        if stream.read_to_end(&mut Vec::new()).is_ok() {
            front.repelled();
        }
    }
}

#[test]
fn thousands_of_connections_that_say_nothing_are_ended() {
    let siege = Siege::begin(&Plan::default());
    let attack = Attack { threads: 4, wage: &|front, _| loiter(front, 500), memory: 64 << 20 };
    assert!(siege.survives("silent connections", &attack) >= 3 * 2000);
}

#[test]
fn more_connections_than_descriptors_end_no_session() {
    let siege = Siege::begin(&Plan { descriptors: Some(120), ..Plan::default() });
    let attack = Attack { threads: 2, wage: &|front, _| loiter(front, 200), memory: 32 << 20 };
    siege.survives("descriptor exhaustion", &attack);
}
