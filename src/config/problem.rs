//! Mistakes in a configuration: where each one is, what is wrong, and what would be right.
use crate::pem::PemError;
use std::{cell::RefCell, fmt};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; 0 if the mistake is about the file as a whole.
    pub line: usize,
    /// In characters, counted from 1; 0 if the mistake is about the file as a whole.
    pub column: usize,
    /// The path of the key, such as `route.timeouts.idle`; empty for mistakes of TOML syntax.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// Every mistake of one file, in the order of the file. Displays as one line for each, `FILE:LINE:COLUMN: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name as the user gave it.
    pub file: String,
    pub problems: Vec<Problem>,
}

impl ConfigErrors {
    /// A mistake about the file as a whole.
    pub(super) fn of_file(file: &str, wrong: Wrong) -> Self {
        let Wrong { message, help } = wrong;
        Self { file: file.into(), problems: vec![Problem { line: 0, column: 0, key: String::new(), message, help }] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let Problem { line, column, key, message, help } = problem;
            f.write_str(if index == 0 { "" } else { "\n" })?;
            f.write_str(&self.file)?;
            if *line > 0 {
                write!(f, ":{line}:{column}")?;
            }
            if !key.is_empty() {
                write!(f, ": {key}")?;
            }
            write!(f, ": {message}; {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What is wrong with a value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    pub help: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl From<PemError> for Wrong {
    fn from(error: PemError) -> Self {
        Self::new(error.message, error.help)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

/// Where a mistake is, in bytes from the start of the text, and whether it says that something is absent.
#[derive(Clone, Debug)]
struct Found {
    offset: usize,
    absent: bool,
    key: String,
    wrong: Wrong,
}

/// Collects mistakes while a file is read.
#[derive(Debug, Default)]
pub(super) struct Sink {
    found: RefCell<Vec<Found>>,
}

impl Sink {
    /// Something present is wrong.
    pub(super) fn report(&self, offset: usize, key: impl Into<String>, wrong: Wrong) {
        self.found.borrow_mut().push(Found { offset, absent: false, key: key.into(), wrong });
    }

    /// Something is missing that may merely be hidden by a mistake of syntax.
    pub(super) fn report_absent(&self, offset: usize, key: impl Into<String>, wrong: Wrong) {
        self.found.borrow_mut().push(Found { offset, absent: true, key: key.into(), wrong });
    }

    /// The mistakes in the order of the text. After mistakes of syntax, only those are added that do not follow from them.
    pub(super) fn into_problems(self, text: &str, syntax: Vec<(usize, Wrong)>, readable_until: usize) -> Vec<Problem> {
        let lines = Lines::new(text);
        let broken: Vec<usize> = syntax.iter().map(|(offset, _)| lines.position(*offset).0).collect();
        let mut found = self.found.into_inner();
        found.retain(|one| {
            broken.is_empty()
                || (!one.absent && one.offset < readable_until && !broken.contains(&lines.position(one.offset).0))
        });
        found.extend(syntax.into_iter().map(|(offset, wrong)| Found {
            offset,
            absent: false,
            key: String::new(),
            wrong,
        }));
        found.sort_by_key(|one| one.offset);
        let mut problems: Vec<Problem> = found
            .into_iter()
            .map(|Found { offset, key, wrong: Wrong { message, help }, .. }| {
                let (line, column) = lines.position(offset);
                Problem { line, column, key, message, help }
            })
            .collect();
        problems.dedup();
        problems
    }
}

/// Turns byte offsets into lines and columns.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column of a byte, both from 1; a byte past the end has the place of the end.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        (line, self.text[start..offset].trim_start_matches('\u{feff}').chars().count() + 1)
    }

    /// The text of the line that holds a byte.
    pub(super) fn text_at(&self, offset: usize) -> &'a str {
        let start = self.starts[self.position(offset).0 - 1];
        self.text[start..].lines().next().unwrap_or_default()
    }
}
