//! `pulsegate probe` against a gateway: what it prints, and its exit codes.
use super::harness::{Running, one_route};
use std::process::{Command, Output};

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pulsegate")).arg("probe").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_gateway_is_a_service_like_any_other() {
    let gateway = Running::start(&one_route("builtin:echo", "defaults.timeouts.idle = \"1500ms\""));
    let url = gateway.url("/chat");

    let summary = probe(&[&url, "--watch", "0s", "--count", "3"]);
    let (out, progress) = (text(&summary.stdout), text(&summary.stderr));
    assert!(summary.status.success(), "{progress}");
    assert!(out.contains("3 of 3 answered") && out.contains("1000, answered after"), "{out}");
    assert!(progress.contains("opening ws://127.0.0.1:"), "{progress}");

    // Its idle timeout counts messages, so pings cannot keep a session alive: the probe must see through that.
    let searched = probe(&[&url, "--count", "1", "--idle", "--limit", "8s", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&searched.stdout).unwrap();
    let idle = &found["idle"];
    let cut = idle["cut_seconds"].as_f64().unwrap_or_else(|| panic!("{found}"));
    assert!((1.4..4.0).contains(&cut), "{found}");
    assert!(idle["how"].as_str().unwrap().contains("1001 \"idle timeout\""), "{found}");
    assert!(idle["pinged"]["ended"].is_string() && idle["ping_interval"].is_null(), "{found}");
}

#[test]
fn what_is_no_websocket_is_explained_and_exits_with_1() {
    let gateway = Running::start(
        &one_route("builtin:echo", "").replace("upstream = \"pool\"", "upstream = \"pool\"\npath = \"/chat\""),
    );
    let refused = probe(&[&gateway.url("/other")]);
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), ""));
    let told = text(&refused.stderr);
    assert!(told.contains("answered 404") && told.contains("is the path right"), "{told}");
    let json = probe(&[&gateway.url("/other"), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["error"].as_str().unwrap().contains("answered 404"), "{json}");
    for (arguments, told) in [
        (vec!["localhost:1"], "write ws://localhost:1"),
        (vec!["ws://localhost:1", "-H", "nothing"], "-H \"Name: value\""),
        (vec!["ws://localhost:1", "--idle", "--limit", "5"], "write \"5s\""),
        (vec!["ws://localhost:1", "--limit", "5s"], "--idle"),
    ] {
        let wrong = probe(&arguments);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(text(&wrong.stderr).contains(told), "{}", text(&wrong.stderr));
    }
}
