//! From the text of `gateway.toml` to a complete, valid `Config`, or to all its mistakes at once.
use super::{
    AccessLogConfig, AccessLogFormat, AccessLogPath, Config, DrainConfig, GatewayConfig, LogConfig, LogFormat,
    LogSessions, access, address, admin,
    file::Table,
    keys, listeners, options,
    problem::{ConfigErrors, Sink, Wrong},
    routes, syntax, upstreams, value,
};
use crate::{
    listener::trust::ClientSource,
    pacing::{Pace, Turns},
    route::RouteOptions,
};
use std::{path::Path, time::Duration};
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
    let defaults = options::read(&root.child("defaults", &keys::DEFAULTS), &RouteOptions::default(), base);
    let upstreams = upstreams::read(root, base);
    let access_log = read_access_log(&root.child("access_log", &keys::ACCESS_LOG), base);
    let gateway = root.child("gateway", &keys::GATEWAY);
    // A list with mistakes names somebody, too.
    let named = |value: &DeValue<'_>| Ok(value.as_array().is_none_or(|list| !list.is_empty()));
    let listeners = listeners::read(root, base, gateway.read("trusted_proxies", named) == Some(true));
    Config {
        gateway: read_gateway(&gateway, base),
        log: read_log(&root.child("log", &keys::LOG), access_log.is_some()),
        access_log,
        admin: admin::read(root, base, &listeners),
        listeners,
        routes: routes::read(root, &defaults, &upstreams, base),
        upstreams: upstreams.into_iter().flat_map(|(_, upstream)| upstream).collect(),
        defaults,
    }
}

fn read_gateway(table: &Table<'_>, base: &Path) -> GatewayConfig {
    let drain = read_drain(&table.child("drain", &keys::DRAIN));
    let mut gateway = GatewayConfig {
        workers: 0,
        max_sessions: None,
        max_http_connections: None,
        memory_limit: None,
        trusted_proxies: Vec::new(),
        client_address: ClientSource::Auto,
        pid_file: None,
        upgrade_timeout: 30 * SECOND,
        drain,
        rates: access::read_rates(table),
        watch: false,
    };
    let number = |most| move |value: &DeValue<'_>| value::count(value, 1, most).map(to_usize);
    table.set("workers", &mut gateway.workers, |value| value::count(value, 0, 1024).map(to_usize));
    table.set("max_sessions", &mut gateway.max_sessions, value::unless("auto", number(1 << 32)));
    table.set("max_http_connections", &mut gateway.max_http_connections, value::unless("auto", number(1 << 32)));
    table.set("memory_limit", &mut gateway.memory_limit, value::unless("off", value::size));
    table.set("watch", &mut gateway.watch, value::boolean);
    if let Some(networks) = table.list("trusted_proxies", |value| address::network(&value::text(value)?)) {
        gateway.trusted_proxies = networks;
    }
    table.set("client_address", &mut gateway.client_address, client_source);
    gateway.pid_file = table.read("pid_file", |value| Ok(base.join(value::text(value)?)));
    table.set("upgrade_timeout", &mut gateway.upgrade_timeout, value::duration);
    gateway
}

fn client_source(value: &DeValue<'_>) -> Result<ClientSource, Wrong> {
    match value::text(value)?.as_str() {
        "auto" => Ok(ClientSource::Auto),
        "connection" => Ok(ClientSource::Connection),
        name => name.parse().map(ClientSource::Header).map_err(|_| {
            let help = "write \"auto\", \"connection\", or a header's name, such as \"cf-connecting-ip\"";
            Wrong::new(format!("{} is not the name of a header", value::quoted(name)), help)
        }),
    }
}

fn read_drain(table: &Table<'_>) -> DrainConfig {
    let mut drain = DrainConfig {
        delay: Duration::ZERO,
        pace: Pace::Spread(15 * SECOND),
        order: Turns::OldestFirst,
        timeout: 25 * SECOND,
        code: None,
    };
    table.set("delay", &mut drain.delay, value::duration_or_zero);
    table.set("spread", &mut drain.pace, |value| value::duration_or_zero(value).map(Pace::Spread));
    table.set("rate", &mut drain.pace, |value| value::rate(value).map(Pace::Rate));
    if table.has("rate") && table.has("spread") {
        let message = "rate and spread are two answers to one question: how fast sessions are told to end";
        let help = "keep rate if their number in each second counts, spread if the time for all of them does";
        table.report("rate", Wrong::new(message, help));
    }
    table.set("order", &mut drain.order, value::word(&[("oldest", Turns::OldestFirst), ("random", Turns::Random)]));
    table.set("timeout", &mut drain.timeout, value::duration);
    table.set("code", &mut drain.code, value::unless("auto", value::close_code));
    drain
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

const SESSIONS: &[(&str, LogSessions)] =
    &[("all", LogSessions::All), ("abnormal", LogSessions::Abnormal), ("off", LogSessions::Off)];

/// Verdicts that have a log of their own are not told twice, unless asked for.
fn read_log(table: &Table<'_>, elsewhere: bool) -> LogConfig {
    let sessions = if elsewhere { LogSessions::Off } else { LogSessions::All };
    let mut log = LogConfig { level: "info".into(), format: LogFormat::Auto, sessions };
    table.set("level", &mut log.level, level);
    let formats = &[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    table.set("format", &mut log.format, value::word(formats));
    table.set("sessions", &mut log.sessions, value::word(SESSIONS));
    log
}

fn read_access_log(table: &Table<'_>, base: &Path) -> Option<AccessLogConfig> {
    let path = |value: &DeValue<'_>| {
        value::text(value).map(|path| match path.as_str() {
            "stdout" => AccessLogPath::Stdout,
            file => AccessLogPath::File(base.join(file)),
        })
    };
    let path = table.read("path", value::unless("off", path));
    let mut log = AccessLogConfig {
        path: AccessLogPath::Stdout,
        format: AccessLogFormat::Json,
        sessions: LogSessions::All,
        every: None,
    };
    table.set(
        "format",
        &mut log.format,
        value::word(&[("json", AccessLogFormat::Json), ("text", AccessLogFormat::Text)]),
    );
    table.set("sessions", &mut log.sessions, value::word(SESSIONS));
    table.set("every", &mut log.every, value::unless("off", every));
    if ["format", "sessions", "every"].into_iter().any(|key| table.has(key)) {
        table.must_have("path", "write path = \"access.log\" or \"stdout\"");
    }
    path.flatten().map(|path| AccessLogConfig { path, ..log })
}

/// More often than each second is no log any more: metrics tell what moves.
fn every(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    let time = value::duration(value)?;
    if time < SECOND {
        return Err(Wrong::new(format!("{} is too often", value::shown(value)), "write at least \"1s\""));
    }
    Ok(time)
}

/// A filter directive; a part without `=` must be a level, since `EnvFilter` takes a mistyped one for a target.
fn level(value: &DeValue<'_>) -> Result<String, Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = value::text(value)?;
    let help = "write off, error, warn, info, debug or trace, or directives such as \"info,pulsegate::listener=debug\"";
    let stray = text.split(',').map(str::trim).find(|part| !part.contains('=') && !LEVELS.contains(part));
    if let Some(part) = stray {
        return Err(Wrong::new(format!("{} is not a level", value::quoted(part)), help));
    }
    tracing_subscriber::EnvFilter::try_new(&text)
        .map(|_| text.clone())
        .map_err(|error| Wrong::new(format!("{} is not a filter: {error}", value::quoted(&text)), help))
}
