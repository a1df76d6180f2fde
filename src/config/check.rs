//! From the text of `gateway.toml` to a complete, valid `Config`, or to all its mistakes at once.
use super::{
    Config, DrainConfig, GatewayConfig, LogConfig, LogFormat, LogSessions, address, admin,
    file::Table,
    keys, listeners, options,
    problem::{ConfigErrors, Sink, Wrong},
    routes, syntax, upstreams, value,
};
use crate::{protocol::close::CloseCode, route::RouteOptions};
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
    let defaults = options::read(&root.child("defaults", &keys::DEFAULTS), &RouteOptions::default());
    let upstreams = upstreams::read(root, base);
    let listeners = listeners::read(root, base);
    Config {
        gateway: read_gateway(&root.child("gateway", &keys::GATEWAY)),
        log: read_log(&root.child("log", &keys::LOG)),
        admin: admin::read(root, base, &listeners),
        listeners,
        routes: routes::read(root, &defaults, &upstreams),
        upstreams: upstreams.into_iter().flat_map(|(_, upstream)| upstream).collect(),
        defaults,
    }
}

fn read_gateway(table: &Table<'_>) -> GatewayConfig {
    let mut drain =
        DrainConfig { delay: Duration::ZERO, spread: 15 * SECOND, timeout: 25 * SECOND, code: CloseCode::GOING_AWAY };
    let of_drain = table.child("drain", &keys::DRAIN);
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
    let help = "write off, error, warn, info, debug or trace, or directives such as \"info,pulsegate::listener=debug\"";
    let stray = text.split(',').map(str::trim).find(|part| !part.contains('=') && !LEVELS.contains(part));
    if let Some(part) = stray {
        return Err(Wrong::new(format!("{} is not a level", value::quoted(part)), help));
    }
    tracing_subscriber::EnvFilter::try_new(&text)
        .map(|_| text.clone())
        .map_err(|error| Wrong::new(format!("{} is not a filter: {error}", value::quoted(&text)), help))
}
