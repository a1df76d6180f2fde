//! How a relay ends: the first cause is the reason, each leg is told, each transport is finished.

use super::{EndReason, PerSide, Relay, Side, end_reason::Tell, turn::ClientTurn};
use crate::protocol::{
    Role,
    close::{CloseCode, CloseFrame, SpokenFrame},
    leg::{Finish, Input, Output},
    moment::Moment,
    violation::Violation,
};
use std::time::{Duration, Instant};

/// Why and when a relay began to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) reason: EndReason,
    first: Option<Side>,
    violation: Option<Violation>,
    pub(super) at: Moment,
    /// From when a leg that cannot be told anything has `timeouts.close`: `at`, or the end of the gateway's own pause.
    pub(super) patient_from: Moment,
    pub(super) turn: ClientTurn,
}

impl Ending {
    pub(super) fn by_gateway(reason: EndReason, at: Moment) -> Self {
        Self { reason, first: None, violation: None, at, patient_from: at, turn: ClientTurn::Free }
    }

    fn by_side(side: Side, client: EndReason, upstream: EndReason, at: Moment) -> Self {
        let reason = match side {
            Side::Downstream => client,
            Side::Upstream => upstream,
        };
        Self { first: Some(side), ..Self::by_gateway(reason, at) }
    }

    pub(super) fn by_violation(side: Side, violation: Violation, at: Moment) -> Self {
        let ending = if violation.breaks_a_rate() {
            Self { first: Some(side), ..Self::by_gateway(EndReason::Policy, at) }
        } else {
            Self::by_side(side, EndReason::ClientViolation, EndReason::UpstreamViolation, at)
        };
        Self { violation: Some(violation), ..ending }
    }
}

/// How a transport was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its peer ended the stream.
    End,
    /// It failed: reset, broken pipe, a TLS error.
    Failed,
    /// TCP gave the peer up (ETIMEDOUT, EHOSTUNREACH, ENETUNREACH).
    TimedOut,
}

/// How a session ended, as far as the relay knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub reason: EndReason,
    /// The side that caused it; `None`: the gateway.
    pub first: Option<Side>,
    pub violation: Option<Violation>,
    /// When the end began, on the relay's clock.
    pub at: Moment,
    /// Time since the last byte of each peer, when the end began.
    pub silence: PerSide<Duration>,
    /// How long the client waited for its turn to be told, from when the end began.
    pub told_after: Option<Duration>,
}

/// What a leg's transport is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Keep,
    /// Send close_notify and shut down writing, once what waits has gone; then call `shut_down`.
    ShutDown,
    /// Close the descriptor, then call `finished`.
    Drop,
    /// Reset the connection (RST), then call `finished`.
    Reset,
}

impl Relay {
    /// Ends the session for a reason of our own; `code` is what the client is told where its route sets none
    /// (`close_codes`). A session that ends already keeps its first reason.
    pub fn end(&mut self, reason: EndReason, code: Option<CloseCode>, now: Instant) {
        let now = self.clock.moment(now);
        self.take_turn(now);
        self.end_with(Ending::by_gateway(reason, now), code, now);
    }

    /// Ends the session as an operator says: `code`, which goes before what its route sets, and `words` for the client, as far
    /// as they are given. A session that ends already keeps its first reason.
    pub fn terminate(&mut self, code: Option<CloseCode>, words: Option<&str>, now: Instant) {
        let now = self.clock.moment(now);
        if self.ending.is_some() {
            return;
        }
        let reason = EndReason::Terminated;
        self.ending = Some(Box::new(Ending::by_gateway(reason, now)));
        let own = if let (Some(code), Tell::Close(frame)) = (code, reason.tell(Side::Downstream)) {
            Tell::Close(CloseFrame { code: Some(code), ..frame })
        } else {
            self.config.close_codes.tell(reason, Side::Downstream)
        };
        if let Tell::Close(frame) = own {
            self.say(Side::Downstream, frame.saying(words), now + self.config.timeouts.close, now);
        } else {
            self.tell(Side::Downstream, own, now);
        }
        self.tell(Side::Upstream, self.config.close_codes.tell(reason, Side::Upstream), now);
    }

    /// Resets whatever is not finished, for `reason` if there is none yet.
    pub fn cut(&mut self, reason: EndReason, now: Instant) {
        let now = self.clock.moment(now);
        self.ending.get_or_insert_with(|| Box::new(Ending::by_gateway(reason, now)));
        for side in Side::BOTH {
            let leg = &mut self.legs[side];
            match leg.output {
                Output::Open | Output::Due { .. } | Output::Queued { .. } => leg.abandon(Output::Cut, now),
                Output::Sent { .. } | Output::Cut | Output::Gone => {}
            }
            if leg.finish != Finish::Done {
                leg.finish = Finish::Reset;
            }
        }
    }

