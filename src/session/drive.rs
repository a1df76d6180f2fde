//! The one IO loop: reads, relays, writes, in numbered priorities, then trusts the clock.

use super::{Facts, Opened, Opening, WorkerContext, registry::Membership, registry::Order, verdict::Verdict};
use crate::{
    protocol::heartbeat::{Answers, HeartbeatEvent, Seed},
    relay::{EndReason, Loss, PerSide, Relay, Side, Wish},
    transport::Transport,
};
use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// What a read asks for at most, unless the last one was taken whole: so an outbox stays near it.
const CALM_READ: usize = 64 * 1024;
/// Room before a chunk for the bytes held back from the one before: the longest control frame less one byte.
const HELD: usize = 2 + 4 + 125;
/// Reads of both sides in one turn, so that one busy session does not hold up its worker.
const TURN: usize = 4;

/// A relay, its transports, and one timer.
pub(super) struct Session {
    relay: Relay,
    legs: PerSide<Leg>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to.
    armed: Instant,
    /// The timer knows whom to wake.
    registered: bool,
    /// The worker's pauses seen so far.
    pauses: u32,
    /// What this session's outboxes have been counted as.
    counted: u64,
    started: Instant,
    reported: bool,
    panicked: bool,
    membership: Membership,
    facts: Box<Facts>,
    context: Rc<WorkerContext>,
}

/// The shell's part of a leg.
struct Leg {
    transport: Option<Transport>,
    /// Bytes that came with the handshake, to be relayed first.
    early: Vec<u8>,
    /// The last read filled its room and was taken whole: the next may use all of the scratch.
    eager: bool,
    writing: Writing,
}

/// Whether a leg can be written. What failed once is not tried again: it would fail again, for ever.
#[derive(Clone, Copy)]
enum Writing {
    Works,
    /// It failed like this; what was received before still counts.
    Failed(Loss),
    /// It failed, and the relay knows.
    Over,
}

impl Leg {
    fn new(opened: Opened) -> Self {
        Self { transport: Some(opened.stream.into()), early: opened.early, eager: false, writing: Writing::Works }
    }
}

/// Whether something moved.
type Progress = bool;

impl Session {
    pub(super) fn new(opening: Opening, context: Rc<WorkerContext>) -> Self {
        let now = Instant::now();
        let Opening { downstream, upstream, deflate, facts } = opening;
        let seed = || Seed { secret: rand::random(), jitter: rand::random() };
        let seeds = PerSide { downstream: seed(), upstream: seed() };
        let relay = Relay::new(facts.route.options.relay.clone(), deflate, seeds, now);
        let armed = relay.poll_timeout().unwrap_or(now);
        Self {
            legs: PerSide { downstream: Leg::new(downstream), upstream: Leg::new(upstream) },
            timer: Box::pin(tokio::time::sleep_until(armed.into())),
            armed,
            registered: false,
            pauses: context.pause.observe(now),
            counted: 0,
            started: now,
            reported: false,
            panicked: false,
            membership: context.registry.enter(),
            facts: Box::new(facts),
            relay,
            context,
        }
    }

