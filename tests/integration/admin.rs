//! The admin listener: who may ask what, and what is done about it. Raw HTTP, as any client would say it.
use super::{
    harness::{Backend, Client, PATIENCE, Running, closed_with, eventually, one_route, soon},
    program::Program,
};
use pulsegate::{
    admin::{Admin, Server},
    config::AdminConfig,
    listener::ListenAddress,
    relay::EndReason,
    session::select::SessionKey,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};
use tungstenite::Message;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A gateway with an admin listener.
struct Watched {
    server: Server,
    address: SocketAddr,
    gateway: Running,
    _folder: tempfile::TempDir,
}

/// An answer: status, head, body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

impl Watched {
    /// On loopback, with a token.
    fn start(toml: &str) -> Self {
        Self::with(toml, |_| {})
    }

    fn with(toml: &str, change: impl FnOnce(&mut AdminConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
        let gateway = Running::start(toml);
        let mut config = AdminConfig {
            address: ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()),
            token_file: Some(token_file),
            hosts: vec!["ops.example".into()],
        };
        change(&mut config);
        let admin = Admin::bind(&config).unwrap();
        let address = match admin.address() {
            ListenAddress::Tcp(address) => *address,
            ListenAddress::Unix(_) => "127.0.0.1:0".parse().unwrap(),
        };
        let server = admin.serve(gateway.gateway.operator()).unwrap();
        Self { server, address, gateway, _folder: folder }
    }

    /// A request with these header lines besides `Host`, which must be among them to be there.
    fn raw(&self, method: &str, path: &str, lines: &[&str], body: &str) -> Answer {
        exchange(TcpStream::connect(self.address).unwrap(), method, path, lines, body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let host = format!("Host: {}", self.address);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, path, &[&host, &format!("Authorization: Bearer {TOKEN}")], &body)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, &Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.ask("POST", path, body);
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.body);
        answer.json()
    }

    fn sessions(&self, query: &str) -> Vec<Value> {
        self.get(&format!("/api/v1/sessions?{query}"))["sessions"].as_array().unwrap().clone()
    }

    /// Connects this many clients, each of which has heard its echo.
    fn clients(&self, path: &str, count: usize) -> Vec<Client> {
        let connect = || {
            let mut client = self.gateway.connect(path);
            client.send(Message::text("hello")).unwrap();
            // A ping may come first.
            while client.read().unwrap() != Message::text("hello") {}
            client
        };
        (0..count).map(|_| connect()).collect()
    }
}

/// A request over a connection of its own, with these header lines.
pub(crate) fn exchange(mut stream: impl Read + Write, method: &str, path: &str, lines: &[&str], body: &str) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    lines.iter().for_each(|line| request += &format!("{line}\r\n"));
    request += &format!("\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn echo() -> String {
    one_route("builtin:echo", "")
}

#[test]
fn reading_on_loopback_is_free_and_changing_needs_the_token() {
    let watched = Watched::start(&echo());
    let host = format!("Host: {}", watched.address);
    let host = host.as_str();
    for path in [
        "/api/v1/overview",
        "/api/v1/sessions",
        "/api/v1/backends",
        "/api/v1/endings",
        "/api/v1/drain",
        "/metrics",
        "/",
    ] {
        assert_eq!(watched.raw("GET", path, &[host], "").status, 200, "{path}");
    }
    let drain = "{\"backend\":\"builtin:echo\"}";
    let ask = |lines: &[&str]| watched.raw("POST", "/api/v1/backends/drain", lines, drain);
    let none = ask(&[host]);
    assert_eq!(none.status, 401);
    assert!(none.head.contains("www-authenticate: bearer"), "{}", none.head);
    assert!(none.error().contains("token_file"));
    let right = format!("Authorization: Bearer {TOKEN}");
    let wrong = format!("Authorization: Bearer {}", TOKEN.replace('0', "1"));
    let cookie = format!("Cookie: token={TOKEN}");
    let basic = format!("Authorization: Basic {TOKEN}");
    for line in [&wrong, &cookie, &basic] {
        assert_eq!(ask(&[host, line]).status, 401, "{line}");
    }
    let in_url = watched.raw("POST", &format!("/api/v1/backends/drain?token={TOKEN}"), &[host], drain);
    assert_eq!(in_url.status, 401);
    assert_eq!(watched.raw("GET", "/api/v1/sessions", &[host, &wrong], "").status, 401, "a wrong one is told");
    assert_eq!(ask(&[host, &right]).status, 200);
}

