//! After how long a silence the path cuts a connection (`--idle`).
use super::{
    Ask,
    advice::readable,
    open::Dialer,
    plan::{Fate, IdleLimit, Plan},
    stopped,
    talk::{Own, Talk},
    wire::Ending,
};
use std::{rc::Rc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval_at, sleep_until, timeout},
};

/// A connection that is pinged all the while, beside the silent ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Time between its pings.
    pub every: Duration,
    pub lived: Duration,
    /// How it ended, if it did not live to the end of the search.
    pub ended: Option<String>,
}

/// What a search for the idle limit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleFindings {
    pub limit: IdleLimit,
    /// Connections that were cut at the same limit.
    pub agreeing: usize,
    /// Connections that were left in silence.
    pub tried: usize,
    /// Ends that others outlived: after how long, and how.
    pub accidents: Vec<(Duration, String)>,
    /// The longest time for which the service itself was silent on a connection that lived longer; its own pings or
    /// messages kept those from ever being silent for as long as was meant.
    pub never_silent: Option<Duration>,
    /// What the service sent of its own accord on the silent connection that lived longest.
    pub own: Own,
    pub companion: Option<Companion>,
    /// Connections that could not be opened, and why the first could not.
    pub not_opened: Option<(usize, String)>,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// What became of one silent connection.
struct Outcome {
    /// The longest time in which nothing crossed.
    silence: Duration,
    age: Duration,
    own: Own,
    end: End,
}

enum End {
    Fate(Fate),
    /// It was told that it is not needed any more.
    Left,
    NotOpened(String),
}

/// Searches up to `limit`. `pongs`: whether the service answers pings; else the closing handshake is the question.
pub(super) async fn search(
    dialer: &Rc<Dialer>,
    limit: Duration,
    pongs: bool,
    ask: &Ask<'_>,
    enough: &mut watch::Receiver<bool>,
) -> IdleFindings {
    let resolution = (limit / 100).min(Duration::from_secs(1));
    let mut plan = Plan::new(limit, resolution);
    let began = Instant::now();
    let (done, mut companion) = accompany(dialer, (limit / 120).min(Duration::from_secs(5)), ask.within);
    let mut found = IdleFindings {
        limit: IdleLimit::Unknown,
        agreeing: 0,
        tried: 0,
        accidents: Vec::new(),
        never_silent: None,
        own: Own::default(),
        companion: None,
        not_opened: None,
        stopped: false,
    };
    loop {
        let silences = plan.next();
        let Some((first, last)) = silences.first().zip(silences.last()) else { break };
        ask.tell(format_args!(
            "idle: {} connections, silent for {} to {}",
            silences.len(),
            readable(*first),
            readable(*last)
        ));
        let outcomes = round(dialer, &silences, pongs, ask, enough).await;
        found.count(&outcomes);
        let none = outcomes.iter().all(|(_, outcome)| matches!(outcome.end, End::NotOpened(_)));
        plan.learn(outcomes.into_iter().filter_map(|(_, outcome)| match outcome.end {
            End::Fate(fate) => Some((outcome.silence, fate)),
            End::Left | End::NotOpened(_) => None,
        }));
        found.stopped = *enough.borrow();
        // Whom the service never leaves in silence cannot be tried for longer.
        let chatter = found.never_silent.is_some() && plan.agreeing() == 0;
        if none || chatter || found.stopped {
            break;
        }
    }
    found.limit = plan.limit();
    found.agreeing = plan.agreeing();
    found.accidents = plan.accidents;
    // To have lived through a limit it must be clearly older.
    let older = match &found.limit {
        IdleLimit::Cut { after: limit, .. } | IdleLimit::Between { dead: limit, .. } => *limit + *limit / 4,
        IdleLimit::Beyond { .. } | IdleLimit::Unknown => Duration::ZERO,
    };
    let mut ended = None;
    tokio::select! {
        early = companion.join_next() => ended = early,
        () = sleep_until(began + older) => {}
        () = stopped(enough) => {}
    }
    done.send_replace(true);
    if ended.is_none() {
        ended = companion.join_next().await;
    }
    found.companion = ended.and_then(Result::ok).flatten();
    found
}

