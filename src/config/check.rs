//! From the text of `gateway.toml` to a complete, valid `Config`, or to all its mistakes at once.
use super::{
    Config, DrainConfig, GatewayConfig, LogConfig, LogFormat, LogSessions, address, certificate,
    file::Table,
    options,
    problem::{ConfigErrors, Sink, Wrong},
    suggest, syntax, value,
};
use crate::{
    listener::{CertificateFiles, ListenAddress, ListenerConfig, ListenerTls, TlsVersion},
    protocol::close::CloseCode,
    route::{HostHeader, HostPattern, RouteConfig, RouteOptions},
    upstream::{BackendAddress, BalanceKind, UpstreamConfig},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};
use toml::de::{DeTable, DeValue};

const SECOND: Duration = Duration::from_secs(1);

/// Reads the text of a configuration. Relative paths in it start at `base`; PEM files it names are read and checked.
///
/// # Errors
/// All mistakes, in the order of the text.
pub fn parse(file_name: &str, text: &str, base: &Path) -> Result<Config, ConfigErrors> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax = syntax::mistakes(text, document.get_ref(), &errors);
    let sink = Sink::default();
    let config = read(&Table::root(document.get_ref(), &sink), base);
    let problems = sink.into_problems(text, syntax.wrong, syntax.readable_until);
    if problems.is_empty() { Ok(config) } else { Err(ConfigErrors { file: file_name.into(), problems }) }
}

fn read(root: &Table<'_>, base: &Path) -> Config {
    let defaults = options::read(&root.child("defaults", &suggest::DEFAULTS), &RouteOptions::default());
    let upstreams = read_upstreams(root, base);
    Config {
        gateway: read_gateway(&root.child("gateway", &suggest::GATEWAY)),
        log: read_log(&root.child("log", &suggest::LOG)),
        listeners: read_listeners(root, base),
        routes: read_routes(root, &defaults, &upstreams),
        upstreams: upstreams.into_iter().flat_map(|(_, upstream)| upstream).collect(),
        defaults,
    }
}

fn read_gateway(table: &Table<'_>) -> GatewayConfig {
    let mut drain =
        DrainConfig { delay: Duration::ZERO, spread: 15 * SECOND, timeout: 25 * SECOND, code: CloseCode::GOING_AWAY };
    let of_drain = table.child("drain", &suggest::DRAIN);
    of_drain.set("delay", &mut drain.delay, value::duration_or_zero);
    of_drain.set("spread", &mut drain.spread, value::duration_or_zero);
    of_drain.set("timeout", &mut drain.timeout, value::duration);
    of_drain.set("code", &mut drain.code, value::close_code);

    let mut gateway =
        GatewayConfig { workers: 0, max_sessions: None, memory_limit: None, trusted_proxies: Vec::new(), drain };
    let number = |most| move |value: &DeValue<'_>| value::count(value, 1, most).map(to_usize);
    table.set("workers", &mut gateway.workers, |value| value::count(value, 0, 1024).map(to_usize));
    table.set("max_sessions", &mut gateway.max_sessions, value::unless("auto", number(1 << 32)));
    table.set("memory_limit", &mut gateway.memory_limit, value::unless("off", value::size));
    if let Some(networks) = table.list("trusted_proxies", |value| address::network(&value::text(value)?)) {
        gateway.trusted_proxies = networks;
    }
    gateway
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn read_log(table: &Table<'_>) -> LogConfig {
    let mut log = LogConfig { level: "info".into(), format: LogFormat::Auto, sessions: LogSessions::All };
    table.set("level", &mut log.level, level);
    let formats = &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    table.set("format", &mut log.format, value::word(formats));
    let sessions = &[("all", LogSessions::All), ("abnormal", LogSessions::Abnormal), ("off", LogSessions::Off)];
    table.set("sessions", &mut log.sessions, value::word(sessions));
    log
}

/// A filter directive; a part without `=` must be a level, since `EnvFilter` takes a mistyped one for a target.
fn level(value: &DeValue<'_>) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = value::text(value)?;
    let help = "write off, error, warn, info, debug or trace, or directives such as \"info,pulsegate::relay=debug\"";
    let stray = text.split(',').map(str::trim).find(|part| !part.contains('=') && !LEVELS.contains(part));
    if let Some(part) = stray {
        return Err(Wrong::new(format!("{} is not a level", value::quoted(part)), help));
    }
    tracing_subscriber::EnvFilter::try_new(&text)
        .map(|_| text.clone())
        .map_err(|error| Wrong::new(format!("{} is not a filter: {error}", value::quoted(&text)), help))
}

fn read_listeners(root: &Table<'_>, base: &Path) -> Vec<ListenerConfig> {
    let tables = root.each("listener", &suggest::LISTENER);
    if tables.is_empty() && !root.has("listener") {
        let help = "add [[listener]] with address = \"127.0.0.1:8080\"";
        root.report_absent("listener", Wrong::new("there is no listener", help));
    }
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for table in tables {
        let address = table.require("address", "write address = \"0.0.0.0:443\"", |value| {
            address::listen_address(&value::text(value)?, base)
        });
        let tls = read_listener_tls(&table, base);
        let Some(address) = address else { continue };
        let any_port = matches!(&address, ListenAddress::Tcp(address) if address.port() == 0);
        if !any_port && listeners.iter().any(|listener| listener.address == address) {
            let help = "give each its own address, or remove this one";
            table.report("address", Wrong::new("another listener has the same address", help));
        }
        listeners.push(ListenerConfig { address, tls });
    }
    listeners
}

fn read_listener_tls(listener: &Table<'_>, base: &Path) -> Option<ListenerTls> {
    if !listener.has("tls") {
        return None;
    }
    let table = listener.child("tls", &suggest::LISTENER_TLS);
    let mut certificates = Vec::new();
    if table.has("certificates") {
        if table.has("certificate") || table.has("key") {
            let help = "move the single pair into certificates, as its first and default one";
            table.report("certificates", Wrong::new("this stands beside certificate and key", help));
        }
        let pairs = table.each("certificates", &suggest::CERTIFICATE);
        if pairs.is_empty() {
            table.report("certificates", Wrong::new("there is no certificate", "list at least one"));
        }
        certificates.extend(pairs.iter().filter_map(|pair| read_pair(pair, base)));
    } else {
        certificates.extend(read_pair(&table, base));
    }
    let mut min_version = TlsVersion::Tls12;
    table.set("min_version", &mut min_version, value::word(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]));
    Some(ListenerTls { certificates, min_version })
}

