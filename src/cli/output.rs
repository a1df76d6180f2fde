//! The only place that prints: answers on standard output, complaints on standard error.
use std::{
    fmt::Display,
    io::{self, Write},
};

/// Prints a line of an answer. A reader that has seen enough (`| head`) is no error.
pub(crate) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    // Nobody is left to be told.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints why a command failed, before or without a log.
pub(crate) fn complain(problem: impl Display) {
    complain_of_file(format_args!("pulsegate: {problem}"));
}

/// Prints mistakes that begin with `FILE:LINE:COLUMN`, which editors know how to follow.
pub(crate) fn complain_of_file(mistakes: impl Display) {
    // Nobody is left to be told.
    let _ = writeln!(io::stderr().lock(), "{mistakes}");
}
