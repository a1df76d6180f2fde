//! The one IO loop: reads, relays, writes, in numbered priorities, then trusts the clock.

use super::{
    Facts, Opened, Opening, WorkerContext,
    appetite::{Appetite, Bite},
    early::Early,
    monologue::Monologue,
    registry::{Heard, Membership, Order},
    timer::together,
};
use crate::{
    protocol::{
        heartbeat::{Answers, Seed},
        moment::Moment,
    },
    relay::{EndReason, Loss, PerSide, Relay, Side},
    transport::{Transport, fetch},
};
use std::{
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Instant,
};
use tokio::{
    task::{coop::has_budget_remaining, yield_now},
    time::Sleep,
};

/// A session that has moved this many control frames and fragments gives way too: they cost far more than their bytes.
pub(super) const TURN_OTHERS: u32 = 256;
/// Rounds of reads in one turn, however small.
const TURN_ROUNDS: usize = 8;

/// A relay and its transports; what drives it brings the timer.
pub(super) struct Session {
    pub(super) relay: Relay,
    pub(super) legs: PerSide<Leg>,
    /// What the timer is set for; it fires a little later, together with others.
    armed: Moment,
    /// The timer knows whom to wake.
    registered: bool,
    /// The worker's pauses seen so far.
    pauses: u32,
    /// What this session's outboxes have been counted as.
    counted: PerSide<u32>,
    pub(super) reported: bool,
    panicked: bool,
    pub(super) membership: Membership,
    /// The registry knows them too.
    pub(super) facts: Rc<Facts>,
    pub(super) context: Rc<WorkerContext>,
}

/// The shell's part of a leg.
pub(super) struct Leg {
    pub(super) transport: Option<Transport>,
    /// Bytes to be relayed first. Boxed: few sessions have any, and those not for long.
    pub(super) early: Option<Box<Early>>,
    pub(super) appetite: Appetite,
    pub(super) writing: Writing,
    pub(super) monologue: Monologue,
}

/// Whether a leg can be written. What failed once is not tried again: it would fail again, for ever.
#[derive(Clone, Copy)]
pub(super) enum Writing {
    Works,
    /// It failed like this; what was received before still counts.
    Failed(Loss),
    /// It failed, and the relay knows.
    Over,
}

impl Leg {
    fn new(opened: Opened) -> Self {
        Self {
            transport: Some(opened.stream.into()),
            early: Early::new(opened.early),
            appetite: Appetite::Modest,
            writing: Writing::Works,
            monologue: Monologue::default(),
        }
    }

    /// Whether it has nothing more to be read in this turn.
    #[inline]
    pub(super) fn drained(&mut self, cx: &mut Context<'_>) -> bool {
        self.early.is_none() && self.transport.as_mut().is_some_and(|transport| transport.drained(cx))
    }
}

/// The present, read once a turn, and what it is on the relay's clock.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) moment: Moment,
}

/// Whether something moved.
pub(super) type Progress = bool;

impl Session {
    pub(super) fn new(opening: Opening, context: Rc<WorkerContext>) -> Self {
        let now = Instant::now();
        let Opening { downstream, upstream, deflate, facts } = opening;
        facts.meter.began();
        let seed = || Seed { secret: rand::random(), jitter: rand::random() };
        let seeds = PerSide { downstream: seed(), upstream: seed() };
        let facts = Rc::new(facts);
        let relay = Relay::new(facts.route.options.relay.clone(), deflate, seeds, now);
        Self {
            legs: PerSide { downstream: Leg::new(downstream), upstream: Leg::new(upstream) },
            armed: Moment::START,
            registered: false,
            pauses: context.pause.observe(now),
            counted: PerSide::default(),
            reported: false,
            panicked: false,
            membership: context.registry.enter_session(Rc::clone(&facts), now),
            facts,
            relay,
            context,
        }
    }

    /// When it began.
    pub(super) fn started(&self) -> Instant {
        self.relay.started()
    }