#[test]
fn without_a_token_file_nobody_changes_anything_on_tcp() {
    let watched = Watched::with(&echo(), |config| config.token_file = None);
    assert_eq!(watched.ask("GET", "/api/v1/sessions", &Value::Null).status, 200);
    let refused = watched.ask("POST", "/api/v1/drain", &Value::Null);
    assert_eq!(refused.status, 403);
    assert!(refused.error().contains("admin.token_file"));
    assert_eq!(watched.get("/api/v1/drain")["phase"], "serving");
}

#[test]
fn on_an_address_that_others_reach_everything_but_health_and_the_empty_page_needs_the_token() {
    let watched = Watched::with(&echo(), |config| config.address = ListenAddress::Tcp("0.0.0.0:0".parse().unwrap()));
    let address = SocketAddr::from(([127, 0, 0, 1], watched.address.port()));
    let host = format!("Host: {address}");
    let ask = |path: &str, lines: &[&str]| exchange(TcpStream::connect(address).unwrap(), "GET", path, lines, "");
    for path in ["/healthz", "/readyz", "/", "/dashboard.js", "/dashboard.css"] {
        assert_eq!(ask(path, &[&host]).status, 200, "{path}");
    }
    for path in ["/api/v1/overview", "/api/v1/sessions", "/api/v1/sessions/0-0", "/metrics", "/api/v1/nothing"] {
        assert_eq!(ask(path, &[&host]).status, 401, "{path}");
    }
    let right = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(ask("/api/v1/overview", &[&host, &right]).status, 200);
}

#[test]
fn foreign_hosts_and_origins_are_refused_whatever_they_ask() {
    let watched = Watched::start(&echo());
    let right = format!("Authorization: Bearer {TOKEN}");
    let own = format!("Host: {}", watched.address);
    let local = format!("Host: localhost:{}", watched.address.port());
    for path in ["/api/v1/sessions", "/healthz", "/"] {
        for host in [&own, &local, "Host: ops.example", "Host: OPS.example:8443"] {
            assert_eq!(watched.raw("GET", path, &[host], "").status, 200, "{host} {path}");
        }
        for host in ["Host: evil.example", "Host: 10.1.2.3:9464", "Host: 127.0.0.1.evil.example"] {
            let refused = watched.raw("GET", path, &[host, &right], "");
            assert_eq!(refused.status, 403, "{host} {path}");
            assert!(refused.error().contains("admin.hosts"));
        }
        assert_eq!(watched.raw("GET", path, &[&right], "").status, 400, "no host");
        for origin in ["Origin: https://evil.example", "Origin: null", "Origin: http://127.0.0.1:1"] {
            assert_eq!(watched.raw("GET", path, &[&own, &right, origin], "").status, 403, "{origin} {path}");
        }
        let same = format!("Origin: http://{}", watched.address);
        assert_eq!(watched.raw("GET", path, &[&own, &same], "").status, 200);
    }
}

#[test]
fn the_page_runs_nothing_but_its_own() {
    let watched = Watched::start(&echo());
    for (path, kind) in [("/", "text/html"), ("/dashboard.js", "text/javascript"), ("/dashboard.css", "text/css")] {
        let answer = watched.ask("GET", path, &Value::Null);
        assert!(answer.head.contains(&format!("content-type: {kind}")), "{}", answer.head);
        let policy = answer.head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(answer.head.contains("nosniff") && answer.head.contains("x-frame-options: deny"), "{}", answer.head);
        assert!(!answer.body.contains("http://") && !answer.body.contains("https://"), "{path} loads something");
    }
}