fn read_pair(table: &Table<'_>, base: &Path) -> Option<CertificateFiles> {
    let path = |value: &DeValue<'_>| value::text(value).map(|text| base.join(text));
    let certificate = table.require("certificate", "write certificate = \"tls/fullchain.pem\"", path);
    let key = table.require("key", "write key = \"tls/privkey.pem\"", path);
    let files = CertificateFiles { certificate: certificate?, key: key? };
    if let Err(wrongs) = certificate::read_pair(&files) {
        for (key, wrong) in wrongs {
            table.report(key, wrong);
        }
    }
    Some(files)
}

/// Every pool by name, `None` where it has mistakes of its own, so that routes to it are not called wrong too.
fn read_upstreams(root: &Table<'_>, base: &Path) -> Vec<(String, Option<UpstreamConfig>)> {
    let tables = root.named("upstream", &suggest::UPSTREAM);
    tables.into_iter().map(|(name, table)| (name.clone(), read_upstream(name, &table, base))).collect()
}

fn read_upstream(name: String, table: &Table<'_>, base: &Path) -> Option<UpstreamConfig> {
    let server = |value: &DeValue<'_>| address::backend(&value::text(value)?, base);
    let servers = table.list("servers", server);
    if !table.has("servers") {
        let help = "write servers = [\"ws://HOST:PORT\"]";
        table.report_absent("servers", Wrong::new("this key is missing", help));
    }
    let mut balance = BalanceKind::LeastSessions;
    let kinds = &[
        ("round_robin", BalanceKind::RoundRobin),
        ("least_sessions", BalanceKind::LeastSessions),
        ("random", BalanceKind::Random),
    ];
    table.set("balance", &mut balance, value::word(kinds));
    let mut fail_timeout = 10 * SECOND;
    table.set("fail_timeout", &mut fail_timeout, value::duration);
    let tls = table.child("tls", &suggest::UPSTREAM_TLS);
    let ca: Option<PathBuf> = tls.read("ca", |value| {
        let path = base.join(value::text(value)?);
        certificate::read_authorities(&path).map(|_| path)
    });

    let servers = servers?;
    if servers.is_empty() && table.read("servers", |value| Ok(value.as_array().is_some_and(|list| list.is_empty())))? {
        table.report("servers", Wrong::new("there is no server", "list at least one, such as \"ws://10.0.0.1:8000\""));
    }
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].contains(server) {
            table.report("servers", Wrong::new("a server is listed twice", "list each once"));
        }
    }
    let encrypted = servers.iter().any(|server| matches!(server, BackendAddress::Tcp { tls: true, .. }));
    if table.has("tls") && !encrypted && !servers.is_empty() {
        let help = "write wss:// for backends that speak TLS, or remove tls";
        table.report("tls", Wrong::new("no server of this pool is a wss:// one", help));
    }
    Some(UpstreamConfig { name, servers, balance, fail_timeout, ca })
}

