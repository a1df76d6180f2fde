//! Whole files: the shipped one, the defaults, merging, every key, and all mistakes at once.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    listener::ListenAddress,
    protocol::heartbeat::{HeartbeatKind, Liveness},
    relay::{EndReason, Farewell, MessageLimits, Pings, Side, Utf8},
    route::{Compression, HostHeader, HostPattern},
    upstream::{BackendAddress, BalanceKind, ServerConfig},
};
use std::path::Path;

const SHIPPED: &str = include_str!("../../gateway.toml");
const MINIMAL: &str = r#"
[[listener]]
address = "127.0.0.1:8080"
[[route]]
upstream = "chat"
[upstream.chat]
servers = ["ws://10.0.0.1:8000"]
"#;

pub(super) fn read(text: &str) -> Config {
    parse("gateway.toml", text, Path::new("conf")).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The mistakes of a text that is put before a file without any, one a line.
fn mistakes(before: &str) -> String {
    parse("g", &format!("{before}\n{MINIMAL}"), Path::new("conf")).unwrap_err().to_string()
}

fn seconds(count: u64) -> Option<Duration> {
    Some(Duration::from_secs(count))
}

/// The shipped file with every default in it made explicit.
fn uncommented() -> String {
    let is_default =
        |line: &str| line.starts_with('#') && line[1..].starts_with(|next: char| next.is_ascii_lowercase());
    SHIPPED.lines().map(|line| if is_default(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_serves_the_echo_on_loopback() {
    let config = read(SHIPPED);
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address, ListenAddress::Tcp("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(config.routes.len(), 1);
    assert_eq!(config.routes[0].upstream, "demo");
    assert_eq!(config.upstreams[0].servers, [BackendAddress::Echo.into()]);
}

#[test]
fn the_shipped_file_states_the_true_defaults() {
    let explicit = uncommented();
    assert!(explicit.contains("\nheartbeat.upstream.ping_timeout = \"60s\"\n"));
    assert_eq!(read(&explicit), read(SHIPPED));
}

#[test]
fn the_shipped_file_names_every_key() {
    let words: std::collections::BTreeSet<&str> =
        SHIPPED.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    for place in keys::PLACES {
        for key in place.keys {
            assert!(words.contains(key), "{key} of {} is not in gateway.toml", place.title);
        }
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let Config { gateway, log, defaults, routes, upstreams, .. } = read(MINIMAL);
    assert_eq!(gateway.workers, 0);
    assert_eq!(gateway.max_sessions, None);
    assert_eq!(gateway.memory_limit, None);
    assert_eq!(gateway.trusted_proxies, []);
    assert_eq!((&gateway.pid_file, gateway.upgrade_timeout), (&None, Duration::from_secs(30)));
    assert_eq!(gateway.drain.delay, Duration::ZERO);
    assert_eq!(gateway.drain.pace, Pace::Spread(Duration::from_secs(15)));
    assert_eq!(gateway.drain.order, Turns::OldestFirst);
    assert_eq!(gateway.drain.timeout, Duration::from_secs(25));
    assert_eq!(gateway.drain.code, None);
    assert_eq!(log, LogConfig { level: "info".into(), format: LogFormat::Auto, sessions: LogSessions::All });

    let relay = &defaults.relay;
    let [client, upstream] = [&relay.heartbeat.downstream, &relay.heartbeat.upstream];
    assert_eq!((client.ping_interval, client.ping_timeout), (seconds(20), seconds(20)));
    assert_eq!((upstream.ping_interval, upstream.ping_timeout), (seconds(20), seconds(60)));
    for leg in [client, upstream] {
        assert!((leg.jitter - 0.1).abs() < f64::EPSILON);
        assert_eq!((leg.kind, leg.liveness, leg.path_idle_limit), (HeartbeatKind::Ping, Liveness::Traffic, None));
    }
    assert_eq!((relay.pings, relay.utf8, defaults.compression), (Pings::Forward, Utf8::Check, Compression::Pass));
    assert_eq!((defaults.connect, defaults.handshake), (Duration::from_secs(5), Duration::from_secs(10)));
    assert_eq!((relay.timeouts.close, relay.timeouts.stall), (Duration::from_secs(10), seconds(60)));
    assert_eq!((relay.timeouts.idle, relay.timeouts.max_age), (None, None));
    assert_eq!(
        relay.limits.downstream,
        MessageLimits { message: Some(64 << 20), frame: Some(64 << 20), ..MessageLimits::default() }
    );
    assert_eq!(relay.limits.upstream, MessageLimits::default());
    assert_eq!((relay.pace, defaults.header, defaults.sessions_per_address), (Some(256), 16 << 10, None));
    assert!(relay.close_codes.0.is_empty());

    assert_eq!(routes[0].name, "/");
    assert_eq!((&routes[0].host, routes[0].path.as_str()), (&HostPattern::Any, "/"));
    assert_eq!((routes[0].strip_prefix, routes[0].host_header), (false, HostHeader::Client));
    assert_eq!((&routes[0].origins, &routes[0].options), (&None, &defaults));
    assert_eq!(
        (&upstreams[0].balance, upstreams[0].fail_timeout),
        (&BalanceKind::LeastSessions, Duration::from_secs(10))
    );
    assert_eq!(upstreams[0].ca, None);
}

#[test]
fn tables_merge_key_by_key_however_written() {
    let config = read(
        r#"
        [defaults]
        heartbeat.client = { ping_interval = "30s", ping_timeout = "off" }
        timeouts = { idle = "1h" }
        limits.client.frame = "1MiB"
        close_codes = { upstream_gone = 1014, idle = "cut" }
        [[listener]]
        address = "127.0.0.1:0"
        [[route]]
        path = "/a"
        upstream = "u"
        heartbeat.client.ping_interval = "15s"
        timeouts.stall = "off"
        close_codes.idle = 4000
        [[route]]
        path = "/b"
        upstream = "u"
        heartbeat = { upstream = { jitter = 0 }, client.kind = "pong" }
        [route.limits.client]
        message = "2MiB"
        [upstream.u]
        servers = ["builtin:echo"]
        "#,
    );
    let [a, b] = [&config.routes[0].options.relay, &config.routes[1].options.relay];
    assert_eq!(a.heartbeat.downstream.ping_interval, seconds(15));
    assert_eq!(a.heartbeat.downstream.ping_timeout, None);
    assert_eq!((a.timeouts.idle, a.timeouts.stall), (seconds(3600), None));
    let told = |relay: &crate::relay::RelayConfig, reason, side: Side| relay.close_codes.0[&reason][side];
    let code = |code| Some(Farewell::Code(CloseCode::new(code).unwrap()));
    assert_eq!(told(a, EndReason::UpstreamGone, Side::Downstream), code(1014));
    assert_eq!(told(a, EndReason::UpstreamGone, Side::Upstream), None);
    assert_eq!(told(a, EndReason::Idle, Side::Downstream), code(4000));
    assert_eq!(told(b, EndReason::Idle, Side::Downstream), Some(Farewell::Cut));

    assert_eq!(b.heartbeat.downstream.ping_interval, seconds(30));
    assert_eq!(b.heartbeat.downstream.kind, HeartbeatKind::Pong);
    assert_eq!(b.heartbeat.upstream.ping_timeout, seconds(60));
    assert!(b.heartbeat.upstream.jitter.abs() < f64::EPSILON);
    assert_eq!(b.timeouts.stall, seconds(60));
    assert_eq!(
        b.limits.downstream,
        MessageLimits { message: Some(2 << 20), frame: Some(1 << 20), ..MessageLimits::default() }
    );
    assert_eq!(config.defaults.relay.limits.downstream.message, Some(64 << 20));
}

#[test]
fn a_code_for_a_dead_client_is_told_to_the_backend() {
    let config = read(&format!("[defaults]\nclose_codes = {{ client_gone = 4001, draining = 1012 }}\n{MINIMAL}"));
    let codes = &config.routes[0].options.relay.close_codes.0;
    assert_eq!(codes[&EndReason::ClientGone].downstream, None);
    assert_eq!(codes[&EndReason::ClientGone].upstream, Some(Farewell::Code(CloseCode::new(4001).unwrap())));
    assert_eq!(codes[&EndReason::Draining].upstream, None);
    assert!(codes[&EndReason::Draining].downstream.is_some());
}

#[test]
fn every_other_key_can_be_set() {
    let config = read(
        r#"
        gateway.workers = 2
        gateway.max_sessions = 1_000
        gateway.memory_limit = "1GiB"
        gateway.trusted_proxies = ["10.0.0.0/8", "::1", "::ffff:192.0.2.0/120"]
        gateway.pid_file = "run/gate.pid"
        gateway.upgrade_timeout = "5s"
        log = { level = "warn,pulsegate::relay=trace", format = "json", sessions = "abnormal" }
        [gateway.drain]
        delay = "5s"
        rate = "100/s"
        order = "random"
        timeout = "1m"
        code = 1012
        [defaults]
        pings = "answer"
        compression = "strip"
        utf8 = "pass"
        heartbeat.client = { jitter = 0.5, liveness = "pong", path_idle_limit = "1m" }
        timeouts = { connect = "1s", handshake = "2s", close = "3s", stall = "4s", idle = "5s", max_age = "6h" }
        limits = { upstream = { message = "1MiB", frame = "1KiB" }, pace = "off", header = "8KiB", sessions_per_address = 8 }
        [[listener]]
        address = "unix:run/p.sock"
        [[listener]]
        address = "[::1]:443"
        [[route]]
        name = "one"
        host = "*.Example.com"
        path = "/chat/"
        strip_prefix = true
        upstream = "u"
        host_header = "upstream"
        origins = ["HTTPS://Example.com:443", "null", "http://[::1]:3000"]
        [upstream.u]
        servers = ["wss://Chat.internal/base/", "ws://[::1]", "unix:/run/a.sock", "ws://h:81"]
        balance = "random"
        fail_timeout = "1m30s"
        "#,
    );
    assert_eq!((config.gateway.workers, config.gateway.max_sessions), (2, Some(1000)));
    assert_eq!(config.gateway.memory_limit, Some(1 << 30));
    assert_eq!(config.gateway.pid_file, Some("conf/run/gate.pid".into()));
    assert_eq!(config.gateway.upgrade_timeout, Duration::from_secs(5));
    let trusted = ["10.0.0.0/8", "::1/128", "192.0.2.0/24"].map(|text| text.parse().unwrap());
    assert_eq!(config.gateway.trusted_proxies, trusted);
    assert_eq!(
        (config.gateway.drain.timeout, config.gateway.drain.code),
        (Duration::from_secs(60), CloseCode::new(1012))
    );
    let hundred = crate::pacing::Rate { count: 100.try_into().unwrap(), per: Duration::from_secs(1) };
    assert_eq!((config.gateway.drain.pace, config.gateway.drain.order), (Pace::Rate(hundred), Turns::Random));
    assert_eq!((config.log.format, config.log.sessions), (LogFormat::Json, LogSessions::Abnormal));
    assert_eq!(config.listeners[0].address, ListenAddress::Unix("conf/run/p.sock".into()));
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), route.path.as_str(), route.strip_prefix), ("one", "/chat", true));
    assert_eq!(route.host, HostPattern::Wildcard(".example.com".into()));
    assert_eq!(route.host_header, HostHeader::Upstream);
    assert_eq!(route.origins.as_deref().unwrap(), ["https://example.com", "null", "http://[::1]:3000"]);
    let relay = &route.options.relay;
    assert_eq!((relay.pings, relay.utf8, route.options.compression), (Pings::Answer, Utf8::Pass, Compression::Strip));
    assert_eq!(relay.heartbeat.downstream.liveness, Liveness::Pong);
    assert_eq!(relay.heartbeat.downstream.path_idle_limit, seconds(60));
    assert_eq!((relay.timeouts.idle, relay.timeouts.max_age), (seconds(5), seconds(6 * 3600)));
    assert_eq!((relay.timeouts.close, relay.timeouts.stall), (Duration::from_secs(3), seconds(4)));
    assert_eq!(
        relay.limits.upstream,
        MessageLimits { message: Some(1 << 20), frame: Some(1 << 10), ..MessageLimits::default() }
    );
    assert_eq!((relay.pace, route.options.header, route.options.sessions_per_address), (None, 8 << 10, Some(8)));
    let tcp =
        |tls, host: &str, port, path: &str| BackendAddress::Tcp { tls, host: host.into(), port, path: path.into() };
    let expected = [
        tcp(true, "chat.internal", 443, "/base"),
        tcp(false, "::1", 80, "/"),
        BackendAddress::Unix("/run/a.sock".into()),
        tcp(false, "h", 81, "/"),
    ];
    assert_eq!(config.upstreams[0].servers, expected.map(ServerConfig::from));
    assert_eq!(config.upstreams[0].balance, BalanceKind::Random);
    assert_eq!(config.upstreams[0].fail_timeout, Duration::from_secs(90));
}

#[test]
fn routes_are_named_by_host_and_path_and_upstreams_keep_their_order() {
    let config = read(
        r#"
        listener = [{ address = "127.0.0.1:1" }]
        route = [
            { host = "*.example.com", path = "/x", upstream = "z" },
            { host = "[::1]", upstream = "a" },
        ]
        [upstream.z]
        servers = ["builtin:echo"]
        [upstream.a]
        servers = ["builtin:echo"]
        "#,
    );
    let names: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["*.example.com/x", "[::1]/"]);
    let pools: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(pools, ["z", "a"]);
}

#[test]
fn a_drain_has_a_rate_or_a_spread() {
    let told = mistakes("gateway.drain = { rate = \"100/s\", spread = \"15s\" }");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("g:1:26: gateway.drain.rate: rate and spread are two answers"), "{told}");
}

#[test]
fn an_access_log_takes_the_verdicts_out_of_the_log() {
    let config = read(&format!("access_log.path = \"logs/access.log\"\n{MINIMAL}"));
    let expected = AccessLogConfig {
        path: AccessLogPath::File("conf/logs/access.log".into()),
        format: AccessLogFormat::Json,
        sessions: LogSessions::All,
        every: None,
    };
    assert_eq!((config.access_log, config.log.sessions), (Some(expected), LogSessions::Off));
    let config = read(&format!(
        "log.sessions = \"abnormal\"\n\
         access_log = {{ path = \"stdout\", format = \"text\", sessions = \"abnormal\", every = \"10m\" }}\n{MINIMAL}"
    ));
    let expected = AccessLogConfig {
        path: AccessLogPath::Stdout,
        format: AccessLogFormat::Text,
        sessions: LogSessions::Abnormal,
        every: seconds(600),
    };
    assert_eq!((config.access_log, config.log.sessions), (Some(expected), LogSessions::Abnormal));
    let config = read(&format!("access_log.path = \"off\"\n{MINIMAL}"));
    assert_eq!((config.access_log, config.log.sessions), (None, LogSessions::All));

    let told = mistakes("access_log = { every = \"10ms\" }");
    assert_eq!(
        told,
        "g:1:14: access_log.path: this key is missing; write path = \"access.log\" or \"stdout\"\n\
         g:1:24: access_log.every: \"10ms\" is too often; write at least \"1s\", or \"off\""
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = include_str!("testdata/mistakes.toml");
    let expected = include_str!("testdata/mistakes.txt");
    let told = parse("gateway.toml", text, Path::new("conf")).unwrap_err().to_string();
    for (told, expected) in told.lines().zip(expected.lines()) {
        assert_eq!(told, expected);
    }
    assert_eq!(told.lines().count(), expected.lines().count(), "{told}");
}

#[test]
fn a_misspelt_key_is_not_called_missing_too() {
    let told = |text: &str| parse("g", text, Path::new("")).unwrap_err().to_string();
    let text =
        "listener = [{ adress = \"127.0.0.1:1\" }]\nroute = [{ upstrem = \"u\" }]\nupstream.u.server = [\"ws://h\"]";
    assert_eq!(
        told(text),
        "g:1:15: listener.adress: [[listener]] has no such key; did you mean address?\n\
         g:2:12: route.upstrem: [[route]] has no such key; did you mean upstream?\n\
         g:3:12: upstream.u.server: [upstream.NAME] has no such key; did you mean servers?"
    );
    let foreign = told(
        "[[listener]]\nlisten = \"127.0.0.1:1\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nservers = [\"ws://h\"]",
    );
    assert_eq!(foreign.lines().count(), 1, "{foreign}");
    let other = told("[[listener]]\ntsl = {}\n[[route]]\nupstream = \"u\"\n[upstream.u]\nservers = [\"ws://h\"]");
    assert!(other.contains("listener.address: this key is missing"), "{other}");
    let head =
        "[[rout]]\nupstream = \"u\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n[upstream.u]\nservers = [\"ws://h\"]";
    assert_eq!(told(head).lines().count(), 1, "{}", told(head));
}

#[test]
fn an_empty_list_of_tables_is_none() {
    let text = "listener = []\nroute = []\nupstream.u.servers = [\"ws://h\"]";
    let told = parse("g", text, Path::new("")).unwrap_err().to_string();
    assert!(told.contains("there is no listener") && told.contains("there is no route"), "{told}");
}

#[test]
fn what_is_missing_is_told() {
    let told = parse("g", "", Path::new("")).unwrap_err().to_string();
    assert_eq!(
        told,
        "g:1:1: listener: there is no listener; add [[listener]] with address = \"127.0.0.1:8080\"\n\
         g:1:1: route: there is no route; add [[route]] with upstream = \"NAME\""
    );
    let told = parse("g", "[listener]\naddress = 1\n[[route]]\n[upstream.u]\n", Path::new("")).unwrap_err().to_string();
    assert_eq!(
        told,
        "g:1:1: listener: a table stands where a list of tables is needed; write [[listener]] above its keys, once for each\n\
         g:3:1: route.upstream: this key is missing; write upstream = \"u\"\n\
         g:4:1: upstream.u.servers: this key is missing; write servers = [\"ws://HOST:PORT\"]"
    );
}

#[test]
fn mistakes_of_syntax_do_not_hide_others_nor_breed_them() {
    let told = mistakes("[gateway]\nworkers = two\nmax_sessions = 0\n[log]\nlevel = info\nlevle = 1");
    assert_eq!(
        told,
        "g:2:11: two is not a value of TOML; write \"two\" if a text is meant\n\
         g:3:16: gateway.max_sessions: 0 is out of range; write a whole number from 1 to 4294967296, unquoted, or \"auto\"\n\
         g:5:9: info is not a value of TOML; write \"info\" if a text is meant\n\
         g:6:1: log.levle: [log] has no such key; did you mean level?"
    );
    let told = mistakes("[gateway]\nworkers = 0\nworkers = 1\nproxy_read_timeout 60s;");
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("g:3:1: this key is here for the second time"), "{told}");
    assert!(told.contains("timeouts.idle"), "{told}");
}

#[test]
fn an_open_bracket_is_one_mistake() {
    let told = mistakes("[gateway]\nwrokers = 1\ntrusted_proxies = [\"10.0.0.0/8\",");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(lines[0].starts_with("g:2:1: gateway.wrokers"), "{told}");
    assert!(lines[1].starts_with("g:3:19: this bracket is never closed"), "{told}");
    for open in ["drain = { delay = \"1s\"", "drain = { delay = \"1s\",", "trusted_proxies = [\"::1\""] {
        let told = mistakes(&format!("[gateway]\n{open}\n# more\n"));
        assert!(told.starts_with("g:2:") && told.contains("never closed"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn duplicates_are_mistakes() {
    let told = mistakes("route = [{ upstream = \"chat\" }]");
    assert!(told.contains("second time"), "{told}");
    let text = format!(
        "{MINIMAL}\n[[route]]\nupstream = \"chat\"\n[[route]]\nname = \"/\"\npath = \"/x\"\nupstream = \"chat\"\n"
    );
    let told = parse("g", &text, Path::new("")).unwrap_err().to_string();
    assert_eq!(
        told,
        "g:9:1: route.path: route \"/\" serves the same host and path; change host or path of one, or remove one\n\
         g:12:8: route.name: another route is named \"/\" too; give each route its own name"
    );
}

#[test]
fn columns_count_characters() {
    let told = mistakes("# é\nlog = { \"é\" = 1, level = 2 }");
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("g:2:9: log.\"é\": "), "{told}");
    assert!(lines[1].starts_with("g:2:26: log.level: "), "{told}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = parse("g", &text, Path::new("/nonexistent")).map_err(|errors| errors.to_string());
    }

    #[test]
    fn any_damage_to_a_file_is_told_with_its_place(at in 0..SHIPPED.len(), len in 0..40_usize, with in "[\\]\\[{}=\"'.,#a-z0-9\\n]{0,6}") {
        let mut damaged = uncommented();
        let at = damaged.floor_char_boundary(at);
        let end = damaged.floor_char_boundary(at + len);
        damaged.replace_range(at..end.max(at), &with);
        if let Err(errors) = parse("g", &damaged, Path::new("/nonexistent")) {
            proptest::prop_assert!(!errors.problems.is_empty());
            for problem in &errors.problems {
                proptest::prop_assert!(problem.line >= 1 && problem.line <= damaged.lines().count() + 1);
                proptest::prop_assert!(!problem.message.is_empty() && !problem.help.is_empty());
            }
        }
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(place in 0..18_usize, key in 0..16_usize, value in "(\"\\PC{0,12}\"|[0-9_]{1,30}|-?[0-9.e]{1,8}|true|\\[\"[a-z:/*.\\]\\[0-9@?]{0,12}\"\\]|\\{\\}|00:00:30|\"[a-z]{2,5}:(//)?[\\]\\[a-z0-9:/.%?#@]{0,16}\"|\"[0-9]{1,22}[a-zA-Z]{0,3}\")") {
        const HEADERS: [&str; 18] = ["", "gateway", "gateway.drain", "log", "access_log", "listener.x", "x", "upstream.u", "upstream.u.tls", "defaults",
            "x", "defaults.heartbeat.client", "defaults.timeouts", "defaults.limits.client", "defaults.limits", "defaults.close_codes", "defaults.heartbeat", "x"];
        let keys = keys::PLACES[place].keys;
        let key = keys[key % keys.len()];
        let header = match HEADERS[place] { "" => String::new(), "x" | "listener.x" => "[[route]]\n".into(), header => format!("[{header}]\n") };
        let text = format!("{header}{key} = {value}\n");
        let _ = parse("g", &text, Path::new("/nonexistent")).map_err(|errors| errors.to_string());
    }
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse("g", &deep, Path::new("")).is_err());
    let dotted = format!("{}a = 1", "a.".repeat(100_000));
    assert!(parse("g", &dotted, Path::new("")).is_err());
}

#[test]
fn rates_are_per_side_and_a_backend_is_only_slowed_down() {
    let rates = |text: &str| parse("test", &format!("{text}\n{MINIMAL}"), Path::new(""));
    let limits = r#"defaults.limits.client = { fragments = 65534, messages_per_second = 5, bytes_per_second = "1KiB", over_rate = "close" }"#;
    let config = rates(limits).unwrap_or_else(|errors| panic!("{errors}"));
    let rate = |count: u64| std::num::NonZeroU64::new(count).map(crate::protocol::rate::Rate);
    let expected = MessageLimits {
        fragments: Some(65534),
        messages_per_second: rate(5),
        bytes_per_second: rate(1024),
        over_rate: crate::relay::OverRate::Close,
        ..config.routes[0].options.relay.limits.downstream
    };
    assert_eq!(config.routes[0].options.relay.limits.downstream, expected);
    for (mistake, told) in [
        ("client.fragments = 65535", "write a whole number from 1 to 65534"),
        ("client.messages_per_second = 0", "out of range"),
        ("client.bytes_per_second = \"0B\"", "a size of zero means nothing here"),
        ("upstream.over_rate = \"close\"", "write \"slow\""),
    ] {
        let errors = rates(&format!("defaults.limits.{mistake}")).unwrap_err().to_string();
        assert!(errors.contains(told), "{mistake}: {errors}");
    }
}
