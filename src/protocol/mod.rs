//! RFC 6455 for one leg, sans-IO: frames in, frames out, nothing that sleeps or reads a clock.
//!
//! `Leg` is one WebSocket connection as the gateway sees it. It is made of a `Scanner` (what arrives),
//! an `Outbox` (what its transport has not taken yet), a `Heartbeat` and the closing handshake.

pub mod close;
pub mod frame;
pub mod heartbeat;
pub mod leg;
pub mod mask;
pub mod moment;
pub mod outbox;
pub mod pace;
pub mod rate;
pub mod scanner;
mod tally;
pub mod utf8;
pub mod violation;

/// Who we are on a leg (RFC 6455 section 1.2). It decides masking (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted the handshake: what arrives is masked, what we send is not.
    Server,
    /// We asked for the handshake: what arrives is not masked, what we send is.
    Client,
}
