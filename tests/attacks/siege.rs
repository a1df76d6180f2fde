//! The program, those who behave well, and the bounds that hold while it is attacked.
use super::harness::{Backend, Raw, eventually, patient, request};
use rustix::{
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setpriority_process, setrlimit},
    thread::gettid,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

/// Calm and attack take turns, so that both meet what else the machine does.
const ROUNDS: usize = 3;
const CALM: Duration = Duration::from_millis(400);
pub(crate) const ATTACK: Duration = Duration::from_millis(900);
/// Sessions that behave well, on all workers.
const BYSTANDERS: usize = 8;
/// How far away their backend is: as far as one on a real network. On bare loopback a calm round trip is a few thread switches,
/// and twice of that says what the machine's scheduler does rather than what the gateway does.
const AWAY: Duration = Duration::from_millis(10);
/// Memory that may stay after an attack: what allocators and tables keep to be used again.
const KEPT: u64 = 16 << 20;
/// How long descriptors and memory may take to return.
const RETURN: Duration = Duration::from_secs(20);

const QUIET: &str = r#"heartbeat = { client.ping_interval = "off", upstream.ping_interval = "off" }"#;

/// One siege at a time: figures of one should not tell of another.
static GROUND: Mutex<()> = Mutex::new(());

/// What the gateway under attack serves: `/calm` for those who behave well, and `/attack` by `server`. Every patience is a second, so
/// that a test sees its end.
pub(crate) struct Plan {
    pub(crate) server: String,
    /// More keys of the file, before its tables.
    pub(crate) keys: &'static str,
    /// More keys of the attacked route.
    pub(crate) route: &'static str,
    /// `timeouts.handshake`.
    pub(crate) handshake: &'static str,
    /// Descriptors that the program may have.
    pub(crate) descriptors: Option<u32>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { server: "builtin:echo".into(), keys: "", route: "", handshake: "1s", descriptors: None }
    }
}

/// How an attack is waged.
pub(crate) struct Attack<'a> {
    pub(crate) threads: usize,
    /// Called on each thread with its number; ends when [`Front::on`] says so.
    pub(crate) wage: &'a (dyn Fn(&Front, usize) + Sync),
    /// Memory that the gateway may take for it.
    pub(crate) memory: u64,
    /// How long each of its turns lasts.
    pub(crate) lasts: Duration,
}

/// Where an attacker stands.
pub(crate) struct Front {
    pub(crate) plain: SocketAddr,
    pub(crate) secure: SocketAddr,
    over: AtomicBool,
    /// How often the gateway did what it is to do against it.
    repelled: AtomicU64,
}

impl Front {
    /// Whether the attack goes on.
    pub(crate) fn on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    pub(crate) fn repelled(&self) {
        self.repelled.fetch_add(1, Relaxed);
    }
}

/// What the program holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
}

/// The program under siege, and those who behave well.
pub(crate) struct Siege {
    child: Child,
    folder: TempDir,
    plain: SocketAddr,
    secure: SocketAddr,
    bystanders: Bystanders,
    _ground: MutexGuard<'static, ()>,
}

