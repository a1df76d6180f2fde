//! `pulsegate top`: a live view of a running gateway in the terminal.
use super::{
    Exit, TopArguments,
    client::{AskError, Client},
    output::complain,
    sessions::{age, round_trip, size},
};
use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size as room,
    },
};
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Orders that a key chooses, with the key.
const SORTS: [(char, &str); 6] =
    [('r', "round_trip"), ('s', "silence"), ('o', "outbox"), ('b', "bytes"), ('m', "messages"), ('a', "oldest")];
/// Lines above the sessions.
const ABOVE: usize = 8;
/// Backends that are shown.
const BACKENDS: usize = 4;

pub(crate) fn top(arguments: &TopArguments) -> Exit {
    let client = match Client::find(&arguments.admin) {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let every = Duration::from_secs_f64(arguments.every.clamp(0.2, 60.0));
    if arguments.once || !io::stdout().is_terminal() {
        return match frame(&client, "round_trip", (80, 24)) {
            Ok(lines) => {
                lines.iter().for_each(super::output::say);
                Exit::Done
            }
            Err(error) => {
                complain(&error);
                error.exit()
            }
        };
    }
    let screen = match Screen::enter() {
        Ok(screen) => screen,
        Err(error) => {
            complain(format_args!("this terminal cannot be used: {error}"));
            return Exit::System;
        }
    };
    let ended = run(&client, every);
    drop(screen);
    ended.unwrap_or_else(|error| {
        complain(error);
        Exit::System
    })
}

/// The terminal, put back when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no putting back.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

fn run(client: &Client, every: Duration) -> io::Result<Exit> {
    let mut sort = "round_trip";
    loop {
        let due = Instant::now() + every;
        let (width, height) = room()?;
        let lines =
            frame(client, sort, (width.into(), height.into())).unwrap_or_else(|error| explained(client, &error));
        draw(&lines, width.into())?;
        loop {
            if !poll(due.saturating_duration_since(Instant::now()))? {
                break;
            }
            match read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    if leaves(key) {
                        return Ok(Exit::Done);
                    }
                    if let Some((_, name)) = SORTS.iter().find(|(letter, _)| key.code == KeyCode::Char(*letter)) {
                        sort = name;
                        break;
                    }
                }
                Event::Resize(..) => break,
                Event::Key(_) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) => {}
            }
        }
    }
}

fn leaves(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('q')
        || key.code == KeyCode::Esc
        || (key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL))
}

fn explained(client: &Client, error: &AskError) -> Vec<String> {
    vec![
        format!("pulsegate at {}", client.address()),
        String::new(),
        error.to_string(),
        String::new(),
        "q quits".into(),
    ]
}

fn draw(lines: &[String], width: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    queue!(out, MoveTo(0, 0))?;
    for (number, line) in lines.iter().enumerate() {
        let heading = number == 0 || line.starts_with("KEY ");
        queue!(out, MoveTo(0, u16::try_from(number).unwrap_or(u16::MAX)))?;
        if heading {
            queue!(out, SetAttribute(Attribute::Bold))?;
        }
        queue!(out, Print(cut(line, width)), SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
    }
    queue!(out, MoveTo(0, u16::try_from(lines.len()).unwrap_or(u16::MAX)), Clear(ClearType::FromCursorDown))?;
    out.flush()
}

fn cut(text: &str, width: usize) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).take(width).collect()
}

/// The lines of one look, which fit into `width` and `height`.
fn frame(client: &Client, sort: &str, (width, height): (usize, usize)) -> Result<Vec<String>, AskError> {
    let overview = client.get("/api/v1/overview")?;
    let mut lines = above(&overview, client.address());
    let left = height.saturating_sub(lines.len() + 2).clamp(1, 1000);
    let page = client.get(&format!("/api/v1/sessions?sort={sort}&limit={left}"))?;
    lines.push(row(
        ["KEY", "AGE", "CLIENT", "ROUTE", "RTT CLI", "RTT UPS", "SILENT", "OUTBOX", "RECEIVED"].map(str::to_owned),
        width,
    ));
    for session in page["sessions"].as_array().into_iter().flatten() {
        lines.push(row(cells(session), width));
    }
    lines.truncate(height.saturating_sub(1));
    lines.push(keys(sort));
    Ok(lines.iter().map(|line| cut(line, width)).collect())
}

