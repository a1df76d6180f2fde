//! Unix sockets on either side.
use super::harness::{PATIENCE, Running, closed_with, content, one_route};
use pulsegate::{relay::EndReason, session::ClientAddress};
use std::{
    os::unix::net::{UnixListener, UnixStream},
    thread,
};
use tungstenite::Message;

#[test]
fn a_session_runs_between_two_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let (gate, backend) = (folder.path().join("gate.sock"), folder.path().join("backend.sock"));
    let listener = UnixListener::bind(&backend).unwrap();
    let serving = thread::spawn(move || {
        let mut peer = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let message = peer.read().unwrap();
        peer.send(message).unwrap();
        closed_with(&mut peer)
    });
    let listener = format!("[[listener]]\naddress = \"unix:{}\"\n", gate.display());
    let gateway = Running::start(&(one_route(&format!("unix:{}", backend.display()), "") + &listener));
    let stream = UnixStream::connect(&gate).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut client, _) = tungstenite::client("ws://gateway.test/", stream).unwrap();
    let message = Message::binary(content(3, 1_000_000));
    client.send(message.clone()).unwrap();
    assert!(client.read().unwrap() == message);
    drop(client);
    assert_eq!(serving.join().unwrap(), Some((1001, "client connection lost".into())));
    let verdict = gateway.verdict();
    assert_eq!(verdict.reason, EndReason::ClientGone);
    assert_eq!((verdict.client, verdict.local_port), (ClientAddress::Unix, None));
    assert_eq!(verdict.backend, format!("unix:{}", backend.display()));
}
