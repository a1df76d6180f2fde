//! `pulsegate try`: a gateway in front of one backend, whose heartbeat one can watch.
use super::{
    Exit, TryArguments,
    output::{complain_of_file, say},
    run::{inherit, serve},
};
use pulsegate::{
    config::{self, LogConfig, LogFormat, LogSessions},
    gateway::Observer,
    log::verdict::hint,
    protocol::heartbeat::HeartbeatEvent,
    relay::Side,
    session::{Facts, verdict::Verdict},
};
use std::{fmt::Display, path::Path, sync::Arc, time::Duration};

pub(crate) fn trial(arguments: &TryArguments) -> Exit {
    let Some(inheritance) = inherit() else { return Exit::System };
    let text = config::try_text(&arguments.url, &arguments.listen.to_string());
    let mut config = match config::parse("try", &text, Path::new(".")) {
        Ok(config) => config,
        Err(errors) => {
            complain_of_file(errors);
            return Exit::Configuration;
        }
    };
    config.gateway.workers = 1;
    // Ends are printed below, for people; the log is left with refusals and trouble.
    config.log = LogConfig { level: "info".into(), format: LogFormat::Text, sessions: LogSessions::Off };
    say("This is what runs now; as gateway.toml, `pulsegate` alone serves the same:\n");
    for line in text.lines() {
        say(format_args!("    {line}"));
    }
    say("\nConnect a client; every ping, pong and round trip is printed here (times are UTC). Ctrl-C ends.\n");
    serve(config, Some(Arc::new(Printer)), inheritance, None)
}

struct Printer;

impl Observer for Printer {
    fn opened(&self, facts: &Facts) {
        let backend = &facts.lease.backend().name;
        print(&facts.id, "session", format_args!("opened: {} to {backend}", facts.client));
    }

    fn heartbeat(&self, session: &str, side: Side, event: HeartbeatEvent) {
        match event {
            HeartbeatEvent::Sent => print(session, side.label(), "ping sent"),
            HeartbeatEvent::Answered { round_trip } => {
                print(session, side.label(), format_args!("pong after {}", readable(round_trip)));
            }
            HeartbeatEvent::AnsweredLate => {
                print(session, side.label(), "pong to an earlier ping, after the next one left")
            }
            HeartbeatEvent::Missed => print(session, side.label(), "no answer within the time: the session ends"),
            HeartbeatEvent::Unproven => print(
                session,
                side.label(),
                "no pong, but its TCP took the ping: kept alive, and never called dead for its silence",
            ),
        }
    }

    fn ended(&self, verdict: &Verdict) {
        let reason = verdict.reason.label();
        print(
            &verdict.id,
            "session",
            format_args!("ended after {}: {reason}, {}", readable(verdict.duration), hint(verdict.reason)),
        );
    }
}

/// Sessions are told apart by the start of their ids: `12:00:01.234 3f9c02aa client   ping sent`.
fn print(session: &str, what: &str, event: impl Display) {
    let now = jiff::Timestamp::now().strftime("%H:%M:%S%.3f");
    let session: String = session.chars().take(8).collect();
    say(format_args!("{now} {session:<8} {what:<8} {event}"));
}

/// Three digits that matter, in the unit that people use for it.
fn readable(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        assert_eq!(readable(Duration::from_micros(83)), "83 µs");
        assert_eq!(readable(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(readable(Duration::from_millis(61_500)), "61.5 s");
    }
}
