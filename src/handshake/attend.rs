//! The serving of one connection before it is a session: its deadlines, whose place it takes, and its end.
use super::{
    farewell,
    service::{Upgrade, Visit, peer_address},
    silent::{Part, SHED},
};
use crate::{
    metrics::HandshakeResult,
    session::{Opened, Opening},
    transport::Stream,
};
use http::StatusCode;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
};
use tokio::time::{Instant, sleep_until};

/// How the serving of a connection came to an end, or to a turn.
pub(super) enum Attended<T> {
    /// Who served it is done with it.
    Ended(T),
    /// A deadline was not kept.
    Late,
    /// It asks for nothing, and another needs its place.
    Shed,
    /// A plain request goes to a backend.
    Settled,
}

impl<T> Attended<T> {
    pub(super) fn map<U>(self, ended: impl FnOnce(T) -> U) -> Attended<U> {
        match self {
            Self::Ended(how) => Attended::Ended(ended(how)),
            Self::Late => Attended::Late,
            Self::Shed => Attended::Shed,
            Self::Settled => Attended::Settled,
        }
    }
}

/// Serves a connection by `poll` until that is done or a deadline passes, or its first plain request goes to a backend, if it is
/// to be handed over then. `leave`, if there is such, resolves when the connection is to end with the answer under way: then
/// `poll` is told so once.
pub(super) async fn attend<T>(
    visit: &Visit,
    part: &mut Part,
    hand_over: bool,
    leave: impl Future<Output = ()>,
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<T>,
) -> Attended<T> {
    let mut leave = pin!(leave);
    let mut left = hand_over;
    let mut alarm = pin!(sleep_until(visit.deadline().unwrap_or_else(Instant::now)));
    poll_fn(|cx| {
        let leaves = !left && leave.as_mut().poll(cx).is_ready();
        left |= leaves;
        if let Poll::Ready(ended) = poll(cx, leaves) {
            return Poll::Ready(Attended::Ended(ended));
        }
        if hand_over && visit.plain.settled() {
            return Poll::Ready(Attended::Settled);
        }
        // One that was handed over holds no place.
        if part.gives_way(&visit.edge.silent, hand_over && visit.asks_nothing(), cx) {
            return Poll::Ready(Attended::Shed);
        }
        let Some(deadline) = visit.deadline() else { return Poll::Pending };
        // The alarm of an earlier deadline stays: mostly all is over before it rings.
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if alarm.deadline() >= deadline {
                return Poll::Ready(Attended::Late);
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

/// How the serving of a connection ended.
pub(super) enum Ended {
    Well,
    /// The client was gone.
    Gone,
    Badly(hyper::Error),
}

impl From<hyper::Result<()>> for Ended {
    fn from(ended: hyper::Result<()>) -> Self {
        ended.map_or_else(Self::Badly, |()| Self::Well)
    }
}

/// What becomes of a connection that is served no longer; `early`: what came behind the last request. `None`: no session; what was refused was logged.
pub(super) async fn conclude(
    attended: Attended<Ended>,
    visit: &Visit,
    stream: Stream,
    early: Vec<u8>,
) -> Option<Opening> {
    match (attended, visit.take_upgrade()) {
        (Attended::Ended(Ended::Well), Some(upgrade)) => {
            upgrade.facts.meter.handshakes().accepted(upgrade.asked.elapsed());
            let Upgrade { upstream, deflate, facts, .. } = upgrade;
            return Some(Opening { downstream: Opened { stream, early }, upstream, deflate, facts });
        }
        (_, Some(upgrade)) => {
            drop(stream);
            upgrade.facts.meter.handshakes().count(HandshakeResult::ClientLeft);
            tracing::debug!("the client left between the backend's 101 and its own");
            Box::pin(farewell::to_backend(upgrade)).await;
        }
        (Attended::Ended(ended), None) => {
            match ended {
                Ended::Well => {}
                Ended::Gone => gone(visit),
                Ended::Badly(error) => explain(&error, visit),
            }
            Box::pin(take_leave(stream, visit)).await;
        }
        (Attended::Shed, None) if !visit.waits_for_head() => {
            tracing::debug!("its place was needed for a newer connection while it asked for nothing more");
        }
        (Attended::Shed, None) => {
            visit.record(HandshakeResult::HeadTimeout, None, SHED.into());
        }
        (Attended::Late | Attended::Settled, None) if visit.waits_for_head() => {
            let cause = "the request head was not complete within `timeouts.handshake`".into();
            visit.record(HandshakeResult::HeadTimeout, None, cause);
            Box::pin(take_leave(stream, visit)).await;
        }
        // Nothing was asked for a while.
        (Attended::Late, None) if visit.plain.idle() => Box::pin(take_leave(stream, visit)).await,
        // It has not taken its answer in time, so it will not take a farewell.
        (Attended::Late | Attended::Settled, None) => visit.plain.stalled(),
    }
    None
}

/// Ends a connection so that its client sees the answer, unless another needs its place sooner.
async fn take_leave(stream: Stream, visit: &Visit) {
    let farewell = farewell::to_client(stream);
    if visit.edge.silent.unless_asked(peer_address(&visit.peer), farewell).await.is_err() {
        tracing::debug!("its place was needed for a newer connection while its client took its leave");
    }
}

/// Logs that a client left.
fn gone(visit: &Visit) {
    if visit.busy() {
        visit.record(HandshakeResult::ClientLeft, None, "the client left before it was answered".into());
    } else {
        tracing::debug!("a connection ended without a request");
    }
}

/// Logs what hyper refused by itself.
fn explain(error: &hyper::Error, visit: &Visit) {
    if error.is_parse() && !visit.busy() {
        visit.forget();
    }
    let (result, status, cause) = if error.is_parse_too_large() {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let cause = "the request head is larger than `limits.header` or has over 100 headers".into();
        (HandshakeResult::HeadTooLarge, Some(status), cause)
    } else if error.is_parse_version_h2() {
        (HandshakeResult::NotHttp, None, "HTTP/2 is not spoken here; WebSockets need HTTP/1.1".into())
    } else if error.is_parse() {
        (HandshakeResult::NotHttp, Some(StatusCode::BAD_REQUEST), format!("not HTTP/1.1: {error}").into())
    } else if visit.plain.settled() {
        tracing::debug!(%error, "a connection of plain requests ended early");
        return;
    } else {
        tracing::debug!(%error, "a connection ended early");
        return gone(visit);
    };
    visit.record(result, status, cause);
}
