//! Reloads: what is unchanged does not notice, what changed applies, what is gone ends, and what is wrong changes nothing.
use super::{
    harness::{
        Backend, Raw, Running, closed_with, configured, eventually, frame, joined, one_route, request, soon, tcp,
    },
    program::Program,
    secure::Certificates,
};
use pulsegate::{
    config::Config,
    gateway::{Changes, ReloadError},
    relay::EndReason,
};
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tungstenite::Message;

impl Running {
    fn reload(&self, toml: &str) -> Changes {
        self.try_reload(configured(toml)).unwrap()
    }

    /// A client has its 101 a moment before its session begins.
    fn holds(&self, sessions: usize) {
        eventually("the sessions run", || self.sessions().iter().sum::<usize>() == sessions);
    }

    fn try_reload(&self, config: Config) -> Result<Changes, ReloadError> {
        blocking(self.operator().reload_to(config))
    }
}

fn blocking<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Two workers, no pings, and a drain without a spread.
const CALM: &str = "gateway = { workers = 2, drain.spread = \"0s\" }\n\
    defaults.heartbeat = { client.ping_interval = \"off\", upstream.ping_interval = \"off\" }\n";

/// A route for each path to a pool of that name.
fn routes(extra: &str, pools: &[(&str, &[String])]) -> String {
    let mut toml = format!("{CALM}{extra}\n");
    for (name, _) in pools {
        toml += &format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"{name}\"\n");
    }
    for (name, servers) in pools {
        toml += &format!("[upstream.{name}]\nservers = {servers:?}\n");
    }
    toml
}

fn echo() -> Vec<String> {
    vec!["builtin:echo".to_owned()]
}

/// What is sent comes back.
fn echoes(client: &mut Raw) -> bool {
    client.0.write_all(&frame(0x81, true, b"hello")).is_ok() && {
        let mut bytes = [0; 7];
        client.0.read_exact(&mut bytes).is_ok() && bytes == *b"\x81\x05hello"
    }
}

#[test]
fn an_equal_configuration_is_a_no_op_and_says_so() {
    let toml = routes("", &[("a", &echo())]);
    let gateway = Running::start(&toml);
    let before = gateway.addresses();
    let changes = gateway.reload(&toml);
    assert!(changes.is_empty());
    assert_eq!(changes.to_string(), "nothing changed");
    assert_eq!(gateway.addresses(), before, "a port of the kernel's choice stays, too");
}

#[test]
fn a_changed_route_applies_to_new_sessions_and_others_do_not_notice() {
    let gateway = Running::start(&routes("", &[("a", &echo()), ("b", &echo())]));
    let [mut one, mut other] = ["/a", "/b"].map(|path| Raw::upgraded(gateway.address(), path));
    let mut spare = Raw::connect(gateway.address());
    let changed = routes("", &[("a", &echo()), ("b", &echo())]).replacen("path = \"/a\"", "path = \"/c\"", 1);
    let changes = gateway.reload(&changed);
    assert_eq!(changes.to_string(), "route a changed");
    // A connection that was open before asks after the reload, and so is answered by what stands now.
    spare.send(request("/a", "").as_bytes());
    assert!(spare.head().starts_with("HTTP/1.1 404 "));
    assert!(echoes(&mut one) && echoes(&mut other));
    let mut newcomer = Raw::upgraded(gateway.address(), "/c");
    assert!(echoes(&mut newcomer));
    assert!(gateway.verdicts().is_empty());
}

#[test]
fn heartbeats_limits_and_timeouts_apply_to_sessions_that_run() {
    let gateway = Running::start(&routes("", &[("a", &echo()), ("b", &echo())]));
    let [mut one, mut two, mut other] = ["/a", "/a", "/b"].map(|path| Raw::upgraded(gateway.address(), path));
    assert!(echoes(&mut one) && echoes(&mut two) && echoes(&mut other));
    let strict = "heartbeat.client.ping_interval = \"100ms\"\nlimits.client.frame = \"4B\"\ntimeouts.close = \"1s\"";
    let toml = routes("", &[("a", &echo()), ("b", &echo())]);
    let to_a = toml.replacen("upstream = \"a\"\n", &format!("upstream = \"a\"\n{strict}\n"), 1);
    let changes = gateway.reload(&to_a);
    assert_eq!((changes.configured, changes.retired), (2, 0));
    // A ping of ours: twelve bytes.
    assert_eq!(one.receive::<2>(), [0x89, 12]);
    two.send(&frame(0x81, true, b"hello"));
    assert_eq!(gateway.verdict().reason, EndReason::ClientViolation);
    assert!(echoes(&mut other));
    // And back again.
    let changes = gateway.reload(&toml);
    assert_eq!(changes.routes.changed, ["a"]);
}

