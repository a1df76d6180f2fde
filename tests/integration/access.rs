//! Who may come in.
use super::{
    harness::{Backend, Raw, Running, configured, dead_address, eventually, one_route, request, soon},
    program::Program,
    refusals::asked,
    secure::Certificates,
};
use pulsegate::metrics::text::Format;
use std::{
    fs,
    io::{Read, Write},
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};
use tungstenite::handshake::derive_accept_key;

/// The answer to a handshake that a proxy in front passes on for a client.
fn from(gateway: &Running, client: &str, path: &str) -> (u16, String) {
    asked(gateway, &request(path, &format!("X-Forwarded-For: {client}\r\n")))
}

fn behind_a_proxy(extra: &str) -> String {
    one_route("builtin:echo", &format!("gateway.trusted_proxies = [\"127.0.0.1\"]\n{extra}"))
}

fn retry_after(answer: &str) -> u64 {
    let (_, rest) = answer.split_once("\r\nRetry-After: ").unwrap_or_else(|| panic!("{answer}"));
    rest.split_once("\r\n").unwrap().0.parse().unwrap()
}

/// A figure of the route's handshakes.
fn counted(gateway: &Running, result: &str) -> u64 {
    let text = gateway.operator().metrics(Format::Prometheus);
    let line = format!("pulsegate_handshakes_total{{route=\"all\",result=\"{result}\"}} ");
    let rest = text.split_once(&line).unwrap_or_else(|| panic!("{line} in {text}")).1;
    rest.lines().next().unwrap().parse().unwrap()
}

#[test]
fn addresses_that_are_not_let_in_get_403() {
    let lists = "defaults.access = { allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = [\"10.6.0.0/16\"] }";
    let gateway = Running::start(&behind_a_proxy(lists));
    for (client, expected) in
        [("10.5.0.1", 101), ("2001:db8::7", 101), ("10.6.0.1", 403), ("192.0.2.1", 403), ("2001:db9::1", 403)]
    {
        let (status, answer) = from(&gateway, client, "/");
        assert_eq!(status, expected, "{client}: {answer}");
    }
    assert_eq!(counted(&gateway, "address_denied"), 3);
}

#[test]
fn one_address_may_come_so_often_and_is_told_when_again() {
    let gateway = Running::start(&behind_a_proxy("gateway.rates.handshakes_per_address = \"2/m\""));
    assert_eq!(from(&gateway, "192.0.2.1", "/").0, 101);
    assert_eq!(from(&gateway, "192.0.2.1", "/").0, 101);
    let (status, answer) = from(&gateway, "192.0.2.1", "/");
    assert_eq!(status, 429, "{answer}");
    assert!((1..=31).contains(&retry_after(&answer)), "{answer}");
    assert_eq!(from(&gateway, "192.0.2.2", "/").0, 101);
    assert_eq!(from(&gateway, "2001:db8:1:2::1", "/").0, 101);
    assert_eq!(from(&gateway, "2001:db8:1:2::2", "/").0, 101);
    assert_eq!(from(&gateway, "2001:db8:1:2::3", "/").0, 429);
    assert_eq!(counted(&gateway, "address_rate"), 2);
}

#[test]
fn all_together_may_come_so_often_on_all_workers() {
    let gateway = Running::start(&behind_a_proxy("gateway = { rates.sessions = \"3/m\", workers = 3 }").replace(
        "gateway.trusted_proxies = [\"127.0.0.1\"]\ngateway = {",
        "gateway = { trusted_proxies = [\"127.0.0.1\"],",
    ));
    let statuses: Vec<u16> = (1..=6).map(|client| from(&gateway, &format!("192.0.2.{client}"), "/").0).collect();
    assert_eq!(statuses, [101, 101, 101, 503, 503, 503]);
    let (_, answer) = from(&gateway, "192.0.2.9", "/");
    assert!((1..=26).contains(&retry_after(&answer)), "{answer}");
    assert_eq!(counted(&gateway, "rate"), 4);
}

#[test]
fn a_rate_that_passes_lets_in_again() {
    let gateway = Running::start(&behind_a_proxy("gateway.rates.handshakes = \"2/s\""));
    let refused = (0..30).filter(|_| from(&gateway, "192.0.2.1", "/").0 == 503).count();
    assert!(refused > 0, "thirty in less than a quarter of a minute");
    eventually("there is room again", || from(&gateway, "192.0.2.1", "/").0 == 101);
}

/// `secret`, hashed.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// `Authorization` for a name with its password.
fn named(coded: &str) -> String {
    format!("Authorization: Basic {coded}\r\n")
}

