//! The import table of the crate: three rings, imports point inward only, and the core stays pure.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Modules of the crate that a module must not name.
const TABLE: &[(&str, &[&str])] = &[
    (
        "protocol",
        &[
            "relay",
            "session",
            "transport",
            "config",
            "metrics",
            "route",
            "upstream",
            "listener",
            "handshake",
            "gateway",
            "worker",
            "log",
            "admin",
            "http",
        ],
    ),
    (
        "relay",
        &[
            "session",
            "transport",
            "config",
            "metrics",
            "route",
            "upstream",
            "listener",
            "handshake",
            "gateway",
            "worker",
            "log",
            "admin",
            "http",
        ],
    ),
    (
        "pacing",
        &[
            "relay",
            "session",
            "config",
            "route",
            "upstream",
            "listener",
            "handshake",
            "gateway",
            "worker",
            "shutdown",
            "log",
        ],
    ),
    (
        "access",
        &[
            "relay",
            "session",
            "config",
            "route",
            "listener",
            "handshake",
            "gateway",
            "worker",
            "shutdown",
            "log",
            "admin",
            "upgrade",
            "supervisor",
        ],
    ),
    ("session", &["config", "listener", "gateway", "worker", "shutdown", "log", "admin", "upgrade", "supervisor"]),
    (
        "metrics",
        &[
            "session",
            "transport",
            "config",
            "route",
            "upstream",
            "listener",
            "handshake",
            "gateway",
            "worker",
            "shutdown",
            "log",
            "admin",
            "upgrade",
            "supervisor",
            "http",
        ],
    ),
    ("config", &["session", "handshake", "gateway", "worker", "shutdown", "log", "admin", "upgrade", "supervisor"]),
    (
        "listener",
        &[
            "relay",
            "session",
            "config",
            "route",
            "handshake",
            "gateway",
            "worker",
            "shutdown",
            "log",
            "admin",
            "upgrade",
            "supervisor",
        ],
    ),
    (
        "http",
        &["session", "config", "listener", "gateway", "worker", "shutdown", "log", "admin", "upgrade", "supervisor"],
    ),
    ("probe", &["session", "config", "listener", "handshake", "gateway", "worker", "shutdown", "log", "admin"]),
    ("shutdown", &["gateway", "worker", "listener", "handshake", "log", "admin", "upgrade", "supervisor"]),
    ("worker", &["gateway", "admin", "upgrade", "supervisor"]),
    ("gateway", &["admin"]),
    ("supervisor", &["gateway", "worker", "upgrade", "config", "session", "handshake"]),
    ("upgrade", &["gateway", "config", "session", "handshake", "relay", "protocol"]),
];

/// What the pure modules must not name: IO, clocks, random sources, logs, metrics, threads.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "tracing",
    "log::",
    "std::net",
    "std::io",
    "std::fs",
    "std::env",
    "std::thread",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "fastrand",
    "rand::",
    "getrandom",
    "RandomState",
    "async fn",
    ".await",
    "println!",
];

/// Lines of a file without its tests.
const LINES_MAX: usize = 400;

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a module, without its tests: those may read a clock to have a time at all.
fn module(name: &str) -> Vec<(String, String)> {
    let (folder, file) = (source().join(name), source().join(format!("{name}.rs")));
    let mut paths = if folder.is_dir() { files(&folder) } else { Vec::new() };
    paths.extend(file.is_file().then_some(file));
    paths
        .into_iter()
        .map(|path| (path.strip_prefix(source()).unwrap().display().to_string(), path))
        .filter(|(name, _)| !name.contains("tests") && !name.contains("playbooks"))
        .map(|(name, path)| (name, code(&fs::read_to_string(path).unwrap())))
        .collect()
}

/// The text without comments and without the test module at its end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).fold(String::new(), |all, line| all + line + "\n")
}

/// Modules of this crate that `code` names: `crate::a`, and each of `crate::{a, b::c}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(members(group)),
            None => found.push(word(rest)),
        }
    }
    found
}

/// The first words of a group, up to the brace that closes it.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut found, mut begins) = (0, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            letter if begins && !letter.is_whitespace() => {
                found.push(word(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn imports_point_inward() {
    let mut mistakes = Vec::new();
    for (name, forbidden) in TABLE {
        for (file, code) in module(name) {
            for import in imports(&code).into_iter().filter(|import| forbidden.contains(&import.as_str())) {
                mistakes.push(format!("src/{file}: {name} must not import crate::{import}"));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn protocol_and_relay_are_pure() {
    let mut mistakes = Vec::new();
    for name in ["protocol", "relay", "pacing"] {
        let files = module(name);
        assert!(!files.is_empty(), "no module {name}");
        for (file, code) in files {
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                mistakes.push(format!("src/{file}: {name} is sans-IO and must be given what `{word}` would get"));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// Two providers are compiled in; `ServerConfig::builder()` and its like panic, because they cannot choose.
#[test]
fn a_provider_is_named() {
    for path in files(&source()) {
        let text = fs::read_to_string(&path).unwrap();
        for unnamed in ["ServerConfig::builder()", "ClientConfig::builder()", "WebPkiClientVerifier::builder("] {
            assert!(!text.contains(unnamed), "{}: {unnamed}: name a provider", path.display());
        }
    }
}

#[test]
fn files_stay_short_and_say_what_they_do() {
    let mut mistakes = Vec::new();
    for path in files(&source()) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(source()).unwrap().display().to_string();
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        let for_tests = ["tests", "wiring", "playbooks"].iter().any(|word| name.contains(word));
        if lines > LINES_MAX && !for_tests {
            mistakes.push(format!("src/{name}: {lines} lines, at most {LINES_MAX}: split it by topic"));
        }
        if !text.trim().is_empty() && !name.contains("tests") && name != "main.rs" && !text.starts_with("//!") {
            mistakes.push(format!("src/{name}: begins without a `//!` line that says the one thing it does"));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[test]
fn the_table_reads_imports_as_written() {
    let code = code("use crate::{a::{b, c}, d};\nuse crate::e; // crate::f\n#[cfg(test)]\nmod tests { use crate::g; }");
    assert_eq!(imports(&code), ["a", "d", "e"]);
}