    /// Takes the session as far as it goes now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        // 1. Orders, since they may end everything else.
        self.membership.listen(cx.waker());
        if let Some(order) = self.membership.take_order() {
            self.obey(order, now);
        }
        for turn in 1.. {
            // 2. Bytes: what waits goes out, what arrived comes in.
            let mut progress = self.relay_once(cx, now);
            // 3. Failures, after what came before them has been read.
            progress |= self.lose_failed(!progress, now);
            // Time does not wait for a peer that sends without a pause.
            if !progress || turn == TURN {
                // 4. Time, after everything that arrived has been seen.
                progress |= self.check_time(now);
                // 5. The ends of transports.
                for side in Side::BOTH {
                    progress |= self.fulfil(side, cx, now);
                }
            }
            if !progress {
                break;
            }
            if turn == TURN {
                // Others have their turn; ours comes again.
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.account();
        if !self.reported && self.relay.is_ending() {
            self.report();
        }
        if self.relay.is_done() {
            return Poll::Ready(());
        }
        self.arm(cx, now)
    }

    /// The session itself went wrong: it ends as `internal`; the second time, at once.
    pub(super) fn give_up(&mut self) {
        let now = Instant::now();
        tracing::error!(session = %self.facts.id, "a session panicked; this is a bug of the gateway, please report it");
        if std::mem::replace(&mut self.panicked, true) {
            self.relay.cut(EndReason::Internal, now);
            if !self.reported {
                self.report();
            }
        } else {
            self.relay.end(EndReason::Internal, None, now);
        }
    }

    fn obey(&mut self, order: Order, now: Instant) {
        match order {
            Order::End { reason, code } => self.relay.end(reason, code, now),
            Order::Cut => self.relay.cut(EndReason::Draining, now),
        }
    }

    /// One round: what waits goes out, what arrived comes in, our own control frames follow.
    fn relay_once(&mut self, cx: &mut Context<'_>, now: Instant) -> Progress {
        let mut progress = false;
        for side in Side::BOTH {
            progress |= self.write_waiting(side, cx, now);
        }
        self.send_controls(cx, now);
        for side in Side::BOTH {
            if self.relay.wants_read(side) {
                progress |= self.read(side, cx, now);
            }
        }
        progress
    }

    fn read(&mut self, side: Side, cx: &mut Context<'_>, now: Instant) -> Progress {
        let context = Rc::clone(&self.context);
        let mut scratch = context.scratch.borrow_mut();
        let super::Scratch { chunk, cipher } = &mut *scratch;
        let leg = &mut self.legs[side];
        if !leg.early.is_empty() {
            let early = std::mem::take(&mut leg.early);
            let taken = early.len().min(chunk.len() - HELD);
            chunk[HELD..HELD + taken].copy_from_slice(&early[..taken]);
            self.legs[side].early = early[taken..].to_vec();
            self.relay_chunk(side, chunk, taken, cx, now);
            return true;
        }
        let Some(transport) = &mut leg.transport else { return false };
        let most = if leg.eager { chunk.len() - HELD } else { CALM_READ };
        match transport.poll_read(cx, &mut chunk[HELD..HELD + most], cipher) {
            Poll::Pending => false,
            Poll::Ready(Ok(0)) => {
                self.relay.lost(side, Loss::End, now);
                true
            }
            Poll::Ready(Ok(length)) => {
                self.relay_chunk(side, chunk, length, cx, now);
                self.legs[side].eager = length == most && self.relay.outbox(side.other()).is_empty();
                true
            }
            Poll::Ready(Err(error)) => {
                self.relay.lost(side, loss(&error), now);
                true
            }
        }
    }

    /// Relays `length` bytes that stand at `HELD` in `chunk`.
    fn relay_chunk(&mut self, side: Side, chunk: &mut [u8], length: usize, cx: &mut Context<'_>, now: Instant) {
        let held = self.relay.held(side);
        let mut at = HELD - held;
        if held > 0 {
            self.relay.take_held(side, &mut chunk[at..HELD]);
        }
        self.relay.arrived(side, length, now);
        let end = HELD + length;
        while at < end {
            let step = self.relay.receive(side, &chunk[at..end], now);
            if !step.pass.is_empty() {
                self.send(side.other(), &chunk[at + step.pass.start..at + step.pass.end], cx, now);
            }
            at += step.used;
            self.send_controls(cx, now);
        }
        self.tell_heartbeat(side);
    }

    fn send_controls(&mut self, cx: &mut Context<'_>, now: Instant) {
        for side in Side::BOTH {
            while let Some(frame) = self.relay.take_control(side, now, rand::random) {
                self.send(side, frame.bytes(), cx, now);
            }
        }
    }

    /// Sends bytes: straight from where they are, as far as the transport takes them; the rest waits.
    fn send(&mut self, side: Side, bytes: &[u8], cx: &mut Context<'_>, now: Instant) {
        if !matches!(self.legs[side].writing, Writing::Works) {
            return;
        }
        let mut rest = bytes;
        if self.relay.outbox(side).is_empty() {
            while !rest.is_empty() {
                let Some(transport) = &mut self.legs[side].transport else { return };
                match transport.poll_write(cx, rest) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(taken)) => {
                        self.relay.sent(side, taken);
                        rest = &rest[taken..];
                    }
                    Poll::Ready(Err(error)) => return self.fail(side, &error, now),
                }
            }
        }
        if !rest.is_empty() {
            self.relay.queue(side, rest, now);
        }
        self.note_taken(side, now);
    }

    fn write_waiting(&mut self, side: Side, cx: &mut Context<'_>, now: Instant) -> Progress {
        let mut progress = false;
        if !matches!(self.legs[side].writing, Writing::Works) {
            return progress;
        }
        while !self.relay.outbox(side).is_empty() {
            let Some(transport) = &mut self.legs[side].transport else { return progress };
            match transport.poll_write(cx, self.relay.outbox(side).waiting()) {
                Poll::Pending => break,
                Poll::Ready(Ok(taken)) => {
                    self.relay.took(side, taken, now);
                    progress = true;
                }
                Poll::Ready(Err(error)) => {
                    self.fail(side, &error, now);
                    return true;
                }
            }
        }
        let Some(transport) = &mut self.legs[side].transport else { return progress };
        if transport.holds_back()
            && let Poll::Ready(Err(error)) = transport.poll_flush(cx)
        {
            self.fail(side, &error, now);
            return true;
        }
        self.note_taken(side, now);
        progress
    }

    /// Tells the relay what the transport has taken, if it waits to know.
    fn note_taken(&mut self, side: Side, now: Instant) {
        if !self.relay.waits_for_transport(side) {
            return;
        }
        let Some(transport) = &self.legs[side].transport else { return };
        if !transport.holds_back() {
            self.relay.on_taken(side, now, || transport.sample());
            self.tell_heartbeat(side);
        }
    }

    /// Writing failed. What the peer sent before is still read, for a close frame may be among it.
    fn fail(&mut self, side: Side, error: &io::Error, now: Instant) {
        self.legs[side].writing = Writing::Failed(loss(error));
        self.relay.unwritable(side, now);
    }

    /// `drained`: nothing is left to be read just now.
    fn lose_failed(&mut self, drained: bool, now: Instant) -> Progress {
        let mut progress = false;
        for side in Side::BOTH {
            if let Writing::Failed(loss) = self.legs[side].writing
                && (drained || !self.relay.wants_read(side))
            {
                self.legs[side].writing = Writing::Over;
                self.relay.lost(side, loss, now);
                progress = true;
            }
        }
        progress
    }

    fn check_time(&mut self, now: Instant) -> Progress {
        if self.relay.poll_timeout().is_none_or(|at| at > now) {
            return false;
        }
        let pauses = self.context.pause.observe(now);
        if std::mem::replace(&mut self.pauses, pauses) != pauses {
            self.relay.resume(now);
        }
        let answers = if self.facts.lease.backend().proven() { Answers::Proven } else { Answers::Unproven };
        let legs = &self.legs;
        self.relay.on_timeout(now, answers, |side| legs[side].transport.as_ref().and_then(Transport::sample));
        for side in Side::BOTH {
            self.tell_heartbeat(side);
        }
        true
    }

    #[inline]
    fn tell_heartbeat(&mut self, side: Side) {
        if let Some(event) = self.relay.take_event(side) {
            self.heartbeat_event(side, event);
        }
    }

    #[cold]
    fn heartbeat_event(&mut self, side: Side, event: HeartbeatEvent) {
        let backend = self.facts.lease.backend();
        match (side, event) {
            (Side::Upstream, HeartbeatEvent::Answered { .. }) => backend.prove(),
            (Side::Upstream, HeartbeatEvent::Unproven) => {
                if backend.warn_once() {
                    tracing::warn!(
                        backend = %backend.name,
                        upstream = %backend.upstream,
                        session = %self.facts.id,
                        "the backend does not answer pings: its sessions are kept as long as its TCP acknowledges, so a \
                         frozen one is not noticed; heartbeat.upstream.liveness = \"pong\" would end them, \
                         heartbeat.upstream.kind = \"pong\" asks for no answer"
                    );
                }
            }
            (Side::Upstream, HeartbeatEvent::Sent) | (Side::Downstream, _) => {}
        }
        if let Some(observer) = &self.context.heartbeat {
            observer(&self.facts.id, side, event);
        }
    }

    fn fulfil(&mut self, side: Side, cx: &mut Context<'_>, now: Instant) -> Progress {
        match self.relay.wish(side) {
            Wish::Keep => return false,
            Wish::ShutDown => {
                let Some(transport) = &mut self.legs[side].transport else { return false };
                // A transport that cannot be shut down is gone: reading it says so.
                if transport.poll_shutdown(cx).is_pending() {
                    return false;
                }
                self.relay.shut_down(side, now);
            }
            Wish::Drop => {
                if let Some(transport) = self.legs[side].transport.take() {
                    transport.close(cx);
                }
                self.relay.finished(side);
            }
            Wish::Reset => {
                if let Some(transport) = self.legs[side].transport.take() {
                    transport.reset();
                }
                self.relay.finished(side);
            }
        }
        true
    }

    /// Keeps the worker's count of waiting bytes right.
    fn account(&mut self) {
        let waiting: u64 = Side::BOTH.into_iter().map(|side| self.relay.outbox(side).len() as u64).sum();
        if waiting != self.counted {
            // One of the two is zero.
            self.context.outboxes.fetch_add(waiting.saturating_sub(self.counted), Ordering::Relaxed);
            self.context.outboxes.fetch_sub(self.counted.saturating_sub(waiting), Ordering::Relaxed);
            self.counted = waiting;
        }
    }

    fn report(&mut self) {
        let Some(outcome) = self.relay.outcome() else { return };
        self.reported = true;
        let backend = self.facts.lease.backend();
        let heartbeat = &self.relay.leg(Side::Upstream).heartbeat;
        let right_after = |asked: Instant| outcome.at.saturating_duration_since(asked) < Duration::from_secs(1);
        if outcome.first == Some(Side::Upstream)
            && !backend.proven()
            && heartbeat.sent() == 1
            && heartbeat.asked().is_some_and(right_after)
        {
            tracing::warn!(
                backend = %backend.name,
                session = %self.facts.id,
                "the backend ended the session right after its first ping; if it cannot bear pings, set \
                 heartbeat.upstream.ping_interval = \"off\""
            );
        }
        (self.context.report)(Verdict::of(&self.facts, &self.relay, outcome, self.started.elapsed()));
    }

    /// Sets the timer if it would come too late; a deadline that has moved on is found when it fires.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(due) = self.relay.poll_timeout() else { return Poll::Pending };
        if due < self.armed || self.armed <= now {
            self.armed = due;
            self.timer.as_mut().reset(due.into());
            self.registered = false;
        }
        if !self.registered {
            self.registered = self.timer.as_mut().poll(cx).is_pending();
            if !self.registered {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.context.outboxes.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// What a transport's error means for the session.
fn loss(error: &io::Error) -> Loss {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut, UnexpectedEof};
    let kind = error.kind();
    if matches!(kind, TimedOut | HostUnreachable | NetworkUnreachable) {
        Loss::TimedOut
    } else if kind == UnexpectedEof {
        Loss::End
    } else {
        Loss::Failed
    }
}
