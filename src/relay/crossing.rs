//! What arrives on one leg, and how much of it crosses to the other.

use super::{Relay, Side, Utf8, control::Acted, rates::Passage, role};
use crate::protocol::{
    frame::Opcode,
    leg::{Input, Output},
    moment::Moment,
    scanner::{Rules, Stop, Tally},
    violation::Violation,
};
use std::ops::Range;

/// Chunks of no more than this have a short way: what that one does not let through is looked at once more.
const LITTLE: usize = 4 * 1024;

/// What a chunk comes to, as far as it was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the chunk that are dealt with.
    pub used: usize,
    /// The part of them that goes to the other leg, before anything else does.
    pub pass: Range<usize>,
    /// Frames and messages that end in `pass`.
    pub passed: Tally,
}

impl Relay {
    /// Scans a chunk (held bytes first) as far as one stretch of it passes. The caller sends `pass` on, then what
    /// `take_control` gives, and comes back with the rest of the chunk until all of it is used. Where nothing is used, the leg
    /// is slowed down: the rest comes before anything else once it is read again, and has arrived already.
    #[inline]
    pub fn receive(&mut self, side: Side, chunk: &[u8], now: Moment) -> Step {
        match self.receive_little(side, chunk) {
            Some(messages) => {
                let passed = Tally { frames: messages, messages };
                Step { used: chunk.len(), pass: 0..chunk.len(), passed }
            }
            None => self.receive_any(side, chunk, now),
        }
    }

    /// A lone small message, or a few: most of what sessions do that do not stream. Where there is nothing else to think of, no
    /// rate, no end, no control frame that waits, they are let through whole; how many. Otherwise nothing has happened.
    #[inline]
    fn receive_little(&mut self, side: Side, chunk: &[u8]) -> Option<u32> {
        let other = &self.legs[side.other()];
        let plain = chunk.len() <= LITTLE && self.bounds.is_none();
        if !plain || other.output != Output::Open || other.control_waits() || self.legs[side].input != Input::Open {
            return None;
        }
        let rules = self.rules(side);
        let leg = &mut self.legs[side];
        let messages = leg.scanner.whole(&rules, chunk)?;
        leg.sender.forget();
        Some(messages)
    }

    /// The way of whatever comes.
    #[inline(never)]
    pub(super) fn receive_any(&mut self, side: Side, chunk: &[u8], now: Moment) -> Step {
        if self.legs[side].input != Input::Open {
            return Step { used: chunk.len(), pass: 0..0, passed: Tally::default() };
        }
        let crosses = self.legs[side.other()].accepts_data();
        let to_boundary = self.legs[side.other()].control_due(&self.config.heartbeat[side.other()], now);
        let step = self.scan(side, chunk, to_boundary, now);
        let leg = &mut self.legs[side];
        if leg.scanner.unfinished() && leg.input == Input::Open {
            leg.sender.run(now);
            if self.slowed(side) {
                self.legs[side].sender.rest(now);
            }
        } else {
            // Each frame is judged by itself: headers and payloads that leave in separate packets, a delayed
            // acknowledgement apart, are no slow sender.
            leg.sender.forget();
        }
        if crosses { step } else { Step { pass: 0..0, passed: Tally::default(), ..step } }
    }

    /// What this leg's scanner lets pass.
    #[inline]
    fn rules(&self, side: Side) -> Rules {
        let limits = &self.config.limits[side];
        Rules {
            role: role(side),
            deflate: self.deflate,
            utf8: self.config.utf8 == Utf8::Check,
            frame_limit: limits.frame.unwrap_or(u64::MAX),
            message_limit: limits.message.unwrap_or(u64::MAX),
            fragment_limit: limits.fragments.unwrap_or(u16::MAX),
        }
    }

    fn scan(&mut self, side: Side, chunk: &[u8], to_boundary: bool, now: Moment) -> Step {
        let rules = self.rules(side);
        let before = self.legs[side].scanner.tally();
        let step = |relay: &Self, used, end| {
            let passed = relay.legs[side].scanner.tally().since(before);
            Step { used, pass: 0..end, passed }
        };
        let counted = self.counts_messages(side);
        let mut at = 0;
        loop {
            let passage = chunk.get(at).map_or(Passage::Free, |next| self.passage(side, *next, now));
            match passage {
                Passage::Free => {}
                Passage::Later => return step(self, at, at),
                Passage::Never(violation) => {
                    self.violated(side, violation, now);
                    return step(self, chunk.len(), at);
                }
            }
            let messages = self.legs[side].scanner.messages();
            let scan = self.legs[side].scanner.scan(&rules, chunk, at, to_boundary || counted);
            if scan.at > at
                && let Some(bounds) = &mut self.bounds
            {
                bounds.last_data = now;
            }
            if counted && self.legs[side].scanner.messages() != messages {
                self.spend_message(side, now);
            }
            match scan.stop {
                Stop::Boundary if !to_boundary => at = scan.at,
                Stop::End | Stop::Boundary => return step(self, scan.at, scan.at),
                Stop::Partial => {
                    self.legs[side].scanner.hold(&chunk[scan.at..]);
                    return step(self, chunk.len(), scan.at);
                }
                Stop::Violation(violation) => {
                    self.violated(side, violation, now);
                    return step(self, chunk.len(), scan.at);
                }
                Stop::Control(control) => {
                    let Acted { crosses, counts } = self.control(side, control, chunk, now);
                    if counted && counts {
                        if control.opcode == Opcode::Pong && self.is_over(side, now) {
                            self.violated(side, Violation::TooManyMessages, now);
                            return step(self, chunk.len(), scan.at);
                        }
                        self.spend_message(side, now);
                    }
                    if !crosses {
                        let mut step = step(self, control.end(), scan.at);
                        step.passed.frames -= 1;
                        return step;
                    }
                    at = control.end();
                    if self.legs[side].input != Input::Open {
                        return step(self, chunk.len(), at);
                    }
                    if to_boundary {
                        return step(self, at, at);
                    }
                }
            }
        }
    }
}
