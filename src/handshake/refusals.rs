//! One log line for each refused handshake, repeated ones aggregated.
use http::StatusCode;
use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep_until},
};

/// How long like refusals are counted rather than logged, once one was logged.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds of refusals that are counted at a time; one more is logged each time.
const KINDS: usize = 256;

/// A refused handshake. No query strings and no credentials.
#[derive(Clone, Debug, Default)]
pub struct RefusedHandshake {
    /// What the client was answered; `None` where no answer could be given.
    pub status: Option<StatusCode>,
    /// Whether it was a plain HTTP request, and no handshake.
    pub plain: bool,
    pub cause: Cow<'static, str>,
    /// The client's address, as far as it is known.
    pub client: String,
    /// As the client named us.
    pub host: Option<String>,
    /// Without the query.
    pub path: Option<String>,
    /// The request's id.
    pub id: Option<Box<str>>,
    pub route: Option<String>,
    pub backend: Option<String>,
}

/// Refusals are of one kind if status and cause are the same.
type Kind = (Option<StatusCode>, Cow<'static, str>);

struct Count {
    since: Instant,
    repeated: u64,
}

/// The log of refused handshakes, shared by all workers. What is still counted when it is dropped is logged then.
#[derive(Default)]
pub struct Refusals {
    kinds: Mutex<HashMap<Kind, Count>>,
}

impl Refusals {
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Logs the refusal, or counts it if one of its kind was logged within ten seconds; the count is logged when these are
    /// over. To be called on a worker's runtime, as that waits for it.
    pub fn record(self: &Arc<Self>, refused: &RefusedHandshake) {
        let now = Instant::now();
        if self.count(refused, now) {
            tell(refused);
            let log = Arc::downgrade(self);
            // Ends by itself after `WINDOW`; a worker that ends sooner leaves the rest to the next record or the drop.
            spawn_local(async move {
                sleep_until(now + WINDOW).await;
                if let Some(log) = log.upgrade() {
                    log.close_windows(Instant::now());
                }
            });
        }
    }

    /// Whether the refusal is to be logged.
    fn count(&self, refused: &RefusedHandshake, now: Instant) -> bool {
        self.close_windows(now);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = (refused.status, refused.cause.clone());
        if let Some(count) = kinds.get_mut(&kind) {
            count.repeated += 1;
            return false;
        }
        if kinds.len() < KINDS {
            kinds.insert(kind, Count { since: now, repeated: 0 });
        }
        true
    }

    /// Logs what was counted in windows that are over, and forgets them.
    fn close_windows(&self, now: Instant) {
        let over: Vec<(Kind, Count)> = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            kinds.extract_if(|_, count| now >= count.since + WINDOW).collect()
        };
        over.iter().for_each(tell_count);
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        let kinds = self.kinds.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(kinds).into_iter().for_each(|counted| tell_count(&counted));
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

/// What the gateway or its backends answer for is a warning; what the client asked wrongly is news.
fn is_warning(status: Option<StatusCode>) -> bool {
    status.is_some_and(|status| status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS)
}

macro_rules! log {
    ($warning:expr, $($field:tt)*) => {
        if $warning { tracing::warn!($($field)*) } else { tracing::info!($($field)*) }
    };
}

fn tell(refused: &RefusedHandshake) {
    let what = if refused.plain { "request" } else { "handshake" };
    log!(
        is_warning(refused.status),
        status = refused.status.map(|status| status.as_u16()),
        cause = %refused.cause,
        client = %refused.client,
        host = refused.host.as_deref(),
        path = refused.path.as_deref(),
        id = refused.id.as_deref(),
        route = refused.route.as_deref(),
        backend = refused.backend.as_deref(),
        "{what} refused"
    );
}

fn tell_count(((status, cause), count): &(Kind, Count)) {
    if count.repeated > 0 {
        log!(
            is_warning(*status),
            status = status.map(|status| status.as_u16()),
            %cause,
            repeated = count.repeated,
            "handshakes refused {} times more within {} s", count.repeated, WINDOW.as_secs()
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;
    use tokio::{task::LocalSet, time::sleep};

    fn refused(status: u16, cause: &'static str) -> RefusedHandshake {
        RefusedHandshake {
            status: StatusCode::from_u16(status).ok(),
            cause: cause.into(),
            client: "192.0.2.1".into(),
            host: Some("gate.test".into()),
            path: Some("/chat".into()),
            ..RefusedHandshake::default()
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
        }

        fn subscribe(&self) -> tracing::subscriber::DefaultGuard {
            let lines = self.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || lines.clone())
                .without_time()
                .with_target(false)
                .with_ansi(false)
                .finish();
            tracing::subscriber::set_default(subscriber)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_refusals_are_one_line_and_a_count() {
        let lines = Lines::default();
        let _guard = lines.subscribe();
        let check = async {
            let refusals = Refusals::new();
            for _ in 0..3 {
                refusals.record(&refused(502, "connection refused"));
            }
            refusals.record(&refused(404, "no route"));
            assert_eq!(
                lines.take(),
                [
                    " WARN handshake refused status=502 cause=connection refused client=192.0.2.1 host=\"gate.test\" \
                     path=\"/chat\"",
                    " INFO handshake refused status=404 cause=no route client=192.0.2.1 host=\"gate.test\" path=\"/chat\"",
                ]
            );
            sleep(WINDOW + Duration::from_millis(1)).await;
            assert_eq!(
                lines.take(),
                [" WARN handshakes refused 2 times more within 10 s status=502 cause=connection refused repeated=2"]
            );
            refusals.record(&refused(502, "connection refused"));
            assert_eq!(lines.take().len(), 1, "a new window begins with a line");
        };
        LocalSet::new().run_until(check).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_is_logged_at_the_end() {
        let lines = Lines::default();
        let _guard = lines.subscribe();
        let check = async {
            let refusals = Refusals::new();
            refusals.record(&refused(502, "x"));
            refusals.record(&refused(502, "x"));
            assert_eq!(lines.take().len(), 1);
            drop(refusals);
            assert!(lines.take()[0].contains("refused 1 times more"));
        };
        LocalSet::new().run_until(check).await;
    }

    #[test]
    fn kinds_are_bounded() {
        let refusals = Refusals::new();
        let now = Instant::now();
        for kind in 0..2 * KINDS {
            let refused = RefusedHandshake { cause: kind.to_string().into(), ..RefusedHandshake::default() };
            assert!(refusals.count(&refused, now));
        }
        assert_eq!(refusals.kinds.lock().unwrap().len(), KINDS);
    }
}
