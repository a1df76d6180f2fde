//! One record of the access log: its fields, once, and the two ways to spell them.
use crate::{
    log::verdict::{fine_millis, millis},
    relay::{EndReason, PerSide, Side},
    session::{
        ClientAddress, Facts,
        verdict::{LegVerdict, Verdict},
    },
};
use std::{
    fmt::Write,
    num::NonZeroU16,
    time::{Duration, SystemTime},
};

/// What is told of one session at one time.
#[derive(Debug)]
pub(super) struct Record<'a> {
    at: SystemTime,
    session: &'a str,
    route: &'a str,
    upstream: &'a str,
    backend: &'a str,
    local_port: Option<u16>,
    client: ClientAddress,
    user_agent: Option<&'a str>,
    origin: Option<&'a str>,
    duration: Duration,
    /// `None` while it runs.
    end: Option<End<'a>>,
    legs: &'a PerSide<LegVerdict>,
}

#[derive(Debug)]
struct End<'a> {
    reason: EndReason,
    first: Option<Side>,
    cause: Option<&'a str>,
    told_after: Option<Duration>,
}

/// The value of one field.
pub(super) enum Value<'a> {
    Text(&'a str),
    Count(u64),
    Millis(f64),
    Truth(bool),
}

impl<'a> Record<'a> {
    /// A session that ended `at`.
    pub(super) fn end(verdict: &'a Verdict, at: SystemTime) -> Self {
        Self {
            at,
            session: &verdict.id,
            route: &verdict.route,
            upstream: &verdict.upstream,
            backend: &verdict.backend,
            local_port: verdict.local_port,
            client: verdict.client,
            user_agent: verdict.user_agent.as_deref(),
            origin: verdict.origin.as_deref(),
            duration: verdict.duration,
            end: Some(End {
                reason: verdict.reason,
                first: verdict.first,
                cause: verdict.cause.as_deref(),
                told_after: verdict.told_after,
            }),
            legs: &verdict.legs,
        }
    }

    /// A session that runs `at` that time.
    pub(super) fn progress(
        facts: &'a Facts,
        legs: &'a PerSide<LegVerdict>,
        duration: Duration,
        at: SystemTime,
    ) -> Self {
        let backend = facts.lease.backend();
        Self {
            at,
            session: &facts.id,
            route: &facts.route.name,
            upstream: &backend.upstream,
            backend: &backend.name,
            local_port: facts.local_port.map(NonZeroU16::get),
            client: facts.client,
            user_agent: facts.user_agent.as_deref(),
            origin: facts.origin.as_deref(),
            duration,
            end: None,
            legs,
        }
    }

    fn kind(&self) -> &'static str {
        if self.end.is_some() { "end" } else { "progress" }
    }

    /// An object on a line of its own.
    pub(super) fn json(&self) -> String {
        json_line(self.at, self.kind(), |put| self.fields(put))
    }

    /// The time, the kind, and `key=value` for each field.
    pub(super) fn text(&self) -> String {
        text_line(self.at, self.kind(), |put| self.fields(put))
    }

    /// Every field that is known, in the order in which they are written.
    fn fields(&self, put: Put<'_>) {
        put("session", Value::Text(self.session));
        put("route", Value::Text(self.route));
        if let Some(end) = &self.end {
            put("reason", Value::Text(end.reason.label()));
            put("first", Value::Text(end.first.map_or("gateway", Side::label)));
            if let Some(cause) = end.cause {
                put("cause", Value::Text(cause));
            }
        }
        put("start", Value::Text(&time_text(self.at.checked_sub(self.duration).unwrap_or(self.at))));
        if self.end.is_some() {
            put("end", Value::Text(&time_text(self.at)));
        }
        put("duration_ms", Value::Count(millis(self.duration)));
        put("client.address", Value::Text(&self.client.to_string()));
        for (name, text) in [("client.user_agent", self.user_agent), ("client.origin", self.origin)] {
            if let Some(text) = text {
                put(name, Value::Text(text));
            }
        }
        if let Some(waited) = self.end.as_ref().and_then(|end| end.told_after) {
            put("client.told_after_ms", Value::Count(millis(waited)));
        }
        self.leg(Side::Downstream, &CLIENT, put);
        put("upstream.name", Value::Text(self.upstream));
        put("upstream.backend", Value::Text(self.backend));
        if let Some(port) = self.local_port {
            put("upstream.local_port", Value::Count(port.into()));
        }
        self.leg(Side::Upstream, &UPSTREAM, put);
    }

    fn leg(&self, side: Side, names: &Names, put: Put<'_>) {
        let leg = &self.legs[side];
        if self.end.is_some() {
            for (name, code) in [(names.code_received, leg.code_received), (names.code_sent, leg.code_sent)] {
                if let Some(code) = code {
                    put(name, Value::Count(code.into()));
                }
            }
            put(names.cut, Value::Truth(leg.cut));
        }
        put(names.bytes, Value::Count(leg.bytes_received));
        put(names.messages, Value::Count(leg.messages_received));
        put(names.pings, Value::Count(leg.pings_sent.into()));
        put(names.pongs, Value::Count(leg.pongs_received.into()));
        if let Some(trip) = leg.last_round_trip {
            put(names.round_trip, Value::Millis(fine_millis(trip)));
        }
        put(names.silence, Value::Count(millis(leg.silence)));
    }
}

