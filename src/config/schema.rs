//! The JSON Schema of `gateway.toml`, for editors: made from the tables of keys and from the shipped file.
use super::keys::{self, Place};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The shipped file says of each key what it is for, and its default.
const SHIPPED: &str = include_str!("../../gateway.toml");
const DURATION: &str = r"^[0-9]+(\.[0-9]+)?[ ]*[a-zµ]+([ ,]*[0-9]+(\.[0-9]+)?[ ]*[a-zµ]+)*$";
const RATE: &str = "^ *[1-9][0-9]* */ *(s|sec|second|m|min|minute)$";
const SIZE: &str = r"^[0-9]+(B|KiB|MiB|GiB)$";

/// The schema (draft 2020-12) of the whole file.
#[must_use]
pub fn schema() -> Value {
    let told = Told::read(SHIPPED);
    let mut schema = table(&keys::ROOT, "", &told);
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        schema.insert("title".into(), "gateway.toml of Pulsegate".into());
        schema.insert("required".into(), json!(["listener", "route", "upstream"]));
    }
    schema
}

/// A table with exactly the keys of its place; `path` is where it stands, such as `defaults.heartbeat`.
fn table(place: &Place, path: &str, told: &Told) -> Value {
    let of = |key: &&str| ((*key).to_owned(), key_of(place, path, key, told));
    let keys: Map<String, Value> = place.keys.iter().map(of).collect();
    json!({"type": "object", "properties": keys, "additionalProperties": false})
}

fn key_of(place: &Place, path: &str, key: &str, told: &Told) -> Value {
    let path = joined(path, key);
    let mut value = nested(place, &path, key, told).unwrap_or_else(|| single(place, &path, key, told));
    if let (Some(value), Some(about)) = (value.as_object_mut(), told.about(&path)) {
        if !about.text.is_empty() {
            value.insert("description".into(), about.text.clone().into());
        }
        if let Some(default) = about.default.clone() {
            value.insert("default".into(), default);
        }
    }
    value
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// What stands below a key that holds tables.
fn nested(place: &Place, path: &str, key: &str, told: &Told) -> Option<Value> {
    let inner = table(below(place.title, key)?, path, told);
    Some(match (place.title, key) {
        ("the top level", "listener" | "route") | ("tls of a [[listener]]", "certificates") => {
            json!({"type": "array", "items": inner, "minItems": 1})
        }
        ("[upstream.NAME]", "servers") => {
            json!({"type": "array", "items": {"anyOf": [{"type": "string"}, inner]}, "minItems": 1})
        }
        ("the top level", "upstream") => json!({"type": "object", "additionalProperties": inner, "minProperties": 1}),
        (_, _) => inner,
    })
}

/// The place of a table inside a table; `None` for a key that holds a value.
fn below(title: &str, key: &str) -> Option<&'static Place> {
    Some(match (title, key) {
        ("the top level", "gateway") => &keys::GATEWAY,
        ("the top level", "log") => &keys::LOG,
        ("the top level", "access_log") => &keys::ACCESS_LOG,
        ("the top level", "admin") => &keys::ADMIN,
        ("the top level", "defaults") => &keys::DEFAULTS,
        ("the top level", "listener") => &keys::LISTENER,
        ("the top level", "route") => &keys::ROUTE,
        ("the top level", "upstream") => &keys::UPSTREAM,
        ("[gateway]", "drain") => &keys::DRAIN,
        ("[gateway]", "rates") => &keys::RATES,
        ("[defaults]" | "[[route]]", "heartbeat") => &keys::HEARTBEAT,
        ("[defaults]" | "[[route]]", "timeouts") => &keys::TIMEOUTS,
        ("[defaults]" | "[[route]]", "limits") => &keys::LIMITS,
        ("[defaults]" | "[[route]]", "access") => &keys::ACCESS,
        ("access", "basic") => &keys::BASIC,
        ("access", "forward") => &keys::FORWARD,
        ("[defaults]" | "[[route]]", "close_codes") => &keys::CLOSE_CODES,
        ("heartbeat", "client" | "upstream") => &keys::HEARTBEAT_SIDE,
        ("limits", "client" | "upstream") => &keys::LIMITS_SIDE,
        ("[defaults]" | "[[route]]", "headers") => &keys::HEADERS,
        ("headers", "request" | "response") => &keys::HEADERS_WAY,
        ("[[listener]]", "tls") => &keys::LISTENER_TLS,
        ("tls of a [[listener]]", "clients") => &keys::LISTENER_CLIENTS,
        ("tls of a [[listener]]", "certificates") => &keys::CERTIFICATE,
        ("[upstream.NAME]", "tls") => &keys::UPSTREAM_TLS,
        ("[upstream.NAME]", "servers") => &keys::SERVER,
        ("[upstream.NAME]", "sticky") => &keys::STICKY,
        ("[upstream.NAME]", "check") => &keys::CHECK,
        _ => return None,
    })
}