#[test]
fn a_removed_route_drains_and_says_the_code_of_the_drain() {
    let toml = routes("", &[("a", &echo()), ("b", &echo())]);
    let gateway = Running::start(&toml);
    let [mut stays, mut goes] = ["/a", "/b"].map(|path| gateway.connect(path));
    gateway.holds(2);
    let without = routes("", &[("a", &echo())]).replace("spread = \"0s\"", "spread = \"0s\", drain.code = 1012");
    let changes = gateway.reload(&without);
    assert_eq!(changes.retired, 1, "{changes}");
    assert_eq!(closed_with(&mut goes).unwrap().0, 1012);
    assert_eq!(gateway.verdict().reason, EndReason::Draining);
    stays.send(Message::text("still here")).unwrap();
    assert_eq!(stays.read().unwrap(), Message::text("still here"));
    assert!(gateway.try_connect("/b").is_err());
}

#[test]
fn a_route_that_comes_back_keeps_the_sessions_that_were_not_told_yet() {
    let slow = |toml: String| toml.replace("spread = \"0s\"", "spread = \"3600s\", drain.timeout = \"7200s\"");
    let toml = slow(routes("", &[("a", &echo()), ("b", &echo())])).replace("workers = 2", "workers = 1");
    let gateway = Running::start(&toml);
    let mut clients: Vec<Raw> = (0..3).map(|_| Raw::upgraded(gateway.address(), "/b")).collect();
    gateway.holds(3);
    let without = slow(routes("", &[("a", &echo())])).replace("workers = 2", "workers = 1");
    assert_eq!(gateway.reload(&without).retired, 3);
    // The first is told at once, the others in hours.
    let mut first = clients.remove(0);
    assert_eq!(first.close_frame().0, 1001);
    first.send(&frame(0x88, true, b"\x03\xe9"));
    assert_eq!(gateway.verdict().reason, EndReason::Draining);
    assert_eq!(gateway.reload(&toml).routes.added, ["b"]);
    assert!(clients.iter_mut().all(echoes));
    assert!(gateway.verdicts().is_empty());
}

#[test]
fn a_removed_backend_drains_and_gets_nothing_new() {
    let ((first, first_ends), (second, _ends)) = (Backend::reader(), Backend::reader());
    let both = [first.url(), second.url()];
    let hasty = "defaults.timeouts.close = \"200ms\"";
    let gateway = Running::start(&routes(hasty, &[("a", &both)]));
    let mut clients: Vec<_> = (0..4).map(|_| gateway.connect("/a")).collect();
    gateway.holds(4);
    let changes = gateway.reload(&routes(hasty, &[("a", &both[1..])]));
    assert_eq!(changes.backends.removed, [format!("a {}", first.url())]);
    assert_eq!(changes.retired, 2);
    for _ in 0..2 {
        assert_eq!(gateway.verdict().backend, first.url());
        assert_eq!(soon(&first_ends).unwrap().0, 1001);
    }
    for _ in 0..4 {
        clients.push(gateway.connect("/a"));
    }
    gateway.holds(6);
    assert!(gateway.verdicts().is_empty());
}

