//! Each kind of load through a gateway, both in this process. What ends a load is a number of messages, never a time.
#![allow(clippy::unwrap_used)]
use crate::{
    Outcome, certificate, churn, fair,
    options::{Certificate, Command, Options},
    report::{Report, Value},
    rtt, run, serve, sub,
};
use clap::Parser;
use pulsegate::{config, gateway::Gateway, listener::ListenAddress};
use std::{future::Future, net::SocketAddr, path::Path, sync::mpsc, thread};
use tokio::runtime::{Builder, LocalOptions};

/// Ends a load that its number of messages does not end.
const TOO_LONG: &str = "60";

/// A gateway with a plain and a TLS listener, in front of a backend.
struct Rig {
    gateway: Gateway,
    folder: tempfile::TempDir,
}

impl Rig {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificate::write(&Certificate { folder: folder.path().to_owned() }).unwrap();
        let backend = backend();
        let text = format!(
            "gateway.drain.spread = \"0s\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificate = \"cert.pem\", key = \"key.pem\" }}\n\
             [[route]]\nupstream = \"load\"\n[upstream.load]\nservers = [\"ws://{backend}\"]\n"
        );
        let config = config::parse("test", &text, folder.path()).unwrap();
        Self { gateway: Gateway::start(config).unwrap(), folder }
    }

    fn url(&self, tls: bool, path: &str) -> String {
        match self.gateway.addresses().nth(usize::from(tls)) {
            Some(ListenAddress::Tcp(address)) if tls => format!("wss://{address}{path}"),
            Some(ListenAddress::Tcp(address)) => format!("ws://{address}{path}"),
            other => panic!("the listener is {other:?}"),
        }
    }

    fn ca(&self) -> String {
        self.folder.path().join("cert.pem").display().to_string()
    }

    fn end(self) {
        self.gateway.drain();
        let _ended = self.gateway.wait();
    }
}

