//! Names of backends, looked up at a DNS server of the test's own.
use super::harness::{Client, PATIENCE, Raw, Running, closed_with, configured, eventually, free_address, request};
use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, SRV},
    },
};
use pulsegate::{
    gateway::{Backends, Query},
    session::select::{Filter, Sort},
};
use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

type Zone = Arc<Mutex<HashMap<String, Vec<RData>>>>;

/// Answers over UDP what its zone says, good for a second.
struct Server {
    address: SocketAddr,
    zone: Zone,
    /// From now on it leaves questions unanswered.
    mute: Arc<AtomicBool>,
    unanswered: Arc<AtomicUsize>,
    trouble: Arc<Mutex<Trouble>>,
}

/// What it does not tell, and how often anything was asked since.
#[derive(Default)]
struct Trouble {
    of: Option<(String, RecordType)>,
    asked: HashMap<(String, RecordType), usize>,
}

impl Server {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, zone) = (socket.local_addr().unwrap(), Zone::default());
        let served = Arc::clone(&zone);
        let (mute, unanswered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (silent, missed) = (Arc::clone(&mute), Arc::clone(&unanswered));
        let trouble = Arc::<Mutex<Trouble>>::default();
        let troubled = Arc::clone(&trouble);
        // It ends with the test's process.
        thread::spawn(move || {
            let mut room = [0; 4096];
            while let Ok((length, peer)) = socket.recv_from(&mut room) {
                if silent.load(Relaxed) {
                    missed.fetch_add(1, Relaxed);
                    continue;
                }
                let Ok(question) = Message::from_vec(&room[..length]) else { continue };
                let query = question.queries[0].clone();
                let wanted = query.query_type();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                let mut trouble = troubled.lock().unwrap();
                let asked = (query.name().to_ascii(), wanted);
                *trouble.asked.entry(asked.clone()).or_default() += 1;
                if trouble.of == Some(asked) {
                    answer.metadata.response_code = ResponseCode::ServFail;
                }
                drop(trouble);
                let records = served.lock().unwrap().get(&query.name().to_ascii()).cloned().unwrap_or_default();
                let told = answer.metadata.response_code == ResponseCode::NoError;
                for data in records.into_iter().filter(|_| told).filter(|data| data.record_type() == wanted) {
                    answer.add_answer(Record::from_rdata(query.name().clone(), 1, data));
                }
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), peer).unwrap();
            }
        });
        Self { address, zone, mute, unanswered, trouble }
    }

    fn set(&self, name: &str, records: Vec<RData>) {
        self.zone.lock().unwrap().insert(format!("{name}."), records);
    }

    /// From now on it fails to tell these records of a name; returns when the others were asked for so often.
    fn fail(&self, name: &str, records: RecordType, others: (&str, RecordType), times: usize) {
        let of = Some((format!("{name}."), records));
        *self.trouble.lock().unwrap() = Trouble { of, ..Trouble::default() };
        let others = (format!("{}.", others.0), others.1);
        let deadline = Instant::now() + 3 * PATIENCE;
        while self.trouble.lock().unwrap().asked.get(&others).is_none_or(|asked| *asked < times) {
            assert!(Instant::now() < deadline, "it is asked again and again");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn gateway(&self, server: &str, more: &str) -> Running {
        Running::start(&self.toml(server, more))
    }

    fn toml(&self, server: &str, more: &str) -> String {
        let quiet = "defaults.heartbeat = { client.ping_interval = \"off\", upstream.ping_interval = \"off\" }";
        format!(
            "gateway.drain.spread = \"0s\"\n{quiet}\n[[route]]\nname = \"all\"\nupstream = \"pool\"\n[upstream.pool]\n\
             servers = [\"{server}\"]\nresolver = \"{}\"\n{more}\n",
            self.address
        )
    }
}

fn a(last: u8) -> RData {
    RData::A(A(Ipv4Addr::new(127, 0, 0, last)))
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    weighted(priority, 1, port, target)
}

fn weighted(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}

/// A backend that tells who it is, and holds its sessions.
fn backend(mut address: SocketAddr) -> SocketAddr {
    if address.port() == 0 {
        // One that nobody is given on the other addresses either.
        address.set_port(free_address().port());
    }
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut peer = tungstenite::accept(stream).unwrap();
                peer.send(address.to_string().into()).unwrap();
                closed_with(&mut peer);
            });
        }
    });
    address
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), port)
}

/// A session, and which backend it is on.
fn session(gateway: &Running) -> (Client, String) {
    let mut client = gateway.connect("/");
    let whose = client.read().unwrap().into_text().unwrap().to_string();
    (client, whose)
}

fn sessions(gateway: &Running, count: usize) -> Vec<(Client, String)> {
    (0..count).map(|_| session(gateway)).collect()
}

