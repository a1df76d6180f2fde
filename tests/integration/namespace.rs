//! Tests that need a network of their own: they run anew in a namespace, where root may change what it wants.
use std::{
    env, fs,
    io::Write,
    process::{Command, Stdio},
};

/// Set for a test that runs inside.
const INSIDE: &str = "PULSEGATE_TEST_NAMESPACE";

/// Whether the test of this name is inside by now. Otherwise it is run there, and what that says counts. Where no namespace
/// may be made, it is told to be skipped.
pub(crate) fn inside(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "ip link set lo up");
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user"]).stdin(Stdio::null());
        command
    };
    let allowed = unshare().args(["ip", "link"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        // Straight to the terminal: what a test prints is not shown when it passes.
        let told = writeln!(std::io::stderr(), "{test} is skipped: no network namespace may be made here");
        told.unwrap();
        return false;
    }
    let output =
        unshare().arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(INSIDE, "1").output();
    let output = output.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    assert!(said(&output.stdout).contains("1 passed"), "no test is called {test}");
    false
}

/// The ports from which connections start, of this namespace.
pub(crate) fn local_ports(first: u16, last: u16) {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} {last}")).unwrap();
}
