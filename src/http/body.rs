//! Bodies on their way through the gateway: passed on piece by piece, counted, and never waited for without an end.
use super::{
    ledger::{Due, Ledger, RequestResult},
    pool::Giving,
};
use crate::upstream::RequestLease;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the client left before its request was complete")]
    ClientLeft,
    #[error("the client sent its request slower than `limits.pace` over `timeouts.stall`")]
    ClientStalled,
    #[error("the backend ended its answer early")]
    BackendBroke,
    #[error("the backend said nothing for `timeouts.response`")]
    BackendSilent,
}

/// How far a request's body is, for whoever waits for the answer.
#[derive(Debug)]
pub(crate) struct Upload {
    step: Cell<Step>,
    failed: Cell<Option<BodyError>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The client is waited for.
    Waits,
    /// A piece was passed on at that time, or all of it was.
    Passed(Instant),
}

impl Upload {
    pub(crate) fn step(&self) -> Step {
        self.step.get()
    }

    pub(crate) fn failed(&self) -> Option<BodyError> {
        self.failed.get()
    }
}

/// A client that sends: it may be slow, but for `timeouts.stall` of waiting it owes `limits.pace` bytes a second.
#[derive(Debug)]
struct Pace {
    stall: Option<Duration>,
    /// Bytes owed for `stall`.
    owed: u64,
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(stall: Option<Duration>, pace: Option<u64>) -> Self {
        let owed = pace.unwrap_or(0).saturating_mul(stall.map_or(0, |stall| stall.as_secs())).max(1);
        Self { stall, owed, bytes: 0, waited: Duration::ZERO, since: None, alarm: None }
    }

    fn came(&mut self, bytes: u64, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now - since;
        }
        self.bytes += bytes;
        if self.bytes >= self.owed {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
    }

    /// Ready once the client is stalled.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stall) = self.stall else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(Instant::now);
        let due = since + stall.saturating_sub(self.waited);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if alarm.deadline() != due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut().poll(cx)
    }
}

/// A client's body on its way to a backend.
#[derive(Debug)]
pub(crate) struct RequestBody {
    /// `None`: there is none.
    inner: Option<Incoming>,
    upload: Rc<Upload>,
    pace: Pace,
    ledger: Rc<Ledger>,
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, stall: Option<Duration>, pace: Option<u64>, ledger: Rc<Ledger>) -> Self {
        let upload = Upload { step: Cell::new(Step::Passed(Instant::now())), failed: Cell::default() };
        let inner = (!inner.is_end_stream()).then_some(inner);
        Self { inner, upload: Rc::new(upload), pace: Pace::new(stall, pace), ledger }
    }

    pub(crate) fn upload(&self) -> Rc<Upload> {
        Rc::clone(&self.upload)
    }

    fn fail(&self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.upload.failed.set(Some(error));
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let (now, bytes) = (Instant::now(), frame.data_ref().map_or(0, Bytes::len));
                this.ledger.received(bytes);
                this.pace.came(bytes as u64, now);
                this.upload.step.set(Step::Passed(now));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => this.fail(BodyError::ClientLeft),
            Poll::Ready(None) => {
                this.upload.step.set(Step::Passed(Instant::now()));
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.upload.step.set(Step::Waits);
                match this.pace.poll_stalled(cx) {
                    Poll::Ready(()) => this.fail(BodyError::ClientStalled),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// How long each side may keep an answer waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// For the backend's next piece.
    pub(crate) response: Option<Duration>,
    /// For the client to take one.
    pub(crate) stall: Option<Duration>,
    /// For the client's next request.
    pub(crate) keep_alive: Duration,
}

impl Waits {
    /// Until when a client has to take what was just written.
    pub(crate) fn taken(&self) -> Option<Instant> {
        self.stall.map(|stall| Instant::now() + stall)
    }

    /// Until when a client has to take the end of an answer, and to ask again.
    pub(crate) fn asked(&self) -> Option<Instant> {
        Some(Instant::now() + self.keep_alive.max(self.stall.unwrap_or_default()))
    }
}

/// A backend's body on its way to the client. Dropping it early ends the connection to the backend.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    inner: Incoming,
    waits: Waits,
    due: Rc<Due>,
    /// While the backend is waited for.
    silence: Option<Pin<Box<Sleep>>>,
    silent: bool,
    ledger: Rc<Ledger>,
    ended: bool,
    giving: Giving,
    #[expect(dead_code, reason = "held for its drop")]
    lease: RequestLease,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        waits: Waits,
        due: Rc<Due>,
        ledger: Rc<Ledger>,
        lease: RequestLease,
        giving: Giving,
    ) -> Self {
        due.set(waits.taken());
        Self { inner, waits, due, silence: None, silent: false, ledger, ended: false, giving, lease }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.waits.response else { return Poll::Pending };
        let alarm = self.silence.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        if !self.silent {
            self.silent = true;
            alarm.as_mut().reset(Instant::now() + limit);
        }
        alarm.as_mut().poll(cx)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.ledger.sent(frame.data_ref().map_or(0, Bytes::len));
                this.due.set(this.waits.taken());
                this.silent = false;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                this.ledger.ends(RequestResult::BackendBroke);
                Poll::Ready(Some(Err(BodyError::BackendBroke)))
            }
            Poll::Ready(None) => {
                this.ended = true;
                Poll::Ready(None)
            }
            Poll::Pending => {
                this.due.set(None);
                match this.poll_silence(cx) {
                    Poll::Ready(()) => {
                        this.ledger.ends(RequestResult::BackendTimeout);
                        Poll::Ready(Some(Err(BodyError::BackendSilent)))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body of a known length, or none, is not asked for its end.
        if self.ended || self.inner.is_end_stream() {
            self.ledger.ends(RequestResult::Answered);
            self.due.set(self.waits.asked());
            self.giving.end();
        }
    }
}