fn backends(gateway: &Running) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut names: Vec<_> =
        runtime.block_on(gateway.operator().backends()).into_iter().map(|backend| backend.name).collect();
    names.sort();
    names
}

#[test]
fn every_address_of_a_name_is_a_backend_and_one_that_leaves_drains() {
    let dns = Server::start();
    let port = backend(at(1, 0)).port();
    let (first, second, third) = (at(1, port), backend(at(2, port)), backend(at(3, port)));
    dns.set("chat.test", vec![a(1), a(2)]);
    let gateway = dns.gateway(&format!("ws://chat.test:{port}"), "");
    let mut open = sessions(&gateway, 4);
    for address in [first, second] {
        assert_eq!(open.iter().filter(|(_, whose)| *whose == address.to_string()).count(), 2);
    }
    assert_eq!(backends(&gateway), [1, 2].map(|last| format!("ws://chat.test:{port}#127.0.0.{last}")));

    dns.set("chat.test", vec![a(1), a(3)]);
    eventually("the second leaves, and the third is there", || {
        backends(&gateway) == [1, 3].map(|last| format!("ws://chat.test:{port}#127.0.0.{last}"))
    });
    let left = open.extract_if(.., |(_, whose)| *whose == second.to_string());
    for (mut client, _) in left.collect::<Vec<_>>() {
        assert_eq!(closed_with(&mut client).unwrap().0, 1001);
    }
    let more = sessions(&gateway, 4);
    assert!(more.iter().all(|(_, whose)| *whose != second.to_string()));
    assert!(more.iter().any(|(_, whose)| *whose == third.to_string()));
    // Those on the one that stayed live on.
    for (client, _) in &mut open {
        client.get_mut().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(matches!(client.read(), Err(tungstenite::Error::Io(_))), "nothing comes, no end either");
    }
    assert_eq!(gateway.verdicts().len(), 2);
}

#[test]
fn services_have_the_ports_of_their_records_and_the_first_priority_that_has_addresses() {
    let dns = Server::start();
    let (one, two) = (backend(at(1, 0)), backend(at(2, 0)));
    dns.set(
        "_chat._tcp.example.test",
        vec![
            srv(1, one.port(), "gone.example.test."),
            srv(2, one.port(), "one.example.test."),
            srv(2, two.port(), "two.example.test."),
            srv(3, 9, "spare.example.test."),
        ],
    );
    dns.set("one.example.test", vec![a(1)]);
    dns.set("two.example.test", vec![a(2)]);
    dns.set("spare.example.test", vec![a(3)]);
    let gateway = dns.gateway("srv+ws://_chat._tcp.example.test", "");
    let mut whose: Vec<String> = sessions(&gateway, 2).into_iter().map(|(_, whose)| whose).collect();
    whose.sort();
    assert_eq!(whose, [one.to_string(), two.to_string()]);
    assert_eq!(backends(&gateway)[0], format!("srv+ws://_chat._tcp.example.test#{one}"));
}

#[test]
fn a_cookie_counts_before_its_name_was_looked_up() {
    let dns = Server::start();
    let port = backend(at(1, 0)).port();
    backend(at(2, port));
    dns.set("chat.test", vec![a(1), a(2)]);
    let sticky = |cookie: &str| {
        let gateway = dns.gateway(&format!("ws://chat.test:{port}"), "sticky = { cookie = \"gate\" }");
        let mut raw = Raw::connect(gateway.address());
        raw.send(request("/", cookie).as_bytes());
        let head = raw.head().to_lowercase();
        head.split_once("set-cookie: ").map(|(_, line)| line.split(';').next().unwrap().to_owned())
    };
    let cookie = sticky("").expect("a cookie is set");
    assert_eq!(sticky(&format!("Cookie: {cookie}\r\n")), None, "another gateway knows it at once");
}

#[test]
fn an_operator_means_all_addresses_by_the_name_and_one_by_its_own() {
    let dns = Server::start();
    let port = backend(at(1, 0)).port();
    backend(at(2, port));
    dns.set("chat.test", vec![a(1), a(2)]);
    let gateway = dns.gateway(&format!("ws://chat.test:{port}"), "");
    let _open = sessions(&gateway, 4);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (name, backends, sessions) in [("", 2, 4), ("#127.0.0.2", 1, 2), ("#127.0.0", 0, 0), ("0", 0, 0)] {
        let name = format!("ws://chat.test:{port}{name}");
        let meant = Backends { upstream: None, name: name.clone() };
        assert_eq!(runtime.block_on(gateway.operator().set_drained(&meant, true)).len(), backends, "{name}");
        let filter = Filter { backend: Some(name), ..Filter::default() };
        let found =
            runtime.block_on(gateway.operator().sessions(Query { filter, sort: Sort::Oldest, after: None, limit: 1 }));
        assert_eq!(found.matching, sessions);
    }
}