fn text(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

/// A value, or a word that stands for none.
fn or(word: &str, value: &Value) -> Value {
    json!({"anyOf": [value, {"const": word}]})
}

fn count(least: u64) -> Value {
    json!({"type": "integer", "minimum": least})
}

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

/// Codes that may stand in a close frame (RFC 6455 section 7.4).
fn code() -> Value {
    json!({"type": "integer", "anyOf": [
        {"minimum": 1000, "maximum": 1003}, {"minimum": 1007, "maximum": 1014}, {"minimum": 3000, "maximum": 4999},
    ]})
}

/// What a key may hold. One that is not named here is judged by its default in the shipped file.
fn single(place: &Place, path: &str, key: &str, told: &Told) -> Value {
    match (place.title, key) {
        ("[gateway]", "workers") => count(0),
        ("[gateway]", "max_sessions" | "max_http_connections") => or("auto", &count(1)),
        ("[gateway]", "memory_limit") => or("off", &text(SIZE)),
        ("[gateway] drain", "code") => or("auto", &code()),
        ("[gateway] drain", "order") => words(&["oldest", "random"]),
        ("[gateway] drain", "rate") => text(RATE),
        ("[gateway] rates", _) => or("off", &text(RATE)),
        ("[access_log]", "format") => words(&["json", "text"]),
        ("access.basic", "authorization") => words(&["remove", "pass"]),
        ("close_codes", _) => or("cut", &code()),
        ("[log]", "format") => words(&["auto", "text", "json"]),
        ("[log]" | "[access_log]", "sessions") => words(&["all", "abnormal", "off"]),
        (_, "pings") => words(&["forward", "answer"]),
        (_, "compression") => words(&["pass", "strip"]),
        (_, "utf8") => words(&["check", "pass"]),
        ("check of an [upstream.NAME]", "kind") => words(&["tcp", "http", "websocket"]),
        ("check of an [upstream.NAME]", "interval" | "timeout") => text(DURATION),
        ("check of an [upstream.NAME]", "rise" | "fall") => json!({"type": "integer", "minimum": 1, "maximum": 100}),
        (_, "slow_start") => or("off", &text(DURATION)),
        (_, "kind") => words(&["ping", "pong"]),
        (_, "liveness") => words(&["traffic", "pong"]),
        (_, "jitter") => json!({"type": "number", "minimum": 0.0, "maximum": 0.5}),
        (
            _,
            "ping_interval" | "ping_timeout" | "path_idle_limit" | "stall" | "idle" | "max_age" | "response" | "every",
        ) => or("off", &text(DURATION)),
        (_, "message" | "frame" | "pace" | "bytes_per_second") => or("off", &text(SIZE)),
        (_, "fragments") => or("off", &json!({"type": "integer", "minimum": 1, "maximum": u16::MAX - 1})),
        (_, "messages_per_second") => or("off", &count(1)),
        // As the parser has it: a client is never told of a rule that its backend broke.
        (_, "over_rate") if path.ends_with("upstream.over_rate") => words(&["slow"]),
        (_, "over_rate") => words(&["slow", "close"]),
        (_, "sessions_per_address" | "max_dials") => or("off", &count(1)),
        (_, "resolve") => words(&["all", "one"]),
        (_, "retry_budget") => or("off", &json!({"type": "number", "minimum": 0.0, "maximum": 10.0})),
        ("tls.clients of a [[listener]]", "verify") => words(&["require", "optional"]),
        (_, "min_version") => words(&["1.2", "1.3"]),
        ("headers.request or headers.response", "remove") => texts(),
        ("headers.request or headers.response", _) => {
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        }
        ("[upstream.NAME]", "proxy_protocol") => words(&["off", "v1", "v2"]),
        ("[[listener]]", "proxy_protocol") => words(&["off", "require"]),
        (_, "host_header") => words(&["client", "upstream"]),
        (_, "balance") => words(&["least_sessions", "round_robin", "random", "hash"]),
        (_, "hash") => text("^(address|(header|cookie|query):.+|path:[1-9][0-9]*)$"),
        (_, "weight") => json!({"type": "integer", "minimum": 1, "maximum": 1000}),
        (_, "backup") => json!({"type": "boolean"}),
        ("servers of an [upstream.NAME]", "max_sessions") => or("off", &count(1)),
        (_, "same_site") => words(&["lax", "strict", "none"]),
        (_, "trusted_proxies" | "origins" | "source" | "allow" | "deny" | "copy_headers") => texts(),
        ("[[route]]", "http") => words(&["refuse", "proxy"]),
        (_, _) => like(told.about(path).and_then(|about| about.default.as_ref())),
    }
}

/// The type of a default.
fn like(default: Option<&Value>) -> Value {
    match default {
        Some(Value::String(value))
            if value.ends_with('B') && value.starts_with(|first: char| first.is_ascii_digit()) =>
        {
            text(SIZE)
        }
        Some(Value::String(value))
            if value.starts_with(|first: char| first.is_ascii_digit()) && value.ends_with(['s', 'm', 'h']) =>
        {
            text(DURATION)
        }
        Some(Value::Bool(_)) => json!({"type": "boolean"}),
        Some(Value::Number(_)) => json!({"type": "number"}),
        Some(Value::Array(_)) => json!({"type": "array"}),
        Some(Value::Object(_)) => json!({"type": "object"}),
        Some(Value::String(_) | Value::Null) | None => json!({"type": "string"}),
    }
}

/// What the shipped file tells, by the path of a key, such as `defaults.heartbeat.client.kind`.
#[derive(Debug, Default)]
struct Told(BTreeMap<String, About>);

#[derive(Clone, Debug, Default)]
struct About {
    text: String,
    default: Option<Value>,
}

impl Told {
    /// Comments describe the keys right below them.
    fn read(shipped: &str) -> Self {
        let mut told = Self::default();
        // A comment grows until a key stands below it; the next line of words then begins a new one.
        let (mut table, mut comment, mut used) = (String::new(), String::new(), false);
        for line in shipped.lines() {
            if let Some(header) = line.strip_prefix('[') {
                header.trim_start_matches('[').split([']', '.']).next().unwrap_or_default().clone_into(&mut table);
                told.enter(table.clone(), &comment, None);
                (comment, used) = (String::new(), false);
            } else if let Some(key) = assigned(line) {
                // An example (with spaces before it) is no default.
                let own =
                    line.strip_prefix('#').filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
                told.enter(joined(&table, key), &comment, own.and_then(value));
                used = true;
            } else if line.is_empty() {
                (comment, used) = (String::new(), false);
            } else if let Some(words) = line.strip_prefix("# ") {
                let begun = if used { "" } else { comment.as_str() };
                comment = format!("{begun} {}", words.trim()).trim().to_owned();
                used = false;
            }
        }
        told
    }

    fn enter(&mut self, path: String, comment: &str, default: Option<Value>) {
        let about = self.0.entry(path).or_default();
        if about.text.is_empty() {
            comment.clone_into(&mut about.text);
        }
        about.default = about.default.take().or(default);
    }

    /// A route's keys that are not told of on their own are those of `[defaults]`.
    fn about(&self, path: &str) -> Option<&About> {
        let general = || path.strip_prefix("route.").map(|rest| format!("defaults.{rest}"));
        self.0.get(path).or_else(|| self.0.get(&general()?))
    }
}

/// The key that a line gives a value, commented out or not.
fn assigned(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix('#').unwrap_or(line).trim_start().split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_lowercase() || b"._0123456789".contains(&byte)).then_some(key)
}

