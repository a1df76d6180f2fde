//! What `docs/migrating.md` puts beside other programs' configurations: each is taken, serves, and accounts for every directive.
use super::{
    documents::{blocks, certificate, file, parsed},
    harness::{Raw, frame, free_address, request, tcp},
};
use pulsegate::{
    access::AccessConfig,
    config::Config,
    gateway::Gateway,
    listener::{ListenAddress, proxy_protocol::ProxyProtocol},
    route::{HostPattern, RouteConfig},
    upstream::BackendAddress,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    sync::Arc,
};

const GUIDE: &str = "docs/migrating.md";

/// Finds the directives of a snippet.
type Directives = fn(&str) -> BTreeSet<String>;

/// The programs with a section of their own: its name, the language of its snippets, and what their directives are.
const PROGRAMS: [(&str, &str, Directives); 4] = [
    ("nginx", "nginx", nginx_directives),
    ("HAProxy", "haproxy", haproxy_directives),
    ("Traefik", "yaml", yaml_keys),
    ("Caddy", "caddyfile", caddy_directives),
];

fn section(title: &str) -> String {
    let guide = file(GUIDE);
    let (_, rest) = guide.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The rows of a program's table.
fn rows(program: &str) -> Vec<Vec<String>> {
    let section = section(&format!("From {program}"));
    let (_, table) = section.split_once(&format!("\n| {program} |")).unwrap_or_else(|| panic!("no table of {program}"));
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What is in backquotes.
fn codes(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn every_directive_is_accounted_for() {
    for (program, language, directives) in PROGRAMS {
        let rows = rows(program);
        let mut accounted = BTreeSet::new();
        for row in &rows {
            assert_eq!(row.len(), 3, "{program}: {row:?}");
            assert!(["same", "better", "not here"].contains(&row[2].as_str()), "{program}: {row:?}");
            assert!(!row[1].is_empty(), "{program}: {row:?}");
            accounted.extend(codes(&row[0]));
        }
        let section = section(&format!("From {program}"));
        let (theirs, ours) = (blocks(&section, language), blocks(&section, "toml"));
        assert!(!theirs.is_empty() && theirs.len() == ours.len(), "{program}: each snippet has its replacement");
        for snippet in theirs {
            let found = directives(&snippet);
            assert!(found.len() > 5, "{program}: {found:?}");
            let missing: Vec<&String> = found.iter().filter(|one| !accounted.contains(*one)).collect();
            assert!(missing.is_empty(), "{program}: not in its table: {missing:?}\n{snippet}");
        }
    }
}

#[test]
fn each_replacement_serves_on_each_of_its_routes() {
    let auth = auth_service();
    let found = blocks(&file(GUIDE), "toml");
    assert!(found.len() >= 10, "{}", found.len());
    for toml in found {
        let config = at_home(parsed(GUIDE, &toml), auth);
        let routes = config.routes.clone();
        let proxied = config.listeners[0].proxy_protocol == ProxyProtocol::Require;
        let gateway = Gateway::start(config).unwrap();
        let address = tcp(&gateway.addresses().next().unwrap());
        for route in &routes {
            let mut client = Raw::connect(address);
            if proxied {
                client.send(b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 443\r\n");
            }
            client.send(handshake(route).as_bytes());
            let head = client.head();
            assert!(head.starts_with("HTTP/1.1 101 "), "{}: {head}\n{toml}", route.name);
            client.send(&frame(0x81, true, b"hi"));
            assert_eq!(client.receive::<4>(), *b"\x81\x02hi", "{}", route.name);
        }
    }
}

/// The same on loopback: without TLS, with backends that echo, and with a service that lets everyone in.
fn at_home(mut config: Config, auth: SocketAddr) -> Config {
    config.gateway.workers = 1;
    config.gateway.max_sessions = None;
    config.gateway.trusted_proxies.push("127.0.0.1/32".parse().unwrap());
    config.listeners.truncate(1);
    config.listeners[0].address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
    config.listeners[0].tls = None;
    for upstream in &mut config.upstreams {
        (upstream.ca, upstream.check) = (None, None);
        upstream.servers.truncate(1);
        upstream.servers[0].address = BackendAddress::Echo;
    }
    for route in &mut config.routes {
        let relay = Arc::make_mut(&mut route.options.relay);
        relay.heartbeat.downstream.ping_interval = None;
        relay.heartbeat.upstream.ping_interval = None;
        let access: &mut AccessConfig = Arc::make_mut(&mut route.options.access);
        if let Some(forward) = &mut access.forward {
            forward.service.authority = auth.to_string().parse().unwrap();
        }
    }
    config
}

/// What a client of this route sends, `ann` with the password `secret` where one is asked for.
fn handshake(route: &RouteConfig) -> String {
    let mut more = "X-Forwarded-For: 10.1.2.3\r\nCF-Connecting-IP: 10.1.2.3\r\n".to_owned();
    if let Some(origins) = &route.origins {
        more += &format!("Origin: {}\r\n", origins[0]);
    }
    if route.options.access.basic.is_some() {
        more += "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    }
    let path = format!("{}/x?room=1", route.path.trim_end_matches('/'));
    match &route.host {
        HostPattern::Exact(host) => request(&path, &more).replace("gateway.test", host),
        HostPattern::Any | HostPattern::Wildcard(_) => request(&path, &more),
    }
}

/// Answers 200 to whatever is asked.
fn auth_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address
}

/// First words of statements, parameters up to their `=`, and the header of each `proxy_set_header`.
fn nginx_directives(snippet: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = snippet;
    while let Some(end) = rest.find([';', '{', '}']) {
        let words: Vec<&str> = rest[..end].split_whitespace().collect();
        let opens = rest[end..].starts_with('{');
        rest = &rest[end + 1..];
        let Some(name) = words.first() else { continue };
        found.insert(if *name == "proxy_set_header" { format!("{name} {}", words[1]) } else { (*name).to_owned() });
        let parameter = |word: &&str| word.split_once('=').is_some_and(|(key, _)| is_word(key));
        found.extend(
            words.iter().filter(|word| parameter(word)).map(|word| format!("{}=", word.split_once('=').unwrap().0)),
        );
        found.extend(
            words[1..].iter().filter(|word| ["backup", "nodelay"].contains(word)).map(|word| (*word).to_owned()),
        );
        if opens && *name == "map" {
            rest = rest.split_once('}').unwrap().1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// First words of lines (two where the first says little), and the parameters of servers and binds.
fn haproxy_directives(snippet: &str) -> BTreeSet<String> {
    const OF_TWO: [&str; 4] = ["timeout", "option", "http-request", "http-response"];
    const PARAMETERS: [&str; 13] = [
        "ssl",
        "crt",
        "alpn",
        "accept-proxy",
        "check",
        "inter",
        "fall",
        "verify",
        "ca-file",
        "weight",
        "maxconn",
        "backup",
        "cookie",
    ];
    let mut found = BTreeSet::new();
    for words in snippet.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        match words.as_slice() {
            [] => {}
            [first, second, ..] if OF_TWO.contains(first) => drop(found.insert(format!("{first} {second}"))),
            [first, rest @ ..] => {
                found.insert((*first).to_owned());
                if ["server", "bind"].contains(first) {
                    found.extend(rest.iter().filter(|word| PARAMETERS.contains(word)).map(|word| (*word).to_owned()));
                }
            }
        }
    }
    found
}

/// Every key but the names that its author chose.
fn yaml_keys(snippet: &str) -> BTreeSet<String> {
    const NAMED: [&str; 4] = ["entryPoints", "routers", "middlewares", "services"];
    let mut found = BTreeSet::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in snippet.lines().filter(|line| !line.trim().is_empty()) {
        let text = line.trim_start().trim_start_matches("- ");
        let indent = line.len() - text.len();
        let (key, _) = text.split_once(':').unwrap_or_else(|| panic!("no key in {line}"));
        above.retain(|(outer, _)| *outer < indent);
        if !above.last().is_some_and(|(_, parent)| NAMED.contains(&parent.as_str())) {
            found.insert(key.to_owned());
        }
        above.push((indent, key.to_owned()));
    }
    found
}

/// First words of lines inside of blocks, and the header of each `header_up`.
fn caddy_directives(snippet: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut blocks: Vec<&str> = Vec::new();
    for words in snippet.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        let Some(first) = words.first() else { continue };
        if *first == "}" {
            blocks.pop();
            continue;
        }
        // A site's address stands outside of all blocks; the lines of basic_auth are users.
        if !blocks.is_empty() && blocks.last() != Some(&"basic_auth") {
            found.insert(if *first == "header_up" { format!("{first} {}", words[1]) } else { (*first).to_owned() });
        }
        if words.last() == Some(&"{") {
            blocks.push(first);
        }
    }
    found
}

/// A snippet with files and ports of this machine in the place of its own.
fn localized(snippet: &str, folder: &Path) -> String {
    let (chain, key) = certificate(folder);
    let both = folder.join("both.pem");
    fs::write(&both, fs::read_to_string(&chain).unwrap() + &fs::read_to_string(&key).unwrap()).unwrap();
    let mut text = snippet.to_owned();
    for (theirs, here) in [
        ("/etc/ssl/chat/fullchain.pem", &chain),
        ("/etc/ssl/chat/privkey.pem", &key),
        ("/etc/ssl/own-ca.pem", &chain),
        ("/etc/haproxy/chat.pem", &both),
    ] {
        text = text.replace(theirs, &here.display().to_string());
    }
    let free = free_address();
    text.replace("listen 443", &format!("listen {free}")).replace("listen 8080", &format!("listen {free}"))
}

/// Has a program judge a file; where it is not installed, says so and judges nothing.
#[allow(clippy::print_stderr)]
fn judged(program: &str, arguments: &[&str], snippet: &str) {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} does not take this: {said}\n{snippet}");
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed, so nobody has checked this snippet of {GUIDE}");
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

#[test]
fn nginx_takes_what_is_said_to_be_its_own() {
    for snippet in blocks(&file(GUIDE), "nginx") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {path}/{kind};\n"))
            .concat();
        let text = localized(&snippet, folder.path());
        let text = format!(
            "pid {path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, &text).unwrap();
        let (file, prefix) = (file.display().to_string(), path.to_string());
        judged("nginx", &["-t", "-q", "-e", "stderr", "-p", &prefix, "-c", &file], &text);
    }
}

#[test]
fn haproxy_takes_what_is_said_to_be_its_own() {
    for snippet in blocks(&file(GUIDE), "haproxy") {
        let folder = tempfile::tempdir().unwrap();
        let text = localized(&snippet, folder.path()) + "\n";
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, &text).unwrap();
        judged("haproxy", &["-c", "-q", "-f", &file.display().to_string()], &text);
    }
}

#[test]
fn caddy_takes_what_is_said_to_be_its_own() {
    for snippet in blocks(&file(GUIDE), "caddyfile") {
        let folder = tempfile::tempdir().unwrap();
        let text = localized(&snippet, folder.path()) + "\n";
        let file = folder.path().join("Caddyfile");
        fs::write(&file, &text).unwrap();
        judged("caddy", &["validate", "--adapter", "caddyfile", "--config", &file.display().to_string()], &text);
    }
}
