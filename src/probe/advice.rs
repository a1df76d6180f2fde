//! Which `ping_interval` fits an idle limit, with the arithmetic.
use super::{IdleFindings, Pings, idle::Companion, plan::IdleLimit};
use std::time::Duration;

/// The gateway's default interval.
const DEFAULT: Duration = Duration::from_secs(20);
/// The gateway moves each ping by up to this share of its interval.
const JITTER: f64 = 0.1;
/// Intervals that people write, in seconds.
const USUAL: [u64; 25] =
    [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 45, 50, 60, 75, 90, 120, 150, 180, 240, 270, 300];

/// What a search for the idle limit comes to in `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The longest interval that fits; `None` where pings do not help, or nothing was found out.
    pub longest: Option<Duration>,
    /// What to write: the default where that fits.
    pub interval: Option<Duration>,
    /// The limit it was reckoned from.
    pub limit: Option<Duration>,
    /// Why, in sentences.
    pub because: Vec<String>,
}

/// The longest usual interval of which two, with jitter, fit into an idle limit: then one ping may be lost.
#[must_use]
pub fn longest_interval(limit: Duration) -> Duration {
    let most = (limit / 2).div_f64(1.0 + JITTER);
    let usual = USUAL.iter().rev().map(|seconds| Duration::from_secs(*seconds)).find(|usual| *usual <= most);
    usual.unwrap_or_else(|| Duration::from_millis(u64::try_from(most.as_millis() / 10 * 10).unwrap_or(u64::MAX).max(1)))
}

pub(super) fn advice(idle: &IdleFindings, pings: &Pings) -> Advice {
    let limit = match &idle.limit {
        IdleLimit::Cut { after, .. } => Some(*after),
        IdleLimit::Between { lived, dead, .. } => Some(if lived.is_zero() { *dead / 2 } else { *lived }),
        IdleLimit::Beyond { .. } | IdleLimit::Unknown => None,
    };
    let limit = limit.map(snapped);
    let mut because = Vec::new();
    let helpless = limit.zip(idle.companion.as_ref()).filter(|(limit, companion)| useless(*limit, companion));
    if let Some((limit, companion)) = helpless {
        because.push(format!(
            "a connection that was pinged every {} was cut after {} too: pings do not keep this open. Either every connection ends \
             at this age, or only messages count; look for a maximum age, or an idle timeout of the application",
            readable(companion.every),
            readable(companion.lived)
        ));
        return Advice { longest: None, interval: None, limit: Some(limit), because };
    }
    let (longest, interval) = match (limit, &idle.limit) {
        (Some(limit), _) => {
            let longest = longest_interval(limit);
            because.push(arithmetic(longest, limit));
            if longest >= DEFAULT {
                because.push(format!("the default of {} fits, so nothing needs to be set", readable(DEFAULT)));
            }
            (Some(longest), Some(longest.min(DEFAULT)))
        }
        (None, IdleLimit::Beyond { lived }) => {
            if let Some(silence) = idle.never_silent {
                because.push(format!(
                    "the service itself sends something at least every {}, which keeps the path open for as long as it does; \
                     longer silences could not be tried",
                    readable(silence)
                ));
            }
            because.push(format!(
                "no silence up to {} was cut on the path from here; keep the default of {}, as the paths of clients (mobile \
                 networks, home routers, company proxies) are often stricter",
                readable(*lived),
                readable(DEFAULT)
            ));
            (None, Some(DEFAULT))
        }
        (None, IdleLimit::Unknown | IdleLimit::Cut { .. } | IdleLimit::Between { .. }) => (None, None),
    };
    if pings.round_trips.is_empty() && pings.sent > 0 && interval.is_some() {
        because.push(
            "it never answers pings: they keep the path open, but whether it lives only TCP tells; as a backend write \
             heartbeat.upstream.ping_timeout = \"off\""
                .to_owned(),
        );
    }
    Advice { longest, interval, limit, because }
}

/// What was measured, or the whole second that was surely meant: limits are set in seconds.
fn snapped(limit: Duration) -> Duration {
    let (seconds, whole) = (limit.as_secs_f64(), limit.as_secs_f64().round());
    if whole >= 1.0 && (seconds - whole).abs() <= seconds / 50.0 { Duration::from_secs_f64(whole) } else { limit }
}