#[test]
fn listeners_open_and_close_without_disturbing_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let one = routes("", &[("a", &echo())]) + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let with = |address: &str| format!("{one}[[listener]]\naddress = {address:?}\n");
    let gateway = Running::start(&one);
    let mut first = Raw::upgraded(gateway.address(), "/a");
    let changes = gateway.reload(&with("127.0.0.1:0"));
    assert_eq!(changes.to_string(), "listener 127.0.0.1:0 (2) opened");
    let added = tcp(&gateway.addresses()[1]);
    let mut second = Raw::upgraded(added, "/a");
    gateway.reload(&with(&format!("unix:{}", path.display())));
    assert!(path.exists());
    assert_eq!(TcpStream::connect(added).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // Its sessions go on, though their listener is gone.
    assert!(echoes(&mut first) && echoes(&mut second));
    gateway.reload(&one);
    assert!(!path.exists());
    // Still there when the verdicts are looked at.
    let mut third = Raw::upgraded(gateway.address(), "/a");
    assert!(echoes(&mut third));
    assert!(gateway.verdicts().is_empty());
}

#[test]
fn what_cannot_be_had_changes_nothing() {
    let toml = routes("", &[("a", &echo())]) + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let gateway = Running::start(&toml);
    let mut client = Raw::upgraded(gateway.address(), "/a");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = routes("", &[("b", &echo())]) + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let busy = format!("{other}[[listener]]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    let error = gateway.try_reload(configured(&busy)).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    let certificates = Certificates::of(&["gate.test"]);
    let config = configured(&(other.clone() + &certificates.listener(&["gate.test"])));
    certificates.remove("gate.test", "key");
    let error = gateway.try_reload(config).unwrap_err().to_string();
    assert!(error.contains("gate.test.key cannot be read"), "{error}");
    assert!(echoes(&mut client) && echoes(&mut Raw::upgraded(gateway.address(), "/a")));
    assert_eq!(gateway.addresses().len(), 1);
    assert_eq!((gateway.operator().reloads().good, gateway.operator().reloads().bad), (0, 2));
    assert!(matches!(blocking(gateway.operator().reload()), Err(ReloadError::NoFile)));
}

#[test]
fn settings_of_the_gateway_change_and_workers_wait_for_a_restart() {
    let gateway = Running::start(&one_route("builtin:echo", "gateway.workers = 1"));
    let _client = gateway.connect("/");
    let changes = gateway.reload(&one_route("builtin:echo", "gateway = { workers = 3, max_sessions = 1 }"));
    assert_eq!(
        (&changes.settings[..], &changes.restart[..]),
        (&["gateway.max_sessions"][..], &["gateway.workers"][..])
    );
    assert!(gateway.try_connect("/").is_err(), "it is full now");
    let again = gateway.reload(&one_route("builtin:echo", "gateway = { workers = 3, max_sessions = 2 }"));
    assert_eq!(again.restart, ["gateway.workers"], "it is said until it is done");
    gateway.connect("/");
    assert_eq!(gateway.sessions().len(), 1);
}

#[test]
fn a_gateway_that_drains_takes_over_nothing() {
    let backend = Backend::websocket(|mut peer| while peer.read().is_ok() {});
    let gateway = Running::start(&one_route(&backend.url(), "gateway.drain.spread = \"0s\""));
    let mut client = Raw::upgraded(gateway.address(), "/");
    let operator = gateway.operator();
    gateway.control().drain();
    assert_eq!(client.receive::<1>(), [0x88]);
    let config = configured(&one_route("builtin:echo", ""));
    assert!(matches!(gateway.try_reload(config.clone()), Err(ReloadError::Draining)));
    drop(gateway);
    assert!(matches!(blocking(operator.reload_to(config)), Err(ReloadError::Ended)));
}

#[test]
fn certificates_are_replaced_on_the_same_listener_and_sessions_and_tickets_stay() {
    let certificates = Certificates::of(&["gate.test"]);
    let toml = routes("", &[("a", &echo())]) + &certificates.listener(&["gate.test"]);
    let gateway = Running::start(&toml);
    let address = gateway.address();
    let mut before = certificates.upgraded_to(address, "/a", &TLS13);
    let client = certificates.client("gate.test", &TLS13);
    assert!(!resumed(&client, address));
    certificates.replace("gate.test");
    let changes = gateway.reload(&toml);
    assert_eq!(changes.certificates, ["127.0.0.1:0"]);
    for version in [&TLS12, &TLS13] {
        // It trusts the new certificate alone.
        certificates.upgraded_to(address, "/a", version);
    }
    assert!(resumed(&client, address), "a ticket is good for the certificate that gave it, and the next");
    before.write_all(&frame(0x81, true, b"hello")).unwrap();
    let mut answer = [0; 7];
    before.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\x81\x05hello");
    assert!(gateway.reload(&toml).is_empty());
}

/// Whether a TLS handshake was resumed by a ticket of an earlier one. It reads the answer to a request, so that it has a
/// ticket for the next.
fn resumed(config: &Arc<rustls::ClientConfig>, address: SocketAddr) -> bool {
    let mut stream = super::secure::connect_with(config, address, "gate.test");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

/// A listener that the arguments of `program` stand above.
const ELSEWHERE: &str = "[[listener]]\naddress = \"127.0.0.1:1\"\n";

fn program(toml: &str) -> (Program, SocketAddr) {
    let mut program = Program::start(&format!("{toml}{ELSEWHERE}"), &["run", "--listen", "127.0.0.1:0"]);
    let address = program.address();
    (program, address)
}

#[test]
fn sighup_reloads_the_file_and_a_bad_one_is_told_with_all_its_mistakes() {
    let (mut program, address) = program(&routes("", &[("a", &echo())]));
    let mut client = Raw::upgraded(address, "/a");
    program.write(&routes("nonsense = 1\ndefaults.pongs = 2", &[("a", &echo())]));
    program.signal(Signal::HUP);
    for mistake in ["there is no listener", "nonsense", "pongs"] {
        let line = program.logged(mistake);
        assert!(line.contains("ERROR") && line.contains("gateway.toml:"), "{line}");
    }
    program.write(&(routes("", &[("a", &echo()), ("b", &echo())]) + ELSEWHERE));
    program.signal(Signal::HUP);
    let line = program.logged("reloaded: ");
    assert!(line.contains("INFO") && line.contains("route b added; ") && !line.contains("listener"), "{line}");
    assert!(echoes(&mut client) && echoes(&mut Raw::upgraded(address, "/b")));
}

#[test]
fn the_level_of_the_log_changes() {
    let (mut program, address) = program(&routes("", &[("a", &echo())]));
    program.write(&(routes("log.level = \"error\"", &[("b", &echo())]) + ELSEWHERE));
    program.signal(Signal::HUP);
    eventually("the new route is served", || {
        let mut raw = Raw::connect(address);
        raw.send(request("/b", "").as_bytes());
        raw.head().starts_with("HTTP/1.1 101 ")
    });
    program.write("");
    program.signal(Signal::HUP);
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("not reloaded")) {
        lines.push(program.logged(""));
    }
    let told = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!((told("SIGHUP"), told("reloaded: ")), (1, 0), "{lines:?}");
}

#[test]
fn watched_files_are_reloaded_and_a_pair_caught_half_replaced_is_tried_again() {
    let certificates = Certificates::of(&["gate.test"]);
    let toml = routes("", &[("a", &echo())]).replacen("workers = 2", "workers = 2, watch = true", 1);
    let secured = toml.clone() + &certificates.listener(&["gate.test"]);
    let mut program = Program::start(&secured, &[]);
    let line = program.logged("listening on wss://");
    let address = line.split("wss://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let mut before = certificates.upgraded_to(address, "/a", &TLS13);
    let old = certificates.client("gate.test", &TLS13);
    let replace_key = certificates.replace_certificate("gate.test");
    let line = program.logged("being replaced");
    assert!(line.contains("WARN") && line.contains("gate.test.key is not the key of"), "{line}");
    // Until then it has what it had.
    resumed(&old, address);
    replace_key();
    let line = program.logged("reloaded: ");
    assert!(line.contains("127.0.0.1:0 serves with replaced certificates"), "{line}");
    certificates.upgraded_to(address, "/a", &TLS13);
    program.write(&secured.replacen("name = \"a\"", "name = \"renamed\"", 1));
    let line = program.logged("reloaded: ");
    assert!(line.contains("route renamed added; route a removed"), "{line}");
    let mut close = [0; 4];
    before.read_exact(&mut close).unwrap();
    assert_eq!(close[..1], [0x88]);
}

const RELOADS: usize = 1000;
/// Those after which memory and descriptors are what they will be.
const WARM_UP: usize = 300;
/// Messages, or handshakes, of each thread of traffic at least: where reloads are done sooner, they go on.
const TRAFFIC: usize = 100;
/// What the allocator may keep besides.
const SLACK: usize = 8 << 20;

/// What the reloads go back and forth between: all but the first route, its backend and the first listener.
fn alternating(certificates: [&Certificates; 2], backends: &[String]) -> [String; 2] {
    let common = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let another = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let [one, two] = certificates.map(|certificates| certificates.listener(&["gate.test"]));
    let (calm, quiet) = (("calm", &backends[..1]), "log.sessions = \"off\"");
    let odd = routes(quiet, &[calm, ("changing", backends), ("odd", &backends[1..])]) + common + &one;
    let even = routes("log.sessions = \"off\"\ngateway.max_sessions = 900", &[calm, ("changing", &backends[1..])]);
    let even = even.replace("gateway = { workers = 2,", "gateway = { workers = 2, max_sessions = 900,");
    let even = even.replace("\ngateway.max_sessions = 900", "") + common + &two + another;
    let idle = "path = \"/changing\"\ntimeouts.idle = \"1h\"\nheartbeat.client.ping_interval = \"50ms\"";
    [odd, even.replace("path = \"/changing\"", idle)]
}

/// Sends over one session until told to stop; answers how often.
fn traffic(address: SocketAddr, stop: &Arc<AtomicBool>) -> thread::JoinHandle<usize> {
    let stop = Arc::clone(stop);
    let mut client = Raw::upgraded(address, "/calm");
    thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Relaxed) || count < TRAFFIC {
            assert!(echoes(&mut client), "a session of an unchanged route ended after {count} messages");
            count += 1;
            thread::sleep(Duration::from_millis(2));
        }
        count
    })
}

