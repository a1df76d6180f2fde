//! Control frames of the peers: which are answered, which cross, and which count (RFC 6455 section 5.5).

use super::{Pings, Relay, Side};
use crate::protocol::{close, frame::Opcode, moment::Moment, scanner::Control};

/// What became of a control frame.
pub(super) struct Acted {
    /// It goes on to the other leg.
    pub(super) crosses: bool,
    /// It counts as a message.
    pub(super) counts: bool,
}

impl Relay {
    /// Acts upon a control frame.
    pub(super) fn control(&mut self, side: Side, control: Control, chunk: &[u8], now: Moment) -> Acted {
        let mut room = [0; 125];
        let payload = control.payload(chunk, &mut room);
        let crosses = self.legs[side.other()].accepts_data();
        // Each counts as a message, but for a close frame and an answer to a question of ours.
        let mut counts = control.opcode != Opcode::Close;
        let crosses = match control.opcode {
            Opcode::Ping if crosses => match self.config.pings {
                Pings::Forward => {
                    let other = &mut self.legs[side.other()];
                    other.heartbeat.on_app_ping(other.outbox.position() + control.end() as u64, now);
                    true
                }
                Pings::Answer => {
                    self.legs[side].answer(payload);
                    false
                }
            },
            Opcode::Ping => false,
            Opcode::Pong => {
                let heartbeat = &mut self.legs[side].heartbeat;
                let asked = heartbeat.asked().is_some();
                let own = heartbeat.on_pong(&self.config.heartbeat[side], payload, now);
                counts = !(own && asked);
                !own && crosses && self.config.pings == Pings::Forward
            }
            Opcode::Close => match close::parse(payload) {
                Ok(code) => self.closed(side, code, control.end(), now),
                Err(violation) => {
                    self.violated(side, violation, now);
                    false
                }
            },
            // The scanner gives control frames only.
            Opcode::Continuation | Opcode::Text | Opcode::Binary => crosses,
        };
        Acted { crosses, counts }
    }
}
