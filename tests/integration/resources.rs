//! What sessions leave behind, and what they cost while nothing happens. In a process of its own, to count its parts.
use super::{
    harness::{Raw, Running, eventually, frame, one_route},
    program::{Program, echo},
};
use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

const QUIET: &str = "log.sessions = \"off\"\ngateway.workers = 1";

impl Program {
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// How often its threads went to sleep.
    fn sleeps(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let count = |status: String| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse().unwrap()
        };
        tasks.map(|task| count(fs::read_to_string(task.unwrap().path().join("status")).unwrap())).sum()
    }

    /// Processor time used so far, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

fn sessions(address: SocketAddr, count: usize) -> Vec<Raw> {
    (0..count).map(|_| Raw::upgraded(address, "/")).collect()
}

#[test]
fn ended_sessions_leave_no_descriptor() {
    let (backend, _ends) = super::harness::Backend::reader();
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let mut program = Program::start(&(super::harness::one_route(&backend.url(), QUIET) + listener), &[]);
    let address = program.address();
    drop(Raw::upgraded(address, "/"));
    let before = program.descriptors();
    let mut clients = sessions(address, 200);
    assert!(program.descriptors() >= before + 398, "two for each session");
    for (number, mut client) in clients.drain(..).enumerate() {
        match number % 4 {
            0 => drop(client),
            1 => client.reset(),
            2 => {
                client.send(&frame(0x88, true, b"\x03\xe8"));
                assert_eq!(client.close_frame().0, 1000);
            }
            _ => client.send(&frame(0x81, false, b"a violation")),
        }
    }
    eventually("every descriptor is closed", || program.descriptors() <= before);
}

#[test]
fn idle_sessions_sleep() {
    let pinging = format!("{QUIET}\ndefaults.heartbeat.client.ping_interval = \"20s\"");
    let mut program = Program::start(&echo(&pinging), &[]);
    let _clients = sessions(program.address(), 50);
    // The handshakes' last work is done when the process has slept for a while.
    let mut before = program.ticks();
    eventually("it is quiet", || {
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut before, program.ticks()) == before
    });
    let (sleeps, ticks) = (program.sleeps(), program.ticks());
    thread::sleep(Duration::from_secs(2));
    // Pings come every 20 s: about 10 of 100 legs in this time, at most five wake-ups each; the watchdog ticks too.
    let (sleeps, ticks) = (program.sleeps() - sleeps, program.ticks() - ticks);
    assert!(sleeps < 200, "{sleeps} wake-ups in two seconds");
    assert!(ticks < 50, "{ticks} ticks of 10 ms in two seconds");
}

#[test]
fn a_worker_says_when_handshakes_have_ceased() {
    static GIVEN_BACK: AtomicBool = AtomicBool::new(false);
    pulsegate::worker::when_calm(|| {
        let by_a_worker = thread::current().name().is_some_and(|name| name.starts_with("worker-"));
        GIVEN_BACK.fetch_or(by_a_worker, Relaxed);
    });
    let gateway = Running::start(&one_route("builtin:echo", ""));
    let _client = Raw::upgraded(gateway.address(), "/");
    eventually("it does, while the session stays", || GIVEN_BACK.load(Relaxed));
}