/// Which keys choose which order; the one in brackets is chosen.
fn keys(sort: &str) -> String {
    let key =
        |(key, name): &(char, &str)| if *name == sort { format!("[{key} {name}]") } else { format!("{key} {name}") };
    format!("{}  q quits", SORTS.iter().map(key).collect::<Vec<_>>().join("  "))
}

fn above(overview: &Value, address: &impl std::fmt::Display) -> Vec<String> {
    let sessions = &overview["sessions"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let phase = overview["phase"].as_str().unwrap_or_default();
    let mut lines = vec![
        format!("pulsegate at {address} · {phase} · up {}", age(number(&overview["uptime_ms"]))),
        format!(
            "sessions {} open, {} started, {} paused · outboxes {}",
            number(&sessions["open"]),
            number(&sessions["started"]),
            number(&sessions["paused"]),
            size(number(&sessions["outbox"]))
        ),
    ];
    for side in ["client", "upstream"] {
        let times = &overview["round_trip_ms"][side];
        let [p50, p90, p99, max] = ["p50", "p90", "p99", "max"].map(|name| round_trip(&times[name]));
        lines.push(format!("round trips {side:<8}  p50 {p50}  p90 {p90}  p99 {p99}  max {max}"));
    }
    let ended = sessions["ended"].as_object();
    let ended = ended.into_iter().flatten().filter(|(_, count)| number(count) > 0);
    let ended: Vec<String> = ended.map(|(reason, count)| format!("{reason} {count}")).collect();
    lines.push(format!("ended  {}", if ended.is_empty() { "none yet".into() } else { ended.join(", ") }));
    let backends = overview["backends"].as_array().cloned().unwrap_or_default();
    let text = |backend: &Value| {
        let word = |key: &str| backend[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} ({})", word("backend"), word("state"), number(&backend["sessions"]))
    };
    let shown: Vec<String> = backends.iter().take(BACKENDS).map(text).collect();
    let more = backends.len().saturating_sub(BACKENDS);
    let more = if more > 0 { format!(", {more} more") } else { String::new() };
    lines.push(format!("backends  {}{more}", shown.join(", ")));
    lines.resize(ABOVE - 1, String::new());
    lines
}

fn cells(session: &Value) -> [String; 9] {
    let text = |key: &str| session[key].as_str().unwrap_or_default().to_owned();
    let leg = |side: &str, key: &str| session["legs"][side][key].clone();
    let both = |key: &str| ["client", "upstream"].map(|side| leg(side, key).as_u64().unwrap_or_default());
    [
        text("key"),
        age(session["age_ms"].as_u64().unwrap_or_default()),
        text("client"),
        text("route"),
        round_trip(&session["legs"]["client"]["round_trip_ms"]),
        round_trip(&session["legs"]["upstream"]["round_trip_ms"]),
        age(both("silence_ms").into_iter().max().unwrap_or_default()),
        size(both("outbox").into_iter().sum()),
        size(both("bytes_received").into_iter().sum()),
    ]
}

/// Columns of fixed width; what is wider than 80 goes to the client's address and the route.
fn row(cells: [String; 9], width: usize) -> String {
    const WIDTHS: [usize; 9] = [7, 6, 15, 8, 8, 8, 6, 6, 8];
    let spare = width.saturating_sub(WIDTHS.iter().sum::<usize>() + WIDTHS.len()) / 2;
    let mut line = String::new();
    for (place, (cell, wide)) in cells.iter().zip(WIDTHS).enumerate() {
        let wide = if place == 2 || place == 3 { wide + spare } else { wide };
        let cell: String = cell.chars().take(wide).collect();
        line += &format!("{cell:<wide$} ");
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_line_fits_into_eighty_columns_but_long_lists_which_are_cut() {
        let legs = json!({ "client": { "round_trip_ms": 1234.5, "silence_ms": 90_000_000_u64 }, "upstream": {} });
        let one = json!({ "key": "12-123456789", "client": "2001:db8::1234:5678:9abc:def0", "route": "a very long name",
                          "age_ms": 1, "legs": legs });
        assert!(row(cells(&one), 80).chars().count() <= 80, "{}", row(cells(&one), 80));
        assert!(SORTS.iter().all(|(_, name)| keys(name).len() <= 80), "{}", keys("round_trip"));
        assert_eq!(cut("a\tb\u{1b}c", 4), "a?b?");
    }

    #[test]
    fn the_part_above_has_a_fixed_height() {
        let lines = above(&json!({}), &"127.0.0.1:1");
        assert_eq!(lines.len(), ABOVE - 1);
        assert!(lines[0].starts_with("pulsegate at 127.0.0.1:1"));
    }
}
