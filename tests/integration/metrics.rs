//! Figures of running gateways, what `docs/metrics.md` says of them, and what dashboard and alerts ask for.
use super::{
    harness::{Backend, Raw, Running, dead_address, eventually, frame, one_route, request, soon, tcp},
    secure::Certificates,
};
use pulsegate::metrics::text::Format;
use rustls::version::TLS13;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// A page of Prometheus text, read.
struct Page {
    /// Type of each family.
    kinds: BTreeMap<String, String>,
    /// Labels of each family that has samples, `le` apart.
    labels: BTreeMap<String, BTreeSet<String>>,
    samples: BTreeMap<String, f64>,
}

impl Page {
    fn of(gateway: &Running) -> Self {
        Self::read(&gateway.operator().metrics(Format::Prometheus))
    }

    fn read(text: &str) -> Self {
        let mut page = Self { kinds: BTreeMap::new(), labels: BTreeMap::new(), samples: BTreeMap::new() };
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(page.kinds.insert(name.into(), kind.into()).is_none(), "{name} comes twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(page.samples.insert(series.into(), value.parse().unwrap()).is_none(), "{series} comes twice");
                let family = page.family(series.split('{').next().unwrap()).to_owned();
                page.labels.entry(family).or_default().extend(labels(series).into_iter().filter(|name| name != "le"));
            }
        }
        page
    }

    /// What a sample's name belongs to.
    fn family<'a>(&self, sample: &'a str) -> &'a str {
        let histogram = |suffix| sample.strip_suffix(suffix).filter(|name| self.kinds.contains_key(*name));
        ["_bucket", "_sum", "_count"].into_iter().find_map(histogram).unwrap_or(sample)
    }

    /// The sum of all samples of `name` whose labels hold all of `labels`.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.kinds.contains_key(self.family(name)), "there is no {name}");
        let fits = |series: &str| {
            let (own, rest) = series.split_once('{').unwrap_or((series, ""));
            own == name && labels.iter().all(|(label, value)| rest.contains(&format!("{label}={value:?}")))
        };
        self.samples.iter().filter(|(series, _)| fits(series)).map(|(_, value)| value).sum()
    }
}

