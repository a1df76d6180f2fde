//! What a probe found, in words and as JSON.
use super::{
    Advice, Closing, Findings, IdleFindings, IdleLimit, Opened, Own, TlsFacts,
    advice::{longest_interval, readable},
};
use serde_json::{Value, json};
use std::{
    fmt,
    time::{Duration, SystemTime},
};

const DAY: i64 = 24 * 60 * 60;
/// Certificates that expire sooner are pointed at.
const SOON_DAYS: i64 = 21;

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\npath", self.target)?;
        path(f, &self.opened)?;
        writeln!(f, "\nheartbeat")?;
        self.heartbeat(f)?;
        writeln!(f, "\nend")?;
        match (&self.left, &self.closing) {
            (Some((after, ending)), _) => line(f, "it ended", format_args!("after {}: {ending}", readable(*after)))?,
            (None, Some(closing)) => close(f, closing)?,
            (None, None) => {}
        }
        let Some((idle, advice)) = &self.idle else { return Ok(()) };
        writeln!(f, "\nidle")?;
        silence(f, idle)?;
        writeln!(f, "\nrecommended")?;
        recommended(f, idle, advice)
    }
}

/// One fact: what it is about, and what it says.
fn line(f: &mut fmt::Formatter<'_>, about: &str, fact: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {about:<12} {fact}")
}

fn path(f: &mut fmt::Formatter<'_>, opened: &Opened) -> fmt::Result {
    if let Some((addresses, time)) = &opened.resolved {
        let addresses: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
        line(f, "name", format_args!("{} after {}", addresses.join(", "), readable(*time)))?;
    }
    let kind = if opened.peer.starts_with("unix:") { "socket" } else { "TCP" };
    line(f, kind, format_args!("{} after {}", opened.peer, readable(opened.connect)))?;
    if let Some((tls, time)) = &opened.tls {
        let group = tls.group.as_ref().map_or_else(String::new, |group| format!(", {group}"));
        line(f, "TLS", format_args!("{}, {}{group}, after {}", tls.version, tls.cipher, readable(*time)))?;
        line(f, "certificate", format_args!("for {}, by {}; {}", tls.subject, tls.issuer, validity(tls)))?;
        if let Some(distrust) = &tls.distrust {
            line(f, "", format_args!("NOT TRUSTED: {distrust}"))?;
        }
    }
    line(f, "handshake", format_args!("101 after {}", readable(opened.handshake)))?;
    line(f, "subprotocol", opened.subprotocol.as_deref().unwrap_or("none"))?;
    let none = "none; permessage-deflate was offered";
    line(f, "extensions", opened.extensions.as_deref().unwrap_or(none))?;
    for (name, value) in &opened.headers {
        line(f, name, value)?;
    }
    Ok(())
}

fn validity(tls: &TlsFacts) -> String {
    let (days, date) = (days_left(tls), date(tls.not_after));
    match days {
        ..0 => format!("EXPIRED on {date}"),
        0..=SOON_DAYS => format!("only {days} days left, until {date}"),
        _ => format!("{days} days left, until {date}"),
    }
}

