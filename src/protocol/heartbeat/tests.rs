#![allow(clippy::unwrap_used)]
use super::*;

mod tcp;

pub(super) const CONFIG: HeartbeatConfig = HeartbeatConfig {
    ping_interval: Some(Duration::from_secs(20)),
    ping_timeout: Some(Duration::from_secs(10)),
    jitter: 0.0,
    kind: HeartbeatKind::Ping,
    liveness: Liveness::Traffic,
    path_idle_limit: None,
};
const STRICT: HeartbeatConfig = HeartbeatConfig { liveness: Liveness::Pong, ..CONFIG };
const IDLE_PATH: PathSample = PathSample { acked: 0, queued: 0, in_flight: false, since_ack: Duration::ZERO };

/// A heartbeat on a virtual clock, whose transport takes a ping at once unless told otherwise.
pub(super) struct Rig {
    pub(super) config: HeartbeatConfig,
    pub(super) heart: Heartbeat,
    pub(super) now: Moment,
    pub(super) start: Moment,
    pub(super) path: Option<PathSample>,
    pub(super) answers: Answers,
    pub(super) written: u64,
}

impl Rig {
    pub(super) fn new(config: HeartbeatConfig) -> Self {
        let start = Moment::START;
        let heart = Heartbeat::new(&config, Seed { secret: 7, jitter: 3 }, start);
        Self { config, heart, now: start, start, path: None, answers: Answers::Proven, written: 0 }
    }

    /// Jumps to the next deadline and lets it do what is due.
    pub(super) fn tick(&mut self) -> Result<(), Silent> {
        self.now = self.heart.poll_timeout(&self.config).unwrap().max(self.now);
        let path = self.path;
        self.heart.on_timeout(&self.config, self.answers, self.now, || path)
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(super) fn queue(&mut self) -> [u8; PING_PAYLOAD] {
        assert!(self.heart.due(&self.config, self.now));
        self.written += 14;
        let end = self.written;
        self.heart.queue(|_| end)
    }

    /// An application's ping crosses, and the transport takes it.
    fn app_ping(&mut self) {
        self.written += 10;
        self.heart.on_app_ping(self.written, self.now);
        self.taken();
    }

    pub(super) fn taken(&mut self) {
        let path = self.path;
        self.heart.on_taken(&self.config, self.written, self.now, || path);
    }

    /// Lets the next ping leave, and gives its payload.
    pub(super) fn ping(&mut self) -> [u8; PING_PAYLOAD] {
        while !self.heart.due(&self.config, self.now) {
            self.tick().unwrap();
        }
        let payload = self.queue();
        self.taken();
        payload
    }

    pub(super) fn pong(&mut self, payload: &[u8]) -> bool {
        self.heart.on_bytes(&self.config, self.now);
        self.heart.on_pong(&self.config, payload, self.now)
    }

    /// Seconds until the next deadline.
    pub(super) fn next(&self) -> f64 {
        self.heart.poll_timeout(&self.config).unwrap().saturating_duration_since(self.now).as_secs_f64()
    }
}

#[test]
fn the_first_ping_comes_at_a_random_phase() {
    let phases: Vec<u64> = (0..100)
        .map(|jitter| {
            let start = Moment::START;
            let heart = Heartbeat::new(&CONFIG, Seed { secret: 0, jitter }, start);
            heart.poll_timeout(&CONFIG).unwrap().saturating_duration_since(start).as_secs()
        })
        .collect();
    assert!(phases.iter().all(|phase| *phase < 20));
    assert!((0..4).all(|quarter| phases.iter().any(|phase| phase / 5 == quarter)), "{phases:?}");
}

#[test]
fn the_next_ping_follows_the_settled_one_by_the_interval() {
    let mut rig = Rig::new(CONFIG);
    let payload = rig.ping();
    rig.wait(3);
    assert!(rig.pong(&payload));
    assert_eq!(rig.next(), 20.0);
    assert_eq!((rig.heart.sent(), rig.heart.answered()), (1, 1));
    assert_eq!(rig.heart.round_trip(), Some(Duration::from_secs(3)));
}

#[test]
fn jitter_moves_each_ping_by_its_share_at_most() {
    let mut rig = Rig::new(HeartbeatConfig { jitter: 0.1, ..CONFIG });
    let mut gaps = Vec::new();
    for _ in 0..50 {
        let payload = rig.ping();
        rig.pong(&payload);
        gaps.push(rig.next());
    }
    assert!(gaps.iter().all(|gap| (18.0..=22.0).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap < 19.0) && gaps.iter().any(|gap| *gap > 21.0), "{gaps:?}");
}

#[test]
fn the_deadline_runs_from_when_the_transport_took_the_ping() {
    let mut rig = Rig::new(CONFIG);
    rig.tick().unwrap();
    rig.queue();
    rig.wait(4);
    rig.taken();
    assert_eq!(rig.heart.take_event(), Some(HeartbeatEvent::Sent));
    assert_eq!(rig.next(), 10.0);
}

#[test]
fn a_silent_peer_is_found_in_time_and_after_a_last_look() {
    let mut rig = Rig::new(CONFIG);
    let payload = rig.ping();
    rig.pong(&payload);
    let last_sign = rig.now;
    rig.ping();
    rig.tick().unwrap();
    rig.heart.take_event();
    assert_eq!(rig.tick(), Err(Silent));
    assert_eq!(rig.heart.take_event(), Some(HeartbeatEvent::Missed));
    let took = rig.now - last_sign;
    assert!(took <= Duration::from_millis(30_010), "{took:?}");
}

#[test]
fn what_the_last_look_finds_counts() {
    let mut rig = Rig::new(CONFIG);
    rig.ping();
    rig.tick().unwrap();
    rig.heart.on_bytes(&CONFIG, rig.now);
    assert_eq!(rig.next(), 20.0);
}

#[test]
fn any_byte_after_the_ping_settles_it() {
    let mut rig = Rig::new(CONFIG);
    rig.ping();
    rig.wait(9);
    rig.heart.on_bytes(&CONFIG, rig.now);
    assert_eq!(rig.next(), 20.0);
}

#[test]
fn bytes_before_the_ping_left_do_not() {
    let mut rig = Rig::new(CONFIG);
    rig.tick().unwrap();
    rig.queue();
    rig.heart.on_bytes(&CONFIG, rig.now);
    rig.taken();
    assert_eq!(rig.next(), 10.0);
}

#[test]
fn strict_liveness_wants_the_pong() {
    let mut rig = Rig::new(STRICT);
    let payload = rig.ping();
    rig.heart.on_bytes(&STRICT, rig.now);
    assert_eq!(rig.next(), 10.0, "a byte is no answer");
    assert!(rig.pong(&payload));
    assert_eq!(rig.next(), 20.0);
    rig.ping();
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent));
}