/// A backend that hands each request's head to the test, and accepts.
fn told() -> (Backend, Receiver<String>) {
    let (sender, heads) = channel();
    let sender = Mutex::new(sender);
    let backend = Backend::raw(move |stream| {
        let mut raw = Raw(stream);
        let head = raw.head();
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        raw.send(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .as_bytes(),
        );
        let _ = sender.lock().unwrap().send(head);
        raw.end();
    });
    (backend, heads)
}

#[test]
fn a_name_and_its_password_let_in_and_a_reload_takes_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, format!("ann:{HASH}\n")).unwrap();
    let (backend, heads) = told();
    let toml = one_route(
        &backend.url(),
        &format!("defaults.access.basic = {{ file = {file:?}, realm = \"chat\", user_header = \"X-User\" }}"),
    );
    let gateway = Running::start(&toml);
    let (status, answer) = asked(&gateway, &request("/", ""));
    assert_eq!(status, 401);
    assert!(answer.contains("\r\nWWW-Authenticate: Basic realm=\"chat\", charset=\"UTF-8\"\r\n"), "{answer}");
    // ann:wrong, bob:secret
    for coded in ["YW5uOndyb25n", "Ym9iOnNlY3JldA=="] {
        assert_eq!(asked(&gateway, &request("/", &named(coded))).0, 401, "{coded}");
    }
    let ann = request("/", &format!("X-User: root\r\n{}", named("YW5uOnNlY3JldA==")));
    assert_eq!(asked(&gateway, &ann).0, 101);
    let head = soon(&heads);
    assert!(head.contains("\r\nX-User: ann\r\n") || head.contains("\r\nx-user: ann\r\n"), "{head}");
    assert!(!head.contains("root") && !head.to_lowercase().contains("authorization"), "{head}");
    assert_eq!(counted(&gateway, "credentials"), 3);

    fs::write(&file, format!("bob:{HASH}\n")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let changes = runtime.block_on(gateway.operator().reload_to(configured(&toml))).unwrap();
    assert_eq!(changes.routes.changed, ["all"]);
    assert_eq!(asked(&gateway, &ann).0, 401);
    assert_eq!(asked(&gateway, &request("/", &named("Ym9iOnNlY3JldA=="))).0, 101);
}

/// A page behind `ann:secret`, with a rate of handshakes from one address.
fn page_with_password(folder: &tempfile::TempDir, rate: &str) -> Running {
    let file = folder.path().join("users");
    fs::write(&file, format!("ann:{HASH}\n")).unwrap();
    let page = service(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into());
    let extra =
        format!("gateway.rates.handshakes_per_address = {rate:?}\ndefaults.access.basic = {{ file = {file:?} }}\n");
    Running::start(&one_route(&page.url(), &extra).replace("name = \"all\"\n", "name = \"all\"\nhttp = \"proxy\"\n"))
}

/// A plain request with this name and password, coded, or with none.
fn page(coded: &str) -> String {
    let named = if coded.is_empty() { String::new() } else { named(coded) };
    format!("GET / HTTP/1.1\r\nHost: gateway.test\r\n{named}\r\n")
}

#[test]
fn who_guesses_passwords_by_plain_requests_has_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = page_with_password(&folder, "4/m");
    let get = |coded: &str| asked(&gateway, &page(coded));
    for _ in 0..5 {
        assert_eq!(get("YW5uOnNlY3JldA==").0, 200, "the right password costs nothing, but for the first time");
        assert_eq!(get("").0, 401, "nor does to be asked for it");
    }
    let guesses: Vec<u16> = (0..4).map(|_| get("YW5uOndyb25n").0).collect();
    assert_eq!(guesses, [401, 401, 401, 429]);
    let (status, answer) = get("YW5uOnNlY3JldA==");
    assert!(status == 429 && answer.contains("\r\nRetry-After: "), "a guess that is right is a guess: {answer}");
    assert_eq!((counted(&gateway, "credentials"), counted(&gateway, "address_rate")), (0, 0), "they are no handshakes");
    assert_eq!(asked(&gateway, &request("/", "")).0, 429, "handshakes are counted with them");
    assert_eq!(counted(&gateway, "address_rate"), 1);
}

