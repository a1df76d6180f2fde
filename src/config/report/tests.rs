//! Reports of whole files, and what is warned of.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{parse, tests::read};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

const CEILINGS: Ceilings = Ceilings { descriptors: 1024, ports: 28_232 };

fn day(text: &str) -> SystemTime {
    let time: jiff::Timestamp = format!("{text}T00:00:00Z").parse().unwrap();
    time.into()
}

fn warned(config: &Config, now: &str) -> Vec<String> {
    report(config, &CEILINGS, day(now)).warnings
}

#[test]
fn the_shipped_file_is_reported_whole() {
    let config = read(include_str!("../../../gateway.toml"));
    let expected = "\
listeners
  127.0.0.1:8080, plain

routes, in matching order
  any host, / to upstream \"demo\"
    client    a ping every 20s ±10 %, to be answered within 20s
              a peer that vanishes is found within 42s, one that hangs within 1m22s, one that takes no data within 1m22s
              an idle one costs 641 KiB a day
    upstream  a ping every 20s ±10 %, to be answered within 1m
              a peer that vanishes is found within 1m22s, one that hangs within 3m22s, one that takes no data within 1m22s

upstreams
  \"demo\", least_sessions, a failed backend rests for 10s
    builtin:echo

ceilings
  480 sessions by the descriptor limit of 1024 (2 for each, 64 kept back)

An idle leg is counted with ping, pong and an acknowledgement for each interval: 12 bytes of payload, WebSocket
headers and masking key, 40 bytes of TCP and IPv4 headers a packet, and over TLS 22 bytes a record.
";
    assert_eq!(report(&config, &CEILINGS, day("2026-01-01")).to_string(), expected);
}

#[test]
fn routes_stand_in_matching_order() {
    let routes = [
        ("any", "", "/"),
        ("long", "", "/chat/room"),
        ("short", "*.b.test", "/"),
        ("longer", "*.a.b.test", "/"),
        ("exact", "c.test", "/"),
        ("deep", "c.test", "/deep"),
    ];
    let mut text = "listener = [{ address = \"127.0.0.1:1\" }]\nupstream.u.servers = [\"builtin:echo\"]\n".to_owned();
    for (name, host, path) in routes {
        let host = if host.is_empty() { String::new() } else { format!("host = \"{host}\"\n") };
        text += &format!("[[route]]\nname = \"{name}\"\n{host}path = \"{path}\"\nupstream = \"u\"\n");
    }
    let config = read(&text);
    let text = report(&config, &CEILINGS, day("2026-01-01")).text;
    let places: Vec<_> = ["deep", "exact", "longer", "short", "long", "any"]
        .into_iter()
        .map(|name| text.find(&format!("(\"{name}\")")).unwrap_or_else(|| panic!("{name} in {text}")))
        .collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let config = read(
        r#"
            gateway = { max_sessions = 100_000, drain = { delay = "1s" } }
            listener = [{ address = "127.0.0.1:1" }]
            [[route]]
            name = "r"
            upstream = "u"
            heartbeat.client = { ping_interval = "31s", path_idle_limit = "1m" }
            heartbeat.upstream = { ping_interval = "off", path_idle_limit = "1m" }
            [upstream.u]
            servers = ["ws://10.0.0.1:1", "ws://10.0.0.2:2"]
            [upstream.spare]
            servers = ["builtin:echo"]
            "#,
    );
    let warned = warned(&config, "2026-01-01");
    let expected = [
        "heartbeat.client.ping_interval is 31s, above half of its path_idle_limit of 1m; set at most \"30s\"",
        "heartbeat.upstream.ping_interval is off, though its path_idle_limit is 1m",
        "upstream \"spare\" is used by no route",
        "delay 1s, spread 15s and timeouts.close 10s take 26s, drain.timeout is 25s",
        "the descriptor limit of 1024 allows 480",
        "local ports allow 56464 to upstream \"u\"",
    ];
    assert_eq!(warned.len(), expected.len(), "{warned:#?}");
    for (warned, expected) in warned.iter().zip(expected) {
        assert!(warned.contains(expected), "{warned}");
    }
    let text = report(&config, &CEILINGS, day("2026-01-01")).text;
    assert!(text.contains("upstream  no heartbeat\n"), "{text}");
    assert!(text.contains("28232 sessions to each TCP address"), "{text}");
}

