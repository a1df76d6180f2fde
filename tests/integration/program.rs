//! The program itself: signals and exit codes.
use super::harness::{Raw, dead_address, eventually, one_route};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};
use tempfile::TempDir;

/// `pulsegate` on a file of its own. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: BufReader<ChildStderr>,
    folder: TempDir,
}

impl Program {
    pub(crate) fn start(toml: &str, arguments: &[&str]) -> Self {
        Self::start_with(toml, arguments, &[])
    }

    /// The same, with more environment variables.
    pub(crate) fn start_with(toml: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("gateway.toml"), toml).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pulsegate"))
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, folder }
    }

    /// Where it listens, as it says itself.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if let Some((_, rest)) = line.split_once("listening on ws://") {
                return rest.split('/').next().unwrap().parse().unwrap();
            }
            line.clear();
        }
        panic!("it ended without listening")
    }

    /// Its folder, where its file is `gateway.toml`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces its file as an editor does: by a rename.
    pub(crate) fn write(&self, toml: &str) {
        fs::write(self.folder().join("new"), toml).unwrap();
        fs::rename(self.folder().join("new"), self.folder().join("gateway.toml")).unwrap();
    }

    /// The next line of its log that holds this.
    pub(crate) fn logged(&mut self, part: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(part) {
                return line;
            }
            line.clear();
        }
        panic!("it ended without logging {part:?}")
    }

    /// The first line of its answer that `wanted` likes.
    pub(crate) fn answer(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let out = self.child.stdout.as_mut().unwrap();
        let line = BufReader::new(out).lines().map(Result::unwrap).find(|line| wanted(line));
        line.expect("it ended without saying so")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code and the rest of what it logged.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        eventually("the program ends", || self.child.try_wait().unwrap().is_some());
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn echo(extra: &str) -> String {
    one_route("builtin:echo", extra) + "[[listener]]\naddress = \"127.0.0.1:0\"\n"
}

#[test]
fn sigterm_drains_and_exits_with_0() {
    let mut program = Program::start(&echo("gateway.drain = { spread = \"0s\" }"), &[]);
    let mut client = Raw::upgraded(program.address(), "/");
    program.signal(Signal::TERM);
    // 1001, and its answer masked with zeros (RFC 6455 section 5.3).
    assert_eq!(client.receive::<4>()[..], [0x88, 0x0a, 0x03, 0xe9]);
    client.send(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]);
    // The server's side ends TCP first (RFC 6455 section 7.1.1), and waits for our end.
    client.0.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    let (code, log) = program.end();
    assert_eq!(code, Some(0), "{log}");
    let verdict = log.lines().find(|line| line.contains("pulsegate::session")).unwrap_or_else(|| panic!("{log}"));
    assert!(verdict.contains(r#""reason":"draining""#) && verdict.contains(r#""client.code_sent":1001"#), "{verdict}");
}

#[test]
fn a_second_signal_cuts_and_exits_with_1() {
    let mut program = Program::start(&echo("gateway.drain = { spread = \"0s\" }"), &["run"]);
    let mut client = Raw::upgraded(program.address(), "/");
    program.signal(Signal::TERM);
    assert_eq!(client.receive::<1>(), [0x88]);
    program.signal(Signal::INT);
    assert_eq!(program.end().0, Some(1));
}

#[test]
fn a_wrong_configuration_exits_with_78_and_names_the_place() {
    let (code, log) = Program::start(&echo("gateway.workerz = 1"), &[]).end();
    assert_eq!(code, Some(78));
    assert!(log.starts_with("gateway.toml:1:"), "{log}");
    let (code, log) = Program::start("", &["--config", "elsewhere.toml"]).end();
    assert_eq!(code, Some(78));
    assert!(log.contains("elsewhere.toml") && log.contains("--config"), "{log}");
}

/// What a command answers on standard output, and its exit code.
fn answered(toml: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = Program::start(toml, arguments);
    let mut answer = String::new();
    program.child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    (program.end().0, answer)
}

#[test]
fn check_says_what_will_be_served_and_connect_whether_its_backends_answer() {
    let (code, answer) = answered(&echo(""), &["check"]);
    assert_eq!(code, Some(0), "{answer}");
    assert!(answer.starts_with("listeners\n  127.0.0.1:0, plain\n"), "{answer}");
    assert!(!answer.contains(": builtin:echo"), "nothing is dialled: {answer}");
    let (code, answer) = answered(&echo(""), &["check", "--connect"]);
    assert_eq!(code, Some(0), "{answer}");
    assert!(answer.contains(": builtin:echo answers"), "{answer}");

    let dead = dead_address();
    let toml = one_route(&format!("ws://{dead}"), "") + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let (code, answer) = answered(&toml, &["check", "--connect"]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(answer.contains(&format!(": ws://{dead} ")) && answer.contains("refused"), "{answer}");
}

#[test]
fn try_prints_its_six_lines_and_every_round_trip() {
    let mut program = Program::start("", &["try", "builtin:echo", "--listen", "127.0.0.1:0"]);
    let address = program.address();
    assert_eq!(program.answer(|line| line.contains("servers")).trim(), "servers = [\"builtin:echo\"]");
    let _client = Raw::upgraded(address, "/");
    let line = program.answer(|line| line.contains("pong after"));
    assert!(line.contains(" upstream "), "the client does not answer: {line}");
}

#[test]
fn an_address_in_use_exits_with_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, log) = Program::start(&echo(""), &["--listen", &address]).end();
    assert_eq!(code, Some(69));
    assert!(log.contains(&address) && log.contains("in use") && log.contains("--listen"), "{log}");
}

#[test]
fn listen_needs_exactly_one_plain_listener() {
    let two = echo("") + "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let (code, log) = Program::start(&two, &["--listen", "127.0.0.1:0"]).end();
    assert_eq!(code, Some(78));
    assert!(log.contains("this file has 2"), "{log}");
}