#[test]
fn sessions_are_listed_by_page_order_and_filter() {
    let routes = "defaults.heartbeat = { client.ping_interval = \"off\", upstream.ping_interval = \"off\" }\n\
        gateway.workers = 2\n\
        [[route]]\nname = \"a\"\npath = \"/a\"\nupstream = \"one\"\n[[route]]\nname = \"b\"\npath = \"/b\"\nupstream = \"two\"\n\
        [upstream.one]\nservers = [\"builtin:echo\"]\n[upstream.two]\nservers = [\"builtin:echo\"]\n";
    let watched = Watched::start(routes);
    let _a = watched.clients("/a", 7);
    let mut b = watched.clients("/b", 3);
    let all = watched.get("/api/v1/sessions?limit=4");
    assert_eq!((all["matching"].as_u64(), all["sessions"].as_array().unwrap().len()), (Some(10), 4));
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let page = watched.get(&format!("/api/v1/sessions?limit=4&sort=newest{after}"));
        keys.extend(page["sessions"].as_array().unwrap().iter().map(|one| one["key"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 10, "each once, over three pages");
    assert!(keys.iter().all(|key| key.parse::<SessionKey>().is_ok()));
    for (query, count) in [
        ("route=a", 7),
        ("route=b&upstream=two", 3),
        ("route=a&upstream=two", 0),
        ("client=127.0.0.0/8", 10),
        ("client=10.0.0.1", 0),
        ("client=unix", 0),
        ("min_age=1h", 0),
        ("max_age=1h", 10),
        ("backend=builtin:echo", 10),
        ("paused=true", 0),
        ("paused=false&min_outbox=1B", 0),
        ("min_silence=1h", 0),
        ("id=nobody", 0),
    ] {
        assert_eq!(watched.sessions(query).len(), count, "{query}");
    }
    b[0].send(Message::binary(vec![0; 5000])).unwrap();
    b[0].read().unwrap();
    let most = &watched.sessions("sort=bytes&limit=1")[0];
    assert_eq!(most["route"], "b");
    let legs = &most["legs"];
    assert!(legs["client"]["bytes_received"].as_u64() > Some(5000), "{legs}");
    assert_eq!((&legs["client"]["messages_received"], &legs["upstream"]["messages_received"]), (&json!(2), &json!(2)));
    let one = watched.get(&format!("/api/v1/sessions/{}", most["key"].as_str().unwrap()));
    assert_eq!((&one["id"], &one["client"]), (&most["id"], &json!("127.0.0.1")));
    let by_id = watched.get(&format!("/api/v1/sessions/{}", most["id"].as_str().unwrap()));
    assert_eq!(by_id["key"], most["key"]);
    for (path, status) in
        [("/api/v1/sessions?rout=a", 400), ("/api/v1/sessions/7-99", 404), ("/api/v1/sessions/nobody", 404)]
    {
        assert_eq!(watched.ask("GET", path, &Value::Null).status, status, "{path}");
    }
}

#[test]
fn live_figures_are_those_of_the_moment() {
    let toml = one_route("builtin:echo", "defaults.heartbeat.client.ping_interval = \"20ms\"");
    let watched = Watched::start(&toml);
    let mut client = watched.clients("/", 1).remove(0);
    let answering = thread::spawn(move || while client.read().is_ok() {});
    eventually("a round trip", || watched.sessions("")[0]["legs"]["client"]["round_trip_ms"].as_f64() > Some(0.0));
    let overview = || watched.ask("GET", "/api/v1/overview", &Value::Null).json();
    eventually("it is in the overview", || overview()["round_trip_ms"]["client"]["count"] == 1);
    assert_eq!(watched.sessions("min_round_trip=1h&sort=round_trip").len(), 0);
    let key = watched.sessions("")[0]["key"].as_str().unwrap().to_owned();
    watched.post(&format!("/api/v1/sessions/{key}/end"), &json!({}));
    answering.join().unwrap();
    eventually("its end is counted", || overview()["sessions"]["ended"]["terminated"] == 1);
}

#[test]
fn a_session_is_ended_with_the_code_and_the_words_given() {
    let (backend, ends) = Backend::reader();
    let watched = Watched::start(&one_route(&backend.url(), ""));
    let clients = [watched.gateway.connect("/"), watched.gateway.connect("/")];
    let readers = clients.map(|mut client| thread::spawn(move || closed_with(&mut client)));
    let key = watched.sessions("sort=oldest&limit=1")[0]["key"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/sessions/{key}/end");
    for (body, what) in [
        (json!({ "code": 1005 }), "may not stand"),
        (json!({ "code": 4000, "reason": "x".repeat(124) }), "room for 123"),
        (json!({ "cod": 4000 }), "unknown field"),
        (json!({ "code": "4000" }), "as documented"),
    ] {
        let refused = watched.ask("POST", &path, &body);
        assert_eq!(refused.status, 400);
        assert!(refused.error().contains(what), "{}", refused.body);
    }
    assert_eq!(watched.ask("GET", &path, &Value::Null).status, 405);
    let long = "é".repeat(61);
    watched.post(&path, &json!({ "code": 4321, "reason": long }));
    eventually("one is left", || watched.sessions("").len() == 1);
    let left = watched.sessions("")[0]["key"].as_str().unwrap().to_owned();
    watched.post(&format!("/api/v1/sessions/{left}/end"), &json!({}));
    let mut seen = readers.map(|reader| reader.join().unwrap().unwrap());
    seen.sort();
    assert_eq!(seen, [(1001, "terminated".to_owned()), (4321, long)]);
    assert_eq!(soon(&ends), Some((1001, "terminated".to_owned())));
    assert_eq!(watched.gateway.verdict().reason, EndReason::Terminated);
    assert_eq!(watched.ask("POST", &path, &json!({})).status, 404, "it has ended");
}

#[test]
fn all_that_match_are_ended_at_the_rate_and_others_live() {
    let routes = "defaults.heartbeat = { client.ping_interval = \"off\", upstream.ping_interval = \"off\" }\n\
        [[route]]\nname = \"a\"\npath = \"/a\"\nupstream = \"one\"\n[[route]]\nname = \"b\"\npath = \"/b\"\nupstream = \"one\"\n\
        [upstream.one]\nservers = [\"builtin:echo\"]\n";
    let watched = Watched::start(routes);
    let (a, mut b) = (watched.clients("/a", 6), watched.clients("/b", 1).remove(0));
    let began = Instant::now();
    let ends: Vec<_> = a.into_iter().map(|mut client| thread::spawn(move || closed_with(&mut client))).collect();
    let ask = json!({ "filter": { "route": "a" }, "rate": 20, "code": 1012, "reason": "moved" });
    let ending = watched.post("/api/v1/sessions/end", &ask);
    let path = format!("/api/v1/endings/{}", ending["id"]);
    eventually("it is done", || watched.get(&path)["state"] == "done");
    let done = watched.get(&path);
    assert_eq!((&done["total"], &done["told"], &done["rate"]), (&json!(6), &json!(6), &json!(20.0)));
    assert!(began.elapsed() >= Duration::from_millis(250), "the sixth comes a quarter of a second after the first");
    for end in ends {
        assert_eq!(end.join().unwrap(), Some((1012, "moved".into())));
    }
    b.send(Message::text("still here")).unwrap();
    assert_eq!(b.read().unwrap(), Message::text("still here"));
    assert_eq!(watched.get("/api/v1/endings")["endings"].as_array().unwrap().len(), 1);

    let nothing = watched.ask("POST", "/api/v1/sessions/end", &json!({}));
    assert_eq!(nothing.status, 400);
    assert!(nothing.error().contains("\"all\": true"));
    let slow =
        watched.post("/api/v1/sessions/end", &json!({ "filter": { "route": "b", "min_age": "1h" }, "rate": 0.01 }));
    eventually("nothing matches", || watched.get(&format!("/api/v1/endings/{}", slow["id"]))["state"] == "done");
}

#[test]
fn an_ending_can_be_called_off() {
    let watched = Watched::start(&echo());
    let mut clients = watched.clients("/", 3);
    let ending = watched.post("/api/v1/sessions/end", &json!({ "all": true, "rate": 0.01 }));
    let path = format!("/api/v1/endings/{}", ending["id"]);
    eventually("the first is told", || watched.get(&path)["told"] == 1);
    assert_eq!(watched.post(&format!("{path}/cancel"), &Value::Null)["state"], "cancelled");
    // The oldest was told, whichever of the three that is.
    let left = clients.iter_mut().filter_map(|client| {
        client.send(Message::text("hello")).ok()?;
        matches!(client.read(), Ok(Message::Text(_))).then_some(())
    });
    assert_eq!(left.count(), 2);
    assert_eq!(watched.ask("GET", "/api/v1/endings/99", &Value::Null).status, 404);
}

#[test]
fn a_drained_backend_gets_no_new_session_until_it_is_put_back() {
    let (first, second) = (Backend::reader().0, Backend::reader().0);
    let toml = one_route(&first.url(), "").replace("\"]", &format!("\", \"{}\"]", second.url()));
    let watched = Watched::start(&toml);
    let on = |backend: &Backend| watched.sessions(&format!("backend={}", backend.url())).len();
    let _before = watched.gateway.connect("/");
    let (kept, other) = if on(&first) == 1 { (&first, &second) } else { (&second, &first) };
    let drained = watched.post("/api/v1/backends/drain", &json!({ "backend": kept.url() }));
    assert_eq!((&drained["backends"][0]["state"], &drained["backends"][0]["sessions"]), (&json!("drained"), &json!(1)));
    let _more: Vec<_> = (0..4).map(|_| watched.gateway.connect("/")).collect();
    assert_eq!((on(kept), on(other)), (1, 4));
    watched.post("/api/v1/backends/drain", &json!({ "upstream": "pool", "backend": other.url() }));
    let refused = watched.gateway.try_connect("/").unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    watched.post("/api/v1/backends/restore", &json!({ "backend": kept.url() }));
    let _again = watched.gateway.connect("/");
    assert_eq!(on(kept), 2);
    let unknown = watched.ask("POST", "/api/v1/backends/drain", &json!({ "backend": "ws://nobody" }));
    assert_eq!(unknown.status, 404);
}

#[test]
fn an_evacuated_backend_loses_its_sessions_to_the_others() {
    let (first, second) = (Backend::reader().0, Backend::reader().0);
    let toml = one_route(&first.url(), "").replace("\"]", &format!("\", \"{}\"]", second.url()));
    let watched = Watched::start(&toml);
    let clients: Vec<_> = (0..6).map(|_| watched.gateway.connect("/")).collect();
    let ends: Vec<_> = clients.into_iter().map(|mut client| thread::spawn(move || closed_with(&mut client))).collect();
    let ask = json!({ "backend": first.url(), "evacuate": true, "rate": 100 });
    let ending = watched.post("/api/v1/backends/drain", &ask);
    let path = format!("/api/v1/endings/{}", ending["id"]);
    eventually("it is empty", || watched.get(&path)["state"] == "done");
    assert_eq!(watched.get(&path)["told"], 3);
    let left = watched.sessions("");
    assert!(left.len() == 3 && left.iter().all(|one| one["backend"] == second.url()), "{left:?}");
    watched.post("/api/v1/sessions/end", &json!({ "all": true, "rate": 1000 }));
    let codes: Vec<u16> = ends.into_iter().map(|end| end.join().unwrap().unwrap().0).collect();
    assert_eq!(codes.iter().filter(|code| **code == 1012).count(), 3, "{codes:?}");
}

#[test]
fn it_is_not_ready_from_the_moment_a_drain_begins() {
    let toml = one_route("builtin:echo", "gateway.drain = { delay = \"5m\", timeout = \"10m\" }")
        + "[[listener]]\naddress = \"127.0.0.1:0\"\nhealth = \"/-/ready\"\n";
    let watched = Watched::start(&toml);
    let public = |path: &str| {
        exchange(TcpStream::connect(watched.gateway.address()).unwrap(), "GET", path, &["Host: gate.test"], "")
    };
    assert_eq!(watched.ask("GET", "/readyz", &Value::Null).body, "ready\n");
    assert_eq!((public("/-/ready").status, public("/-/ready").body.as_str()), (200, "ready\n"));
    assert_ne!(public("/").status, 200, "only that path");
    assert_eq!(watched.post("/api/v1/drain", &Value::Null)["phase"], "draining");
    assert_eq!(watched.ask("GET", "/readyz", &Value::Null).status, 503);
    assert_eq!(public("/-/ready").status, 503);
    assert_eq!(watched.ask("GET", "/healthz", &Value::Null).status, 200, "it lives");
    drop(watched.gateway.connect("/"));
    watched.gateway.control().cut();
}

#[test]
fn metrics_are_told_as_the_accept_header_likes() {
    let watched = Watched::start(&echo());
    let _clients = watched.clients("/", 2);
    let host = format!("Host: {}", watched.address);
    let plain = watched.raw("GET", "/metrics", &[&host], "");
    assert!(plain.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{}", plain.head);
    assert!(
        plain.body.contains("\npulsegate_sessions_started_total{") && !plain.body.contains("# EOF"),
        "{}",
        plain.body
    );
    let accept = "Accept: application/openmetrics-text; version=1.0.0, text/plain; q=0.5";
    let open = watched.raw("GET", "/metrics", &[&host, accept], "");
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    assert_eq!(watched.ask("POST", "/metrics", &Value::Null).status, 405);
}

#[test]
fn a_drain_tells_how_it_goes_and_its_cause() {
    let watched = Watched::start(&one_route("builtin:echo", "gateway.drain = { spread = \"1ms\" }"));
    let mut clients = watched.clients("/", 1);
    assert_eq!(watched.get("/api/v1/drain")["progress"], Value::Null);
    assert_eq!(watched.ask("POST", "/api/v1/drain", &json!({ "cause": "upgrade" })).status, 400);
    assert_eq!(watched.post("/api/v1/drain", &json!({ "cause": "shed" }))["phase"], "draining");
    let (code, _) = closed_with(&mut clients[0]).unwrap();
    assert_eq!(code, 1013);
    let progress = watched.get("/api/v1/drain")["progress"].clone();
    assert_eq!((&progress["cause"], &progress["told"], &progress["cut"]), (&json!("shed"), &json!(1), &json!(0)));
}

#[test]
fn a_gateway_inside_another_program_tells_that_it_is_not_upgraded_so() {
    let watched = Watched::start(&echo());
    let refused = watched.ask("POST", "/api/v1/upgrade", &Value::Null);
    assert_eq!(refused.status, 409);
    assert!(refused.error().contains("another program"), "{}", refused.error());
    let lineage = watched.get("/api/v1/upgrade");
    assert_eq!((&lineage["generation"], &lineage["parent"]), (&json!(1), &Value::Null));
    assert_eq!(watched.get("/api/v1/overview")["lineage"]["predecessors"], json!([]));
}

#[test]
fn a_unix_socket_is_for_its_owner_and_group_who_may_do_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let watched = Watched::with(&echo(), |config| {
        config.address = ListenAddress::Unix(path.clone());
        config.token_file = None;
    });
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660, "{mode:o}");
    let ask = |method, path_asked: &str, lines: &[&str]| {
        exchange(UnixStream::connect(&path).unwrap(), method, path_asked, lines, "")
    };
    assert_eq!(ask("GET", "/api/v1/sessions", &["Host: localhost"]).status, 200);
    assert_eq!(ask("GET", "/api/v1/sessions", &["Host: evil.example"]).status, 403);
    assert_eq!(ask("POST", "/api/v1/drain", &["Host: localhost"]).status, 202);
    let Watched { server, .. } = watched;
    drop(server);
    assert!(!Path::new(&path).exists(), "it is removed");
}

#[test]
fn bounds_hold_on_heads_bodies_and_connections() {
    let watched = Watched::start(&echo());
    let host = format!("Host: {}", watched.address);
    let right = format!("Authorization: Bearer {TOKEN}");
    let large = watched.raw("POST", "/api/v1/sessions/end", &[&host, &right], &"x".repeat(40_000));
    assert_eq!(large.status, 400);
    let filler = format!("X: {}", "x".repeat(20_000));
    assert_eq!(watched.raw("GET", "/healthz", &[&host, &filler], "").status, 431);
    // More than it serves at a time: those that wait are served when others leave.
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(watched.address).unwrap()).collect();
    let (together, address) = (Arc::new(Barrier::new(2)), watched.address);
    let waiting = {
        let (together, host) = (Arc::clone(&together), host.clone());
        thread::spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            together.wait();
            exchange(stream, "GET", "/healthz", &[&host], "").status
        })
    };
    together.wait();
    drop(silent);
    assert_eq!(waiting.join().unwrap(), 200);
}