fn backend() -> SocketAddr {
    let (tell, told) = mpsc::channel();
    // It ends with the test's process.
    thread::spawn(move || {
        block_on(async {
            let listener = serve::listen("127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            serve::serve(listener, true).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(future)
}

/// Runs a load to its outcome.
fn loaded(arguments: &[&str]) -> Outcome {
    let fixed = ["--quiet", "--warmup", "0", "--timeout", TOO_LONG];
    let Options { command } = Options::parse_from([&["load"], arguments, &fixed].concat());
    let outcome = block_on(async {
        match &command {
            Command::Rtt(options) => rtt::run(options).await,
            Command::Sub(options) => sub::sub(options).await,
            Command::Idle(options) => sub::idle(options).await,
            Command::Churn(options) => churn::run(options).await,
            Command::Fair(options) => fair::run(options).await,
            Command::Serve(_) | Command::Certificate(_) => panic!("that is no load"),
        }
    });
    outcome.unwrap()
}

fn count(report: &Report, name: &str) -> u64 {
    match report.get(name) {
        Some(Value::Count(count)) => *count,
        other => panic!("{name} is {other:?} in\n{}", report.table()),
    }
}

#[track_caller]
fn clean(outcome: &Outcome, opened: u64) {
    let table = outcome.report.table();
    assert!(outcome.worked, "{table}");
    assert_eq!(count(&outcome.report, "errors"), 0, "{table}");
    assert!(count(&outcome.report, "opened") >= opened, "{table}");
}

#[test]
fn round_trips_of_every_kind_through_a_gateway() {
    let rig = Rig::start();
    let ca = rig.ca();
    let (plain, tls) = (rig.url(false, "/echo"), rig.url(true, "/echo"));
    let cases: [&[&str]; 7] = [
        &[&plain],
        &[&plain, "--size", "0"],
        &[&plain, "--inflight", "32", "--text"],
        &[&plain, "--size", "100000", "--inflight", "2"],
        &[&tls, "--ca", &ca, "--size", "70000"],
        &[&plain, "--rate", "2000"],
        &[&plain, "--any"],
    ];
    for case in cases {
        let fixed = ["--conns", "4", "--count", "100", "--secs", TOO_LONG];
        let outcome = loaded(&[&["rtt"], case, &fixed].concat());
        clean(&outcome, 4);
        assert!(count(&outcome.report, "messages") >= 100);
        let Some(Value::Group(latency)) = outcome.report.get("latency_us") else { panic!("no latency") };
        assert!(count(latency, "count") >= 100);
    }
    rig.end();
}

#[test]
fn streams_idle_connections_and_churn_through_a_gateway() {
    let rig = Rig::start();
    for path in ["/source/64/0", "/source/100000/0/text", "/source/256/500"] {
        let outcome = loaded(&["sub", &rig.url(false, path), "--conns", "3", "--count", "50", "--secs", TOO_LONG]);
        clean(&outcome, 3);
        let messages = count(&outcome.report, "messages");
        assert!(messages >= 50 && count(&outcome.report, "bytes") > 40 * 64, "{}", outcome.report.table());
    }
    let hello = ["sub", &rig.url(false, "/echo"), "--hello", "hi", "--conns", "3", "--count", "3", "--secs", TOO_LONG];
    let outcome = loaded(&hello);
    clean(&outcome, 3);
    assert_eq!(count(&outcome.report, "bytes"), 6);
    for tls in [false, true] {
        let url = rig.url(tls, "/echo");
        let insecure: &[&str] = if tls { &["--insecure"] } else { &[] };
        let pid = std::process::id().to_string();
        let idle = loaded(&[&["idle", &url, "--conns", "20", "--secs", "0", "--pid", &pid], insecure].concat());
        clean(&idle, 20);
        assert!(idle.report.get("kib_per_conn").is_some(), "{}", idle.report.table());
        let ending = ["--conns", "3", "--count", "20", "--secs", TOO_LONG];
        let churn = loaded(&[&["churn", &url], &ending[..], insecure].concat());
        clean(&churn, 20);
        assert!(count(&churn.report, "connections") >= 20);
    }
    rig.end();
}

#[test]
fn round_trips_beside_a_flood_either_way() {
    let rig = Rig::start();
    let (echo, source, sink) = (rig.url(false, "/echo"), rig.url(false, "/source/65536/0"), rig.url(false, "/sink"));
    for flood in [&["--flood", source.as_str()][..], &["--flood", &sink, "--send"]] {
        let fixed = ["fair", &echo, "--conns", "4", "--count", "100", "--secs", TOO_LONG];
        let outcome = loaded(&[&fixed, flood].concat());
        clean(&outcome, 4);
        assert!(matches!(outcome.report.get("p99_ratio"), Some(Value::Figure(1e-9..))), "{}", outcome.report.table());
    }
    rig.end();
}

#[test]
fn what_does_not_work_is_told() {
    let rig = Rig::start();
    let refused = loaded(&["rtt", &rig.url(false, "/../echo"), "--conns", "3", "--secs", "0"]);
    assert!(!refused.worked);
    assert_eq!((count(&refused.report, "opened"), count(&refused.report, "errors")), (0, 3));
    assert!(refused.report.table().contains("refused: HTTP/1.1 400 Bad Request"), "{}", refused.report.table());
    let untrusted = loaded(&["idle", &rig.url(true, "/echo"), "--conns", "1", "--secs", "0"]);
    assert!(!untrusted.worked && untrusted.report.table().contains("TLS handshake: "), "{}", untrusted.report.table());
    rig.end();
    let missing = Options::parse_from(["load", "rtt", "http://127.0.0.1/"]);
    assert!(run(&missing).unwrap_err().to_string().contains("ws://"));
}

#[test]
fn the_result_goes_to_a_file_as_json() {
    let rig = Rig::start();
    let file = rig.folder.path().join("result.json");
    let url = rig.url(false, "/echo");
    let path = file.display().to_string();
    let arguments = ["load", "rtt", &url, "--count", "10", "--warmup", "0", "--quiet", "--json", &path];
    assert!(run(&Options::parse_from(arguments)).unwrap());
    let text = std::fs::read_to_string(Path::new(&path)).unwrap();
    assert!(text.starts_with("{\"load\": \"rtt\", ") && text.contains("\"p99.9\": "), "{text}");
    rig.end();
}
