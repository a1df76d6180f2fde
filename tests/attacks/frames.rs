//! Attacks within a session: frames without end, and peers that do not read.
use super::{
    harness::{Backend, frame},
    siege::{ATTACK, Attack, Front, Plan, Siege, enter, is_ended, step_back},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;

/// A backend that reads, and says nothing.
fn sink() -> Backend {
    Backend::raw(|stream| {
        let Ok(peer) = tungstenite::accept(stream.try_clone().unwrap()) else { return };
        drop(peer);
        step_back();
        let mut room = vec![0; 1 << 18];
        let mut stream = stream;
        while stream.read(&mut room).is_ok_and(|length| length > 0) {}
    })
}

/// A backend that never reads, and keeps its connection.
fn idler() -> Backend {
    Backend::raw(|stream| {
        let Ok(peer) = tungstenite::accept(stream) else { return };
        thread::sleep(Duration::from_secs(8));
        drop(peer);
    })
}

/// Sends the same bytes for as long as the session lasts, without ever reading; a session that was ended is counted and replaced.
fn pour(front: &Front, begins: &[u8], bytes: &[u8]) {
    while front.on() {
        let Some(mut stream) = enter(front) else { continue };
        if stream.write_all(begins).is_err() {
            continue;
        }
        while front.on() {
            match stream.write(bytes) {
                Ok(length) if length == bytes.len() => {}
                // What is cut off is sent on, so that frames stay whole.
                Ok(length) => send_on(front, &mut stream, &bytes[length..]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    front.repelled();
                    break;
                }
            }
        }
    }
}

fn send_on(front: &Front, stream: &mut TcpStream, mut rest: &[u8]) {
    while !rest.is_empty() && front.on() {
        match stream.write(rest) {
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[test]
fn a_byte_now_and_then_inside_a_frame_is_a_stall() {
    let siege = Siege::begin(&Plan::default());
    // One MiB is announced. A byte a minute, at a hundredth of the default patience.
    let announced = [BINARY, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
    let attack = Attack {
        threads: 2,
        wage: &|front, _| {
            let mut held: Vec<TcpStream> = Vec::new();
            while front.on() {
                while held.len() < 50 {
                    let Some(mut stream) = enter(front) else { break };
                    if stream.write_all(&announced).is_ok() {
                        held.push(stream);
                    }
                }
                held.retain_mut(|stream| {
                    let gone = stream.write_all(&[0]).is_err() || is_ended(stream);
                    if gone {
                        front.repelled();
                    }
                    !gone
                });
                thread::sleep(Duration::from_millis(100));
            }
            // Nobody leaves: the gateway must end them.
            for mut stream in held {
                // Its reset is an end as well.
                let _ = stream.read_to_end(&mut Vec::new());
                front.repelled();
            }
        },
        memory: 16 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("a byte a minute", &attack) >= 100);
}

#[test]
fn endless_empty_fragments_cross_without_being_kept() {
    let backend = sink();
    let siege = Siege::begin(&Plan { server: backend.url(), ..Plan::default() });
    let fragments = frame(GOES_ON, true, b"").repeat(10_000);
    let attack = Attack {
        threads: 4,
        wage: &|front, _| pour(front, &frame(TEXT_BEGINS, true, b"x"), &fragments),
        memory: 16 << 20,
        lasts: ATTACK,
    };
    siege.survives("endless fragments", &attack);
}

#[test]
fn endless_empty_fragments_end_where_they_are_limited() {
    let backend = sink();
    let plan = Plan { server: backend.url(), route: "limits.client.fragments = 1000", ..Plan::default() };
    let siege = Siege::begin(&plan);
    let fragments = [frame(TEXT_BEGINS, true, b"x"), frame(GOES_ON, true, b"").repeat(2_000)].concat();
    let attack = Attack {
        threads: 4,
        wage: &|front, _| {
            while front.on() {
                let Some(mut stream) = enter(front) else { continue };
                let mut told = [0; 4];
                // It may be ended before all of it was sent.
                drop(stream.write_all(&fragments));
                if stream.read_exact(&mut told).is_ok() {
                    assert_eq!((told[0], &told[2..]), (0x88, &1009u16.to_be_bytes()[..]));
                    front.repelled();
                }
            }
        },
        memory: 16 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("endless fragments, limited", &attack) > 4);
}

#[test]
fn ping_floods_cross_without_being_kept() {
    let backend = sink();
    let siege = Siege::begin(&Plan { server: backend.url(), ..Plan::default() });
    let pings = frame(PING, true, &[7; 125]).repeat(500);
    let attack = Attack { threads: 4, wage: &|front, _| pour(front, b"", &pings), memory: 16 << 20, lasts: ATTACK };
    siege.survives("ping floods", &attack);
}

#[test]
fn ping_floods_by_a_client_that_does_not_read_are_answered_once() {
    let backend = sink();
    let plan = Plan { server: backend.url(), route: "pings = \"answer\"", ..Plan::default() };
    let siege = Siege::begin(&plan);
    let pings = frame(PING, true, &[7; 125]).repeat(500);
    let attack = Attack { threads: 4, wage: &|front, _| pour(front, b"", &pings), memory: 16 << 20, lasts: ATTACK };
    siege.survives("ping floods, answered", &attack);
}

#[test]
fn floods_over_a_rate_are_slowed_down() {
    let backend = sink();
    // Who is gone is found by the heartbeat, since what it sent before is not read for long.
    let route = "limits.client = { messages_per_second = 100, bytes_per_second = \"64KiB\" }
        heartbeat.client = { ping_interval = \"1s\", ping_timeout = \"5s\" }";
    let siege = Siege::begin(&Plan { server: backend.url(), route, ..Plan::default() });
    let texts = frame(TEXT, true, b"x").repeat(10_000);
    let attack = Attack { threads: 4, wage: &|front, _| pour(front, b"", &texts), memory: 16 << 20, lasts: ATTACK };
    siege.survives("floods over a rate", &attack);
}

#[test]
fn who_floods_a_backend_that_does_not_read_is_held_up() {
    let backend = idler();
    let siege = Siege::begin(&Plan { server: backend.url(), ..Plan::default() });
    let binaries = frame(BINARY, true, &[7; 125]).repeat(2_000);
    let attack = Attack { threads: 8, wage: &|front, _| pour(front, b"", &binaries), memory: 16 << 20, lasts: ATTACK };
    siege.survives("a backend that does not read", &attack);
}

#[test]
fn masking_lies_end_their_session_alone() {
    let siege = Siege::begin(&Plan::default());
    let lies = [frame(TEXT, false, b"not masked"), vec![0xf1, 0x80, 0, 0, 0, 0], vec![0x83, 0x80, 0, 0, 0, 0]];
    let attack = Attack {
        threads: 4,
        wage: &|front, number| {
            for lie in lies.iter().cycle().skip(number) {
                if !front.on() {
                    return;
                }
                let Some(mut stream) = enter(front) else { continue };
                if stream.write_all(lie).is_err() {
                    continue;
                }
                let mut told = [0; 4];
                if stream.read_exact(&mut told).is_ok() {
                    assert_eq!((told[0], &told[2..]), (0x88, &1002u16.to_be_bytes()[..]));
                    front.repelled();
                }
            }
        },
        memory: 16 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("masking lies", &attack) > 20);
}