#[test]
fn strict_liveness_does_not_take_an_earlier_pings_pong() {
    let mut rig = Rig::new(STRICT);
    let first = rig.ping();
    rig.heart.resume(rig.now);
    let second = rig.ping();
    rig.heart.take_event();
    assert!(rig.pong(&first), "ours: swallowed");
    assert_eq!(rig.heart.take_event(), Some(HeartbeatEvent::AnsweredLate));
    assert_eq!(rig.next(), 10.0);
    assert!(rig.pong(&second));
    assert_eq!(rig.next(), 20.0);
}

#[test]
fn an_unproven_peer_whose_tcp_acknowledges_is_kept() {
    let mut rig = Rig::new(CONFIG);
    rig.answers = Answers::Unproven;
    rig.path = Some(PathSample { queued: 14, ..IDLE_PATH });
    rig.ping();
    rig.heart.take_event();
    rig.path = Some(PathSample { acked: 14, ..IDLE_PATH });
    rig.tick().unwrap();
    assert_eq!(rig.heart.take_event(), Some(HeartbeatEvent::Unproven));
    assert_eq!(rig.next(), 10.0, "the interval runs from when its ping left");
}

#[test]
fn an_unproven_peer_whose_tcp_is_silent_is_not() {
    let mut rig = Rig::new(CONFIG);
    rig.answers = Answers::Unproven;
    rig.path = Some(PathSample { queued: 14, in_flight: true, ..IDLE_PATH });
    rig.ping();
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent));
    let mut rig = Rig::new(STRICT);
    rig.answers = Answers::Unproven;
    rig.ping();
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent), "strict means strict");
}