#[test]
fn to_guess_many_passwords_at_a_time_is_no_way_around() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = page_with_password(&folder, "3/m");
    let mut clients: Vec<Raw> = (0..40).map(|_| Raw::connect(gateway.address())).collect();
    clients.iter_mut().for_each(|client| client.send(page("YW5uOndyb25n").as_bytes()));
    let looked_at = clients.iter_mut().map(Raw::head).filter(|head| head.starts_with("HTTP/1.1 401 ")).count();
    assert_eq!(looked_at, 3);
}

/// An HTTP service that answers each request by what is in it.
fn service(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Backend {
    Backend::raw(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                stream.write_all(answer(&text).as_bytes()).unwrap();
            }
        }
    })
}

fn forwarded(backend: &str, service: &Backend) -> String {
    let forward = format!(
        "{{ url = \"http://{}/check?a=b\", copy_headers = [\"X-User\", \"X-Role\"], timeout = \"1s\" }}",
        service.address
    );
    one_route(backend, &format!("defaults.access.forward = {forward}"))
}

#[test]
fn a_service_decides_and_chosen_headers_go_on_to_the_backend() {
    let (sender, questions) = channel();
    let sender = Mutex::new(sender);
    let auth = service(move |head| {
        sender.lock().unwrap().send(head.to_owned()).unwrap();
        "HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\nok".into()
    });
    let (backend, heads) = told();
    let gateway = Running::start(&forwarded(&backend.url(), &auth));
    let more = "Cookie: session=1\r\nX-User: root\r\nX_Role: root\r\nX-Role: root\r\nX-Forwarded-For: 6.6.6.6\r\n";
    for _ in 0..3 {
        assert_eq!(asked(&gateway, &request("/room?token=x", more)).0, 101);
        let question = soon(&questions).to_lowercase();
        assert!(question.starts_with("get /check?a=b http/1.1\r\n"), "{question}");
        for line in [
            &format!("host: {}", auth.address),
            "cookie: session=1",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: gateway.test",
            "x-forwarded-proto: http",
            "x-forwarded-method: get",
            "x-forwarded-uri: /room?token=x",
        ] {
            assert!(question.contains(&format!("\r\n{line}\r\n")), "{line} in {question}");
        }
        assert!(!question.contains("upgrade") && !question.contains("sec-websocket"), "{question}");
        let head = soon(&heads).to_lowercase();
        assert!(head.contains("\r\nx-user: ann\r\n") && head.contains("\r\ncookie: session=1\r\n"), "{head}");
        assert!(!head.contains("root") && !head.contains("x-other"), "{head}");
    }
}

#[test]
fn a_service_is_told_what_the_backend_is_and_judges_by_what_the_client_brought() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, format!("ann:{HASH}\n")).unwrap();
    let (sender, questions) = channel();
    let sender = Mutex::new(sender);
    let auth = service(move |head| {
        sender.lock().unwrap().send(head.to_lowercase()).unwrap();
        "HTTP/1.1 204 No Content\r\n\r\n".into()
    });
    let toml = |basic: &str| {
        let headers = "defaults.headers.request = { remove = [\"X-Role\", \"Cookie\"], \
                       set = { X-Cert = \"{client_cert_subject}\", X-From = \"{client_address}\", Authorization = \"Bearer ours\" } }";
        format!("{headers}\n{basic}\n{}", forwarded("builtin:echo", &auth))
    };
    let forged = "X-Role: root\r\nX_Role: root\r\nX-Cert: root\r\nX_Cert: root\r\nX-From: root\r\nCookie: a=b\r\n";
    let gateway = Running::start(&toml(""));
    assert_eq!(asked(&gateway, &request("/", &format!("{forged}Authorization: Bearer theirs\r\n"))).0, 101);
    let question = soon(&questions);
    assert!(!question.contains("root") && !question.contains("ours"), "{question}");
    for line in ["cookie: a=b", "authorization: bearer theirs", "x-from: 127.0.0.1"] {
        assert!(question.contains(&format!("\r\n{line}\r\n")), "{line} in {question}");
    }
    let basic = format!("defaults.access.basic = {{ file = {file:?}, user_header = \"X-Name\" }}");
    let gateway = Running::start(&toml(&basic));
    let forged = format!("{forged}X-Name: root\r\nX_Name: root\r\n{}", named("YW5uOnNlY3JldA=="));
    assert_eq!(asked(&gateway, &request("/", &forged)).0, 101);
    let question = soon(&questions);
    assert!(!question.contains("root") && !question.contains("authorization"), "{question}");
    assert!(question.contains("\r\nx-name: ann\r\n"), "{question}");
}

