//! The opening handshake: from a connected stream to a session's `Opening`, or an HTTP refusal.
pub mod admission;
pub mod spelling;
