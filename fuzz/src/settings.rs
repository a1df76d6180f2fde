//! Settings of a session as the fuzzer draws them: any that the configuration allows, with short times.
use crate::{
    protocol::{
        close::CloseCode,
        heartbeat::{HeartbeatConfig, HeartbeatKind, Liveness, PathSample},
        rate::Rate,
    },
    relay::{CloseCodes, EndReason, Farewell, MessageLimits, OverRate, PerSide, Pings, RelayConfig, RelayTimeouts, Side, Utf8},
};
use arbitrary::{Result, Unstructured};
use std::{num::NonZeroU64, time::Duration};

/// # Errors
/// If the input is used up.
pub fn relay(u: &mut Unstructured<'_>) -> Result<RelayConfig> {
    Ok(RelayConfig {
        heartbeat: PerSide { downstream: heartbeat(u)?, upstream: heartbeat(u)? },
        pings: if u.arbitrary()? { Pings::Forward } else { Pings::Answer },
        utf8: if u.arbitrary()? { Utf8::Check } else { Utf8::Pass },
        timeouts: RelayTimeouts {
            close: seconds(u)?,
            stall: maybe(u, seconds)?,
            idle: maybe(u, seconds)?,
            max_age: maybe(u, seconds)?,
        },
        limits: PerSide { downstream: limits(u)?, upstream: limits(u)? },
        pace: maybe(u, |u| u.int_in_range(1..=1000u64))?,
        close_codes: close_codes(u)?,
    })
}

/// # Errors
/// If the input is used up.
pub fn heartbeat(u: &mut Unstructured<'_>) -> Result<HeartbeatConfig> {
    Ok(HeartbeatConfig {
        ping_interval: maybe(u, seconds)?,
        ping_timeout: maybe(u, seconds)?,
        jitter: f64::from(u.int_in_range(0..=5u8)?) / 10.0,
        kind: if u.ratio(3, 4)? { HeartbeatKind::Ping } else { HeartbeatKind::Pong },
        liveness: if u.ratio(3, 4)? { Liveness::Traffic } else { Liveness::Pong },
        path_idle_limit: None,
    })
}

/// What TCP says of a path, if there is a TCP to ask.
///
/// # Errors
/// If the input is used up.
pub fn path(u: &mut Unstructured<'_>) -> Result<Option<PathSample>> {
    maybe(u, |u| {
        Ok(PathSample {
            acked: u64::from(u.arbitrary::<u16>()?),
            queued: u64::from(u.arbitrary::<u16>()?),
            in_flight: u.arbitrary()?,
            since_ack: millis(u)?,
        })
    })
}

/// Up to about a minute, mostly short.
///
/// # Errors
/// If the input is used up.
pub fn millis(u: &mut Unstructured<'_>) -> Result<Duration> {
    let exact = u64::from(u.arbitrary::<u16>()?);
    Ok(Duration::from_millis(exact >> u.int_in_range(0..=15)?))
}

fn seconds(u: &mut Unstructured<'_>) -> Result<Duration> {
    Ok(Duration::from_secs(u.int_in_range(1..=20)?))
}

fn maybe<T>(u: &mut Unstructured<'_>, draw: impl FnOnce(&mut Unstructured<'_>) -> Result<T>) -> Result<Option<T>> {
    if u.ratio(3, 4)? { draw(u).map(Some) } else { Ok(None) }
}

fn limits(u: &mut Unstructured<'_>) -> Result<MessageLimits> {
    let limit = |u: &mut Unstructured<'_>| u.int_in_range(1..=4000);
    let rate = |u: &mut Unstructured<'_>| Ok(Rate(u.int_in_range(1..=5000)?.try_into().unwrap_or(NonZeroU64::MIN)));
    let rarely = |u: &mut Unstructured<'_>| if u.ratio(1, 8)? { rate(u).map(Some) } else { Ok(None) };
    Ok(MessageLimits {
        message: maybe(u, limit)?,
        frame: maybe(u, limit)?,
        fragments: if u.ratio(1, 4)? { Some(u.int_in_range(1..=20)?) } else { None },
        messages_per_second: rarely(u)?,
        bytes_per_second: rarely(u)?,
        over_rate: *u.choose(&[OverRate::Slow, OverRate::Close])?,
    })
}

fn close_codes(u: &mut Unstructured<'_>) -> Result<CloseCodes> {
    let mut codes = CloseCodes::default();
    for _ in 0..u.int_in_range(0..=2)? {
        let reason = *u.choose(&EndReason::ALL)?;
        let side = *u.choose(&Side::BOTH)?;
        let farewell = if u.arbitrary()? { CloseCode::new(4000).map(Farewell::Code) } else { Some(Farewell::Cut) };
        codes.0.entry(reason).or_default()[side] = farewell;
    }
    Ok(codes)
}