/// It asks before anybody listens to it, so that its end is known before its answer.
#[test]
fn who_asks_and_ends_at_once_is_answered() {
    let gateway = Running::start(&echo());
    let config = AdminConfig {
        address: ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()),
        token_file: None,
        hosts: Vec::new(),
    };
    let admin = Admin::bind(&config).unwrap();
    let ListenAddress::Tcp(address) = *admin.address() else { panic!("a TCP address was asked for") };
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(format!("GET /api/v1/sessions HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let _server = admin.serve(gateway.gateway.operator()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn the_program_serves_operators_and_ends_cleanly() {
    let toml = super::program::echo("gateway.drain = { spread = \"0s\" }") + "[admin]\naddress = \"unix:admin.sock\"\n";
    let mut program = Program::start(&toml, &[]);
    let client = super::harness::Raw::upgraded(program.address(), "/");
    let socket = program.folder().join("admin.sock");
    eventually("it is served", || UnixStream::connect(&socket).is_ok());
    let list = exchange(UnixStream::connect(&socket).unwrap(), "GET", "/api/v1/sessions", &["Host: localhost"], "");
    assert_eq!(list.json()["matching"], 1);
    drop(client);
    let drain = exchange(UnixStream::connect(&socket).unwrap(), "POST", "/api/v1/drain", &["Host: localhost"], "");
    assert_eq!(drain.status, 202);
    let (code, log) = program.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("operators are served on unix:"), "{log}");
}

