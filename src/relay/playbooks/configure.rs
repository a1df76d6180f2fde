//! New settings while a session runs.
use super::*;

const SECOND: Duration = Duration::from_secs(1);

impl Play {
    /// The route's settings change.
    pub(super) fn configure(&mut self, change: impl FnOnce(&mut RelayConfig)) -> &mut Self {
        self.script.push("> configured".to_owned());
        let mut newer = (**self.relay.config()).clone();
        change(&mut newer);
        let renewed = self.relay.config().renewed(&Arc::new(newer));
        self.relay.configure(renewed, self.now);
        self.after();
        self
    }
}

#[test]
fn pings_begin_when_they_are_switched_on() {
    let mut play = Play::new(config());
    play.pass(3600).sees(&[]).configure(|config| config.heartbeat.upstream = PINGS).sees(&[]);
    play.pass(20).sees(&["upstream: our ping"]);
    play.configure(|config| config.heartbeat.upstream = QUIET).pass(3600).sees(&[]);
}

#[test]
fn a_limit_counts_from_the_next_header() {
    let mut play = Play::new(config());
    play.frame(CLIENT, TEXT, b"longer than six").sees(&["upstream: text longer than six"]);
    play.configure(|config| config.limits.downstream.frame = Some(6));
    play.frame(CLIENT, TEXT, b"sixsix").sees(&["upstream: text sixsix"]);
    play.frame(CLIENT, TEXT, b"longer than six").sees(&[
        "client: close 1009 frame over the limit",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
}

#[test]
fn what_the_peers_have_seen_stays() {
    let mut play = Play::new(config());
    play.frame(CLIENT, TEXT_BEGINS, b"\xc3").sees(&["upstream: text \u{fffd}…"]);
    play.configure(|config| (config.utf8, config.pings, config.pace) = (Utf8::Pass, Pings::Answer, None));
    assert_eq!((play.relay.config().utf8, play.relay.config().pace), (Utf8::Check, None));
    play.frame(CLIENT, PING, b"end to end").sees(&["upstream: ping end to end"]);
    play.frame(CLIENT, ENDS, b"\xff").sees(&[
        "client: close 1007 text message is not UTF-8",
        "upstream: close 1001 client protocol error",
        "client: ShutDown",
    ]);
}

#[test]
fn an_idle_session_has_a_tenth_of_a_shorter_limit_left() {
    let mut play = Play::new(RelayConfig {
        timeouts: RelayTimeouts { idle: Some(3600 * SECOND), ..config().timeouts },
        ..config()
    });
    play.pass(1000).configure(|config| config.timeouts.idle = Some(100 * SECOND)).sees(&[]);
    let left = play.relay.poll_timeout().unwrap() - play.now;
    assert!(left <= 10 * SECOND, "{left:?}");
    play.pass(10).sees(&["client: close 1001 idle timeout", "upstream: close 1001 idle timeout"]);
}

#[test]
fn idleness_counts_from_the_change_where_it_was_not_kept_before() {
    let mut play = Play::new(config());
    play.pass(1000).configure(|config| config.timeouts.idle = Some(100 * SECOND));
    assert_eq!(play.relay.poll_timeout().unwrap() - play.now, 100 * SECOND);
    play.configure(|config| config.timeouts.idle = None);
    assert_eq!(play.relay.poll_timeout(), None);
}

#[test]
fn an_old_session_does_not_end_at_once_by_a_new_age_limit_and_a_young_one_keeps_its_share() {
    let aged = |age| RelayConfig { timeouts: RelayTimeouts { max_age: age, ..config().timeouts }, ..config() };
    let limit = |play: &Play| play.relay.poll_timeout().unwrap();
    let mut old = Play::new(aged(None));
    old.pass(5000).configure(|config| config.timeouts.max_age = Some(1000 * SECOND)).sees(&[]);
    let left = limit(&old) - old.now;
    assert!(left <= 100 * SECOND, "{left:?}");
    let mut young = Play::new(aged(Some(1000 * SECOND)));
    let (start, first) = (young.now, limit(&young));
    young.pass(10).configure(|config| config.timeouts.max_age = Some(2000 * SECOND));
    let (once, twice) = (first - start, limit(&young) - start);
    assert!(twice.abs_diff(once * 2) < Duration::from_millis(1), "{once:?} {twice:?}");
}

#[test]
fn a_slow_receiver_has_a_whole_window_after_the_change() {
    let mut play = Play::new(config());
    play.room(CLIENT, 0).frame(UPSTREAM, BINARY, &[0; 1000]).pass(50);
    play.configure(|config| config.timeouts.stall = Some(20 * SECOND)).pass(19).sees(&[]);
    play.pass(1);
    assert!(!play.seen.is_empty(), "it is stalled");
}

#[test]
fn a_session_that_ends_keeps_its_settings() {
    let mut play = Play::new(config());
    play.order(EndReason::Terminated, None);
    let before = Arc::clone(play.relay.config());
    play.configure(|config| config.timeouts.close = SECOND);
    assert!(Arc::ptr_eq(&before, play.relay.config()));
}

#[test]
fn settings_that_differ_in_nothing_a_session_takes_over_are_shared() {
    let old = config();
    let newer = Arc::new(RelayConfig { pace: None, ..config() });
    assert!(Arc::ptr_eq(&old.renewed(&newer), &newer));
}
