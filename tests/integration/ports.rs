//! Local ports towards one backend address: how many sessions they carry, and what is told when they are used up.
use super::{
    harness::{Backend, PATIENCE, eventually, one_route, request},
    namespace::{inside, local_ports},
    program::Program,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::net::UnixStream,
    path::Path,
    thread,
};

/// Ports of the namespace.
const PORTS: usize = 20;

/// A session over the gateway's Unix socket, so that clients take no ports; or the status of its refusal.
fn session(socket: &Path) -> Result<UnixStream, String> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request("/", "").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let status = String::from_utf8_lossy(&head)[9..12].to_owned();
    if status == "101" { Ok(stream) } else { Err(status) }
}

/// A gateway to one backend address, and how many sessions there were before one was refused.
fn filled(extra: &str) -> (Program, usize, String, Vec<UnixStream>) {
    let route = one_route("ws://127.0.0.1:9000", "log.sessions = \"off\"");
    let program = Program::start(&format!("{route}{extra}\n[[listener]]\naddress = \"unix:gate.sock\"\n"), &[]);
    let socket = program.folder().join("gate.sock");
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
    let mut sessions = Vec::new();
    loop {
        match session(&socket) {
            Ok(session) => sessions.push(session),
            Err(status) => return (program, sessions.len(), status, sessions),
        }
        assert!(sessions.len() < 10 * PORTS, "the ports do not end");
    }
}

#[test]
fn sources_multiply_the_sessions_to_one_address_and_used_up_ports_are_told_with_a_remedy() {
    if !inside("ports::sources_multiply_the_sessions_to_one_address_and_used_up_ports_are_told_with_a_remedy") {
        return;
    }
    local_ports(40_000, 40_000 + u16::try_from(PORTS).unwrap() - 1);
    let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(tungstenite::accept(stream.unwrap()));
        }
    });

    let (mut program, count, status, sessions) = filled("");
    assert_eq!((count, &*status), (PORTS, "502"));
    let told = program.logged("this machine cannot dial");
    assert!(told.contains("ws://127.0.0.1:9000") && told.contains("`source`"), "{told}");
    assert!(told.contains("net.ipv4.ip_local_port_range"), "{told}");
    drop(sessions);
    drop(program);

    let (_program, count, status, _sessions) = filled("source = [\"127.0.0.2\", \"127.0.0.3\"]");
    assert_eq!((count, &*status), (2 * PORTS, "502"));
}

#[test]
fn addresses_that_this_machine_cannot_dial_do_not_keep_clients_from_the_others() {
    if !inside("ports::addresses_that_this_machine_cannot_dial_do_not_keep_clients_from_the_others") {
        return;
    }
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    let (backend, _ends) = Backend::reader();
    let servers = format!("ws://[::1]:9000\", \"{}", backend.url());
    let mut program = Program::start(
        &format!("{}\n[[listener]]\naddress = \"unix:gate.sock\"\n", one_route(&servers, "log.sessions = \"off\"")),
        &[],
    );
    let socket = program.folder().join("gate.sock");
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
    let _sessions: Vec<_> = (0..10).map(|_| session(&socket).unwrap()).collect();
    let told = program.logged("backend is down");
    assert!(told.contains("no IPv6 address of this machine") && !told.contains("local port"), "{told}");
}