/// What a command says about the gateway whose `gateway.toml` stands in the same folder, and its exit code.
fn told(program: &Program, arguments: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pulsegate"))
        .args(arguments)
        .current_dir(program.folder())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn the_commands_find_the_gateway_by_its_file() {
    let toml = super::program::echo("gateway.drain = { spread = \"0s\" }") + "[admin]\naddress = \"unix:admin.sock\"\n";
    let mut program = Program::start(&toml, &[]);
    let address = program.address();
    let mut clients: Vec<_> = (0..3).map(|_| super::harness::Raw::upgraded(address, "/")).collect();
    eventually("it is served", || UnixStream::connect(program.folder().join("admin.sock")).is_ok());
    let (code, table) = told(&program, &["sessions", "--route", "all", "--sort", "newest"]);
    assert_eq!(code, Some(0), "{table}");
    assert!(
        table.starts_with("KEY ") && table.contains("builtin:echo") && table.contains("3 of 3 sessions"),
        "{table}"
    );
    let (_, list) = told(&program, &["sessions", "--json", "--client", "127.0.0.1", "-n", "2"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list["matching"], list["sessions"].as_array().unwrap().len()), (&json!(3), 2));
    let (code, top) = told(&program, &["top"]);
    assert_eq!(code, Some(0), "{top}");
    assert!(top.lines().count() <= 24 && top.lines().all(|line| line.chars().count() <= 80), "{top}");
    assert!(top.contains("sessions 3 open") && top.contains("serving"), "{top}");
    let (code, wrong) = told(&program, &["sessions", "--min-age", "5"]);
    assert!(code == Some(1) && wrong.contains("unit"), "{wrong}");
    let (code, backend) = told(&program, &["drain", "--backend", "builtin:echo"]);
    assert!(code == Some(0) && backend.contains("builtin:echo of pool: drained, 3 sessions"), "{backend}");
    let (_, backend) = told(&program, &["drain", "--backend", "builtin:echo", "--restore"]);
    assert!(backend.contains("up, 3 sessions"), "{backend}");
    let key = list["sessions"][0]["key"].as_str().unwrap();
    let (code, ended) = told(&program, &["sessions", "end", key, "--code", "4000", "--reason", "bye"]);
    assert!(code == Some(0) && ended.contains(key), "{ended}");
    let (code, ended) = told(&program, &["sessions", "--route", "all", "end", "--rate", "1000"]);
    assert!(code == Some(0) && ended.contains("sessions told to end"), "{ended}");
    let mut seen: Vec<_> = clients.iter_mut().map(super::harness::Raw::close_frame).collect();
    seen.sort();
    assert_eq!(seen, [(1001, "terminated".into()), (1001, "terminated".into()), (4000, "bye".to_owned())]);
    drop(clients);
    let (code, drained) = told(&program, &["drain", "--wait"]);
    assert!(code == Some(0) && drained.contains("the gateway has ended"), "{drained}");
    let (code, nobody) = told(&program, &["top", "--once"]);
    assert!(code == Some(69) && nobody.contains("cannot reach"), "{nobody}");
    assert_eq!(program.end().0, Some(0));
}

#[test]
fn a_reload_that_is_asked_for_says_what_it_changed_or_every_mistake() {
    let toml = super::program::echo("gateway.drain = { spread = \"0s\" }") + "[admin]\naddress = \"unix:admin.sock\"\n";
    let mut program = Program::start(&toml, &[]);
    let socket = program.folder().join("admin.sock");
    eventually("it is served", || UnixStream::connect(&socket).is_ok());
    let mut client = super::harness::Raw::upgraded(program.address(), "/");
    let (code, same) = told(&program, &["reload"]);
    assert!(code == Some(0) && same.contains("nothing"), "{same}");
    program.write(&toml.replace("spread = \"0s\"", "spread = \"1s\""));
    let (code, changed) = told(&program, &["reload"]);
    assert!(code == Some(0) && changed.contains("gateway.drain"), "{changed}");
    program.write(&toml.replace("spread", "sprad"));
    let (code, mistakes) = told(&program, &["reload"]);
    assert!(code == Some(78) && mistakes.contains("gateway.toml:"), "{mistakes}");
    // What runs says the same to who asks it without the file.
    let refused = exchange(UnixStream::connect(&socket).unwrap(), "POST", "/api/v1/reload", &["Host: localhost"], "{}");
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert!(refused.status == 409 && error.contains("sprad") && error.contains("spread"), "{error}");
    let wrong = exchange(UnixStream::connect(&socket).unwrap(), "GET", "/api/v1/reload", &["Host: localhost"], "");
    assert_eq!(wrong.status, 405);
    let metrics = exchange(UnixStream::connect(&socket).unwrap(), "GET", "/metrics", &["Host: localhost"], "");
    for counted in ["{result=\"applied\"} 1", "{result=\"unchanged\"} 1", "{result=\"refused\"} 1"] {
        assert!(metrics.body.contains(&format!("pulsegate_reloads_total{counted}")), "{}", metrics.body);
    }
    client.send(&super::harness::frame(0x82, true, b"x"));
    assert_eq!(client.receive::<3>(), [0x82, 1, b'x'], "its session has not noticed");
    drop(client);
    program.signal(rustix::process::Signal::TERM);
    assert_eq!(program.end().0, Some(0));
}
