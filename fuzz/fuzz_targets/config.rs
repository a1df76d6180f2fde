//! Any text as `gateway.toml`: a configuration, or mistakes that each say where, what and what instead.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pulsegate_fuzz::config;
use std::path::Path;

fuzz_target!(|text: &str| {
    let base = Path::new("no-such-folder");
    match config::parse("gateway.toml", text, base) {
        Ok(parsed) => {
            assert!(!parsed.routes.is_empty() && !parsed.listeners.is_empty());
            let known = |name: &str| parsed.upstreams.iter().any(|upstream| upstream.name == name);
            assert!(parsed.routes.iter().all(|route| known(&route.upstream)), "a route to nowhere");
            assert_eq!(config::parse("gateway.toml", text, base).ok(), Some(parsed), "read twice, not the same");
        }
        Err(errors) => {
            assert!(!errors.problems.is_empty());
            let lines = text.lines().count() + 1;
            let mut before = (0, 0);
            for problem in &errors.problems {
                assert!(problem.line <= lines, "line {} of {lines}", problem.line);
                assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{problem:?}");
                assert!(before <= (problem.line, problem.column), "not in the order of the text: {errors}");
                before = (problem.line, problem.column);
            }
            let told = errors.to_string();
            assert_eq!(told.lines().count(), errors.problems.len(), "one line each: {told}");
        }
    }
});