#[test]
fn passwords_that_others_read_and_headers_that_nobody_may_set_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n").unwrap();
    let told = |address: &str, mode: u32| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let text = format!(
            "gateway = {{ client_address = \"x-client\", rates.sessions_per_address = \"30/m\" }}\n\
                 listener = [{{ address = \"{address}\" }}]\nupstream.u.servers = [\"builtin:echo\"]\n\
                 defaults.access.basic.file = \"users\"\n\
                 route = [{{ upstream = \"u\" }}, {{ path = \"/b\", upstream = \"u\" }}]\n"
        );
        let config = parse("g", &text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
        report(&config, &CEILINGS, day("2026-01-01"))
    };
    let all = told("0.0.0.0:1", 0o644);
    let expected =
        ["users: every user of this machine can read the hashes", "0.0.0.0:1, which has no TLS", "nobody is believed"];
    assert_eq!(all.warnings.len(), expected.len(), "{all}");
    for (warned, expected) in all.warnings.iter().zip(expected) {
        assert!(warned.contains(expected), "{warned}");
    }
    assert!(all.text.contains("\n  30/m new sessions from one address by rates.sessions_per_address\n"), "{all}");
    assert_eq!(told("127.0.0.1:1", 0o640).warnings.len(), 1);
    assert_eq!(told("unix:s", 0o640).warnings, [""; 0]);
}

/// A leaf for `chat.test` valid in all of 2026 and the authority that signed it, with the leaf's key, all PEM.
fn chain() -> (String, String, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["chat.test".to_owned(), "*.chat.test".to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, "leaf");
    leaf.not_before = date_time_ymd(2026, 1, 1);
    leaf.not_after = date_time_ymd(2026, 12, 31);
    (leaf.signed_by(&key, &issuer).unwrap().pem(), authority_pem, key.serialize_pem())
}

fn with_tls(folder: &Path, chain: &[&str], key: &str) -> Config {
    fs::write(folder.join("c.pem"), chain.concat()).unwrap();
    fs::write(folder.join("c.key"), key).unwrap();
    let text = r#"
            listener = [{ address = "[::]:443", tls = { certificate = "c.pem", key = "c.key", min_version = "1.3" } }]
            route = [{ upstream = "u" }]
            upstream.u.servers = ["wss://h"]
        "#;
    parse("g", text, folder).unwrap()
}

#[test]
fn certificates_are_judged_by_order_and_date() {
    let folder = tempfile::tempdir().unwrap();
    let (leaf, authority, key) = chain();
    let config = with_tls(folder.path(), &[&leaf, &authority], &key);
    let about_certificates = |config: &Config, now| {
        let warned = warned(config, now);
        assert!(warned.iter().any(|warning| warning.contains("lists no origins")), "{warned:?}");
        warned.into_iter().filter(|warning| warning.contains("c.pem: ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(about_certificates(&config, "2026-06-01"), "");
    assert!(about_certificates(&config, "2026-12-11").contains("CN=leaf expires on 2026-12-31, in 20 days"));
    assert!(about_certificates(&config, "2027-01-02").contains("CN=leaf expired on 2026-12-31"));
    assert!(about_certificates(&config, "2025-12-01").contains("CN=leaf is not valid before 2026-01-01"));
    let text = report(&config, &CEILINGS, day("2026-06-01")).text;
    assert!(text.contains("[::]:443, TLS 1.3\n"), "{text}");
    assert!(text.contains("c.pem for chat.test, *.chat.test, until 2026-12-31\n"), "{text}");
    assert!(text.contains("827 KiB a day over TLS"), "{text}");
    assert!(text.contains("    wss://h, at every address of the name\n"), "{text}");

    let config = with_tls(folder.path(), &[&leaf, &leaf], &key);
    assert!(about_certificates(&config, "2026-06-01").contains("the chain is out of order"));
}

#[test]
fn times_and_sizes_read_well() {
    let times = [(20_000, "20s"), (90_000, "1m30s"), (1500, "1s500ms"), (86_400_000, "24h")];
    for (millis, text) in times {
        assert_eq!(time_text(Duration::from_millis(millis)), text);
    }
    assert_eq!([size_text(98), size_text(656_640), size_text(6_566_400)], ["98 B", "641 KiB", "6.2 MiB"]);
}