fn read_routes(
    root: &Table<'_>,
    defaults: &RouteOptions,
    upstreams: &[(String, Option<UpstreamConfig>)],
) -> Vec<RouteConfig> {
    let tables = root.each("route", &suggest::ROUTE);
    if tables.is_empty() && !root.has("route") {
        let help = "add [[route]] with upstream = \"NAME\"";
        root.report_absent("route", Wrong::new("there is no route", help));
    }
    let names: Vec<&str> = upstreams.iter().map(|(name, _)| name.as_str()).collect();
    let mut seen = Seen::default();
    let mut routes = Vec::new();
    for table in tables {
        if let Some(route) = read_route(&table, defaults, &names) {
            seen.enter(&table, &route);
            routes.push(route);
        }
    }
    routes
}

/// `None` if it has no host or path to compare with other routes, or no upstream.
fn read_route(table: &Table<'_>, defaults: &RouteOptions, upstreams: &[&str]) -> Option<RouteConfig> {
    let upstream = read_upstream_name(table, upstreams);
    let options = options::read(table, defaults);
    let origins = table.list("origins", |value| address::origin(&value::text(value)?));
    let host = table.read("host", |value| address::host(&value::text(value)?));
    let host = host.or((!table.has("host")).then_some(HostPattern::Any));
    let path = table.read("path", |value| address::prefix(&value::text(value)?));
    let path = path.or_else(|| (!table.has("path")).then(|| "/".to_owned()));
    let mut strip_prefix = false;
    table.set("strip_prefix", &mut strip_prefix, value::boolean);
    let mut host_header = HostHeader::Client;
    let sources = &[("client", HostHeader::Client), ("upstream", HostHeader::Upstream)];
    table.set("host_header", &mut host_header, value::word(sources));
    let name = table.read("name", value::text);
    let (host, path, upstream) = (host?, path?, upstream?);
    let name = name.unwrap_or_else(|| pattern_text(&host, &path));
    Some(RouteConfig { name, host, path, strip_prefix, upstream, host_header, origins, options })
}

fn read_upstream_name(table: &Table<'_>, upstreams: &[&str]) -> Option<String> {
    let help = upstreams.first().copied().unwrap_or("NAME");
    let upstream = table.require("upstream", &format!("write upstream = {}", value::quoted(help)), value::text);
    if let Some(name) = &upstream
        && !upstreams.contains(&name.as_str())
    {
        let help = if name.contains("://") || name.starts_with("unix:") || name.starts_with("builtin:") {
            format!("name a pool here and add [upstream.NAME] with servers = [{}]", value::quoted(name))
        } else {
            let add = format!("add [upstream.{name}] with servers = [\"ws://HOST:PORT\"]");
            suggest::existing(name, upstreams).map_or(add.clone(), |other| format!("{other} otherwise {add}"))
        };
        table.report_absent("upstream", Wrong::new(format!("there is no upstream {}", value::quoted(name)), help));
    }
    upstream
}

/// Host and path as text, such as `*.example.com/chat`; any host is left out.
pub(super) fn pattern_text(host: &HostPattern, path: &str) -> String {
    match host {
        HostPattern::Any => path.to_owned(),
        HostPattern::Exact(name) => format!("{name}{path}"),
        HostPattern::Wildcard(suffix) => format!("*{suffix}{path}"),
    }
}

/// Names and patterns of the routes read so far.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    patterns: BTreeMap<String, String>,
}

impl Seen {
    fn enter(&mut self, table: &Table<'_>, route: &RouteConfig) {
        let pattern = pattern_text(&route.host, &route.path);
        if let Some(other) = self.patterns.get(&pattern) {
            let message = format!("route {} serves the same host and path", value::quoted(other));
            let key = if table.has("path") || !table.has("host") { "path" } else { "host" };
            table.report(key, Wrong::new(message, "change host or path of one, or remove one"));
        } else if self.names.contains(&route.name) {
            let message = format!("another route is named {} too", value::quoted(&route.name));
            table.report("name", Wrong::new(message, "give each route its own name"));
        }
        self.names.insert(route.name.clone());
        self.patterns.entry(pattern).or_insert_with(|| route.name.clone());
    }
}
