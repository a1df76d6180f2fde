//! New connections spread over the workers, however the kernel's hash falls.
use super::harness::{Client, PATIENCE, Running, closed_with, eventually, joined, one_route, patient};
use pulsegate::gateway::Ended;
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc::channel,
    thread,
};
use tungstenite::Message;

fn echo(workers: usize, drain: &str) -> String {
    one_route("builtin:echo", &format!("gateway = {{ workers = {workers}, drain = {{ {drain} }} }}"))
}

/// A gateway's client from a source of our choice.
fn connect_from(source: SocketAddr, gateway: &Running) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())?;
    socket.connect(&gateway.address().into())?;
    Ok(patient(socket.into()))
}

fn shake(gateway: &Running, stream: TcpStream) -> tungstenite::Result<Client> {
    match tungstenite::client(gateway.url("/"), stream) {
        Ok((client, _)) => Ok(client),
        Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
        Err(tungstenite::HandshakeError::Interrupted(_)) => panic!("no answer within {PATIENCE:?}"),
    }
}

/// Sources whose connections the kernel's hash brings to the same worker. It always answers the same for the same source, so
/// each is tried alone: what a lone connection is, no worker hands over.
fn unlucky(gateway: &Running, network: u8, count: usize) -> Vec<SocketAddr> {
    let mut by_worker = vec![Vec::new(); gateway.sessions().len()];
    loop {
        // Nobody else connects from there, so the ports stay free.
        let any = SocketAddr::from(([127, 0, network, 1], 0));
        let stream = connect_from(any, gateway).unwrap();
        let source = stream.local_addr().unwrap();
        let client = shake(gateway, stream).unwrap();
        eventually("a session", || gateway.sessions().iter().sum::<usize>() == 1);
        let worker = gateway.sessions().iter().position(|sessions| *sessions == 1).unwrap();
        super::harness::reset(client.get_ref());
        drop(client);
        eventually("its end", || gateway.loads().iter().all(|load| load.sessions + load.handshakes == 0));
        // A port that has become free can be given again.
        if !by_worker[worker].contains(&source) {
            by_worker[worker].push(source);
        }
        if by_worker[worker].len() == count {
            return by_worker.swap_remove(worker);
        }
    }
}

fn exchange<Stream: io::Read + io::Write>(client: &mut tungstenite::WebSocket<Stream>, text: &str) {
    client.send(Message::text(text)).unwrap();
    assert_eq!(client.read().unwrap(), Message::text(text));
}

#[test]
fn an_unlucky_hash_overloads_no_worker() {
    for (network, workers) in [(102, 2), (104, 4)] {
        let gateway = Running::start(&echo(workers, "spread = \"100ms\""));
        let sources = unlucky(&gateway, network, 40);
        let mut clients: Vec<_> =
            sources.iter().map(|source| shake(&gateway, connect_from(*source, &gateway).unwrap()).unwrap()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            exchange(client, &format!("message {number}"));
        }
        eventually("all sessions", || gateway.sessions().iter().sum::<usize>() == 40);
        // A handshake that becomes a session counts twice for a moment: one more may be kept.
        let most = 40 * 12 / 10 / workers + 4 + 1;
        let sessions = gateway.sessions();
        assert!(sessions.iter().all(|sessions| *sessions <= most), "{sessions:?}, at most {most}");
        let closing: Vec<_> =
            clients.into_iter().map(|mut client| thread::spawn(move || closed_with(&mut client))).collect();
        assert_eq!(gateway.drained(), Ended { told: 40, cut: 0, failed_workers: 0 });
        for client in closing {
            assert_eq!(joined("a close frame", client).unwrap().0, 1001);
        }
    }
}

#[test]
fn a_drain_loses_no_connection_on_its_way_between_workers() {
    let gateway = Running::start(&echo(3, "spread = \"0s\""));
    let sources = unlucky(&gateway, 103, 48);
    let control = gateway.control();
    let (opened, opens) = channel();
    thread::scope(|scope| {
        for sources in sources.chunks(8) {
            let (gateway, opened) = (&gateway, opened.clone());
            scope.spawn(move || {
                let mut clients = Vec::new();
                for source in sources {
                    // Once the listener is closed nobody answers, and that is an answer.
                    let outcome = connect_from(*source, gateway).map_err(tungstenite::Error::Io);
                    match outcome.and_then(|stream| shake(gateway, stream)) {
                        Ok(client) => clients.push(client),
                        Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 503),
                        Err(tungstenite::Error::Io(error)) => {
                            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "accepted, and never answered");
                        }
                        Err(error) => panic!("{error}"),
                    }
                    opened.send(()).unwrap();
                }
                for client in &mut clients {
                    assert_eq!(closed_with(client).unwrap().0, 1001);
                }
            });
        }
        // In the middle of it.
        for _ in 0..20 {
            opens.recv_timeout(PATIENCE).unwrap();
        }
        control.drain();
    });
    let ended = gateway.drained();
    assert_eq!((ended.cut, ended.failed_workers), (0, 0));
}

#[test]
fn a_unix_socket_is_dealt_out_to_all_workers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let listener = format!("[[listener]]\naddress = \"unix:{}\"\n", path.display());
    let gateway = Running::start(&(echo(3, "spread = \"0s\"") + &listener));
    let mut clients: Vec<_> = (0..60)
        .map(|number| {
            let stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (mut client, _) = tungstenite::client("ws://gateway.test/", stream).unwrap();
            exchange(&mut client, &format!("message {number}"));
            client
        })
        .collect();
    eventually("all sessions", || gateway.sessions().iter().sum::<usize>() == 60);
    let sessions = gateway.sessions();
    assert!(sessions.iter().all(|sessions| (16..=24).contains(sessions)), "{sessions:?}");
    gateway.control().drain();
    for client in &mut clients {
        assert_eq!(closed_with(client).unwrap().0, 1001);
    }
    assert_eq!(gateway.drained(), Ended { told: 60, cut: 0, failed_workers: 0 });
}