#[test]
fn ours_waits_for_the_answer_to_an_applications_ping() {
    let mut rig = Rig::new(CONFIG);
    rig.app_ping();
    let since = rig.now;
    rig.heart.on_timeout(&CONFIG, Answers::Proven, rig.now, || None).unwrap();
    rig.now = rig.heart.poll_timeout(&CONFIG).unwrap().max(rig.now);
    rig.heart.on_timeout(&CONFIG, Answers::Proven, rig.now, || None).unwrap();
    let held = rig.now < since + Duration::from_secs(10);
    assert_eq!(rig.heart.due(&CONFIG, rig.now), !held);
    rig.app_ping();
    assert!(!rig.heart.on_pong(&CONFIG, b"theirs", rig.now), "it crosses");
}

#[test]
fn an_applications_ping_that_left_is_the_question() {
    for path in [None, Some(IDLE_PATH)] {
        let mut rig = Rig::new(CONFIG);
        rig.path = path;
        rig.now = rig.heart.poll_timeout(&CONFIG).unwrap() - Duration::from_secs(1);
        rig.app_ping();
        rig.tick().unwrap();
        let due = rig.now;
        assert!(!rig.heart.due(&CONFIG, rig.now));
        rig.tick().unwrap();
        assert_eq!(rig.now, due + Duration::from_secs(9), "the patience with it is over");
        rig.ping();
        rig.tick().unwrap();
        assert_eq!(rig.now, due + Duration::from_secs(10), "as if ours had left when it was due");
        assert_eq!(rig.tick(), Err(Silent), "after a last look");
    }
}

#[test]
fn whatever_comes_answers_the_question_of_an_application() {
    let mut rig = Rig::new(CONFIG);
    rig.now = rig.heart.poll_timeout(&CONFIG).unwrap() - Duration::from_secs(1);
    rig.app_ping();
    rig.tick().unwrap();
    rig.wait(3);
    rig.heart.on_bytes(&CONFIG, rig.now);
    assert_eq!(rig.next(), 20.0, "no ping of ours is needed");
}

#[test]
fn an_unproven_backend_is_asked_by_us_after_an_application() {
    let mut rig = Rig::new(CONFIG);
    (rig.path, rig.answers) = (Some(IDLE_PATH), Answers::Unproven);
    rig.now = rig.heart.poll_timeout(&CONFIG).unwrap() - Duration::from_secs(1);
    rig.app_ping();
    rig.tick().unwrap();
    let due = rig.now;
    rig.tick().unwrap();
    rig.path = Some(PathSample { queued: 14, in_flight: true, since_ack: Duration::from_secs(1), ..IDLE_PATH });
    rig.ping();
    rig.tick().unwrap();
    assert_eq!(rig.now, due + Duration::from_secs(10));
    rig.tick().unwrap();
    assert_eq!(rig.now, due + Duration::from_secs(19), "a whole timeout for ours");
    assert_eq!(rig.tick(), Err(Silent), "its kernel never took ours");
}

#[test]
fn an_applications_pong_settles_ours() {
    let mut rig = Rig::new(STRICT);
    rig.ping();
    rig.wait(1);
    rig.app_ping();
    rig.wait(1);
    assert!(!rig.pong(b"the newest"), "the peer may answer only the newest ping");
    assert_eq!(rig.next(), 20.0);
}

#[test]
fn patience_with_an_applications_ping_ends() {
    for timeout in [Some(Duration::from_secs(10)), None] {
        for kind in [HeartbeatKind::Ping, HeartbeatKind::Pong] {
            let mut rig = Rig::new(HeartbeatConfig { ping_timeout: timeout, kind, ..CONFIG });
            rig.tick().unwrap();
            rig.app_ping();
            assert!(!rig.heart.due(&rig.config, rig.now));
            rig.tick().unwrap();
            assert!(rig.heart.due(&rig.config, rig.now), "{kind:?} {timeout:?}");
            assert!(rig.heart.poll_timeout(&rig.config).is_none_or(|at| at > rig.now), "the timer spins");
        }
    }
}