    /// Takes the session as far as it goes now.
    pub(super) fn poll(&mut self, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        fetch(self);
        let instant = Instant::now();
        fetch(&*self.facts);
        for side in Side::BOTH {
            self.legs[side].transport.iter().for_each(Transport::fetch);
        }
        let now = Now { instant, moment: self.relay.moment(instant) };
        // 1. Orders, since they may end everything else.
        let Heard { order, asked, other_waker } = self.membership.listen(cx.waker());
        if other_waker {
            for side in Side::BOTH {
                self.legs[side].transport.iter_mut().for_each(Transport::forget_waker);
            }
        }
        if asked {
            self.tell_figures(instant);
        }
        if let Some(order) = order {
            self.obey(order, instant);
        }
        if self.relay.may_close_over_rate() {
            // Before what came meanwhile is read, and counted.
            self.observe_pauses(instant);
        }
        let mut dry = PerSide { downstream: false, upstream: false };
        let begun = self.received();
        let others = self.others();
        for round in 1.. {
            // 2. Bytes: what waits goes out, what arrived comes in.
            let mut progress = self.relay_once(&mut dry, cx, now);
            // What has been read dry has no more until the next turn, and what could be written is written.
            progress &= !(dry.downstream && dry.upstream);
            // 3. Failures, after what came before them has been read.
            progress |= self.lose_failed(!progress, instant);
            let over = round == TURN_ROUNDS
                || self.is_long(self.received() - begun, instant)
                || self.others().wrapping_sub(others) >= TURN_OTHERS;
            // Time does not wait for a peer that sends without a pause.
            if !progress || over {
                // 4. Time, after everything that arrived has been seen.
                progress |= self.check_time(now);
                // 5. The ends of transports, which come with that of the session.
                if self.relay.is_ending() {
                    progress |= self.fulfil(cx, instant);
                }
            }
            if !progress {
                break;
            }
            if over {
                give_way(cx);
                break;
            }
        }
        self.account();
        if self.relay.is_ending() && self.conclude() {
            return Poll::Ready(());
        }
        self.arm(timer, cx, now)
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
            Order::End { reason, code } => {
                if reason == EndReason::Draining {
                    self.facts.meter.told();
                }
                self.relay.end(reason, code, now);
            }
            Order::Terminate(parting) => self.relay.terminate(parting.code, parting.words.as_deref(), now),
            Order::Cut => {
                if !self.is_settled() {
                    self.facts.meter.cut();
                }
                self.relay.cut(EndReason::Draining, now);
            }
            Order::Configure => {
                if let Some(config) = self.context.routes.renewed(&self.facts.route.name, self.relay.config()) {
                    self.relay.configure(config, now);
                }
            }
        }
    }

    fn check_time(&mut self, now: Now) -> Progress {
        // The timer is never set later than the relay's deadline, so that most turns need not ask for it.
        if self.armed > now.moment {
            return false;
        }
        if self.account_due().is_some_and(|at| at <= now.instant) {
            self.give_account(now.instant);
        }
        if self.relay.next_due().is_none_or(|at| at > now.moment) {
            return false;
        }
        self.observe_pauses(now.instant);
        let answers = if self.facts.lease.backend().proven() { Answers::Proven } else { Answers::Unproven };
        let slowed = Side::BOTH.map(|side| self.relay.slowed(side));
        let legs = &self.legs;
        self.relay.on_timeout(now.instant, answers, |side| legs[side].transport.as_ref().and_then(Transport::sample));
        self.queue_up(now.instant);
        for (side, slowed) in Side::BOTH.into_iter().zip(slowed) {
            if slowed && !self.relay.slowed(side) {
                self.facts.meter.slowed(side);
            }
            self.tell_heartbeat(side);
        }
        true
    }

    /// Nobody is blamed for time in which the worker did not run.
    fn observe_pauses(&mut self, now: Instant) {
        let pauses = self.context.pause.observe(now);
        if std::mem::replace(&mut self.pauses, pauses) != pauses {
            self.relay.resume(now);
        }
    }

    /// Whether a turn that has moved so many bytes is long enough, so that one who is flooded does not hold up the worker.
    fn is_long(&self, moved: u64, now: Instant) -> bool {
        let leaves = || {
            let waiting = self.context.outboxes.load(Ordering::Relaxed);
            self.context.scratch.borrow().company.leaves(now, waiting)
        };
        moved >= Bite::SMALL.turn as u64 && moved >= leaves().turn as u64
    }

    /// Bytes that arrived on both legs so far.
    fn received(&self) -> u64 {
        self.relay.leg(Side::Downstream).received + self.relay.leg(Side::Upstream).received
    }

    /// Control frames and fragments that arrived on both legs so far, modulo 2^32.
    fn others(&self) -> u32 {
        let of = |side| self.relay.leg(side).scanner.tally().others();
        of(Side::Downstream).wrapping_add(of(Side::Upstream))
    }

    /// Keeps the worker's count of waiting bytes right.
    fn account(&mut self) {
        for side in Side::BOTH {
            let waiting = u32::try_from(self.relay.outbox(side).len()).unwrap_or(u32::MAX);
            if waiting != self.counted[side] {
                self.recount(side, waiting);
            }
        }
    }

    #[cold]
    fn recount(&mut self, side: Side, waiting: u32) {
        let (before, now) = (std::mem::replace(&mut self.counted[side], waiting).into(), waiting.into());
        self.facts.meter.waits(side, before, now);
        // One of the two is zero.
        self.context.outboxes.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        self.context.outboxes.fetch_sub(before.saturating_sub(now), Ordering::Relaxed);
    }

    /// Sets the timer if it would come too late; a deadline that has moved on is found when it fires.
    fn arm(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>, now: Now) -> Poll<()> {
        let account = self.account_due().map(|at| self.relay.moment(at));
        let due = match (self.relay.next_due(), account) {
            (Some(relay), Some(account)) => relay.min(account),
            (Some(due), None) | (None, Some(due)) => due,
            (None, None) => return Poll::Pending,
        };
        if due < self.armed || self.armed <= now.moment {
            self.armed = due;
            let at = together(self.relay.instant(due), now.instant, self.context.registry.len());
            timer.as_mut().reset(at.into());
            self.registered = false;
        }
        if !self.registered {
            // With its budget spent the runtime wakes us at once, and keeps no waker.
            self.registered = has_budget_remaining() && timer.as_mut().poll(cx).is_pending();
            if !self.registered {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

/// Wakes this task again after everyone else who is ready, and after the sockets have been asked who else is: a task that
/// just woke itself would have the runtime ask them only after some sixty more turns like this one.
fn give_way(cx: &mut Context<'_>) {
    // It is pending the first time, by its contract, and has then arranged for the waker.
    if pin!(yield_now()).poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for side in Side::BOTH {
            if self.counted[side] > 0 {
                self.recount(side, 0);
            }
        }
        self.facts.meter.left();
    }
}
