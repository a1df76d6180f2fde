//! Clients that are late, leave, or ask in vain.

use super::*;

#[test]
fn a_client_that_says_nothing_meets_the_deadline_for_heads() {
    local(async {
        let gone = SocketAddr::from(([127, 0, 0, 1], 9));
        let (client, served) = gate(gone, |route| route.options.handshake = Duration::from_millis(50)).connect(1024);
        // It is given two seconds more to close.
        let served = timeout(Duration::from_secs(5), served).await.expect("its slot is given back");
        assert!(served.unwrap().is_none());
        drop(client);
    });
}

#[test]
fn a_slow_head_meets_its_deadline() {
    local(async {
        let gone = SocketAddr::from(([127, 0, 0, 1], 9));
        let gate = gate(gone, |route| route.options.handshake = Duration::from_millis(50));
        let (mut client, served) = gate.connect(64 * 1024);
        client.write_all(b"GET /chat HTTP/1.1\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "");
        drop(client);
        assert!(served.await.unwrap().is_none());
    });
}

#[test]
fn a_client_that_does_not_take_its_answer_is_given_up() {
    local(async {
        let gone = SocketAddr::from(([127, 0, 0, 1], 9));
        let gate = gate(gone, |route| route.options.handshake = Duration::from_millis(50));
        let (mut client, served) = gate.connect(64);
        client.write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.unwrap();
        assert!(served.await.unwrap().is_none());
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 64);
    });
}

#[test]
fn asking_in_vain_comes_to_an_end() {
    local(async {
        let gone = SocketAddr::from(([127, 0, 0, 1], 9));
        let (mut client, served) = gate(gone, |_| {}).connect(64 * 1024);
        let mut answers = String::new();
        client.write_all("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n".repeat(20).as_bytes()).await.unwrap();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 426 ").count(), 16);
        drop(client);
        assert!(served.await.unwrap().is_none());
    });
}

#[test]
fn who_gives_way_before_its_request_is_counted() {
    local(async {
        let gate = gate(SocketAddr::from(([127, 0, 0, 1], 9)), |_| {});
        let edge = Rc::clone(&gate.edge);
        let greeting = spawn_local(async move { unless_shed(&edge, None, pending::<()>()).await });
        tokio::task::yield_now().await;
        gate.edge.shed();
        assert!(greeting.await.unwrap().is_none());
        let expected = crate::metrics::HandshakeMeter::default();
        expected.count(HandshakeResult::HeadTimeout);
        assert_eq!(format!("{:?}", gate.edge.meter.strangers()), format!("{expected:?}"));
    });
}

#[test]
fn a_client_that_leaves_cancels_the_dial() {
    local(async {
        let backend = Backend::new("").await;
        let gate = gate(backend.address, |_| {});
        let (mut client, served) = gate.connect(64 * 1024);
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        backend.connections.acquire().await.unwrap().forget();
        assert_eq!(gate.admission.sessions(), 1);
        drop(client);
        assert!(served.await.unwrap().is_none());
        assert_eq!(gate.admission.sessions(), 0);
        assert!(backend.read().await.ends_with(b"\r\n\r\n"), "the backend sees the end and nothing more");
    });
}

#[test]
fn a_client_lost_between_the_two_101s_is_told_to_the_backend() {
    local(async {
        let backend = Backend::new(ACCEPTED).await;
        let gate = gate(backend.address, |route| {
            Arc::make_mut(&mut route.options.relay).timeouts.close = Duration::from_millis(50)
        });
        // Its 101 does not fit, so it is gone before that was written.
        let (mut client, served) = gate.connect(16);
        client.write_all(REQUEST.as_bytes()).await.unwrap();
        client.read_exact(&mut [0; 1]).await.unwrap();
        drop(client);
        assert!(served.await.unwrap().is_none());
        let read = backend.read().await;
        let frame = read.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (header, payload) = read[frame..].split_at(6);
        assert_eq!(header[..2], [0x88, 0x80 | 24]);
        let payload: Vec<u8> = payload.iter().zip(header[2..].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(payload, b"\x03\xe9client connection lost");
        assert_eq!(gate.admission.sessions(), 0);
    });
}