fn days_left(tls: &TlsFacts) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    (tls.not_after - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(DAY)
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

impl Findings {
    fn heartbeat(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pings = &self.pings;
        let answered = pings.round_trips.len();
        if answered == 0 && pings.sent > 0 {
            let why = if self.left.is_some() { "it ended the connection instead" } else { "none was answered" };
            line(f, "our pings", format_args!("{} sent, {why}", pings.sent))?;
        } else if pings.sent > 0 {
            let of = |share| pings.percentile(share).map_or_else(String::new, readable);
            line(
                f,
                "our pings",
                format_args!(
                    "{answered} of {} answered: least {}, p50 {}, p90 {}, p99 {}, most {}",
                    pings.sent,
                    of(0.0),
                    of(0.5),
                    of(0.9),
                    of(0.99),
                    of(1.0)
                ),
            )?;
        }
        let own = self.longest_watched();
        line(f, "its pings", its_pings(own))?;
        if own.pongs > 0 {
            line(f, "its pongs", format_args!("{} that answer nothing: a one-sided heartbeat", own.pongs))?;
        }
        let told = if own.frames == 0 {
            "none came".to_owned()
        } else {
            format!("{} frames, {} bytes", own.frames, own.bytes)
        };
        line(f, "messages", format_args!("{told} within {}", readable(own.watched)))
    }

    /// A search for the idle limit watches longer than the first connection.
    fn longest_watched(&self) -> &Own {
        let searched = self.idle.as_ref().map(|(idle, _)| &idle.own);
        searched.filter(|own| own.watched > self.own.watched).unwrap_or(&self.own)
    }
}

fn its_pings(own: &Own) -> String {
    let watched = readable(own.watched);
    match (own.interval(), own.pings.len()) {
        (None, _) => format!("none came within {watched}"),
        (Some(interval), 1) => format!("one, {} after the handshake, within {watched}", readable(interval)),
        (Some(interval), count) => format!("one every {} ({count} within {watched})", readable(interval)),
    }
}

fn close(f: &mut fmt::Formatter<'_>, closing: &Closing) -> fmt::Result {
    match &closing.answered {
        Some((time, ending)) => {
            line(f, "our close", format_args!("1000, answered after {}: {ending}", readable(*time)))?
        }
        None => line(f, "our close", "1000, not answered with a close frame")?,
    }
    match &closing.ended {
        Some((time, super::Ending::End)) => {
            line(f, "then", format_args!("end of the stream, after {}", readable(*time)))
        }
        Some((time, ending)) => line(f, "then", format_args!("{ending}, after {}", readable(*time))),
        None => line(f, "then", "it left the connection open"),
    }
}

fn silence(f: &mut fmt::Formatter<'_>, idle: &IdleFindings) -> fmt::Result {
    let agree = if idle.agreeing > 1 { format!(" ({} connections agree)", idle.agreeing) } else { String::new() };
    match &idle.limit {
        IdleLimit::Cut { after, how } => {
            line(f, "silence", format_args!("cut after {}: {how}{agree}", readable(*after)))?;
        }
        IdleLimit::Between { lived, dead, how } => {
            let (lived, dead) = (readable(*lived), readable(*dead));
            line(f, "silence", format_args!("{lived} are survived, {dead} are not: {how}{agree}; nobody is told"))?;
        }
        IdleLimit::Beyond { lived } => line(f, "silence", format_args!("{} were survived", readable(*lived)))?,
        IdleLimit::Unknown => line(f, "silence", "nothing was found out")?,
    }
    match &idle.companion {
        Some(companion) => {
            let (every, lived) = (readable(companion.every), readable(companion.lived));
            match &companion.ended {
                None => {
                    line(f, "pings", format_args!("a connection pinged every {every} lived for all of the {lived}"))?
                }
                Some(how) => {
                    line(f, "pings", format_args!("a connection pinged every {every} ended after {lived}: {how}"))?
                }
            }
        }
        None => line(f, "pings", "no connection could be opened to be pinged meanwhile")?,
    }
    for (after, how) in &idle.accidents {
        let after = readable(*after);
        line(
            f,
            "accident",
            format_args!("one ended after {after} ({how}), and others lived longer: taken for chance"),
        )?;
    }
    if let Some((count, cause)) = &idle.not_opened {
        line(f, "not opened", format_args!("{count} connections: {cause}"))?;
    }
    if idle.stopped {
        line(f, "stopped", "before its end: what is above is what was known by then")?;
    }
    Ok(())
}

fn recommended(f: &mut fmt::Formatter<'_>, idle: &IdleFindings, advice: &Advice) -> fmt::Result {
    if let Some(interval) = advice.interval {
        let (interval, limit) = (toml(interval), advice.limit.map(toml));
        let limit = limit.map_or_else(String::new, |limit| format!(", path_idle_limit = \"{limit}\""));
        for (about, leg) in [("clients", "client"), ("backends", "upstream")] {
            line(f, about, format_args!("heartbeat.{leg} = {{ ping_interval = \"{interval}\"{limit} }}"))?;
        }
        line(f, "", "the first if clients reach the gateway by this path, the second if this is to be its backend")?;
    }
    if let Some(longest) = advice.longest.filter(|longest| Some(*longest) != advice.interval) {
        line(f, "at most", format_args!("\"{}\", where each ping costs (radios, batteries)", toml(longest)))?;
    }
    for why in &advice.because {
        line(f, "because", why)?;
    }
    if advice.interval.is_none() && advice.because.is_empty() {
        let tried = idle.tried;
        line(
            f,
            "nothing",
            format_args!(
                "{tried} connections told too little; the default is {}",
                toml(longest_interval(Duration::from_secs(44)))
            ),
        )?;
    }
    Ok(())
}

/// A time as `gateway.toml` takes it, to the millisecond.
fn toml(duration: Duration) -> String {
    if duration.subsec_millis() == 0 || duration.as_secs() >= 10 {
        return format!("{}s", duration.as_secs());
    }
    format!("{}ms", duration.as_millis())
}

impl Findings {
    /// The same for programs: times in seconds, `null` where there is nothing to say.
    #[must_use]
    pub fn json(&self) -> Value {
        let opened = &self.opened;
        let own = self.longest_watched();
        let of = |share| self.pings.percentile(share).map(|time| time.as_secs_f64());
        json!({
            "target": self.target,
            "addresses": opened.resolved.as_ref().map(|(addresses, _)| addresses.iter().map(|one| one.ip().to_string()).collect::<Vec<_>>()),
            "resolve_seconds": opened.resolved.as_ref().map(|(_, time)| time.as_secs_f64()),
            "peer": opened.peer,
            "connect_seconds": opened.connect.as_secs_f64(),
            "tls": opened.tls.as_ref().map(|(tls, time)| tls_json(tls, *time)),
            "handshake_seconds": opened.handshake.as_secs_f64(),
            "status": 101,
            "subprotocol": opened.subprotocol,
            "extensions": opened.extensions,
            "headers": opened.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "pings": {
                "sent": self.pings.sent,
                "answered": self.pings.round_trips.len(),
                "least_seconds": of(0.0),
                "p50_seconds": of(0.5),
                "p90_seconds": of(0.9),
                "p99_seconds": of(0.99),
                "most_seconds": of(1.0),
            },
            "own": {
                "pings": own.pings.len(),
                "interval_seconds": own.interval().map(|time| time.as_secs_f64()),
                "unasked_pongs": own.pongs,
                "message_frames": own.frames,
                "message_bytes": own.bytes,
                "watched_seconds": own.watched.as_secs_f64(),
            },
            "left": self.left.as_ref().map(|(after, how)| json!({"after_seconds": after.as_secs_f64(), "how": how.to_string()})),
            "close": self.closing.as_ref().map(close_json),
            "idle": self.idle.as_ref().map(|(idle, advice)| idle_json(idle, advice)),
        })
    }
}

fn tls_json(tls: &TlsFacts, time: Duration) -> Value {
    json!({
        "version": tls.version,
        "cipher": tls.cipher,
        "group": tls.group,
        "handshake_seconds": time.as_secs_f64(),
        "certificate": {
            "names": tls.subject,
            "issuer": tls.issuer,
            "not_after": date(tls.not_after),
            "days_left": days_left(tls),
            "chain": tls.chain,
            "distrust": tls.distrust,
        },
    })
}

fn close_json(closing: &Closing) -> Value {
    let told = |what: &Option<(Duration, super::Ending)>| {
        what.as_ref().map(|(after, how)| json!({"after_seconds": after.as_secs_f64(), "how": how.to_string()}))
    };
    json!({"answer": told(&closing.answered), "end": told(&closing.ended)})
}

fn idle_json(idle: &IdleFindings, advice: &Advice) -> Value {
    let (found, lived, dead, how) = match &idle.limit {
        IdleLimit::Cut { after, how } => ("cut", None, Some(*after), Some(how)),
        IdleLimit::Between { lived, dead, how } => ("between", Some(*lived), Some(*dead), Some(how)),
        IdleLimit::Beyond { lived } => ("beyond", Some(*lived), None, None),
        IdleLimit::Unknown => ("unknown", None, None, None),
    };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    json!({
        "found": found,
        "survived_seconds": seconds(lived),
        "cut_seconds": seconds(dead),
        "how": how,
        "agreeing": idle.agreeing,
        "tried": idle.tried,
        "never_silent_seconds": seconds(idle.never_silent),
        "pinged": idle.companion.as_ref().map(|companion| json!({
            "every_seconds": companion.every.as_secs_f64(),
            "lived_seconds": companion.lived.as_secs_f64(),
            "ended": companion.ended,
        })),
        "accidents": idle.accidents.iter().map(|(after, how)| json!({"after_seconds": after.as_secs_f64(), "how": how})).collect::<Vec<_>>(),
        "not_opened": idle.not_opened.as_ref().map(|(count, cause)| json!({"count": count, "cause": cause})),
        "stopped": idle.stopped,
        "ping_interval": advice.interval.map(toml),
        "longest_ping_interval": advice.longest.map(toml),
        "because": advice.because,
    })
}
