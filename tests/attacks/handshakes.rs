//! Attacks before a session: slow ones, floods, and requests that say two things.
use super::{
    harness::{Backend, Raw, request, soon},
    siege::{ATTACK, Attack, Front, Plan, Siege, enter, is_ended, reach},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Mutex, mpsc::channel},
    thread,
    time::Duration,
};

/// Connections of each attacker that trickles.
const EACH: usize = 100;

/// Holds connections that send `bytes` one by one and never the last; each that is ended is counted and replaced.
fn trickle(front: &Front, address: SocketAddr, bytes: &[u8]) {
    let mut held: Vec<(TcpStream, usize)> = Vec::new();
    while front.on() {
        while held.len() < EACH {
            let Some(stream) = reach(address) else { break };
            held.push((stream, 0));
        }
        held.retain_mut(|(stream, at)| {
            let byte = bytes[*at % (bytes.len() - 1)];
            *at += 1;
            let gone = stream.write_all(&[byte]).is_err() || is_ended(stream);
            if gone {
                front.repelled();
            }
            !gone
        });
        thread::sleep(Duration::from_millis(50));
    }
    // Who is not ended yet is waited for: it is the gateway that must end them.
    for (mut stream, _) in held {
        if stream.read_to_end(&mut Vec::new()).is_ok_and(|length| length < 4096) {
            front.repelled();
        }
    }
}

#[test]
fn slow_heads_are_ended_by_their_deadline() {
    let siege = Siege::begin(&Plan::default());
    let head = "GET /attack HTTP/1.1\r\nHost: gateway.test\r\nX-Slow: ".to_owned() + &"a".repeat(4000);
    let attack = Attack {
        threads: 3,
        wage: &|front, _| trickle(front, front.plain, head.as_bytes()),
        memory: 32 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("slow heads", &attack) >= 3 * EACH as u64);
}

#[test]
fn slow_tls_handshakes_are_ended_by_their_deadline() {
    let siege = Siege::begin(&Plan::default());
    // A record of 512 bytes with a ClientHello of 508 (RFC 8446 section 4), of which no end comes.
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 600]].concat();
    let attack = Attack {
        threads: 3,
        wage: &|front, _| trickle(front, front.secure, &hello[..400]),
        memory: 48 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("slow TLS", &attack) >= 3 * EACH as u64);
}

/// Sends requests one after the other, and counts those that are refused with one of these.
fn refused(front: &Front, request: &[u8], statuses: &[&str]) {
    while front.on() {
        let Some(mut stream) = reach(front.plain) else { continue };
        // It may be refused before all of it was sent.
        let _ = stream.write_all(request);
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(statuses.iter().any(|status| answer == format!("HTTP/1.1 {status}")), "{answer}");
            front.repelled();
        }
    }
}

#[test]
fn floods_of_headers_are_refused() {
    let siege = Siege::begin(&Plan::default());
    let many = request("/attack", &"X-Many: yes\r\n".repeat(2_000));
    let long = request("/attack", &format!("X-Long: {}\r\n", "a".repeat(1 << 20)));
    let attack = Attack {
        threads: 4,
        wage: &|front, number| refused(front, [&many, &long][number % 2].as_bytes(), &["431"]),
        memory: 32 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("header floods", &attack) > 10);
}

/// Requests that one reader takes for one, and another for two.
const AMBIGUOUS: &[&str] = &[
    "Content-Length: 40\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 0\r\nContent-Length: 40\r\n",
    "Content-Length: +40\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
];

#[test]
fn requests_cannot_be_smuggled() {
    let (heads, seen) = channel();
    let heads = Mutex::new(heads);
    let backend = Backend::raw(move |mut stream| {
        let mut head = vec![0; 65536];
        let mut length = 0;
        while let Ok(more @ 1..) = stream.read(&mut head[length..]) {
            length += more;
            // The test may be over.
            let _ = heads.lock().unwrap().send(head[..length].to_vec());
        }
    });
    let siege = Siege::begin(&Plan { server: backend.url(), ..Plan::default() });
    let second = request("/attack/smuggled", "");
    let attack = Attack {
        threads: 4,
        wage: &|front, number| {
            for more in AMBIGUOUS.iter().cycle().skip(number) {
                if !front.on() {
                    return;
                }
                let Some(mut stream) = reach(front.plain) else { continue };
                let sent = [request("/attack", more).as_bytes(), second.as_bytes()].concat();
                let mut answer = [0; 12];
                if stream.write_all(&sent).is_err() || stream.read_exact(&mut answer).is_err() {
                    // It was ended without an answer, at the latest by the deadline: nothing was smuggled.
                    continue;
                }
                assert!(answer.starts_with(b"HTTP/1.1 4"), "{more:?}: {}", String::from_utf8_lossy(&answer));
                front.repelled();
            }
        },
        memory: 16 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("request smuggling", &attack) > 10);
    assert!(seen.try_iter().next().is_none(), "a backend was asked");
    // A whole request may be followed by bytes; they are frames, whatever they look like.
    let mut client = Raw::connect(siege.address());
    client.send((request("/attack", "") + &second).as_bytes());
    let head = String::from_utf8(soon(&seen)).unwrap();
    assert!(head.starts_with("GET /attack HTTP/1.1\r\n") && !head.contains("smuggled"), "{head}");
}

#[test]
fn close_storms_leave_nothing_behind() {
    let siege = Siege::begin(&Plan::default());
    let attack = Attack {
        threads: 4,
        wage: &|front, number| {
            while front.on() {
                // All at once: a close frame, a reset, an end, or nothing but its absence.
                let storm: Vec<TcpStream> = (0..25).map_while(|_| enter(front)).collect();
                for (index, mut stream) in storm.into_iter().enumerate() {
                    match (index + number) % 3 {
                        0 => drop(stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])),
                        1 => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
                        _ => {}
                    }
                    front.repelled();
                }
            }
        },
        memory: 32 << 20,
        lasts: ATTACK,
    };
    assert!(siege.survives("close storms", &attack) > 100);
}