#[test]
fn sessions_are_counted_when_the_service_has_let_them_in_and_not_when_it_was_asked() {
    let auth = service(|head| {
        if head.to_lowercase().contains("x-forwarded-uri: /slow") {
            thread::sleep(Duration::from_millis(1100));
        }
        "HTTP/1.1 204 No Content\r\n\r\n".into()
    });
    let toml = forwarded("builtin:echo", &auth).replace("timeout = \"1s\"", "timeout = \"20s\"");
    let gateway = Running::start(&format!("gateway.rates.sessions = \"1/s\"\n{toml}"));
    assert_eq!(asked(&gateway, &request("/", "")).0, 101);
    assert_eq!(asked(&gateway, &request("/slow", "")).0, 101, "a second later there is room for it");
}

#[test]
fn a_services_refusal_and_its_redirect_pass_to_the_client() {
    let auth = service(|head| {
        let (status, more) = match head {
            head if head.contains("/login") => ("302 Found", "Location: https://login.test/\r\n"),
            head if head.contains("/in") => ("204 No Content", ""),
            _ => ("401 Unauthorized", "WWW-Authenticate: Bearer\r\n"),
        };
        format!(
            "HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n",
            if status.starts_with("204") { "0" } else { "3\r\nX: 1" }
        ) + if status.starts_with("204") { "" } else { "no\n" }
    });
    let gateway = Running::start(&forwarded("builtin:echo", &auth));
    let (status, answer) = asked(&gateway, &request("/", ""));
    assert_eq!(status, 401);
    let lower = answer.to_lowercase();
    assert!(lower.contains("\r\nwww-authenticate: bearer\r\n") && answer.ends_with("no\n"), "{answer}");
    let (status, answer) = asked(&gateway, &request("/login", ""));
    assert_eq!(status, 302);
    assert!(answer.to_lowercase().contains("\r\nlocation: https://login.test/\r\n"), "{answer}");
    assert_eq!(asked(&gateway, &request("/in", "")).0, 101);
    assert_eq!(counted(&gateway, "auth_refused"), 2);
}

#[test]
fn a_plain_request_that_the_service_refuses_is_logged() {
    let auth = service(|_| "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".into());
    let toml = forwarded("ws://127.0.0.1:1", &auth).replace("name = \"all\"\n", "name = \"all\"\nhttp = \"proxy\"\n");
    let mut program = Program::start(&(toml + "[[listener]]\naddress = \"127.0.0.1:0\"\n"), &[]);
    let mut client = Raw::connect(program.address());
    client.send(b"GET /page?token=x HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 403 "));
    let line = program.logged("request refused");
    for part in ["\"status\":403", "the access.forward service refused", "/page", "127.0.0.1"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!line.contains("token"), "{line}");
}

#[test]
fn nobody_is_let_in_while_the_service_fails() {
    let fails = service(|_| "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".into());
    let silent = service(|_| String::new());
    let talks = service(|_| "what?\r\n\r\n".into());
    let gone = Backend { address: dead_address() };
    for (service, expected) in [(fails, 502), (silent, 503), (talks, 502), (gone, 503)] {
        let gateway = Running::start(&forwarded("builtin:echo", &service));
        let (status, answer) = asked(&gateway, &request("/", ""));
        assert_eq!(status, expected, "{answer}");
        assert_eq!(answer.contains("\r\nRetry-After: "), expected == 503, "{answer}");
        assert!(!answer.contains("127.0.0.1"), "{answer}");
        assert_eq!(counted(&gateway, "auth_failed"), 1);
    }
}

#[test]
fn a_service_that_was_restarted_is_asked_on_a_new_connection() {
    let auth = Backend::raw(|stream| {
        let mut raw = Raw(stream);
        raw.head();
        raw.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let gateway = Running::start(&forwarded("builtin:echo", &auth));
    for _ in 0..5 {
        assert_eq!(asked(&gateway, &request("/", "")).0, 101);
    }
}

#[test]
fn a_service_with_tls_is_asked_if_its_authority_is_trusted() {
    let certificates = Certificates::of(&["localhost", "other.test"]);
    let auth = certificates.backend("localhost", |mut stream| {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
    });
    for (host, expected) in [("localhost", 101), ("other.test", 503)] {
        let (url, ca) = (format!("https://localhost:{}/", auth.address.port()), certificates.path(host, "crt"));
        let forward = format!("defaults.access.forward = {{ url = {url:?}, ca = {ca:?} }}");
        let gateway = Running::start(&one_route("builtin:echo", &forward));
        assert_eq!(asked(&gateway, &request("/", "")).0, expected, "{host}");
    }
}