impl IdleFindings {
    fn count(&mut self, outcomes: &[(Duration, Outcome)]) {
        for (wanted, outcome) in outcomes {
            match &outcome.end {
                End::NotOpened(cause) => {
                    self.not_opened.get_or_insert_with(|| (0, cause.clone())).0 += 1;
                    continue;
                }
                // Far from as silent as was meant, though it was given the time.
                End::Fate(Fate::Lived) if outcome.silence < *wanted * 3 / 4 => {
                    self.never_silent = self.never_silent.max(Some(outcome.silence));
                }
                End::Fate(_) | End::Left => {}
            }
            self.tried += 1;
            if outcome.age > self.own.watched {
                self.own = Own { watched: outcome.age, ..outcome.own.clone() };
            }
        }
    }
}

/// Leaves one connection for each silence alone, all at once. Ends early when the rest would tell nothing new.
async fn round(
    dialer: &Rc<Dialer>,
    silences: &[Duration],
    pongs: bool,
    ask: &Ask<'_>,
    enough: &mut watch::Receiver<bool>,
) -> Vec<(Duration, Outcome)> {
    let (leave, _) = watch::channel(Duration::MAX);
    let mut set = JoinSet::new();
    for &wanted in silences {
        let (dialer, leave, within) = (Rc::clone(dialer), leave.subscribe(), ask.within);
        set.spawn_local(async move { (wanted, silent(&dialer, wanted, pongs, within, leave).await) });
    }
    let start = Instant::now();
    let mut tick = interval_at(start + ask.tick, ask.tick);
    let (mut outcomes, mut cuts) = (Vec::new(), 0);
    loop {
        tokio::select! {
            joined = set.join_next() => {
                let Some(joined) = joined else { break };
                // A task that panicked has nothing to tell; the panic itself was printed.
                let Ok((wanted, outcome)) = joined else { continue };
                told(&outcome, ask);
                match &outcome.end {
                    // Two that were told the same need no third; one found dead speaks for all that are silent longer.
                    End::Fate(Fate::Told(_)) => {
                        cuts += 1;
                        if cuts > 1 {
                            leave.send_replace(outcome.silence);
                        }
                    }
                    End::Fate(Fate::Dead(_)) => {
                        leave.send_replace(wanted);
                    }
                    End::Fate(Fate::Lived) | End::Left | End::NotOpened(_) => {}
                }
                outcomes.push((wanted, outcome));
            }
            _ = tick.tick() => {
                ask.tell(format_args!("idle: {} on, {} connections still silent", readable(start.elapsed()), set.len()));
            }
            () = stopped(enough) => {
                leave.send_replace(Duration::ZERO);
                // Each leaves at once, but for one that is asked just now.
                while let Some(joined) = set.join_next().await {
                    outcomes.extend(joined.ok());
                }
                break;
            }
        }
    }
    outcomes
}

fn told(outcome: &Outcome, ask: &Ask<'_>) {
    let silence = readable(outcome.silence);
    match &outcome.end {
        End::Fate(Fate::Lived) => ask.tell(format_args!("idle: alive after a silence of {silence}")),
        End::Fate(Fate::Told(how)) => {
            let age = readable(outcome.age);
            ask.tell(format_args!("idle: cut after a silence of {silence}, {age} old: {how}"));
        }
        End::Fate(Fate::Dead(how)) => ask.tell(format_args!("idle: dead after a silence of {silence}: {how}")),
        End::NotOpened(cause) => ask.tell(format_args!("idle: one connection could not be opened: {cause}")),
        End::Left => {}
    }
}

