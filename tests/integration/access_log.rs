//! The access log: the program's own file of verdicts, whatever happens to it.
use super::{
    harness::{Raw, eventually, frame},
    program::{Program, echo},
};
use rustix::process::Signal;
use std::{fs, net::SocketAddr, path::Path};

/// A session that sends one message and closes; its name is `id`.
fn session(address: SocketAddr, id: &str) {
    let mut client = Raw::connect(address);
    client.send(super::harness::request("/", &format!("X-Request-Id: {id}\r\n")).as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    client.send(&[frame(0x81, true, b"hello"), frame(0x88, true, b"\x03\xe8")].concat());
    assert_eq!(client.receive::<7>()[2..], *b"hello");
    assert_eq!(client.close_frame().0, 1000);
}

/// Waits until the file has a record of this session, and gives it.
fn record(file: &Path, id: &str) -> String {
    let mut found = None;
    eventually(&format!("a record of {id}"), || {
        let text = fs::read_to_string(file).unwrap_or_default();
        found = text.split_inclusive('\n').find(|line| line.contains(id) && line.ends_with('\n')).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn verdicts_go_to_a_file_of_their_own_that_sigusr1_opens_anew() {
    let mut program = Program::start(&echo("access_log.path = \"access.log\""), &[]);
    let address = program.address();
    let (file, moved) = (program.folder().join("access.log"), program.folder().join("access.log.1"));
    session(address, "first-one");
    let line = record(&file, "first-one");
    for part in [
        r#"{"time":"20"#,
        r#""record":"end""#,
        r#""session":"first-one""#,
        r#""reason":"client_closed""#,
        r#""first":"client""#,
        r#""start":"20"#,
        r#""end":"20"#,
        r#""client.code_received":1000"#,
        r#""client.bytes":19"#,
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // As logrotate does: until it is told, the gateway goes on with the file it has.
    fs::rename(&file, &moved).unwrap();
    session(address, "second-one");
    record(&moved, "second-one");
    assert!(!file.exists());
    program.signal(Signal::USR1);
    eventually("the file is there again", || file.exists());
    session(address, "third-one");
    record(&file, "third-one");
    assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 2);

    session(address, "last-one");
    program.signal(Signal::TERM);
    let (code, log) = program.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("session ended"), "verdicts are not told twice: {log}");
    assert!(log.contains("the access log is opened anew"), "{log}");
}

#[test]
fn what_is_queued_is_written_before_the_program_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let extra = format!("access_log.path = {file:?}\ngateway.drain.spread = \"0s\"");
    let mut program = Program::start(&echo(&extra), &[]);
    let mut client = Raw::upgraded(program.address(), "/");
    program.signal(Signal::TERM);
    assert_eq!(client.close_frame().0, 1001);
    client.send(&frame(0x88, true, b"\x03\xe9"));
    client.end();
    drop(client);
    assert_eq!(program.end().0, Some(0));
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(r#""reason":"draining""#), "{text}");
}

#[test]
fn an_open_session_is_written_again_and_again_if_asked_for() {
    let toml = echo("access_log = { path = \"stdout\", format = \"text\", every = \"1s\" }");
    let mut program = Program::start(&toml, &[]);
    let mut client = Raw::upgraded(program.address(), "/");
    client.send(&frame(0x81, true, b"hello"));
    client.receive::<7>();
    let line = program.answer(|line| line.contains(" progress session="));
    assert!(line.contains(" route=all start=20") && line.contains(" client.messages=1 "), "{line}");
    assert!(!line.contains("reason=") && !line.contains(" end="), "{line}");
    client.send(&frame(0x88, true, b"\x03\xe8"));
    let line = program.answer(|line| line.contains(" end session="));
    assert!(line.contains(" reason=client_closed first=client "), "{line}");
}

#[test]
fn a_full_disk_is_told_once_and_ends_nothing() {
    let mut program = Program::start(&echo("access_log.path = \"/dev/full\""), &[]);
    let address = program.address();
    for id in ["one", "two", "three"] {
        session(address, id);
    }
    program.signal(Signal::TERM);
    let (code, log) = program.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("the access log cannot be written").count(), 1, "{log}");
}

#[test]
fn a_file_that_cannot_be_opened_again_is_tried_again() {
    let mut program = Program::start(&echo("access_log.path = \"logs\""), &[]);
    let address = program.address();
    let file = program.folder().join("logs");
    let moved = program.folder().join("moved");
    fs::rename(&file, &moved).unwrap();
    fs::create_dir(&file).unwrap();
    program.signal(Signal::USR1);
    let line = program.logged("cannot be opened anew");
    assert!(line.contains("is tried again"), "{line}");
    session(address, "to-the-old-one");
    record(&moved, "to-the-old-one");
    fs::remove_dir(&file).unwrap();
    eventually("it is opened", || file.exists());
    session(address, "to-the-new-one");
    record(&file, "to-the-new-one");
}

#[test]
fn a_file_that_cannot_be_opened_keeps_the_program_from_starting() {
    let (code, log) = Program::start(&echo("access_log.path = \"nowhere/access.log\""), &[]).end();
    assert_eq!(code, Some(78));
    assert!(log.contains("access_log.path: nowhere/access.log cannot be opened"), "{log}");
}

#[test]
fn sigusr1_without_an_access_log_changes_nothing() {
    let mut program = Program::start(&echo(""), &[]);
    let address = program.address();
    program.signal(Signal::USR1);
    program.logged("there is no access log");
    session(address, "still-served");
}
