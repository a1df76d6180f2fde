//! Backends that are put out: frozen ones, and those that fail their checks.
use super::harness::{Backend, Running, eventually, joined};
use pulsegate::{
    gateway::BackendState,
    metrics::{Ejection, text::Format},
    relay::EndReason,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tungstenite::handshake::server::{Request, Response};

fn states(gateway: &Running) -> Vec<BackendState> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(gateway.operator().backends())
}

fn cause(gateway: &Running, place: usize) -> Option<Ejection> {
    states(gateway)[place].down.as_ref().map(|cause| cause.kind)
}

/// A WebSocket server that answers pings and handshakes as long as it is not stopped, as SIGSTOP would stop it.
fn stoppable() -> (Backend, Arc<AtomicBool>) {
    stoppable_but(|_| None)
}

/// The same, but on some paths it answers with a status.
#[expect(clippy::result_large_err, reason = "tungstenite's callback has this type")]
fn stoppable_but(refuses: impl Fn(&str) -> Option<u16> + Send + Sync + 'static) -> (Backend, Arc<AtomicBool>) {
    let stopped = Arc::new(AtomicBool::new(false));
    let halt = Arc::clone(&stopped);
    let serve = move |stream: TcpStream| {
        let hold = || {
            while halt.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
        };
        hold();
        let answer = |request: &Request, response: Response| match refuses(request.uri().path()) {
            None => Ok(response),
            Some(status) => Err(http::Response::builder().status(status).body(None).unwrap()),
        };
        let Ok(mut peer) = tungstenite::accept_hdr(stream, answer) else { return };
        peer.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        loop {
            hold();
            match peer.read() {
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    (Backend::raw(serve), stopped)
}

const SESSIONS: usize = 24;

/// A pool of a backend that will freeze, with more of its keys, and of another that is there for when it has.
fn pool(frozen: &Backend, other: &Backend, more: &str) -> String {
    format!(
        "gateway.drain.spread = \"1200ms\"\n\
         defaults.timeouts.close = \"1s\"\n\
         defaults.heartbeat.client.ping_interval = \"off\"\n\
         defaults.heartbeat.upstream = {{ ping_interval = \"200ms\", ping_timeout = \"1s\" }}\n\
         [[route]]\nname = \"all\"\nupstream = \"pool\"\n\
         [upstream.pool]\nslow_start = \"off\"\n{more}\n\
         servers = [\"{}\", {{ url = \"{}\", backup = true }}]\n",
        frozen.url(),
        other.url()
    )
}

#[test]
fn a_frozen_backend_is_found_its_clients_are_told_apart_and_it_thaws() {
    let (frozen, stopped) = stoppable();
    let (other, _ends) = Backend::reader();
    let gateway = Running::start(&pool(&frozen, &other, ""));
    let clients: Vec<_> = (0..SESSIONS).map(|_| gateway.connect("/")).collect();
    eventually("a pong proves it", || states(&gateway)[0].proven);
    stopped.store(true, Ordering::SeqCst);
    eventually("it is found frozen", || cause(&gateway, 0) == Some(Ejection::Frozen));

    let elsewhere = gateway.connect("/");
    assert_eq!(states(&gateway)[1].sessions, 1, "new sessions go elsewhere");
    let verdicts: Vec<_> = (0..SESSIONS).map(|_| gateway.verdict()).collect();
    assert!(verdicts.iter().all(|verdict| verdict.reason == EndReason::UpstreamUnresponsive));
    let waited = verdicts.iter().filter(|verdict| verdict.told_after.is_some()).count();
    assert!(waited > SESSIONS / 2, "{waited} of {SESSIONS} waited their turn");
    let told = "pulsegate_backend_ejections_total{upstream=\"pool\",backend=\"";
    let metrics = gateway.operator().metrics(Format::Prometheus);
    let frozen = metrics.lines().filter(|line| line.starts_with(told) && line.contains("cause=\"frozen\""));
    assert_eq!(frozen.filter(|line| line.ends_with(" 1")).count(), 1, "{metrics}");

    stopped.store(false, Ordering::SeqCst);
    eventually("a ping is answered", || states(&gateway)[0].down.is_none());
    let back = gateway.connect("/");
    assert_eq!(states(&gateway)[0].sessions, 1);
    drop((clients, elsewhere, back));
}

#[test]
fn a_frozen_backend_that_has_no_websocket_for_a_probe_is_tried_by_a_client() {
    let (status, probes) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicUsize::new(0)));
    let (answers, count) = (Arc::clone(&status), Arc::clone(&probes));
    let (frozen, stopped) = stoppable_but(move |path| {
        let status = answers.load(Ordering::SeqCst);
        (path == "/up" && status > 0).then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            status
        })
    });
    let (other, _ends) = Backend::reader();
    let check = "check = { kind = \"websocket\", path = \"/up\", interval = \"50ms\", fall = 100 }";
    let gateway = Running::start(&pool(&frozen, &other, check));
    let clients: Vec<_> = (0..SESSIONS).map(|_| gateway.connect("/chat")).collect();
    eventually("a pong proves it", || states(&gateway)[0].proven);
    // What stands before it says that it does not work; no check that began before is under way.
    status.store(502, Ordering::SeqCst);
    eventually("it is checked", || probes.load(Ordering::SeqCst) > 0);
    stopped.store(true, Ordering::SeqCst);
    eventually("it is found frozen", || cause(&gateway, 0) == Some(Ejection::Frozen));
    eventually("nobody is left who could answer a ping", || states(&gateway)[0].sessions == 0);

    stopped.store(false, Ordering::SeqCst);
    let before = probes.load(Ordering::SeqCst);
    eventually("it is probed", || probes.load(Ordering::SeqCst) > before + 3);
    assert_eq!(cause(&gateway, 0), Some(Ejection::Frozen));

    status.store(401, Ordering::SeqCst);
    eventually("a client may try it", || cause(&gateway, 0).is_none());
    let back = gateway.connect("/chat");
    assert_eq!(states(&gateway)[0].sessions, 1);
    drop((clients, back));
}

#[test]
fn a_check_puts_a_backend_out_before_any_client_comes_and_brings_it_back() {
    let (well, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_well, count) = (Arc::clone(&well), Arc::clone(&asked));
    let sick = Backend::raw(move |mut stream| {
        let mut head = [0; 4096];
        let read = stream.read(&mut head).unwrap_or_default();
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        if head.starts_with("GET /up HTTP/1.1\r\n") && head.contains("Host: chat.internal\r\n") {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let status = if is_well.load(Ordering::SeqCst) { "204 No Content" } else { "500 No" };
        // The checker may have gone.
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    });
    let toml = format!(
        "[[route]]\nname = \"all\"\nupstream = \"pool\"\n[upstream.pool]\nservers = [\"{}\"]\n\
         check = {{ kind = \"http\", path = \"/up\", host = \"chat.internal\", interval = \"50ms\", rise = 2, fall = 2 }}\n",
        sick.url()
    );
    let gateway = Running::start(&toml);
    eventually("it is put out", || cause(&gateway, 0) == Some(Ejection::Check));
    let why = states(&gateway)[0].down.clone().unwrap().words;
    assert_eq!(why, "its check failed: it answered 500 Internal Server Error to GET /up");
    assert!(asked.load(Ordering::SeqCst) >= 2);
    well.store(true, Ordering::SeqCst);
    eventually("it is back", || cause(&gateway, 0).is_none());
    let ending = thread::spawn(move || gateway.drained());
    joined("the gateway ends while checks go on", ending);
}