/// Takes the fields of a record.
pub(super) type Put<'a> = &'a mut dyn FnMut(&'static str, Value<'_>);

/// An object on a line of its own.
pub(super) fn json_line(at: SystemTime, kind: &str, fields: impl FnOnce(Put<'_>)) -> String {
    let mut line = String::with_capacity(1024);
    line.push_str("{\"time\":");
    json_text(&mut line, &time_text(at));
    line.push_str(",\"record\":");
    json_text(&mut line, kind);
    fields(&mut |name, value| {
        line.push(',');
        json_text(&mut line, name);
        line.push(':');
        write_value(&mut line, &value, json_text);
    });
    line.push_str("}\n");
    line
}

/// The time, the kind, and `key=value` for each field.
pub(super) fn text_line(at: SystemTime, kind: &str, fields: impl FnOnce(Put<'_>)) -> String {
    let mut line = time_text(at);
    line.reserve(1024);
    line.push(' ');
    line.push_str(kind);
    fields(&mut |name, value| {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        write_value(&mut line, &value, bare_or_quoted);
    });
    line.push('\n');
    line
}

/// The fields of one leg.
struct Names {
    code_received: &'static str,
    code_sent: &'static str,
    cut: &'static str,
    bytes: &'static str,
    messages: &'static str,
    pings: &'static str,
    pongs: &'static str,
    round_trip: &'static str,
    silence: &'static str,
}

const CLIENT: Names = Names {
    code_received: "client.code_received",
    code_sent: "client.code_sent",
    cut: "client.cut",
    bytes: "client.bytes",
    messages: "client.messages",
    pings: "client.pings",
    pongs: "client.pongs",
    round_trip: "client.round_trip_ms",
    silence: "client.silence_ms",
};
const UPSTREAM: Names = Names {
    code_received: "upstream.code_received",
    code_sent: "upstream.code_sent",
    cut: "upstream.cut",
    bytes: "upstream.bytes",
    messages: "upstream.messages",
    pings: "upstream.pings",
    pongs: "upstream.pongs",
    round_trip: "upstream.round_trip_ms",
    silence: "upstream.silence_ms",
};

/// UTC with milliseconds (RFC 3339).
pub(super) fn time_text(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// Only text is spelled differently.
fn write_value(line: &mut String, value: &Value<'_>, spell: impl Fn(&mut String, &str)) {
    // Writing into a string cannot fail.
    let _ = match value {
        Value::Text(text) => {
            spell(line, text);
            Ok(())
        }
        Value::Count(count) => write!(line, "{count}"),
        Value::Millis(millis) => write!(line, "{millis}"),
        Value::Truth(truth) => write!(line, "{truth}"),
    };
}

/// In quotes, with what must not stand between them escaped (RFC 8259 section 7).
pub(crate) fn json_text(line: &mut String, text: &str) {
    line.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => line.extend(['\\', letter]),
            '\n' => line.push_str("\\n"),
            control if control.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            letter => line.push(letter),
        }
    }
    line.push('"');
}

/// In quotes only where a reader that splits at spaces would be misled.
fn bare_or_quoted(line: &mut String, text: &str) {
    let bare = !text.is_empty() && text.chars().all(|letter| letter.is_ascii_graphic() && !"\"=\\".contains(letter));
    if bare {
        line.push_str(text);
    } else {
        line.push('"');
        line.extend(text.chars().flat_map(char::escape_debug));
        line.push('"');
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::log::verdict::tests::verdict;

    /// 2026-03-04T05:06:07.089Z
    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_600_767_089)
    }

    #[test]
    fn json_is_one_object_a_line_with_every_known_field() {
        let line = {
            let verdict = verdict(EndReason::UpstreamGone);
            Record::end(&verdict, noon()).json()
        };
        assert_eq!(
            line,
            "{\"time\":\"2026-03-04T05:06:07.089Z\",\"record\":\"end\",\"session\":\"0123abcd\",\"route\":\"chat\",\
             \"reason\":\"upstream_gone\",\"first\":\"client\",\"start\":\"2026-03-04T05:05:05.589Z\",\
             \"end\":\"2026-03-04T05:06:07.089Z\",\"duration_ms\":61500,\"client.address\":\"203.0.113.7\",\
             \"client.user_agent\":\"Mozilla \\\"5.0\\\"\",\"client.told_after_ms\":2500,\"client.code_received\":1000,\"client.cut\":false,\
             \"client.bytes\":120,\"client.messages\":3,\"client.pings\":7,\"client.pongs\":6,\
             \"client.round_trip_ms\":1.234,\"client.silence_ms\":41000,\"upstream.name\":\"pool\",\
             \"upstream.backend\":\"ws://10.0.0.1:8000\",\"upstream.local_port\":40001,\"upstream.cut\":false,\
             \"upstream.bytes\":0,\"upstream.messages\":0,\"upstream.pings\":0,\"upstream.pongs\":0,\
             \"upstream.silence_ms\":0}\n"
        );
    }

    #[test]
    fn text_has_the_same_fields() {
        let mut verdict = verdict(EndReason::ClientViolation);
        verdict.cause = Some("a".into());
        let line = Record::end(&verdict, noon()).text();
        assert!(line.starts_with("2026-03-04T05:06:07.089Z end session=0123abcd route=chat reason=client_violation"));
        assert!(line.contains(" client.user_agent=\"Mozilla \\\"5.0\\\"\" client.told_after_ms=2500 "), "{line}");
        assert!(line.ends_with(" upstream.silence_ms=0\n"), "{line}");
        let json = Record::end(&verdict, noon()).json();
        assert_eq!(json.matches("\":").count(), line.matches('=').count() + 2, "{line}{json}");
    }

    #[test]
    fn what_clients_send_cannot_forge_a_line_or_a_field() {
        let mut verdict = verdict(EndReason::ClientClosed);
        verdict.user_agent = Some("a\"}\n{\"b\u{7f}\u{202e} reason=x\\".into());
        verdict.origin = Some("".into());
        let (json, text) = (Record::end(&verdict, noon()).json(), Record::end(&verdict, noon()).text());
        assert!(json.contains(r#""client.user_agent":"a\"}\n{\"b\u007f"#), "{json}");
        assert!(json.contains(r#" reason=x\\","client.origin":"""#), "{json}");
        assert!(
            text.contains(r#"client.user_agent="a\"}\n{\"b\u{7f}\u{202e} reason=x\\" client.origin="" "#),
            "{text}"
        );
        assert_eq!((json.lines().count(), text.lines().count()), (1, 1));
    }

    #[test]
    fn every_field_is_explained() {
        let docs = include_str!("../../../docs/logs.md");
        let mut verdict = verdict(EndReason::UpstreamViolation);
        (verdict.cause, verdict.origin) = (Some("a".into()), Some("b".into()));
        verdict.legs.upstream = verdict.legs.downstream.clone();
        for leg in [&mut verdict.legs.downstream, &mut verdict.legs.upstream] {
            leg.code_sent = Some(1000);
        }
        let line = Record::end(&verdict, noon()).json();
        let names = line.split('"').skip(1).step_by(2).zip(line.split('"').skip(2).step_by(2));
        let names: Vec<&str> = names.filter(|(_, after)| after.starts_with(':')).map(|(name, _)| name).collect();
        assert_eq!(names.len(), 35, "{names:?}");
        for name in names {
            let of_leg = name.split_once('.').map_or(String::new(), |(_, field)| format!("`….{field}`"));
            assert!(docs.contains(&format!("`{name}`")) || docs.contains(&of_leg) && !of_leg.is_empty(), "{name}");
        }
    }
}