#[test]
fn one_backend_may_have_several_addresses() {
    let dns = Server::start();
    let port = backend(at(2, 0)).port();
    // Nobody listens at the first.
    dns.set("chat.test", vec![a(1), a(2)]);
    let gateway = dns.gateway(&format!("ws://chat.test:{port}"), "resolve = \"one\"");
    assert_eq!(session(&gateway).1, at(2, port).to_string());
    assert_eq!(backends(&gateway), [format!("ws://chat.test:{port}")]);
}

#[test]
fn sessions_on_addresses_that_a_reload_makes_one_backend_drain() {
    let dns = Server::start();
    let port = backend(at(1, 0)).port();
    dns.set("chat.test", vec![a(1)]);
    let server = format!("ws://chat.test:{port}");
    let gateway = dns.gateway(&server, "");
    let (mut client, _) = session(&gateway);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let one = configured(&dns.toml(&server, "resolve = \"one\""));
    assert_eq!(runtime.block_on(gateway.operator().reload_to(one)).unwrap().retired, 1);
    assert_eq!(closed_with(&mut client).unwrap().0, 1001);
}

#[test]
fn a_resolver_that_is_silent_ends_no_session_and_holds_none_up() {
    let dns = Server::start();
    let address = backend(at(1, 0));
    dns.set("chat.test", vec![a(1)]);
    let gateway = dns.gateway(&format!("ws://chat.test:{}", address.port()), "");
    let _first = session(&gateway);
    dns.mute.store(true, Relaxed);
    eventually("it is asked in vain", || dns.unanswered.load(Relaxed) > 0);
    let begun = Instant::now();
    let _more = sessions(&gateway, 3);
    // A lookup takes as long as `timeouts.connect` and longer.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(gateway.verdicts().is_empty());
}

#[test]
fn a_family_that_the_resolver_does_not_tell_of_stays() {
    let dns = Server::start();
    let port = backend(at(1, 0)).port();
    dns.set("chat.test", vec![a(1), RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))]);
    let gateway = dns.gateway(&format!("ws://chat.test:{port}"), "");
    let _one = session(&gateway);
    let there = ["127.0.0.1", "::1"].map(|at| format!("ws://chat.test:{port}#{at}"));
    assert_eq!(backends(&gateway), there);
    dns.fail("chat.test", RecordType::AAAA, ("chat.test", RecordType::A), 5);
    assert_eq!(backends(&gateway), there);
}

#[test]
fn targets_that_the_resolver_does_not_tell_of_stay_and_none_of_a_later_priority_replaces_them() {
    let dns = Server::start();
    let (one, spare) = (backend(at(1, 0)), backend(at(3, 0)));
    let targets = vec![srv(1, one.port(), "one.example.test."), srv(2, spare.port(), "spare.example.test.")];
    dns.set("_chat._tcp.example.test", targets);
    dns.set("one.example.test", vec![a(1)]);
    dns.set("spare.example.test", vec![a(3)]);
    let gateway = dns.gateway("srv+ws://_chat._tcp.example.test", "");
    let _one = session(&gateway);
    let service = "_chat._tcp.example.test";
    dns.fail("one.example.test", RecordType::A, (service, RecordType::SRV), 2);
    assert_eq!(backends(&gateway), [format!("srv+ws://_chat._tcp.example.test#{one}")]);
    assert!(gateway.verdicts().is_empty());
}

#[test]
fn services_share_out_sessions_by_the_weights_of_their_records_as_they_are_now() {
    let dns = Server::start();
    let (one, two) = (backend(at(1, 0)), backend(at(2, 0)));
    let set = |first, second| {
        let one = weighted(1, first, one.port(), "one.example.test.");
        let two = weighted(1, second, two.port(), "two.example.test.");
        dns.set("_chat._tcp.example.test", vec![one, two]);
    };
    set(30, 10);
    dns.set("one.example.test", vec![a(1)]);
    dns.set("two.example.test", vec![a(2)]);
    let gateway = dns.gateway("srv+ws://_chat._tcp.example.test", "balance = \"round_robin\"");
    let on_first = || sessions(&gateway, 8).iter().filter(|(_, whose)| *whose == one.to_string()).count();
    assert_eq!(on_first(), 6);
    set(0, 10);
    eventually("the weights change", || on_first() == 0);
}

#[test]
fn a_name_without_addresses_is_502_until_it_has_one() {
    let dns = Server::start();
    let address = backend(at(1, 0));
    let gateway = dns.gateway(&format!("ws://chat.test:{}", address.port()), "");
    match gateway.try_connect("/") {
        Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 502),
        other => panic!("{other:?}"),
    }
    dns.set("chat.test", vec![a(1)]);
    // It is asked again after a few seconds.
    let deadline = Instant::now() + 2 * PATIENCE;
    while gateway.try_connect("/").is_err() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(50));
    }
}
