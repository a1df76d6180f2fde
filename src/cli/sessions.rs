//! `pulsegate sessions`: the sessions of a running gateway as a table, and their end.
use super::{
    EndArguments, Exit, FilterArguments, SessionsArguments, SessionsCommand,
    client::{AskError, Client, encode},
    output::{complain, say},
};
use serde_json::{Map, Value, json};
use std::{fmt::Write as _, thread::sleep, time::Duration};

/// Sessions of one page.
const PAGE: usize = 1000;
/// How often an ending is asked how far it is.
const WATCH: Duration = Duration::from_millis(500);

pub(crate) fn sessions(arguments: &SessionsArguments) -> Exit {
    let client = match Client::find(&arguments.admin) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let done = match &arguments.command {
        None => list(&client, arguments),
        Some(SessionsCommand::End(end)) => end_sessions(&client, &arguments.filter, end),
    };
    done.unwrap_or_else(|error| {
        complain(&error);
        error.exit()
    })
}

impl FilterArguments {
    /// The words of the API.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, String)> {
        let given = [
            ("id", &self.id),
            ("route", &self.route),
            ("upstream", &self.upstream),
            ("backend", &self.backend),
            ("client", &self.client),
            ("min_age", &self.min_age),
            ("max_age", &self.max_age),
            ("min_round_trip", &self.min_round_trip),
            ("min_outbox", &self.min_outbox),
            ("min_silence", &self.min_silence),
        ];
        let mut pairs: Vec<_> =
            given.into_iter().filter_map(|(key, value)| value.clone().map(|value| (key, value))).collect();
        if self.paused {
            pairs.push(("paused", "true".into()));
        }
        pairs
    }
}

fn list(client: &Client, arguments: &SessionsArguments) -> Result<Exit, AskError> {
    let mut query = format!("sort={}", encode(&arguments.sort));
    for (key, value) in arguments.filter.pairs() {
        query += &format!("&{key}={}", encode(&value));
    }
    let (mut found, mut matching, mut after) = (Vec::new(), 0, String::new());
    while found.len() < arguments.limit {
        let limit = (arguments.limit - found.len()).min(PAGE);
        let page = client.get(&format!("/api/v1/sessions?{query}&limit={limit}{after}"))?;
        matching = page["matching"].as_u64().unwrap_or_default();
        found.extend(page["sessions"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encode(next)),
            None => break,
        }
    }
    if arguments.json {
        say(json!({ "matching": matching, "sessions": found }));
        return Ok(Exit::Done);
    }
    say(table(&found));
    say(format_args!("{} of {matching} sessions", found.len()));
    Ok(Exit::Done)
}

/// Columns as wide as what stands in them.
fn table(sessions: &[Value]) -> String {
    const HEAD: [&str; 10] =
        ["KEY", "AGE", "CLIENT", "ROUTE", "BACKEND", "RTT CLIENT", "RTT UPSTREAM", "SILENT", "OUTBOX", "RECEIVED"];
    let rows: Vec<[String; 10]> = sessions.iter().map(row).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let mut text = line(&HEAD.map(str::to_owned), &widths);
    for row in &rows {
        text += "\n";
        text += &line(row, &widths);
    }
    text
}

fn line(cells: &[String; 10], widths: &[usize; 10]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        // Writing to a text cannot fail.
        let _ = write!(line, "{cell:<width$}  ");
    }
    line.trim_end().to_owned()
}

fn row(session: &Value) -> [String; 10] {
    let text = |key: &str| session[key].as_str().unwrap_or_default().to_owned();
    let leg = |side: &str, key: &str| session["legs"][side][key].clone();
    let both = |key: &str| [leg("client", key), leg("upstream", key)];
    let sum = |key: &str| both(key).iter().filter_map(Value::as_u64).sum();
    let silence = both("silence_ms").iter().filter_map(Value::as_u64).max().unwrap_or_default();
    [
        text("key"),
        age(session["age_ms"].as_u64().unwrap_or_default()),
        text("client"),
        text("route"),
        text("backend"),
        round_trip(&leg("client", "round_trip_ms")),
        round_trip(&leg("upstream", "round_trip_ms")),
        age(silence),
        size(sum("outbox")),
        size(sum("bytes_received")),
    ]
}

/// A time in its two largest units.
pub(crate) fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{}.{}s", seconds, millis % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

pub(crate) fn round_trip(millis: &Value) -> String {
    millis.as_f64().map_or_else(|| "-".into(), |millis| format!("{millis:.1}ms"))
}

pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes}B"),
        10_240..10_485_760 => format!("{}KiB", bytes >> 10),
        10_485_760..10_737_418_240 => format!("{}MiB", bytes >> 20),
        _ => format!("{}GiB", bytes >> 30),
    }
}

fn end_sessions(client: &Client, filter: &FilterArguments, end: &EndArguments) -> Result<Exit, AskError> {
    if let Some(session) = &end.session {
        let body = json!({ "code": end.code, "reason": end.reason });
        let ended = client.post(&format!("/api/v1/sessions/{}/end", encode(session)), &body)?;
        say(format_args!("ended {}", ended["ended"].as_str().unwrap_or(session)));
        return Ok(Exit::Done);
    }
    let pairs: Map<String, Value> =
        filter.pairs().into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect();
    let body = json!({ "filter": pairs, "all": end.all, "rate": end.rate, "code": end.code, "reason": end.reason });
    let begun = client.post("/api/v1/sessions/end", &body)?;
    watch(client, &begun)
}

/// Tells how far an ending is until it is over.
pub(crate) fn watch(client: &Client, begun: &Value) -> Result<Exit, AskError> {
    let path = format!("/api/v1/endings/{}", begun["id"]);
    let mut last = None;
    loop {
        let ending = client.get(&path)?;
        let (told, total) = (ending["told"].as_u64().unwrap_or_default(), ending["total"].as_u64());
        if let Some(total) = total.filter(|total| last != Some((told, *total))) {
            say(format_args!("{told} of {total} sessions told to end"));
            last = Some((told, total));
        }
        match ending["state"].as_str() {
            Some("running") => sleep(WATCH),
            Some("done") => return Ok(Exit::Done),
            Some(_) | None => {
                complain("it was cancelled before all were told");
                return Ok(Exit::Cut);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!([0, 1234, 61_000, 3_700_000, 90_000_000].map(age), ["0.0s", "1.2s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!([9, 20_480, 20 << 20, 20 << 30].map(size), ["9B", "20KiB", "20MiB", "20GiB"]);
        assert_eq!((round_trip(&json!(1.25)), round_trip(&Value::Null)), ("1.2ms".into(), "-".into()));
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be() {
        let legs = json!({ "client": { "silence_ms": 1500, "outbox": 1, "bytes_received": 2 }, "upstream": {} });
        let one = json!({ "key": "0-1", "age_ms": 5000, "client": "10.0.0.1", "route": "chat", "backend": "b", "legs": legs });
        let text = table(&[one]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("KEY  AGE   CLIENT    ROUTE  BACKEND"), "{text}");
        assert!(lines[1].starts_with("0-1  5.0s  10.0.0.1  chat   b"), "{text}");
    }
}
