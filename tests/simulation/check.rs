//! What must hold: which ends are earned, how long silence may go unnoticed, what the peers saw in the end.
use crate::{
    codec,
    peer::{Condition, Ending, Peer},
    scenario::{Answering, Farewell, Fate, Micros, Reading, S, Scenario},
    world::World,
};
use pulsegate::{
    protocol::{
        heartbeat::{Answers, HeartbeatKind, Liveness},
        leg::{Input, Output},
    },
    relay::{EndReason, Farewell as Told, Outcome, PerSide, RelayConfig, Side},
};

/// Within which time after its fate a silent side must end the session: where nothing hinders, and at all.
pub(crate) fn bounds(scenario: &Scenario, side: Side) -> Option<(Micros, Micros)> {
    let heartbeat = &scenario.config.heartbeat[side];
    let (interval, timeout) = (heartbeat.ping_interval?, heartbeat.ping_timeout?);
    let strict = heartbeat.liveness == Liveness::Pong;
    let judged = side == Side::Downstream || scenario.answers == Answers::Proven || strict;
    let silent = match scenario.peers[side].fate {
        Fate::Vanishes | Fate::TimesOut(_) => true,
        Fate::Freezes => judged,
        Fate::Lives | Fate::Closes(_) | Fate::Fin | Fate::Rst | Fate::Deaf(_) | Fate::Trickles | Fate::Violates(_) => {
            false
        }
    };
    if !silent || heartbeat.kind == HeartbeatKind::Pong {
        return None;
    }
    let path = &scenario.paths[side];
    let interval = interval.mul_f64(1.0 + heartbeat.jitter).as_micros() as Micros;
    let timeout = timeout.as_micros() as Micros;
    let slack = 2 * (path.latency + path.jitter) + S;
    let stall = scenario.config.timeouts.stall.unwrap_or_default().as_micros() as Micros;
    let other = &scenario.peers[side.other()];
    let mut straight = interval + timeout + slack;
    if !judged {
        // The kernel took one ping and vanished before the next, which goes out when the first is given up.
        straight = interval.max(timeout) + timeout + slack;
    }
    if (other.talk.is_some() || other.pings.is_some()) && scenario.peers[side].fate == Fate::Freezes {
        straight += 2 * timeout;
    }
    Some((straight, interval + 6 * timeout + 4 * stall + 20 * S))
}

/// Whether this side gave cause for the reason.
fn earned(world: &World, reason: EndReason, side: Side) -> bool {
    let (scenario, peer) = (&world.scenario, &world.peers[side]);
    let plan = &scenario.peers[side];
    let fate = if peer.fated { plan.fate } else { Fate::Lives };
    let dead = matches!(fate, Fate::Vanishes | Fate::TimesOut(_) | Fate::Freezes | Fate::Deaf(_));
    match reason {
        EndReason::ClientClosed | EndReason::UpstreamClosed => matches!(fate, Fate::Closes(_)),
        EndReason::ClientGone | EndReason::UpstreamGone => matches!(fate, Fate::Fin | Fate::Rst),
        EndReason::ClientViolation | EndReason::UpstreamViolation => matches!(fate, Fate::Violates(_)),
        EndReason::ClientStalled | EndReason::UpstreamStalled => {
            dead || matches!(fate, Fate::Trickles | Fate::Violates(_))
        }
        EndReason::ClientUnresponsive | EndReason::UpstreamUnresponsive => {
            let heartbeat = &scenario.config.heartbeat[side];
            let strict = heartbeat.liveness == Liveness::Pong;
            let judged = side == Side::Downstream || scenario.answers == Answers::Proven || strict;
            let busy = scenario.peers.downstream.talk.is_some() || scenario.peers.upstream.talk.is_some();
            let mute = peer.plan.answering == Answering::Never && judged;
            let slow_to_prove = strict && (busy || plan.reading != Reading::Promptly);
            heartbeat.ping_timeout.is_some() && heartbeat.kind == HeartbeatKind::Ping && (dead || mute || slow_to_prove)
                || matches!(fate, Fate::TimesOut(_))
        }
        EndReason::Idle
        | EndReason::MaxAge
        | EndReason::Draining
        | EndReason::Policy
        | EndReason::Terminated
        | EndReason::Internal => false,
    }
}

