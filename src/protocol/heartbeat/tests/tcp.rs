//! Dead or only slow: what TCP tells of a leg whose deadline is due.
use super::*;

#[test]
fn a_blocked_leg_is_dead_when_nothing_in_flight_is_acknowledged() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { queued: 9000, in_flight: true, since_ack: Duration::from_secs(1), ..IDLE_PATH });
    rig.tick().unwrap();
    rig.path = Some(PathSample { since_ack: Duration::from_secs(11), ..rig.path.unwrap() });
    assert_eq!(rig.next(), 10.0);
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent));
}

#[test]
fn a_blocked_leg_that_acknowledges_is_kept() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { queued: 9000, in_flight: true, ..IDLE_PATH });
    rig.tick().unwrap();
    for acked in 1..50 {
        rig.path = Some(PathSample { acked: acked * 100, since_ack: Duration::from_secs(2), ..rig.path.unwrap() });
        assert_eq!(rig.tick(), Ok(()), "{acked}");
    }
}

#[test]
fn a_closed_window_is_slow_not_dead() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { queued: 9000, ..IDLE_PATH });
    rig.tick().unwrap();
    for _ in 0..7 {
        assert_eq!(rig.tick(), Ok(()));
    }
    assert_eq!(rig.heart.blocked(), Some(Duration::from_secs(60)), "for timeouts.stall to judge");
    let mut sent = Rig::new(CONFIG);
    sent.path = Some(PathSample { queued: 9000, ..IDLE_PATH });
    sent.ping();
    for _ in 0..7 {
        assert_eq!(sent.tick(), Ok(()), "the kernel took the ping, the window is closed");
    }
    assert_eq!(sent.heart.blocked(), Some(Duration::from_secs(60)));
}

#[test]
fn bytes_that_left_a_moment_ago_prove_nothing() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { since_ack: Duration::from_secs(300), ..IDLE_PATH });
    rig.tick().unwrap();
    rig.path = Some(PathSample { queued: 50, in_flight: true, since_ack: Duration::from_secs(310), ..IDLE_PATH });
    assert_eq!(rig.tick(), Ok(()));
    assert_eq!(rig.next(), 10.0, "they have a whole ping_timeout");
}

#[test]
fn a_peer_that_works_through_what_lay_before_the_ping_has_time() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { queued: 9014, in_flight: true, ..IDLE_PATH });
    rig.ping();
    for acked in 1..9 {
        let since_ack = Duration::from_secs(1);
        rig.path = Some(PathSample { acked: acked * 1000, since_ack, ..rig.path.unwrap() });
        rig.tick().unwrap();
        assert_eq!(rig.next(), 9.0, "{acked}: far more than three timeouts in all");
    }
    rig.path = Some(PathSample { acked: 9014, since_ack: Duration::from_secs(2), ..IDLE_PATH });
    rig.tick().unwrap();
    assert_eq!(rig.next(), 8.0, "it reached the ping two seconds ago");
    rig.path = Some(PathSample { since_ack: Duration::from_secs(10), ..rig.path.unwrap() });
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent));
}

#[test]
fn the_acknowledgement_of_the_ping_itself_is_no_life() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { queued: 14, in_flight: true, ..IDLE_PATH });
    rig.ping();
    rig.path = Some(PathSample { acked: 14, since_ack: Duration::from_secs(1), ..IDLE_PATH });
    rig.tick().unwrap();
    assert_eq!(rig.tick(), Err(Silent));
}

#[test]
fn acknowledgements_of_later_data_extend_to_three_timeouts() {
    let mut rig = Rig::new(CONFIG);
    rig.path = Some(PathSample { queued: 14, in_flight: true, ..IDLE_PATH });
    rig.ping();
    let left = rig.now;
    let mut acked = 14;
    let dead = loop {
        acked += 5000;
        rig.path = Some(PathSample { acked, queued: 5000, in_flight: true, since_ack: Duration::from_millis(10) });
        if rig.tick().is_err() {
            break rig.now - left;
        }
    };
    assert_eq!(dead, Duration::from_millis(30_002));
}