/// One connection: opened, left alone for a time, and then asked for a sign of life.
async fn silent(
    dialer: &Dialer,
    wanted: Duration,
    pongs: bool,
    within: Duration,
    mut leave: watch::Receiver<Duration>,
) -> Outcome {
    let wire = match Box::pin(dialer.open()).await {
        Ok((wire, _)) => wire,
        Err(error) => {
            let cause = error.to_string();
            let none = Duration::ZERO;
            return Outcome { silence: none, age: none, own: Own::default(), end: End::NotOpened(cause) };
        }
    };
    let mut talk = Talk::new(wire);
    let due = Instant::now() + wanted;
    let mut longest = Duration::ZERO;
    loop {
        let before = talk.wire.moved;
        tokio::select! {
            ended = talk.stir() => {
                if let Err(ending) = ended {
                    let silence = before.elapsed();
                    let fate = Fate::Told(ending.to_string());
                    return Outcome { silence, age: talk.age(), own: talk.own, end: End::Fate(fate) };
                }
                longest = longest.max(talk.wire.moved.duration_since(before));
            }
            () = leaving(&mut leave, wanted) => {
                let (age, own) = (talk.age(), talk.own.clone());
                timeout(within, talk.close(within)).await.ok();
                return Outcome { silence: longest, age, own, end: End::Left };
            }
            () = sleep_until(due) => break,
        }
    }
    let silence = longest.max(talk.wire.moved.elapsed());
    let fate = match asked(&mut talk, pongs, within).await {
        Ok(()) => Fate::Lived,
        Err(how) => Fate::Dead(how),
    };
    let (age, own) = (talk.age(), talk.own.clone());
    if fate == Fate::Lived && pongs {
        timeout(within, talk.close(within)).await.ok();
    }
    Outcome { silence, age, own, end: End::Fate(fate) }
}

/// Waits until silences as long as `wanted` are not needed any more. The lock of the value must not outlive the wait.
async fn leaving(leave: &mut watch::Receiver<Duration>, wanted: Duration) {
    if leave.wait_for(|bound| wanted > *bound).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A sign of life: a pong, or of a service that never pongs an answer to a close frame.
async fn asked(talk: &mut Talk, pongs: bool, within: Duration) -> Result<(), String> {
    if pongs {
        return match talk.round_trip(within).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(format!("no pong within {}", readable(within))),
            Err(ending) => Err(ending.to_string()),
        };
    }
    talk.wire.close().await.map_err(|ending| ending.to_string())?;
    match timeout(within, talk.ending()).await {
        Ok(Ending::Close { .. } | Ending::End) => Ok(()),
        Ok(ending @ (Ending::Reset | Ending::Broken(_))) => Err(ending.to_string()),
        Err(_) => Err(format!("no answer to a close frame within {}", readable(within))),
    }
}

/// Pings one connection `every` so often until told to stop.
fn accompany(
    dialer: &Rc<Dialer>,
    every: Duration,
    within: Duration,
) -> (watch::Sender<bool>, JoinSet<Option<Companion>>) {
    let (done, mut stop) = watch::channel(false);
    let dialer = Rc::clone(dialer);
    let mut set = JoinSet::new();
    set.spawn_local(async move {
        // Without it the limit is found all the same.
        let (wire, _) = Box::pin(dialer.open()).await.ok()?;
        let mut talk = Talk::new(wire);
        let ended = loop {
            if let Err(ending) = talk.wire.ping(b"probe").await {
                break Some(ending.to_string());
            }
            tokio::select! {
                watched = talk.watch(Instant::now() + every) => if let Err(ending) = watched {
                    break Some(ending.to_string());
                },
                () = stopped(&mut stop) => break None,
            }
        };
        let lived = talk.age();
        if ended.is_none() {
            timeout(within, talk.close(within)).await.ok();
        }
        Some(Companion { every, lived, ended })
    });
    (done, set)
}