impl Siege {
    pub(crate) fn begin(plan: &Plan) -> Self {
        // Another siege that was lost says so itself.
        let ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
        let all = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: all, maximum: all }).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
        fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let calm = Backend::websocket(far_echo);
        fs::write(folder.path().join("gateway.toml"), file(plan, &calm.url())).unwrap();
        let limit = plan.descriptors.map_or("unlimited".to_owned(), |count| count.to_string());
        let limit = if plan.descriptors.is_some() { format!("ulimit -n {limit}; ") } else { String::new() };
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\""), env!("CARGO_BIN_EXE_pulsegate")])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (plain, secure) = addresses(&mut child);
        let bystanders = Bystanders::new(plain);
        Self { child, folder, plain, secure, bystanders, _ground: ground }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.plain
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn held(&self) -> Held {
        let process = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{process}/status")).expect("it still runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it still runs");
        let memory: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        Held { memory: memory << 10, descriptors: fs::read_dir(format!("{process}/fd")).unwrap().count() }
    }

    /// Wages the attack in turns with calm, and checks what must hold. Answers how often it was repelled.
    pub(crate) fn survives(&self, name: &str, attack: &Attack<'_>) -> u64 {
        self.survives_beside(name, attack, |_| {})
    }

    /// The same, and somebody who behaves well does this meanwhile, each time until [`Front::on`] says that it is over.
    pub(crate) fn survives_beside(&self, name: &str, attack: &Attack<'_>, meanwhile: impl Fn(&Front) + Sync) -> u64 {
        self.bystanders.measure(CALM, || {});
        let before = self.held();
        let (mut calm, mut attacked) = (Vec::new(), Vec::new());
        let (mut peak, mut repelled) = (before.memory, 0);
        for _ in 0..ROUNDS {
            calm.extend(self.bystanders.measure(CALM, || {}));
            let front = Front {
                plain: self.plain,
                secure: self.secure,
                over: AtomicBool::new(false),
                repelled: AtomicU64::new(0),
            };
            thread::scope(|scope| {
                for number in 0..attack.threads {
                    let front = &front;
                    scope.spawn(move || {
                        step_back();
                        (attack.wage)(front, number);
                    });
                }
                scope.spawn(|| meanwhile(&front));
                attacked.extend(self.bystanders.measure(attack.lasts, || peak = peak.max(self.held().memory)));
                front.over.store(true, Relaxed);
            });
            repelled += front.repelled.load(Relaxed);
            self.recovers(name, before);
        }
        let (calm, attacked) = (Figures::of(calm), Figures::of(attacked));
        eprintln!(
            "{name}: calm {calm}, attacked {attacked}; memory {} KiB, at most {} more; repelled {repelled}",
            before.memory >> 10,
            (peak - before.memory) >> 10,
        );
        assert!(attacked.median <= 2 * calm.median, "{name}: round trips {attacked}, {calm} when calm");
        let taken = peak - before.memory;
        assert!(taken <= attack.memory, "{name}: took {} KiB, at most {}", taken >> 10, attack.memory >> 10);
        repelled
    }

    /// What an attack took returns.
    fn recovers(&self, name: &str, before: Held) {
        let begun = Instant::now();
        loop {
            let held = self.held();
            if held.descriptors <= before.descriptors && held.memory <= before.memory + KEPT {
                break;
            }
            assert!(begun.elapsed() < RETURN, "{name}: {held:?} is held, {before:?} was");
            thread::sleep(Duration::from_millis(20));
        }
        // And who comes now is served.
        drop(Raw::upgraded(self.plain, "/calm"));
        eventually("the visitor is gone", || self.held().descriptors <= before.descriptors);
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.bystanders.leave();
        // It has ended already if it was lost.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(plan: &Plan, calm: &str) -> String {
    let Plan { server, keys, route, handshake, .. } = plan;
    // A ping of ours would come at a random time, where an attack looks for its answer.
    let quiet = if route.contains("heartbeat") { "" } else { QUIET };
    format!(
        r#"{keys}
gateway.workers = 2
log = {{ sessions = "off", format = "text" }}
defaults.timeouts = {{ handshake = "{handshake}", close = "1s", stall = "1s" }}
[[listener]]
address = "127.0.0.1:0"
[[listener]]
address = "127.0.0.1:0"
tls = {{ certificate = "cert.pem", key = "key.pem" }}
[[route]]
name = "calm"
path = "/calm"
upstream = "calm"
[[route]]
name = "attack"
path = "/attack"
upstream = "attack"
{quiet}
{route}
[upstream.calm]
servers = ["{calm}"]
[upstream.attack]
servers = ["{server}"]
"#
    )
}

