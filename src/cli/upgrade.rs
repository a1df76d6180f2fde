//! `pulsegate upgrade`: has the running process start its successor, and says how that went.
use super::{
    Exit, UpgradeArguments,
    output::{complain, say},
    run::load,
};
use pulsegate::{
    pid_file::PidFile,
    upgrade::{Notice, Notices},
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    fs,
    time::{Duration, Instant},
};

/// How long a process may take to say that it has heard the signal.
const HEARD: Duration = Duration::from_secs(10);
/// Added to the time that it then names: for handing over, and for its workers.
const MARGIN: Duration = Duration::from_secs(30);
/// How often a look is taken whether the process still lives.
const TURN: Duration = Duration::from_millis(200);

pub(crate) fn upgrade(arguments: &UpgradeArguments) -> Exit {
    let process = match arguments.pid {
        Some(process) => process,
        None => match named(arguments) {
            Ok(process) => process,
            Err(exit) => return exit,
        },
    };
    match signalled(process) {
        Ok(notices) => outcome(process, &notices),
        Err(problem) => {
            complain(problem);
            Exit::Unavailable
        }
    }
}

/// The process that the configuration's pid file names. Reading the file checks it, as the new process will.
fn named(arguments: &UpgradeArguments) -> Result<u32, Exit> {
    let config = load(&arguments.file.config).ok_or(Exit::Configuration)?;
    let Some(path) = config.gateway.pid_file else {
        complain(format_args!(
            "{} has no gateway.pid_file: name the process with --pid, or set that key and start it again",
            arguments.file.config.display()
        ));
        return Err(Exit::Configuration);
    };
    PidFile::read(&path).map_err(|error| {
        complain(format_args!("cannot read {}: {error}; does it run? else name it with --pid", path.display()));
        Exit::Unavailable
    })
}

/// Sends the signal, if the process expects it: it ends any that does not.
fn signalled(process: u32) -> Result<Notices, String> {
    let id =
        i32::try_from(process).ok().and_then(Pid::from_raw).ok_or_else(|| format!("{process} is no process id"))?;
    test_kill_process(id).map_err(|error| format!("process {process}: {error}"))?;
    if !expects_signal(process) {
        return Err(format!("process {process} does not expect SIGUSR2: it is no pulsegate, or it has hardly started"));
    }
    let notices = Notices::of(process).map_err(|error| format!("another upgrade of process {process}? {error}"))?;
    kill_process(id, Signal::USR2).map_err(|error| format!("process {process}: {error}"))?;
    Ok(notices)
}

/// Whether it has a handler for SIGUSR2, as `/proc` tells: bit 11, counted from 0.
fn expects_signal(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> 11 & 1 == 1)
}

fn outcome(process: u32, notices: &Notices) -> Exit {
    let mut until = Instant::now() + HEARD;
    loop {
        match notices.next(TURN) {
            Ok(Some(Notice::Begun { within })) => until = Instant::now() + within + MARGIN,
            Ok(Some(Notice::Done(successor))) => {
                say(format_args!("upgraded: {successor} serves; process {process} drains"));
                return Exit::Done;
            }
            Ok(Some(Notice::Failed(why))) => {
                complain(format_args!("no upgrade, process {process} serves as before: {why}"));
                return Exit::Failed;
            }
            Ok(None) if !fs::exists(format!("/proc/{process}")).unwrap_or(true) => {
                complain(format_args!("process {process} ended without an answer; see its log"));
                return Exit::Failed;
            }
            Ok(None) if Instant::now() >= until => {
                complain(format_args!("process {process} does not answer; see its log for how it went"));
                return Exit::Failed;
            }
            Ok(None) => {}
            Err(error) => {
                complain(format_args!("cannot hear process {process}: {error}; see its log for how it went"));
                return Exit::System;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_signalled_who_does_not_expect_it() {
        // A test does not handle SIGUSR2; the signal would end it.
        let error = signalled(std::process::id()).map(|_| ());
        assert!(error.is_err_and(|problem| problem.contains("does not expect SIGUSR2")));
        assert!(signalled(0).is_err());
        assert!(signalled(u32::MAX).is_err());
    }
}