/// The session may have ended for this reason, and blames the right side.
pub(crate) fn reason(world: &World, outcome: Outcome) -> Result<(), String> {
    let timeouts = &world.scenario.config.timeouts;
    let ended = world.ended_at.unwrap_or(0);
    let fair = match outcome.reason {
        EndReason::Draining => world.drained || world.cut,
        EndReason::Idle => timeouts.idle.is_some_and(|idle| ended >= idle.as_micros() as Micros),
        EndReason::MaxAge => timeouts.max_age.is_some_and(|age| ended >= age.mul_f64(0.9).as_micros() as Micros),
        EndReason::Policy | EndReason::Terminated | EndReason::Internal => false,
        EndReason::ClientClosed
        | EndReason::UpstreamClosed
        | EndReason::ClientGone
        | EndReason::UpstreamGone
        | EndReason::ClientUnresponsive
        | EndReason::UpstreamUnresponsive
        | EndReason::ClientViolation
        | EndReason::UpstreamViolation
        | EndReason::ClientStalled
        | EndReason::UpstreamStalled => {
            let Some(side) = outcome.first else { return Err(format!("{outcome:?} blames nobody")) };
            outcome.reason.label().starts_with(side.label()) && earned(world, outcome.reason, side)
        }
    };
    if fair { Ok(()) } else { Err(format!("{outcome:?} for no cause")) }
}

/// The codes that a peer may be told by the gateway itself, as the operator wants it.
fn told(config: &RelayConfig, reason: EndReason, side: Side) -> Vec<u16> {
    let gone = match reason {
        EndReason::ClientGone => side == Side::Downstream,
        EndReason::UpstreamGone => side == Side::Upstream,
        _ => false,
    };
    match config.close_codes.0.get(&reason).and_then(|set| set[side]).filter(|_| !gone) {
        Some(Told::Code(code)) => vec![code.get()],
        Some(Told::Cut) => Vec::new(),
        None => told_by_default(reason, side).to_vec(),
    }
}

fn told_by_default(reason: EndReason, side: Side) -> &'static [u16] {
    const VIOLATION: &[u16] = &[1002, 1007, 1009];
    let PerSide { downstream, upstream }: PerSide<&[u16]> = match reason {
        EndReason::ClientClosed | EndReason::UpstreamClosed => PerSide { downstream: &[], upstream: &[] },
        EndReason::ClientGone => PerSide { downstream: &[], upstream: &[1001] },
        EndReason::UpstreamGone => PerSide { downstream: &[1012], upstream: &[] },
        EndReason::ClientUnresponsive => PerSide { downstream: &[1001], upstream: &[1001] },
        EndReason::UpstreamUnresponsive => PerSide { downstream: &[1012], upstream: &[1011] },
        EndReason::ClientViolation => PerSide { downstream: VIOLATION, upstream: &[1001] },
        EndReason::UpstreamViolation => PerSide { downstream: &[1011], upstream: VIOLATION },
        EndReason::ClientStalled => PerSide { downstream: &[1013], upstream: &[1001] },
        EndReason::UpstreamStalled => PerSide { downstream: &[1013], upstream: &[] },
        EndReason::MaxAge => PerSide { downstream: &[1012], upstream: &[1001] },
        EndReason::Policy => PerSide { downstream: &[1008], upstream: &[1001] },
        EndReason::Idle | EndReason::Draining | EndReason::Terminated => {
            PerSide { downstream: &[1001], upstream: &[1001] }
        }
        EndReason::Internal => PerSide { downstream: &[1011], upstream: &[1011] },
    };
    match side {
        Side::Downstream => downstream,
        Side::Upstream => upstream,
    }
}