#[test]
fn a_leg_that_is_not_read_is_not_judged() {
    let mut rig = Rig::new(CONFIG);
    rig.ping();
    rig.wait(4);
    rig.heart.reading(false, rig.now);
    assert_eq!(rig.heart.poll_timeout(&CONFIG), None);
    rig.wait(100);
    rig.heart.reading(true, rig.now);
    assert_eq!(rig.next(), 6.0);
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent));
}

#[test]
fn a_ping_that_leaves_an_unread_leg_has_its_whole_timeout() {
    let mut rig = Rig::new(CONFIG);
    rig.heart.reading(false, rig.now);
    rig.ping();
    rig.wait(50);
    rig.heart.reading(true, rig.now);
    assert_eq!(rig.next(), 10.0);
}

#[test]
fn a_paused_gateway_asks_anew() {
    let mut rig = Rig::new(CONFIG);
    rig.ping();
    rig.wait(40);
    rig.heart.resume(rig.now);
    assert!(rig.heart.due(&CONFIG, rig.now), "a new ping");
    rig.ping();
    assert_eq!(rig.next(), 10.0, "and a full timeout");
}

#[test]
fn unsolicited_pongs_detect_nothing() {
    let mut rig = Rig::new(HeartbeatConfig { kind: HeartbeatKind::Pong, ..CONFIG });
    for _ in 0..10 {
        rig.ping();
        assert_eq!(rig.next(), 20.0);
    }
    assert_eq!((rig.heart.sent(), rig.heart.asked()), (10, None));
}

#[test]
fn without_a_timeout_pings_go_on_and_nobody_is_judged() {
    let mut rig = Rig::new(HeartbeatConfig { ping_timeout: None, ..CONFIG });
    rig.ping();
    rig.wait(2);
    let payload = rig.ping();
    rig.wait(2);
    assert!(rig.pong(&payload));
    assert_eq!(rig.heart.round_trip(), Some(Duration::from_secs(2)), "answers are still measured");
    rig.tick().unwrap();
    rig.queue();
    assert_eq!(rig.heart.poll_timeout(&rig.config), None, "a ping that cannot leave is nobody's silence");
}

#[test]
fn without_an_interval_there_is_no_heartbeat() {
    let rig = Rig::new(HeartbeatConfig { ping_interval: None, ..CONFIG });
    assert_eq!(rig.heart.poll_timeout(&rig.config), None);
    assert!(!rig.heart.due(&rig.config, rig.start + Duration::from_secs(1000)));
}

#[test]
fn late_pongs_of_ours_are_swallowed_and_others_pass() {
    let mut rig = Rig::new(CONFIG);
    let first = rig.ping();
    rig.heart.on_bytes(&CONFIG, rig.now);
    rig.ping();
    assert!(rig.heart.on_pong(&CONFIG, &first, rig.now));
    assert_eq!(rig.heart.round_trip(), None, "a late pong measures nothing");
    assert!(!rig.heart.on_pong(&CONFIG, b"", rig.now));
    let mut guessed = first;
    guessed[11] = 9;
    assert!(!rig.heart.on_pong(&CONFIG, &guessed, rig.now), "a number that was never sent");
    guessed = first;
    guessed[0] = 1;
    assert!(!rig.heart.on_pong(&CONFIG, &guessed, rig.now), "another secret");
}

#[test]
fn a_pong_proves_that_its_ping_left() {
    let mut rig = Rig::new(CONFIG);
    rig.tick().unwrap();
    let payload = rig.queue();
    assert!(rig.pong(&payload), "the transport has not said so");
    assert_eq!(rig.next(), 20.0);
    assert_eq!((rig.heart.sent(), rig.heart.answered()), (1, 1));
}

#[test]
fn a_closing_leg_knows_no_ping_but_counts_the_last() {
    let mut rig = Rig::new(CONFIG);
    rig.tick().unwrap();
    rig.queue();
    rig.heart.stop();
    assert_eq!(rig.heart.poll_timeout(&CONFIG), None);
    rig.taken();
    assert_eq!((rig.heart.sent(), rig.heart.waits_for_transport()), (1, false));
}
