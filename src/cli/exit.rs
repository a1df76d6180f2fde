//! How the process ends.
use std::process::ExitCode;

/// How the process ends; `--help` explains each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Cut,
    Failed,
    Unavailable,
    Bug,
    System,
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        // The numbers from 64 on are those of sysexits.h.
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Cut | Exit::Failed => 1,
            Exit::Unavailable => 69,
            Exit::Bug => 70,
            Exit::System => 71,
            Exit::Configuration => 78,
        })
    }
}