/// Opens one session after the other until told to stop; answers how many.
fn handshakes(stop: &Arc<AtomicBool>, open: impl Fn() + Send + 'static) -> thread::JoinHandle<usize> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Relaxed) || count < TRAFFIC {
            open();
            count += 1;
            thread::sleep(Duration::from_millis(5));
        }
        count
    })
}

#[test]
fn a_thousand_reloads_under_traffic_end_nothing_refuse_nothing_and_leave_nothing() {
    let serve = || {
        Backend::websocket(|mut peer| {
            while let Ok(message) = peer.read() {
                if !message.is_close() && peer.send(message).is_err() {
                    break;
                }
            }
        })
    };
    let backends: Vec<String> = [serve(), serve()].iter().map(Backend::url).collect();
    let certificates = [(); 2].map(|()| Certificates::of(&["gate.test"]));
    let [odd, even] = alternating([&certificates[0], &certificates[1]], &backends);
    let mut program = Program::start(&odd, &[]);
    let plain = program.address();
    let secure: SocketAddr =
        program.logged("wss://").split("wss://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sessions: Vec<_> = (0..6).map(|_| traffic(plain, &stop)).collect();
    let trusting = super::secure::trusting(&certificates);
    let openers = [
        handshakes(&stop, move || drop(Raw::upgraded(plain, "/calm"))),
        handshakes(&stop, move || drop(Raw::upgraded(plain, "/changing"))),
        handshakes(&stop, move || {
            super::secure::upgrade(super::secure::connect_with(&trusting, secure, "gate.test"), "/calm");
        }),
    ];
    let mut warm = (0, 0);
    for number in 1..=RELOADS {
        program.write(if number % 2 == 0 { &odd } else { &even });
        program.signal(Signal::HUP);
        let line = program.logged("reloaded");
        assert!(line.contains("reloaded: route") && line.contains("certificates"), "{line}");
        if number == WARM_UP {
            warm = (program.resident(), program.descriptors());
        }
    }
    let resident = program.resident();
    stop.store(true, Relaxed);
    for thread in sessions.into_iter().chain(openers) {
        assert!(joined("a thread of traffic", thread) >= TRAFFIC);
    }
    eventually("descriptors are closed", || program.descriptors() <= warm.1);
    assert!(resident < warm.0 + SLACK, "{} KiB became {} KiB", warm.0 >> 10, resident >> 10);
}

impl Program {
    /// Bytes that it has in memory now.
    fn resident(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
}