/// Whether the pinged connection ended as the silent ones did.
fn useless(limit: Duration, companion: &Companion) -> bool {
    companion.ended.is_some() && companion.lived <= limit.mul_f64(1.2) && companion.every < limit / 2
}

fn arithmetic(interval: Duration, limit: Duration) -> String {
    let late = interval.mul_f64(1.0 + JITTER);
    format!(
        "a ping every {} comes after {} at the latest (jitter of {:.0} %), twice that is {}, and the limit is {}: one ping may be \
         lost, and the next still comes in time",
        readable(interval),
        readable(late),
        JITTER * 100.0,
        readable(late * 2),
        readable(limit)
    )
}

/// Three digits that matter, in the unit that people use for it.
pub(super) fn readable(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_micros() {
        0..1_000 => format!("{} µs", duration.as_micros()),
        1_000..1_000_000 => format!("{:.1} ms", seconds * 1e3),
        1_000_000..120_000_000 => {
            let rounded = (seconds * 10.0).round() / 10.0;
            format!("{rounded} s")
        }
        _ => {
            let whole = duration.as_secs();
            if whole.is_multiple_of(60) {
                format!("{} min", whole / 60)
            } else {
                format!("{} min {} s", whole / 60, whole % 60)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn found(limit: IdleLimit, companion: Option<Companion>) -> IdleFindings {
        IdleFindings {
            limit,
            agreeing: 2,
            tried: 8,
            accidents: Vec::new(),
            never_silent: None,
            own: super::super::Own::default(),
            companion,
            not_opened: None,
            stopped: false,
        }
    }

    #[test]
    fn two_pings_with_jitter_fit_into_the_limit() {
        for (limit, interval) in [(60, 25), (100, 45), (350, 150), (30, 12), (55, 25), (44, 20), (10, 4), (4000, 300)] {
            assert_eq!(longest_interval(s(limit)), s(interval), "{limit}");
        }
        for millis in 10..5000 {
            let limit = Duration::from_millis(millis);
            assert!(
                longest_interval(limit).mul_f64(1.1) * 2 <= limit || limit < Duration::from_millis(22),
                "{limit:?}"
            );
        }
    }

    #[test]
    fn the_default_is_kept_where_it_fits() {
        let answered = Pings { sent: 1, round_trips: vec![s(1)] };
        let wide = advice(&found(IdleLimit::Cut { after: s(60), how: "FIN".into() }, None), &answered);
        assert_eq!((wide.longest, wide.interval), (Some(s(25)), Some(s(20))));
        let narrow = IdleLimit::Between { lived: s(28), dead: s(29), how: "no pong".into() };
        let narrow = advice(&found(narrow, None), &answered);
        assert_eq!((narrow.longest, narrow.interval, narrow.limit), (Some(s(12)), Some(s(12)), Some(s(28))));
        let measured = IdleLimit::Cut { after: Duration::from_millis(43_990), how: "FIN".into() };
        let measured = advice(&found(measured, None), &answered);
        assert_eq!((measured.longest, measured.limit), (Some(s(20)), Some(s(44))));
        let none = advice(&found(IdleLimit::Beyond { lived: s(600) }, None), &answered);
        assert_eq!((none.longest, none.interval), (None, Some(s(20))));
    }

    #[test]
    fn pings_that_do_not_help_are_not_recommended() {
        let companion = |lived, ended: Option<&str>| {
            Some(Companion { every: s(5), lived: s(lived), ended: ended.map(str::to_owned) })
        };
        let cut = || IdleLimit::Cut { after: s(60), how: "FIN".into() };
        let pings = Pings { sent: 1, round_trips: Vec::new() };
        let useless = advice(&found(cut(), companion(60, Some("FIN"))), &pings);
        assert_eq!((useless.interval, useless.because.len()), (None, 1));
        let helpful = advice(&found(cut(), companion(66, None)), &pings);
        assert_eq!(helpful.interval, Some(s(20)));
        assert!(helpful.because.iter().any(|why| why.contains("ping_timeout = \"off\"")));
    }

    #[test]
    fn durations_are_readable() {
        let shown: Vec<String> = [83, 1_234, 61_500_000, 60_000_000, 350_000_000, 600_000_000]
            .into_iter()
            .map(|micros| readable(Duration::from_micros(micros)))
            .collect();
        assert_eq!(shown, ["83 µs", "1.2 ms", "61.5 s", "60 s", "5 min 50 s", "10 min"]);
    }
}