    pub(super) fn end_with(&mut self, ending: Ending, code: Option<CloseCode>, now: Moment) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Box::new(ending));
        for side in Side::BOTH {
            let mut tell = self.config.close_codes.tell(ending.reason, side);
            let default = !self.config.close_codes.sets(ending.reason, side);
            if let (Side::Downstream, Some(code), Tell::Close(frame), true) = (side, code, tell, default) {
                tell = Tell::Close(CloseFrame { code: Some(code), ..frame });
            }
            if let (Tell::Violation, Some(violation)) = (tell, ending.violation) {
                tell = Tell::Close(CloseFrame { code: Some(violation.code()), reason: violation.explain() });
            }
            if let (Side::Downstream, EndReason::Policy, Tell::Close(frame), Some(violation)) =
                (side, ending.reason, tell, ending.violation)
            {
                tell = Tell::Close(CloseFrame { reason: violation.explain(), ..frame });
            }
            self.tell(side, tell, now);
        }
    }

    fn tell(&mut self, side: Side, tell: Tell, now: Moment) {
        let close = self.config.timeouts.close;
        match tell {
            Tell::Echo => self.legs[side].quiet(),
            Tell::Nothing => self.abandon(side, Output::Gone, now),
            Tell::Close(frame) => self.say(side, frame.saying(None), now + close, now),
            // A violation always brings its frame; without one there is nothing to say.
            Tell::Reset | Tell::Violation => self.abandon(side, Output::Cut, now),
            Tell::CloseIfRoom(frame) if self.legs[side].outbox.is_empty() => {
                self.legs[side].reset_after_close = true;
                self.say(side, frame.saying(None), now + close, now);
            }
            Tell::CloseIfRoom(_) => self.abandon(side, Output::Cut, now),
            Tell::CloseAndReset(frame) => {
                self.legs[side].reset_after_close = true;
                if self.legs[side].outbox.is_empty() {
                    self.say(side, frame.saying(None), now, now);
                } else {
                    self.abandon(side, Output::Cut, now);
                }
            }
        }
    }

    /// A close frame of ours goes out at the next frame border, if one can be reached.
    fn say(&mut self, side: Side, frame: SpokenFrame, by: Moment, now: Moment) {
        if self.legs[side].output != Output::Open {
            return;
        }
        if self.border_is_lost(side) {
            self.abandon(side, Output::Cut, now);
        } else {
            self.legs[side].quiet();
            self.legs[side].output = Output::Due { frame: Box::new(frame), by };
        }
    }

    /// The outgoing stream stands inside a frame whose source will not complete it.
    fn border_is_lost(&self, side: Side) -> bool {
        self.inside_frame(side) && !self.still_sends(side.other())
    }

    /// Whether more may come from this peer that can cross.
    fn still_sends(&self, side: Side) -> bool {
        self.legs[side].input == Input::Open && self.legs[side].finish == Finish::Open
    }

    pub(super) fn abandon(&mut self, side: Side, output: Output, now: Moment) {
        self.legs[side].abandon(output, now);
        self.pause(side.other(), false, now);
        self.settle(side, now);
    }

    /// A close frame arrived on `side`; it ends at `end` in the chunk, whose passing part begins at 0. Whether it
    /// crosses.
    pub(super) fn closed(&mut self, side: Side, code: Option<CloseCode>, end: usize, now: Moment) -> bool {
        self.legs[side].closed(code.map(CloseCode::get));
        self.take_turn(now);
        let other = &mut self.legs[side.other()];
        let crosses = other.output == Output::Open;
        if crosses {
            other.quiet();
            let end = other.outbox.position() + end as u64;
            let code = code.map_or(crate::protocol::close::NO_CODE, CloseCode::get);
            other.output = Output::Queued { code, end, since: now };
        }
        self.end_with(Ending::by_side(side, EndReason::ClientClosed, EndReason::UpstreamClosed, now), None, now);
        self.settle(side, now);
        crosses
    }

    /// The transport of a leg was lost.
    pub fn lost(&mut self, side: Side, loss: Loss, now: Instant) {
        let now = self.clock.moment(now);
        let leg = &mut self.legs[side];
        match leg.input {
            Input::Ended => return,
            // A peer may end its direction after its close frame and still read our answer.
            Input::Closed { .. } if loss == Loss::End => leg.input = Input::Closed { eof: true },
            Input::Closed { .. } => {
                leg.input = Input::Closed { eof: true };
                self.gone(side, now);
            }
            Input::Open | Input::Deaf => {
                leg.input = Input::Ended;
                if loss == Loss::TimedOut {
                    self.gone(side, now);
                    self.unresponsive(side, now);
                } else {
                    self.end_with(
                        Ending::by_side(side, EndReason::ClientGone, EndReason::UpstreamGone, now),
                        None,
                        now,
                    );
                }
                self.gone(side, now);
            }
        }
        self.source_lost(side, now);
        self.settle(side, now);
    }

    /// Nothing can be written to this leg any more.
    pub fn unwritable(&mut self, side: Side, now: Instant) {
        self.gone(side, self.clock.moment(now));
    }

    fn gone(&mut self, side: Side, now: Moment) {
        match self.legs[side].output {
            Output::Open | Output::Due { .. } | Output::Queued { .. } => self.abandon(side, Output::Gone, now),
            Output::Sent { .. } | Output::Cut | Output::Gone => {}
        }
    }

    /// What the other leg holds of a frame from `side` will never be completed; an answer will never come.
    pub(super) fn source_lost(&mut self, side: Side, now: Moment) {
        let other = side.other();
        if matches!(self.legs[other].output, Output::Due { .. }) && self.border_is_lost(other) {
            self.abandon(other, Output::Cut, now);
        }
        self.echo(other, now);
    }

    /// A peer that closed gets its own code back if the other side can no longer answer it.
    fn echo(&mut self, side: Side, now: Moment) {
        let leg = &self.legs[side];
        if let (Input::Closed { .. }, Output::Open, Some(code), false) =
            (leg.input, &leg.output, leg.close_received, self.still_sends(side.other()))
        {
            let frame = CloseFrame { code: CloseCode::new(code), reason: "" };
            self.say(side, frame.saying(None), now + self.config.timeouts.close, now);
        }
    }

    pub(super) fn unresponsive(&mut self, side: Side, now: Moment) {
        if self.legs[side].input == Input::Open {
            self.legs[side].input = Input::Deaf;
        }
        let ending = Ending::by_side(side, EndReason::ClientUnresponsive, EndReason::UpstreamUnresponsive, now);
        self.end_with(ending, None, now);
        self.source_lost(side, now);
    }

    pub(super) fn stalled(&mut self, side: Side, now: Moment) {
        if self.ending.is_some() {
            self.abandon(side, Output::Cut, now);
            return;
        }
        // It is not listened to any more, so a frame it left unfinished stays so.
        if self.legs[side].scanner.unfinished() {
            self.legs[side].input = Input::Deaf;
        }
        let ending = Ending::by_side(side, EndReason::ClientStalled, EndReason::UpstreamStalled, now);
        self.end_with(ending, None, now);
        self.source_lost(side, now);
    }

    /// Takes a leg as far towards its end as its closing handshake allows.
    pub(super) fn settle(&mut self, side: Side, now: Moment) {
        let until = now + self.config.timeouts.close;
        let leg = &mut self.legs[side];
        if leg.finish != Finish::Open {
            return;
        }
        leg.finish = match (&leg.output, leg.input) {
            (Output::Cut, _) => Finish::Reset,
            (Output::Gone, Input::Open) => Finish::Open,
            (Output::Gone, _) => Finish::Drop,
            (Output::Sent { .. }, _) if leg.reset_after_close => Finish::Reset,
            (Output::Sent { .. }, Input::Ended | Input::Closed { eof: true }) => Finish::Drop,
            (Output::Sent { .. }, Input::Closed { eof: false } | Input::Deaf) => match leg.role {
                // The server ends TCP first (RFC 6455 section 7.1.1).
                Role::Server => Finish::ShutDown { until },
                Role::Client => Finish::Linger { until },
            },
            (Output::Sent { .. }, Input::Open) => Finish::Open,
            (Output::Open | Output::Due { .. } | Output::Queued { .. }, _) => Finish::Open,
        };
        if leg.finish != Finish::Open {
            leg.quiet();
            self.source_lost(side, now);
        }
    }

    /// What this leg's transport is to do now.
    #[inline]
    #[must_use]
    pub fn wish(&self, side: Side) -> Wish {
        let leg = &self.legs[side];
        match leg.finish {
            Finish::Open | Finish::Done => Wish::Keep,
            Finish::ShutDown { .. } => Wish::ShutDown,
            Finish::Linger { .. } => match leg.input {
                Input::Ended | Input::Closed { eof: true } => Wish::Drop,
                Input::Open | Input::Closed { eof: false } | Input::Deaf => Wish::Keep,
            },
            Finish::Drop => Wish::Drop,
            Finish::Reset => Wish::Reset,
        }
    }

    /// Writing was shut down on this leg.
    pub fn shut_down(&mut self, side: Side, now: Instant) {
        let now = self.clock.moment(now);
        self.legs[side].finish = Finish::Linger { until: now + self.config.timeouts.close };
    }

    /// The transport of this leg is closed.
    pub fn finished(&mut self, side: Side) {
        self.legs[side].finish = Finish::Done;
    }

    /// Whether the session ends.
    #[inline]
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// How the session ended, once every code is known. TCP may not be done yet.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let ending = self.ending.as_deref()?;
        let at = ending.at;
        let known = |side| {
            let leg = &self.legs[side];
            leg.finish != Finish::Open || matches!(leg.output, Output::Cut)
        };
        if !Side::BOTH.into_iter().all(known) {
            return None;
        }
        let silence = |side| at - self.legs[side].heartbeat.heard();
        let silence = PerSide { downstream: silence(Side::Downstream), upstream: silence(Side::Upstream) };
        let Ending { reason, first, violation, .. } = *ending;
        Some(Outcome { reason, first, violation, at, silence, told_after: self.told_after() })
    }

    /// Whether both transports are closed: the session is over.
    #[inline]
    #[must_use]
    pub fn is_done(&self) -> bool {
        Side::BOTH.into_iter().all(|side| self.legs[side].finish == Finish::Done)
    }
}
