//! Upgrades of the program itself, from outside: what clients, operators and systemd see.
use super::{
    admin::{Answer, exchange},
    harness::{PATIENCE, Raw, eventually, free_address, joined, one_route, patient, request},
};
use pulsegate::pid_file::PidFile;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt, symlink},
            net::{UnixDatagram, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tempfile::TempDir;
use tungstenite::Message;

/// `pulsegate` and its successors, whose file is a link that a test may change. All of them are killed when dropped.
struct Service {
    first: Child,
    log: Arc<Mutex<String>>,
    folder: TempDir,
}

impl Service {
    fn start(toml: &str) -> Self {
        Self::start_as(toml, |program| Command::new(program))
    }

    /// The same, by a command of the test's.
    fn start_as(toml: &str, command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("pulsegate");
        symlink(env!("CARGO_BIN_EXE_pulsegate"), &program).unwrap();
        write(&folder, toml);
        let mut first = command(&program)
            .current_dir(&folder)
            .stderr(Stdio::piped())
            // A group of their own, so that none is left behind.
            .process_group(0)
            .spawn()
            .unwrap();
        let (log, lines) = (Arc::<Mutex<String>>::default(), BufReader::new(first.stderr.take().unwrap()));
        let written = Arc::clone(&log);
        // Ends with the last process that has this log.
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                *written.lock().unwrap() += &format!("{line}\n");
            }
        });
        let service = Self { first, log, folder };
        eventually("the service serves", || service.pid_file().exists() && service.log().contains("listening on "));
        service
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("gate.pid")
    }

    fn process(&self) -> u32 {
        PidFile::read(&self.pid_file()).unwrap()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The TCP address that was told last.
    fn address(&self) -> SocketAddr {
        let log = self.log();
        let (_, told) = log.rsplit_once("listening on ws://").unwrap_or_else(|| panic!("{log}"));
        told.split('/').next().unwrap().parse().unwrap()
    }

    /// `pulsegate upgrade`: its exit code, and what it said.
    fn upgrade(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let answer = Command::new(env!("CARGO_BIN_EXE_pulsegate"))
            .arg("upgrade")
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .unwrap();
        let said = [answer.stdout, answer.stderr].concat();
        (answer.status.code(), String::from_utf8(said).unwrap())
    }

    /// An upgrade that must go well.
    fn upgraded(&self) {
        let before = self.process();
        let (code, said) = self.upgrade(&[]);
        assert_eq!(code, Some(0), "{said}\n{}", self.log());
        eventually("the new process says which it is", || self.process() != before);
    }

    /// An upgrade that must fail: what was said. The service goes on.
    fn refused(&self) -> String {
        let before = self.process();
        let (code, said) = self.upgrade(&["--pid", &before.to_string()]);
        assert_eq!(code, Some(1), "{said}\n{}", self.log());
        assert!(said.contains("serves as before"), "{said}");
        assert_eq!(self.process(), before);
        Short::connect(self.address()).talk();
        eventually("the log tells it", || self.log().contains("no upgrade, serving as before"));
        said
    }

    /// Puts a shell script in the program's place.
    fn replace_by_script(&self, script: &str) {
        let path = self.remove_program();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn replace_by_pulsegate(&self) {
        symlink(env!("CARGO_BIN_EXE_pulsegate"), self.remove_program()).unwrap();
    }

    fn remove_program(&self) -> PathBuf {
        let path = self.folder.path().join("pulsegate");
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).unwrap();
        }
        path
    }

    /// The exit code of the first process, which has drained.
    fn first_ends(&mut self) -> Option<i32> {
        eventually("the first process ends", || self.first.try_wait().unwrap().is_some());
        self.first.wait().unwrap().code()
    }

    /// Ends the process that serves, and waits for that.
    fn stop(&self) {
        kill_process(Pid::from_raw(self.process().cast_signed()).unwrap(), Signal::TERM).unwrap();
        eventually("the service ends", || !self.pid_file().exists());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // All of them have ended already if all went well.
        let _ = kill_process_group(Pid::from_child(&self.first), Signal::KILL);
        let _ = self.first.wait();
    }
}

