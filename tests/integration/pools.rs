//! Which backend of a pool a client goes to.
use super::harness::{Backend, Raw, Running, request};

/// The head of the answer to a handshake, and its connection.
fn asked(gateway: &Running, more: &str) -> (String, Raw) {
    let mut raw = Raw::connect(gateway.address());
    raw.send(request("/", more).as_bytes());
    (raw.head(), raw)
}

fn pool(servers: &str, more: &str) -> String {
    format!("[[route]]\nname = \"all\"\nupstream = \"pool\"\n[upstream.pool]\nservers = [{servers}]\n{more}\n")
}

fn backend_of(gateway: &Running) -> String {
    gateway.verdict().backend
}

#[test]
fn a_client_comes_back_to_its_backend_by_its_cookie() {
    let (one, _ends) = Backend::reader();
    let (two, _others) = Backend::reader();
    let servers = format!("\"{}\", \"{}\"", one.url(), two.url());
    let gateway = Running::start(&pool(&servers, "sticky = { cookie = \"gate\" }"));
    let (head, connection) = asked(&gateway, "");
    let line = head.lines().find(|line| line.to_lowercase().starts_with("set-cookie: ")).unwrap();
    assert!(line.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{line}");
    let cookie = line["set-cookie: ".len()..].split(';').next().unwrap();
    drop(connection);
    let home = backend_of(&gateway);
    for _ in 0..4 {
        let (head, connection) = asked(&gateway, &format!("Cookie: a=b; {cookie}\r\n"));
        assert!(head.starts_with("HTTP/1.1 101") && !head.to_lowercase().contains("set-cookie"), "{head}");
        drop(connection);
        assert_eq!(backend_of(&gateway), home);
    }
}

#[test]
fn what_no_backend_has_room_for_gets_503() {
    let (backend, _ends) = Backend::reader();
    let servers = format!("{{ url = \"{}\", max_sessions = 1 }}", backend.url());
    let gateway = Running::start(&pool(&servers, ""));
    let (first, _open) = asked(&gateway, "");
    assert!(first.starts_with("HTTP/1.1 101"), "{first}");
    let (head, _) = asked(&gateway, "");
    assert!(head.starts_with("HTTP/1.1 503") && head.to_lowercase().contains("\r\nretry-after: "), "{head}");
}

#[test]
fn a_parameter_leads_to_one_backend() {
    let backends: Vec<_> = (0..3).map(|_| Backend::reader()).collect();
    let servers: Vec<String> = backends.iter().map(|(backend, _)| format!("\"{}\"", backend.url())).collect();
    let gateway = Running::start(&pool(&servers.join(", "), "balance = \"hash\"\nhash = \"query:room\""));
    let mut homes = Vec::new();
    for room in 0..16 {
        let mut seen = (0..3).map(|visit| {
            drop(gateway.connect(&format!("/?visit={visit}&room={room}")));
            backend_of(&gateway)
        });
        let home = seen.next().unwrap();
        assert!(seen.all(|backend| backend == home), "room {room}");
        homes.push(home);
    }
    homes.sort();
    homes.dedup();
    assert!(homes.len() > 1, "all rooms on {homes:?}");
}