/// What a peer read as its farewell is what the table says, or the other peer's words untouched.
fn farewell(config: &RelayConfig, reason: EndReason, peer: &Peer, other: &Peer) -> Result<(), String> {
    let Some(frame) = &peer.close_received else { return Ok(()) };
    let untouched = other.close_sent.as_ref().is_some_and(|sent| sent.raw == frame.raw);
    let code = codec::code(&frame.payload);
    let echoed = peer.close_sent.as_ref().is_some_and(|sent| codec::code(&sent.payload) == code);
    let fair = match reason {
        EndReason::ClientClosed if peer.side == Side::Downstream => untouched || echoed,
        EndReason::UpstreamClosed if peer.side == Side::Upstream => untouched || echoed,
        EndReason::ClientClosed | EndReason::UpstreamClosed => untouched,
        reason => told(config, reason, peer.side).contains(&code),
    };
    if fair { Ok(()) } else { Err(format!("{:?}: told {code} when {reason:?}", peer.side)) }
}

/// Data messages in what was read from a peer, up to its close frame.
fn messages(read: &[u8]) -> u64 {
    let (mut at, mut count) = (0, 0);
    while let Ok(Some(frame)) = codec::decode(&read[at..]) {
        at += frame.raw.len();
        match frame.opcode {
            codec::CLOSE => break,
            codec::PING | codec::PONG => {}
            _ => count += u64::from(frame.fin),
        }
    }
    count
}

pub(crate) fn at_the_end(world: &World, codes: PerSide<(Option<u16>, Option<u16>)>) -> Result<(), String> {
    let Some(outcome) = world.outcome else { return Err("over without an outcome".to_owned()) };
    for side in Side::BOTH {
        let (leg, peer, other) = (world.relay.leg(side), &world.peers[side], &world.peers[side.other()]);
        farewell(&world.scenario.config, outcome.reason, peer, other)?;
        let (received, sent) = codes[side];
        let said = peer.close_sent.as_ref().map(|frame| codec::code(&frame.payload));
        if received.is_some() && received != said {
            return Err(format!("{side:?}: received {received:?}, the peer sent {said:?}"));
        }
        let heard = peer.close_received.as_ref().map(|frame| codec::code(&frame.payload));
        let alive = peer.condition != Condition::Vanished
            && peer.condition != Condition::Frozen
            && peer.saw_end == Some(Ending::Fin)
            && !(peer.fated && matches!(peer.plan.fate, Fate::Deaf(_) | Fate::Rst))
            && peer.plan.farewell != Farewell::Resets;
        if heard != sent && (alive || heard.is_some()) {
            return Err(format!("{side:?}: {sent:?} was sent, the peer heard {heard:?}"));
        }
        if leg.received != world.read[side].len() as u64 {
            return Err(format!("{side:?}: {} bytes counted, {} read", leg.received, world.read[side].len()));
        }
        let counted = leg.scanner.messages();
        let there = messages(&world.read[side]);
        if counted > there || (!world.deaf[side] && leg.input != Input::Ended && counted != there) {
            return Err(format!("{side:?}: {counted} messages counted, {there} read"));
        }
        let (pings, pongs) = (leg.heartbeat.sent(), leg.heartbeat.answered());
        let cut = u32::from(peer.saw_end == Some(Ending::Rst));
        if peer.own_pings_seen > pings + cut || pongs > peer.own_pongs_sent || (alive && peer.own_pings_seen != pings) {
            return Err(format!(
                "{side:?}: counted {pings} pings, {pongs} pongs; the peer saw {}, sent {}",
                peer.own_pings_seen, peer.own_pongs_sent
            ));
        }
        if leg.output == Output::Open {
            return Err(format!("{side:?}: over, and never told"));
        }
    }
    Ok(())
}