fn write(folder: &TempDir, toml: &str) {
    fs::write(folder.path().join("gateway.toml"), toml).unwrap();
}

/// A gateway for the built-in echo that drains quickly.
fn echo(gateway: &str, listeners: &[&str]) -> String {
    let gateway = format!("gateway.pid_file = \"gate.pid\"\ngateway.drain = {{ spread = \"300ms\" }}\n{gateway}");
    let listeners: String =
        listeners.iter().map(|address| format!("[[listener]]\naddress = \"{address}\"\n")).collect();
    one_route("builtin:echo", &gateway) + &listeners
}

/// A client's session: one echo, and a close.
struct Short<S>(tungstenite::WebSocket<S>);

impl Short<TcpStream> {
    fn connect(address: SocketAddr) -> Self {
        Self::on(patient(TcpStream::connect(address).unwrap())).unwrap()
    }
}

impl<S: std::io::Read + std::io::Write> Short<S> {
    fn on(stream: S) -> Result<Self, String> {
        let (client, _) = tungstenite::client("ws://gateway.test/", stream).map_err(|error| error.to_string())?;
        Ok(Self(client))
    }

    fn talk(self) {
        self.try_talk().unwrap();
    }

    /// An echo, and a closing handshake; or the close frame of a drain.
    fn try_talk(mut self) -> Result<(), String> {
        let text = |error: tungstenite::Error| error.to_string();
        let told = |message: &Message| matches!(message, Message::Close(Some(frame)) if u16::from(frame.code) == 1012);
        match self.0.send(Message::text("hello")).and_then(|()| self.0.read()) {
            Ok(message) if message == Message::text("hello") => self.0.close(None).map_err(text)?,
            Ok(message) if told(&message) => {}
            Ok(message) => return Err(format!("{message:?}")),
            Err(error) => return Err(error.to_string()),
        }
        loop {
            match self.0.read() {
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

/// Clients that come and go, one after the other on each of some threads, until told to stop.
struct Storm {
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Storm {
    fn begin(address: SocketAddr, clients: usize) -> Self {
        let (over, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = || {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !over.load(Relaxed) {
                    let outcome = TcpStream::connect(address)
                        .map_err(|error| error.to_string())
                        .and_then(|stream| Short::on(patient(stream))?.try_talk());
                    served.fetch_add(1, Relaxed);
                    failures.extend(outcome.err());
                }
                failures
            })
        };
        let clients = (0..clients).map(|_| client()).collect();
        Self { over, served, clients }
    }

    fn gusts(&self, more: usize) {
        let goal = self.served.load(Relaxed) + more;
        eventually("clients are served", || self.served.load(Relaxed) >= goal);
    }

    /// What went wrong for its clients.
    fn end(self) -> Vec<String> {
        self.over.store(true, Relaxed);
        self.clients.into_iter().flat_map(|client| joined("a client", client)).collect()
    }
}

#[test]
fn nobody_is_refused_in_a_storm_of_connects() {
    let mut service = Service::start(&echo("gateway.workers = 2", &["127.0.0.1:0"]));
    let address = service.address();
    let storm = Storm::begin(address, 6);
    let mut generations = vec![service.process()];
    for _ in 0..4 {
        storm.gusts(50);
        let mut long: Vec<Raw> = (0..10).map(|_| Raw::upgraded(address, "/")).collect();
        service.upgraded();
        generations.push(service.process());
        assert_eq!(service.address(), address);
        for client in &mut long {
            assert_eq!(client.close_frame().0, 1012);
            client.send(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
            assert_eq!(client.end(), (0, false), "the end of TCP, and no reset");
        }
    }
    storm.gusts(50);
    let failures = storm.end();
    assert!(failures.is_empty(), "{failures:?}\n{}", service.log());
    assert_eq!(service.first_ends(), Some(0), "{}", service.log());
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), 5);
    service.stop();
    assert!(service.log().contains("\"generation\":5"), "{}", service.log());
}

#[test]
fn a_new_process_that_fails_leaves_the_old_one_serving() {
    let service = Service::start(&echo("gateway.upgrade_timeout = \"3s\"", &["127.0.0.1:0"]));
    let mut long = Raw::upgraded(service.address(), "/");

    service.replace_by_script("echo 'lib.so: no such file' >&2; exit 3");
    let said = service.refused();
    assert!(said.contains("exit status: 3") && said.contains("lib.so: no such file"), "{said}");

    service.replace_by_script("echo 'I wait' >&2; exec sleep 60");
    let said = service.refused();
    assert!(said.contains("not ready within 3 s") && said.contains("I wait"), "{said}");

    service.remove_program();
    let said = service.refused();
    assert!(said.contains("cannot start"), "{said}");
    service.replace_by_pulsegate();

    let toml = fs::read_to_string(service.folder.path().join("gateway.toml")).unwrap();
    write(&service.folder, &toml.replace("spread", "spraed"));
    let said = service.refused();
    assert!(said.contains("gateway.toml:") && said.contains("spraed"), "{said}");
    assert_eq!(service.upgrade(&[]).0, Some(78), "the command has looked first");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    write(&service.folder, &format!("{toml}[[listener]]\naddress = \"{taken}\"\n"));
    let said = service.refused();
    assert!(said.contains("in use"), "{said}");

    // A session of before has not noticed, and now it goes well.
    long.send(&[0x82, 0x81, 0, 0, 0, 0, 7]);
    assert_eq!(long.receive::<3>(), [0x82, 1, 7]);
    write(&service.folder, &toml);
    kill_process(Pid::from_child(&service.first), Signal::USR2).unwrap();
    assert_eq!(long.close_frame().0, 1012);
    eventually("the new process says which it is", || service.process() != service.first.id());
}

#[test]
fn a_unix_listener_survives_its_process() {
    // The delay is for balancers, which need not know of an upgrade.
    let toml = echo("gateway.workers = 2", &["unix:gate.sock"]).replace("spread =", "delay = \"20s\", spread =");
    let mut service = Service::start(&toml);
    let path = service.folder.path().join("gate.sock");
    let talk = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Short::on(stream).unwrap().talk();
    };
    talk();
    service.upgraded();
    talk();
    assert_eq!(service.first_ends(), Some(0));
    talk();
    write(&service.folder, &echo("", &["unix:gate.sock"]));
    service.upgraded();
    talk();
    service.stop();
    assert!(!path.exists(), "the last one removes it");
}

#[test]
fn workers_may_become_more_and_fewer() {
    let toml = |workers| echo(&format!("gateway.workers = {workers}"), &["127.0.0.1:0"]);
    let service = Service::start(&toml(1));
    let storm = Storm::begin(service.address(), 4);
    for workers in [2, 1, 3, 2, 1] {
        storm.gusts(30);
        write(&service.folder, &toml(workers));
        service.upgraded();
    }
    storm.gusts(100);
    let failures = storm.end();
    assert!(failures.is_empty(), "{failures:?}\n{}", service.log());
}

#[test]
fn listeners_may_come_and_go() {
    let free = free_address().to_string();
    let mut service = Service::start(&echo("", &["127.0.0.1:0", "unix:old.sock"]));
    let address = service.address();
    write(&service.folder, &echo("", &["127.0.0.1:0", &free, "unix:new.sock"]));
    service.upgraded();
    Short::connect(address).talk();
    Short::connect(free.parse().unwrap()).talk();
    assert!(service.folder.path().join("new.sock").exists());
    assert_eq!(service.first_ends(), Some(0));
    assert!(!service.folder.path().join("old.sock").exists(), "its listener is gone");

    write(&service.folder, &echo("", &[&free]));
    service.upgraded();
    Short::connect(free.parse().unwrap()).talk();
    eventually("the other closes", || {
        TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

/// Asks on a Unix socket, whose users may ask everything.
fn ask(service: &Service, socket: &str, method: &str, path: &str) -> Answer {
    let stream = UnixStream::connect(service.folder.path().join(socket)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, method, path, &["Host: localhost"], "")
}

#[test]
fn an_operator_upgrades_it_and_is_served_by_the_new_process_on_the_same_socket() {
    let toml = echo("admin.address = \"unix:admin.sock\"", &["127.0.0.1:0"]);
    let mut service = Service::start(&toml);
    let (first, path) = (service.first.id(), service.folder.path().join("admin.sock"));
    let answer = ask(&service, "admin.sock", "POST", "/api/v1/upgrade");
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, service.log());
    let successor = answer.json();
    assert_eq!(successor["generation"], 2, "{successor}");
    assert_eq!(service.first_ends(), Some(0), "{}", service.log());
    // From now on only the new process can answer.
    let lineage = ask(&service, "admin.sock", "GET", "/api/v1/upgrade").json();
    assert_eq!((&lineage["process"], lineage["parent"].as_u64()), (&successor["process"], Some(first.into())));
    assert_eq!(ask(&service, "admin.sock", "GET", "/readyz").body, "ready\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

    write(&service.folder, &toml.replace("spread", "spraed"));
    let refused = ask(&service, "admin.sock", "POST", "/api/v1/upgrade");
    assert!(refused.status == 500 && refused.body.contains("spraed"), "{} {}", refused.status, refused.body);

    // Another address: the file of the old one goes with the old process.
    write(&service.folder, &toml.replace("admin.sock", "other.sock"));
    service.upgraded();
    eventually("the old address is gone", || !path.exists());
    assert_eq!(ask(&service, "other.sock", "GET", "/api/v1/upgrade").json()["generation"], 3);
    service.stop();
    eventually("the last one removes it", || !service.folder.path().join("other.sock").exists());
}

#[test]
fn no_operator_is_refused_on_tcp_while_processes_change() {
    let free = free_address();
    let service = Service::start(&echo(&format!("admin.address = \"{free}\""), &["127.0.0.1:0"]));
    let (over, host) = (Arc::<AtomicBool>::default(), format!("Host: {free}"));
    let asking = {
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let mut answers = 0;
            while !over.load(Relaxed) {
                let answer = exchange(patient(TcpStream::connect(free).unwrap()), "GET", "/healthz", &[&host], "");
                assert_eq!(answer.body, "ok\n");
                answers += 1;
            }
            answers
        })
    };
    for _ in 0..3 {
        service.upgraded();
    }
    over.store(true, Relaxed);
    assert!(joined("an operator", asking) > 0);
}

/// What systemd hears, one message each.
struct Manager(UnixDatagram);

impl Manager {
    fn hear(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.0.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The next message that is neither a watchdog's nor a mere status.
    fn news(&self) -> String {
        loop {
            let message = self.hear();
            if message != "WATCHDOG=1" && !message.starts_with("STATUS=") {
                return message;
            }
        }
    }
}

#[test]
fn systemd_hears_of_a_start_an_upgrade_and_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let service = Service::start_as(&echo("", &["127.0.0.1:0"]), |program| {
        let mut command = Command::new(program);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
        command
    });
    assert_eq!(manager.news(), "READY=1\nSTATUS=serving");
    while manager.hear() != "WATCHDOG=1" {}
    service.upgraded();
    assert_eq!(manager.news(), format!("MAINPID={}", service.process()));
    assert_eq!(manager.news(), "READY=1\nSTATUS=serving");
    while manager.hear() != "WATCHDOG=1" {}
    service.stop();
    assert_eq!(manager.news(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining");
}

#[test]
fn sockets_of_systemd_are_listened_on_and_survive_an_upgrade() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.sock");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    let address = tcp.local_addr().unwrap();
    // Comes before the service does.
    let early = TcpStream::connect(address).unwrap();
    let unix_address = format!("unix:{}", path.display());
    let toml = echo("gateway.workers = 2", &[&address.to_string(), &unix_address, "127.0.0.1:0"]);
    let service = Service::start_as(&toml, |program| {
        let mut command = Command::new("/bin/sh");
        // Descriptors 3 and 4, as systemd has it.
        let script =
            "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=web:local exec \"$0\"";
        command.arg("-c").arg(script).arg(program);
        command.stdin(OwnedFd::from(tcp)).stdout(OwnedFd::from(unix));
        command
    });
    let talk = || {
        Short::connect(address).talk();
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Short::on(stream).unwrap().talk();
        Short::connect(service.address()).talk();
    };
    Short::on(patient(early)).unwrap().talk();
    talk();
    service.upgraded();
    talk();
    service.stop();
    assert!(path.exists(), "systemd's own file stays: {}", service.log());
}

#[test]
fn an_opening_handshake_that_began_before_is_finished_by_the_old_process() {
    let service = Service::start(&echo("gateway.workers = 1", &["127.0.0.1:0"]));
    let mut client = Raw::connect(service.address());
    let request = request("/", "");
    let (first, rest) = request.split_at(20);
    client.send(first.as_bytes());
    // Comes later on the same socket, so the first has been accepted once this is served.
    Short::connect(service.address()).talk();
    service.upgraded();
    // Longer than a drain waits for connections that ask for nothing.
    thread::sleep(Duration::from_millis(2500));
    client.send(rest.as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.close_frame().0, 1012);
}

#[test]
fn a_stop_in_the_middle_ends_the_new_process() {
    let mut service = Service::start(&echo("", &["127.0.0.1:0"]));
    service.replace_by_script("echo $$ > new.draft; mv new.draft new.pid; exec sleep 60");
    kill_process(Pid::from_child(&service.first), Signal::USR2).unwrap();
    let new = service.folder.path().join("new.pid");
    eventually("the new process runs", || new.exists());
    let new = PidFile::read(&new).unwrap();
    kill_process(Pid::from_child(&service.first), Signal::TERM).unwrap();
    assert_eq!(service.first_ends(), Some(0), "{}", service.log());
    assert!(!Path::new(&format!("/proc/{new}")).exists(), "it was ended and reaped");
}

#[test]
fn the_first_signal_after_an_upgrade_does_not_cut() {
    let toml = echo("", &["127.0.0.1:0"]).replace("300ms", "2s");
    let mut service = Service::start(&toml);
    let mut clients: Vec<Raw> = (0..2).map(|_| Raw::upgraded(service.address(), "/")).collect();
    service.upgraded();
    kill_process(Pid::from_child(&service.first), Signal::TERM).unwrap();
    for client in &mut clients {
        assert_eq!(client.close_frame().0, 1012);
        client.send(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
        assert_eq!(client.end(), (0, false));
    }
    drop(clients);
    assert_eq!(service.first_ends(), Some(0), "{}", service.log());
}

#[test]
fn who_cannot_be_asked_is_told_of() {
    let service = Service::start(&echo("", &["127.0.0.1:0"]));
    let (code, said) = service.upgrade(&["--pid", "4294967295"]);
    assert_eq!(code, Some(69), "{said}");
    let (code, said) = service.upgrade(&["--pid", &std::process::id().to_string()]);
    assert!(code == Some(69) && said.contains("SIGUSR2"), "{said}");
    let toml = one_route("builtin:echo", "") + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    write(&service.folder, &toml);
    let (code, said) = service.upgrade(&[]);
    assert!(code == Some(78) && said.contains("--pid"), "{said}");
}