/// The value of a line `key = value`.
fn value(line: &str) -> Option<Value> {
    let document = toml::de::DeTable::parse(line).ok()?.into_inner();
    let mut value = document.into_iter().next()?.1.into_inner();
    while let toml::de::DeValue::Table(table) = value {
        value = table.into_iter().next()?.1.into_inner();
    }
    match value {
        toml::de::DeValue::String(text) => Some(text.into_owned().into()),
        toml::de::DeValue::Integer(number) => number.as_str().parse::<i64>().ok().map(Value::from),
        toml::de::DeValue::Float(number) => number.as_str().parse::<f64>().ok().map(Value::from),
        toml::de::DeValue::Boolean(truth) => Some(truth.into()),
        toml::de::DeValue::Array(items) if items.is_empty() => Some(json!([])),
        toml::de::DeValue::Array(_) | toml::de::DeValue::Datetime(_) | toml::de::DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Every path below a schema at which keys stand.
    fn tables<'a>(schema: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
        match schema {
            Value::Object(object) => {
                found.extend(object.get("properties").and_then(Value::as_object));
                object.values().for_each(|inner| tables(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| tables(inner, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_key_of_every_table_is_in_it() {
        let schema = schema();
        let mut found = Vec::new();
        tables(&schema, &mut found);
        for place in keys::PLACES {
            let wanted: std::collections::BTreeSet<&str> = place.keys.iter().copied().collect();
            let there = found.iter().any(|keys| keys.keys().map(String::as_str).eq(wanted.iter().copied()));
            assert!(there, "the schema has no table like {}: name it in `below`", place.title);
        }
    }

    #[test]
    fn keys_are_explained_as_in_the_shipped_file() {
        let schema = schema();
        let at = |path: &str| schema.pointer(path).unwrap_or_else(|| panic!("no {path}"));
        let interval = at("/properties/defaults/properties/heartbeat/properties/client/properties/ping_interval");
        assert_eq!(interval["default"], "20s");
        assert!(interval["description"].as_str().unwrap().starts_with("The heartbeat on the client leg."));
        let legs = "/properties/defaults/properties/heartbeat/properties";
        assert_eq!(at(&format!("{legs}/upstream/properties/ping_timeout"))["default"], "60s");
        assert_eq!(at("/properties/defaults/properties/limits/properties/upstream/properties/frame")["default"], "off");
        assert_eq!(at("/properties/gateway/properties/drain/properties/timeout")["default"], "25s");
        let rates = |side: &str| {
            at(&format!("/properties/defaults/properties/limits/properties/{side}/properties/over_rate/enum")).clone()
        };
        assert_eq!((rates("client"), rates("upstream")), (json!(["slow", "close"]), json!(["slow"])));
        let route = at("/properties/route/items/properties");
        assert_eq!(route["strip_prefix"]["type"], "boolean");
        assert!(route["path"]["description"].as_str().unwrap().starts_with("A prefix"));
        assert_eq!(route["utf8"]["default"], "check");
        let certificate = at("/properties/listener/items/properties/tls/properties/certificates/items/properties");
        assert_eq!(certificate["key"]["type"], "string");
    }
}
