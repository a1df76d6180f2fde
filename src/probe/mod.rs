//! `pulsegate probe`: what is on the path to a WebSocket service, what keeps it alive, and what cuts it.
//!
//! A probe needs no gateway and no configuration: it is a client that opens a WebSocket, asks a few questions, and
//! leaves with a close frame. A search for the idle limit leaves several connections in silence, each for a different time.
mod advice;
mod idle;
mod open;
mod plan;
mod report;
mod secure;
mod talk;
mod target;
#[cfg(test)]
mod tests;
mod wire;

pub use advice::{Advice, longest_interval};
pub use idle::{Companion, IdleFindings};
pub use open::{OpenFailure, Opened};
pub use plan::IdleLimit;
pub use secure::{TlsFacts, Trust, TrustError};
pub use talk::{Closing, Own, Pings};
pub use target::{Target, TargetError};
pub use wire::Ending;

use advice::readable;
use http::{HeaderName, HeaderValue};
use open::Dialer;
use std::{fmt, rc::Rc, time::Duration};
use talk::Talk;
use tokio::{sync::watch, time::Instant};

/// What to ask, and how patiently.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Headers of the request besides those of the handshake; `Host` replaces the usual one.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub subprotocols: Vec<HeaderValue>,
    pub origin: Option<HeaderValue>,
    pub trust: Trust,
    /// How many pings are sent, and the time from one to the next.
    pub count: u32,
    pub every: Duration,
    /// How long the service's own pings are waited for, from the 101 on.
    pub watch: Duration,
    /// What each step may take.
    pub within: Duration,
    /// The longest silence to try; `None`: no search for the idle limit.
    pub idle: Option<Duration>,
    /// How often a search says that it goes on.
    pub tick: Duration,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        Self {
            headers: Vec::new(),
            subprotocols: Vec::new(),
            origin: None,
            trust: Trust::default(),
            count: 10,
            every: SECOND / 5,
            watch: 25 * SECOND,
            within: 10 * SECOND,
            idle: None,
            tick: 30 * SECOND,
        }
    }
}

/// What a probe found; its `Display` is a summary for people, [`Findings::json`] one for programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    pub target: String,
    pub opened: Opened,
    pub pings: Pings,
    pub own: Own,
    /// How and when the service ended the connection of its own accord.
    pub left: Option<(Duration, Ending)>,
    /// How it answered our close frame.
    pub closing: Option<Closing>,
    pub idle: Option<(IdleFindings, Advice)>,
}

/// How questions are asked: patience, and whom to tell of progress.
struct Ask<'a> {
    within: Duration,
    tick: Duration,
    progress: &'a dyn Fn(fmt::Arguments<'_>),
}

impl Ask<'_> {
    fn tell(&self, line: fmt::Arguments<'_>) {
        (self.progress)(line);
    }
}

/// Probes a service, and tells `progress` of each step. Ends early, with what is known, when `enough` becomes true. Needs a
/// local runtime.
///
/// # Errors
/// No WebSocket could be opened.
pub async fn probe(
    target: &Target,
    options: &ProbeOptions,
    progress: &dyn Fn(fmt::Arguments<'_>),
    mut enough: watch::Receiver<bool>,
) -> Result<Findings, OpenFailure> {
    let ask = Ask { within: options.within, tick: options.tick, progress };
    let dialer = Rc::new(Dialer::new(target, options)?);
    ask.tell(format_args!("opening {target}"));
    let (wire, opened) = Box::pin(dialer.open()).await?;
    ask.tell(format_args!("open: 101 after {}", readable(opened.handshake)));
    let mut findings = talk(Talk::new(wire), target.to_string(), opened, options, &ask, &mut enough).await;
    if let Some(limit) = options.idle
        && !*enough.borrow()
    {
        let pongs = !findings.pings.round_trips.is_empty();
        let idle = Box::pin(idle::search(&dialer, limit, pongs, &ask, &mut enough)).await;
        let advice = advice::advice(&idle, &findings.pings);
        findings.idle = Some((idle, advice));
    }
    Ok(findings)
}

/// Pings, watches, and closes one connection.
async fn talk(
    mut talk: Talk,
    target: String,
    opened: Opened,
    options: &ProbeOptions,
    ask: &Ask<'_>,
    enough: &mut watch::Receiver<bool>,
) -> Findings {
    let mut left = tokio::select! {
        ended = talk.ping(options.count, options.every, options.within) => ended.err(),
        () = stopped(enough) => None,
    };
    let pings = talk.pings.clone();
    ask.tell(format_args!("pings: {} of {} answered", pings.round_trips.len(), pings.sent));
    // A search for the idle limit watches anyway, and sees the service's pings longer.
    let watched = if options.idle.is_some() { Duration::ZERO } else { options.watch.saturating_sub(talk.age()) };
    if left.is_none() && !watched.is_zero() && !*enough.borrow() {
        ask.tell(format_args!("listening for its own pings for {} more (Ctrl-C: enough)", readable(watched)));
        tokio::select! {
            ended = talk.watch(Instant::now() + watched) => left = ended.err(),
            () = stopped(enough) => {}
        }
    }
    talk.own.watched = talk.age();
    let own = talk.own.clone();
    let left = left.map(|ending| (talk.age(), ending));
    let closing = match left {
        Some(_) => None,
        None => {
            ask.tell(format_args!("closing"));
            Some(talk.close(options.within).await)
        }
    };
    Findings { target, opened, pings, own, left, closing, idle: None }
}

/// Waits until it is enough; for ever, if nobody can say so any more.
async fn stopped(enough: &mut watch::Receiver<bool>) {
    if enough.wait_for(|enough| *enough).await.is_err() {
        std::future::pending::<()>().await;
    }
}
