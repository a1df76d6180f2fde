//! The end of a session, once its relay ends: its transports', and its own.

use super::drive::{Progress, Session};
use crate::{
    protocol::leg::{self, Finish, Input},
    relay::{Side, Wish},
};
use std::{task::Context, time::Instant};

impl Session {
    /// Has the transports do what the relay wishes of them.
    #[cold]
    pub(super) fn fulfil(&mut self, cx: &mut Context<'_>, now: Instant) -> Progress {
        let mut progress = false;
        for side in Side::BOTH {
            progress |= self.fulfil_on(side, cx, now);
        }
        progress
    }

    fn fulfil_on(&mut self, side: Side, cx: &mut Context<'_>, now: Instant) -> Progress {
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

    /// Whether the verdict is told and both closing handshakes are over.
    pub(super) fn is_settled(&self) -> bool {
        self.reported && Side::BOTH.into_iter().all(|side| settled(self.relay.leg(side)))
    }

    /// Tells how it ended, once that is known; whether it is over.
    #[cold]
    pub(super) fn conclude(&mut self) -> bool {
        if !self.reported {
            self.report();
        }
        if self.is_settled() {
            self.membership.settle();
        }
        self.relay.is_done()
    }
}

/// Whether the closing handshake of a leg that is ending is over: its peer said its last, or is waited for no more.
fn settled(leg: &leg::Leg) -> bool {
    match leg.input {
        Input::Closed { .. } | Input::Ended => true,
        Input::Open | Input::Deaf => leg.finish == Finish::Done,
    }
}
