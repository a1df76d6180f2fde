//! What the guides and the deployment files say fits the program.
use pulsegate::{
    config::{self, Config},
    probe::longest_interval,
    relay::EndReason,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub(super) fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The code blocks of one language in a document.
pub(super) fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    document.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// A certificate that is its own authority, with its key.
pub(super) fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["chat.example.com".to_owned()]).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    fs::write(&chain, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (chain, key)
}

/// The configuration with files that exist in the place of those it names.
pub(super) fn parsed(name: &str, toml: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = certificate(folder.path());
    let mut text = toml.to_owned();
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef".repeat(4)).unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n").unwrap();
    // Also the end of token_file, which comes last.
    for (name, path) in
        [("file", &users), ("certificate", &chain), ("key", &key), ("ca", &chain), ("token_file", &token)]
    {
        let begin = format!("{name} = \"");
        let parts: Vec<String> = text.split(&begin).map(str::to_owned).collect();
        let replaced = parts[1..].iter().map(|rest| {
            let (_, after) = rest.split_once('"').unwrap();
            format!("{begin}{}\"{after}", path.display())
        });
        text = parts[..1].iter().cloned().chain(replaced).collect();
    }
    config::parse(name, &text, folder.path()).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[test]
fn every_end_reason_is_explained() {
    let verdicts = file("docs/verdicts.md");
    for reason in EndReason::ALL {
        assert!(verdicts.contains(&format!("\n### {}\n", reason.label())), "{} is not explained", reason.label());
    }
    let sections = verdicts.matches("\n### ").count();
    assert_eq!(sections, EndReason::ALL.len(), "docs/verdicts.md explains a reason that does not exist");
}

#[test]
fn every_configuration_in_a_guide_is_taken() {
    for (name, least) in [("docs/migrating.md", 3), ("docs/operations.md", 1), ("README.md", 1)] {
        let found = blocks(&file(name), "toml");
        assert!(found.len() >= least, "{name}");
        for toml in found {
            parsed(name, &toml);
        }
    }
    parsed("container", &file("examples/deploy/container/gateway.toml"));
}

#[test]
fn links_between_guides_lead_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    const GUIDES: [&str; 9] =
        ["operations", "heartbeats", "verdicts", "migrating", "reload", "upgrade", "admin", "logs", "metrics"];
    for name in GUIDES.map(|name| format!("{name}.md")) {
        let text = file(&format!("docs/{name}"));
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let target = link.split('#').next().unwrap();
            let inside = !target.is_empty() && !target.contains("://");
            assert!(!inside || docs.join(target).exists(), "docs/{name} links to {link}");
        }
    }
}

#[test]
fn the_intervals_in_the_tables_are_those_that_probe_recommends() {
    let seconds = |text: &str| {
        let (number, unit) = text.trim().split_once(' ')?;
        (unit.starts_with('s') && number.len() < 4).then(|| number.parse().ok().map(Duration::from_secs))?
    };
    let table = file("docs/heartbeats.md");
    let rows = table.lines().skip_while(|line| !line.starts_with("| Idle limit")).skip(2);
    let mut checked = 0;
    for row in rows.take_while(|row| row.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for pair in [[cells[1], cells[2]], [cells[4], cells[5]]] {
            if let [Some(limit), Some(interval)] = pair.map(seconds) {
                assert_eq!(longest_interval(limit), interval, "{row}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 7, "{checked}");
}

/// The value of the first `KEY: VALUE` or `KEY=VALUE` with a number in it.
fn number(text: &str, key: &str) -> u64 {
    let rest = text.split(key).nth(1).unwrap_or_else(|| panic!("no {key}"));
    let digits: String = rest.trim_start_matches([':', '=', ' ']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{key} is no number"))
}

#[test]
fn a_pod_is_given_the_time_that_its_drain_takes() {
    let manifest = file("examples/deploy/kubernetes/pulsegate.yaml");
    let indented = manifest.split("  gateway.toml: |\n").nth(1).unwrap().split("---").next().unwrap();
    let toml: String = indented
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let config = parsed("kubernetes", &toml);
    let admin = config.admin.as_ref().unwrap();
    let admin_port = number(&manifest, "name: admin, containerPort: ");
    assert_eq!(admin.address.to_string(), format!("0.0.0.0:{admin_port}"));

    let drain = &config.gateway.drain;
    let close = config.routes.iter().map(|route| route.options.relay.timeouts.close).max().unwrap();
    assert!(drain.delay + drain.pace.time(1) + close <= drain.timeout, "{drain:?}");
    let grace = Duration::from_secs(number(&manifest, "terminationGracePeriodSeconds: "));
    assert!(grace >= drain.timeout + Duration::from_secs(5), "{grace:?}");
    let readiness = manifest.split("readinessProbe:").nth(1).unwrap();
    let noticed = number(readiness, "periodSeconds") * number(readiness, "failureThreshold");
    assert!(drain.delay >= Duration::from_secs(noticed), "not ready is noticed after {noticed} s");
    let port = number(&manifest, "name: ws, containerPort");
    assert_eq!(config.listeners[0].address.to_string(), format!("0.0.0.0:{port}"));
    for part in [
        "path: /readyz, port: admin",
        "path: /healthz, port: admin",
        "readOnlyRootFilesystem: true",
        "runAsNonRoot: true",
    ] {
        assert!(manifest.contains(part), "{part}");
    }
}

#[test]
fn a_service_and_a_container_are_given_that_time_too() {
    let longest = parsed("shipped", &file("gateway.toml")).gateway.drain.timeout.as_secs();
    let unit = file("examples/deploy/systemd/pulsegate.service");
    assert!(number(&unit, "TimeoutStopSec") >= longest + 5);
    assert!(unit.contains("\nRestartPreventExitStatus=78\n"));
    let container = file("examples/deploy/container/Containerfile");
    assert!(number(&container, "--stop-timeout") >= longest + 5);
    assert!(container.contains("\nUSER 65532:65532\n"));
}