/// Names in the braces of a series, or of an expression.
fn labels(series: &str) -> Vec<String> {
    let inside = series.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let names = inside.flat_map(|pairs| pairs.split(',')).filter_map(|pair| pair.split(['=', '!']).next());
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What `docs/metrics.md` says: name, type, labels, unit.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>, String)> {
    let text = file("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once("` |"));
    rows.filter(|(name, _)| name.starts_with("pulsegate_") || name.starts_with("process_"))
        .map(|(name, rest)| {
            let cells: Vec<&str> = rest.split('|').map(str::trim).collect();
            assert!(cells.len() >= 5, "{name}");
            assert!(!cells[3].is_empty(), "{name} is explained");
            let labels = cells[1].split(',').map(str::trim).filter(|label| !label.is_empty());
            (name.to_owned(), (cells[0].to_owned(), labels.map(str::to_owned).collect(), cells[2].to_owned()))
        })
        .collect()
}

/// Names of our metrics in an expression.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let ours = words.filter(|word| word.starts_with("pulsegate_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// What is asked of Prometheus in the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" || name == "query" => found.push(text.clone()),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
                    Value::Array(_) | Value::Object(_) => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A gateway in which everything is configured that figures depend on.
fn everything(certificates: &Certificates, backend: &Backend) -> Running {
    let listener = certificates.listener(&["gate.test"]);
    let plain = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    Running::start(&(one_route(&backend.url(), "gateway.memory_limit = \"1MiB\"") + plain + &listener))
}

/// Plays a session that is closed by its client with 4000.
fn play(gateway: &Running, connections: &std::sync::mpsc::Receiver<Raw>) -> (Raw, Raw) {
    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(connections);
    client.send(&frame(0x88, true, b"\x0f\xa0"));
    server.receive::<8>();
    server.send(&frame(0x88, false, b"\x0f\xa0"));
    assert_eq!(client.close_frame().0, 4000);
    gateway.verdict();
    (client, server)
}

#[test]
fn the_document_and_a_running_program_name_the_same_figures() {
    let certificates = Certificates::of(&["gate.test"]);
    let (backend, connections) = Backend::handed();
    let gateway = everything(&certificates, &backend);
    let _ends = play(&gateway, &connections);
    let page = Page::of(&gateway);
    let documented = documented();
    let (said, shown): (BTreeSet<_>, BTreeSet<_>) = (documented.keys().collect(), page.kinds.keys().collect());
    assert_eq!(said, shown, "left docs/metrics.md, right a running program");
    for (name, (kind, labels, unit)) in &documented {
        assert_eq!(kind, &page.kinds[name], "{name}");
        assert_eq!(Some(labels), page.labels.get(name), "{name}");
        for word in ["seconds", "bytes"] {
            let named = name.trim_end_matches("_total").ends_with(word);
            assert_eq!(unit == word, named, "{name} has the unit {unit}");
        }
    }
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let documented = documented();
    let dashboard: Value = serde_json::from_str(&file("examples/deploy/grafana/pulsegate.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    let rules = file("examples/deploy/prometheus/pulsegate.rules.yml");
    assert!(asked.len() > 40 && rules.matches("- alert: ").count() > 10);
    asked.push(rules);
    let mut labels: BTreeSet<_> = documented.values().flat_map(|(_, labels, _)| labels.clone()).collect();
    labels.extend(["le", "instance", "job"].map(str::to_owned));
    for text in &asked {
        for name in named(text) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let histogram = |family: &str| documented.get(family).is_some_and(|(kind, ..)| kind == "histogram");
            assert!(documented.contains_key(&name) || family.is_some_and(histogram), "{name} in {text}");
        }
        for group in text.split("by (").skip(1).filter_map(|rest| rest.split(')').next()) {
            for label in group.split(',').map(str::trim) {
                assert!(labels.contains(label), "{label} in {text}");
            }
        }
    }
    // Each figure is worth a place on the dashboard, but for those that only name things.
    let shown: BTreeSet<String> = asked.iter().flat_map(|text| named(text)).collect();
    for name in documented.keys() {
        let used = shown.contains(name) || shown.contains(&format!("{name}_bucket"));
        let left_out = ["pulsegate_generation", "process_cpu_seconds_total"].contains(&name.as_str());
        assert!(used != left_out, "{name}");
    }
    // It loads without edits: whoever imports it chooses the data source.
    let text = dashboard.to_string();
    assert_eq!(text.matches("\"uid\":").count(), text.matches("\"uid\":\"${datasource}\"").count() + 1);
}

#[test]
fn both_texts_tell_the_same() {
    let certificates = Certificates::of(&["gate.test"]);
    let (backend, connections) = Backend::handed();
    let gateway = everything(&certificates, &backend);
    let _ends = play(&gateway, &connections);
    let names = |text: &str| -> Vec<String> {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('}').next());
        series.map(|series| series.replace(".0\"", "\"")).map(|one| one.split(' ').next().unwrap().into()).collect()
    };
    let open = gateway.operator().metrics(Format::OpenMetrics);
    let plain = gateway.operator().metrics(Format::Prometheus);
    assert_eq!(names(&open), names(&plain));
    assert!(open.ends_with("\n# EOF\n") && !plain.contains("# EOF"));
    // OpenMetrics names families without the suffix of their samples, and a family's unit is its last word.
    for line in open.lines() {
        if let Some(line) = line.strip_prefix("# UNIT ") {
            let (name, unit) = line.split_once(' ').unwrap();
            assert!(name.ends_with(&format!("_{unit}")), "{line}");
        } else if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{line}");
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
        }
    }
}

#[test]
fn a_scripted_session_is_counted_while_it_runs_and_when_it_ends() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let route: &[(&str, &str)] = &[("route", "all"), ("upstream", "pool")];
    let at = |name: &str, more: &[(&str, &str)]| Page::of(&gateway).sum(name, &[route, more].concat());
    let flow = |side: &str, direction: &str| {
        let (page, more) = (Page::of(&gateway), [("side", side), ("direction", direction)]);
        let names = ["pulsegate_traffic_bytes_total", "pulsegate_frames_total", "pulsegate_messages_total"];
        names.map(|name| page.sum(name, &[route, &more].concat()))
    };
    assert_eq!(
        (at("pulsegate_sessions_open", &[]), flow("client", "received")),
        (0.0, [0.0; 3]),
        "shown from the start"
    );

    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(&connections);
    // Two messages, one of two fragments, and a ping: 11 + 11 + 8 + 7 + 7 bytes.
    let fragments = [frame(0x01, true, b"ab"), frame(0x80, true, b"c")].concat();
    let first = [frame(0x81, true, b"hello"), frame(0x82, true, b"twice")].concat();
    client.send(&[first, fragments, frame(0x89, true, b"p")].concat());
    server.receive::<44>();
    server.send(&[frame(0x81, false, b"welcome"), frame(0x8a, false, b"p")].concat());
    client.receive::<12>();
    let live =
        || [flow("client", "received"), flow("upstream", "sent"), flow("upstream", "received"), flow("client", "sent")];
    let expected = [[44.0, 5.0, 3.0], [44.0, 5.0, 3.0], [12.0, 2.0, 1.0], [12.0, 2.0, 1.0]];
    eventually("the figures of a session that runs", || live() == expected);
    assert_eq!((at("pulsegate_sessions_open", &[]), at("pulsegate_sessions_started_total", &[])), (1.0, 1.0));
    assert_eq!(at("pulsegate_sessions_ended_total", &[]), 0.0);
    let on_backend = [("upstream", "pool"), ("backend", &*backend.url())];
    let of_backend = |name: &str, more: &[(&str, &str)]| Page::of(&gateway).sum(name, &[&on_backend, more].concat());
    assert_eq!((of_backend("pulsegate_backend_up", &[]), of_backend("pulsegate_backend_sessions", &[])), (1.0, 1.0));

    client.send(&frame(0x88, true, b"\x0f\xa0"));
    server.receive::<8>();
    server.send(&frame(0x88, false, b"\x03\xf3"));
    assert_eq!(client.close_frame().0, 1011);
    gateway.verdict();
    let expected = [[52.0, 6.0, 3.0], [52.0, 6.0, 3.0], [16.0, 3.0, 1.0], [16.0, 3.0, 1.0]];
    assert_eq!(live(), expected);
    let ended = [("reason", "client_closed"), ("side", "client")];
    assert_eq!((at("pulsegate_sessions_ended_total", &[]), at("pulsegate_sessions_ended_total", &ended)), (1.0, 1.0));
    assert_eq!(at("pulsegate_session_duration_seconds_count", &[]), 1.0);
    assert_eq!(of_backend("pulsegate_backend_sessions_ended_total", &[("reason", "client_closed")]), 1.0);
    for (side, direction, code) in [
        ("client", "received", "4xxx"),
        ("upstream", "sent", "4xxx"),
        ("upstream", "received", "1011"),
        ("client", "sent", "1011"),
    ] {
        let labels = [("side", side), ("direction", direction), ("code", code)];
        assert_eq!(at("pulsegate_session_close_codes_total", &labels), 1.0, "{labels:?}");
    }
    assert_eq!(at("pulsegate_session_close_codes_total", &[]), 4.0);
    drop((client, server));
    eventually("the session is gone", || at("pulsegate_sessions_open", &[]) == 0.0);
    eventually("its backend is free", || of_backend("pulsegate_backend_sessions", &[]) == 0.0);
}

#[test]
fn handshakes_are_counted_by_what_became_of_them() {
    let certificates = Certificates::of(&["gate.test"]);
    let (backend, connections) = Backend::handed();
    let dead = dead_address();
    let toml = format!(
        "gateway.workers = 2\ndefaults.heartbeat = {{ client.ping_interval = \"off\", upstream.ping_interval = \"off\" }}\n\
         [[route]]\nname = \"chat\"\npath = \"/chat\"\norigins = [\"https://a.test\"]\nupstream = \"pool\"\n\
         [[route]]\nname = \"lost\"\npath = \"/lost\"\nupstream = \"lost\"\n\
         [upstream.pool]\nservers = [\"{}\"]\n[upstream.lost]\nservers = [\"ws://{dead}\"]\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n{}",
        backend.url(),
        certificates.listener(&["gate.test"])
    );
    let gateway = Running::start(&toml);
    let answer = |path: &str, more: &str| {
        let mut client = Raw::connect(gateway.address());
        client.send(request(path, more).as_bytes());
        (client.head().split(' ').nth(1).unwrap().to_owned(), client)
    };
    let (status, _open) = answer("/chat", "");
    assert_eq!(status, "101");
    let _server = soon(&connections);
    assert_eq!(answer("/chat", "Origin: https://b.test\r\n").0, "403");
    assert_eq!(answer("/other", "").0, "404");
    assert_eq!(answer("/lost", "").0, "502");
    for tls in [true, false] {
        let mut secure = certificates.connect(tcp(&gateway.addresses()[1]), "gate.test", &TLS13);
        if tls {
            secure.conn.complete_io(&mut secure.sock).unwrap();
        } else {
            std::io::Write::write_all(&mut secure.sock, b"this is no client hello").unwrap();
        }
        drop(secure);
    }
    let shown = |name: &str, labels: &[(&str, &str)]| Page::of(&gateway).sum(name, labels);
    eventually("TLS handshakes are counted", || {
        let count = |result| shown("pulsegate_tls_handshakes_total", &[("result", result)]);
        (count("accepted"), count("failed")) == (1.0, 1.0)
    });
    for (route, result) in [("chat", "accepted"), ("chat", "origin"), ("", "no_route"), ("lost", "backend_failed")] {
        let labels = [("route", route), ("result", result)];
        eventually("a handshake is counted", || shown("pulsegate_handshakes_total", &labels) == 1.0);
    }
    assert_eq!(shown("pulsegate_handshake_duration_seconds_count", &[("route", "chat")]), 1.0);
    assert_eq!(shown("pulsegate_handshake_duration_seconds_count", &[("route", "lost")]), 0.0);
    let lost: &[(&str, &str)] = &[("upstream", "lost"), ("cause", "connect")];
    assert_eq!(shown("pulsegate_backend_dial_errors_total", lost), 1.0);
    assert_eq!(shown("pulsegate_backend_up", &[("upstream", "lost")]), 0.0);
    assert_eq!(shown("pulsegate_backend_up", &[("upstream", "pool")]), 1.0);
    let expiry = shown("pulsegate_certificate_expiry_timestamp_seconds", &[]);
    assert!(expiry > shown("process_start_time_seconds", &[]), "{expiry}");
}

#[test]
fn heartbeats_are_counted_with_their_round_trips_and_the_one_that_is_missed() {
    let (backend, connections) = Backend::handed();
    let extra = "defaults.heartbeat = { client = { ping_interval = \"100ms\", ping_timeout = \"500ms\" }, upstream.ping_interval = \"off\" }";
    let gateway = Running::start(&one_route(&backend.url(), extra));
    let shown = |name: &str, side: &str| Page::of(&gateway).sum(name, &[("route", "all"), ("side", side)]);
    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(&connections);
    for _ in 0..3 {
        let [first, length] = client.receive::<2>();
        assert_eq!((first, length), (0x89, 12), "a ping");
        let payload = client.receive::<12>();
        client.send(&frame(0x8a, true, &payload));
    }
    eventually("three answers", || shown("pulsegate_heartbeats_answered_total", "client") == 3.0);
    assert_eq!(shown("pulsegate_round_trip_seconds_count", "client"), 3.0);
    assert!(shown("pulsegate_heartbeats_sent_total", "client") >= 3.0);
    assert_eq!(shown("pulsegate_heartbeats_missed_total", "client"), 0.0);
    // It answers no more.
    assert_eq!(server.close_frame().0, 1001);
    server.send(&frame(0x88, false, b"\x03\xe9"));
    assert_eq!(gateway.verdict().reason.label(), "client_unresponsive");
    assert_eq!(shown("pulsegate_heartbeats_missed_total", "client"), 1.0);
    assert_eq!(shown("pulsegate_heartbeats_sent_total", "upstream"), 0.0);
}

#[test]
fn what_waits_is_shown_and_whom_it_pauses() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), ""));
    let shown = |name: &str, side: &str| Page::of(&gateway).sum(name, &[("route", "all"), ("side", side)]);
    let client = Raw::upgraded(gateway.address(), "/");
    let server = soon(&connections);
    // A client that does not read, and a backend that sends all it can.
    let sender = server.0.try_clone().unwrap();
    sender.set_nonblocking(true).unwrap();
    let message = [&[0x82, 126, 0xff, 0xff][..], &[0; 0xffff]].concat();
    let mut at = 0;
    eventually("bytes wait for the client", || {
        while let Ok(taken) = std::io::Write::write(&mut &sender, &message[at..]) {
            at = (at + taken) % message.len();
        }
        shown("pulsegate_outbox_bytes", "client") > 0.0
    });
    assert_eq!(shown("pulsegate_sessions_paused", "upstream"), 1.0);
    assert_eq!((shown("pulsegate_outbox_bytes", "upstream"), shown("pulsegate_sessions_paused", "client")), (0.0, 0.0));
    assert!(shown("pulsegate_outbox_stalls_total", "client") >= 1.0);
    drop(sender);
    client.reset();
    server.reset();
    eventually("nothing waits for a session that is gone", || {
        (shown("pulsegate_outbox_bytes", "client"), shown("pulsegate_sessions_paused", "upstream")) == (0.0, 0.0)
    });
}

#[test]
fn a_drain_shows_how_far_it_is() {
    let (backend, connections) = Backend::handed();
    let gateway = Running::start(&one_route(&backend.url(), "gateway.drain = { spread = \"0s\", timeout = \"10s\" }"));
    let operator = gateway.operator();
    let shown = |name: &str| Page::read(&operator.metrics(Format::Prometheus)).sum(name, &[]);
    let mut client = Raw::upgraded(gateway.address(), "/");
    let mut server = soon(&connections);
    assert_eq!((shown("pulsegate_draining"), shown("pulsegate_drain_sessions_told_total")), (0.0, 0.0));
    gateway.control().drain();
    assert_eq!((client.close_frame().0, server.close_frame().0), (1001, 1001));
    assert_eq!((shown("pulsegate_draining"), shown("pulsegate_drain_sessions_told_total")), (1.0, 1.0));
    gateway.control().cut();
    assert_eq!(gateway.drained().cut, 1);
    assert_eq!((shown("pulsegate_drain_sessions_cut_total"), shown("pulsegate_sessions_open")), (1.0, 0.0));
}