/// Where it listens, as it says itself; what else it says is read and dropped.
fn addresses(child: &mut Child) -> (SocketAddr, SocketAddr) {
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let (mut plain, mut secure, mut told) = (None, None, String::new());
    while plain.is_none() || secure.is_none() {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended without listening: {told}");
        for (scheme, found) in [("listening on ws://", &mut plain), ("listening on wss://", &mut secure)] {
            if let Some((_, rest)) = line.split_once(scheme) {
                *found = rest.split(['/', ' ', '\n']).next().unwrap().parse().ok();
            }
        }
        told += &line;
    }
    thread::spawn(move || {
        let mut sink = [0; 4096];
        while log.read(&mut sink).is_ok_and(|length| length > 0) {}
    });
    (plain.unwrap(), secure.unwrap())
}

/// This thread leaves the processor to whoever else wants it: an attacker has machines of its own.
pub(crate) fn step_back() {
    setpriority_process(Some(gettid()), 19).unwrap();
}

fn far_echo(mut peer: WebSocket<TcpStream>) {
    // A bystander says something again and again; one that is quiet for long has left.
    while let Ok(message) = peer.read() {
        thread::sleep(AWAY);
        if (message.is_text() || message.is_binary()) && peer.send(message).is_err() {
            return;
        }
    }
}

/// Sessions that behave well: they say something, wait for the answer, and say the next.
struct Bystanders {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    times: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

impl Bystanders {
    fn new(address: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..BYSTANDERS)
            .map(|_| {
                let stream = patient(TcpStream::connect(address).unwrap());
                stream.set_nodelay(true).unwrap();
                let (client, _) = tungstenite::client(format!("ws://{address}/calm"), stream).unwrap();
                let shared = Arc::clone(&shared);
                thread::spawn(move || behave(client, &shared))
            })
            .collect();
        Self { shared, threads: Mutex::new(threads) }
    }

    /// The round trips of this time; `meanwhile` is called again and again.
    fn measure(&self, time: Duration, mut meanwhile: impl FnMut()) -> Vec<Duration> {
        self.shared.times.lock().unwrap().clear();
        let begun = Instant::now();
        while begun.elapsed() < time {
            thread::sleep(Duration::from_millis(20));
            meanwhile();
        }
        assert!(self.threads.lock().unwrap().iter().all(|thread| !thread.is_finished()), "a good session ended");
        std::mem::take(&mut *self.shared.times.lock().unwrap())
    }

    fn leave(&self) {
        self.shared.over.store(true, Relaxed);
        for thread in self.threads.lock().unwrap().drain(..) {
            // What went wrong there was told there.
            let _ = thread.join();
        }
    }
}

fn behave(mut client: WebSocket<TcpStream>, shared: &Shared) {
    while !shared.over.load(Relaxed) {
        let begun = Instant::now();
        client.send(Message::text("how do you do")).unwrap();
        while !client.read().unwrap().is_text() {}
        shared.times.lock().unwrap().push(begun.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
}

/// Of round trips.
struct Figures {
    median: Duration,
    tail: Duration,
    count: usize,
}

impl Figures {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        assert!(times.len() >= 20, "{} round trips", times.len());
        let at = |share: usize| times[times.len() * share / 100];
        Self { median: at(50), tail: at(95), count: times.len() }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, tail, count } = self;
        write!(f, "{median:.1?} (95 %: {tail:.1?}, {count})")
    }
}

/// A connection that may fail: attackers take what they get.
pub(crate) fn reach(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
    stream.set_nodelay(true).ok()?;
    Some(stream)
}

/// A session of an attacker's.
pub(crate) fn enter(front: &Front) -> Option<TcpStream> {
    let mut stream = reach(front.plain)?;
    stream.write_all(request("/attack", "").as_bytes()).ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    head.starts_with(b"HTTP/1.1 101").then_some(stream)
}

/// Whether the gateway has ended this connection. Reads what has come, and does not wait.
pub(crate) fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut room = [0; 4096];
    let ended = loop {
        match stream.read(&mut room) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    ended
}
