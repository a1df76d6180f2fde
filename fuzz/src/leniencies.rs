//! Where tungstenite 0.30 is known to differ from our scanner: every exception of the differential target, and why.
use crate::{protocol::violation::Violation, wire::Item};

/// Its frame limit counts control frames too, ours only data frames: below this the two cannot be compared.
pub const LEAST_FRAME_LIMIT: u64 = 125;

/// Violations that tungstenite lets pass. Whatever follows one is not compared.
///
/// `FrameHeader::parse` by itself accepts more (fragmented or long control frames, any reserved bit); `WebSocket::read`,
/// which is compared here, refuses those.
#[must_use]
pub fn passes(violation: Violation) -> bool {
    match violation {
        // RFC 6455 section 5.2 wants the minimal form; tungstenite never compares length and form.
        Violation::LengthNotMinimal => true,
        // It tells its user of a forbidden close code as 1002 "Protocol violation", not as an error.
        Violation::CloseCode => true,
        // It knows no such limits.
        Violation::TooManyFragments | Violation::TooManyMessages | Violation::TooManyBytes => true,
        // With a frame limit set, as here, a 64-bit length is over the limit; without one it would be tried.
        Violation::LengthTooLong => false,
        Violation::ReservedBit
        | Violation::ReservedOpcode
        | Violation::MaskMissing
        | Violation::MaskUnexpected
        | Violation::ControlFragmented
        | Violation::ControlTooLong
        | Violation::ContinuationWithoutMessage
        | Violation::MessageInsideMessage
        | Violation::ClosePayload
        | Violation::CloseReason
        | Violation::TextNotUtf8
        | Violation::FrameTooBig
        | Violation::MessageTooBig => false,
    }
}

/// A close frame as tungstenite tells of it: 1014 (Bad Gateway, IANA registry) is unknown to it and becomes 1002.
#[must_use]
pub fn as_told(close: Item) -> Item {
    match close {
        Item::Close(payload) if payload.starts_with(&1014u16.to_be_bytes()) => {
            Item::Close([&1002u16.to_be_bytes()[..], b"Protocol violation"].concat())
        }
        other => other,
    }
}

/// Whether tungstenite can already see the violation of a frame that begins at the start of `rest`: it judges frames when
/// their last byte is there (but for an opcode or a length over the limit), so the end of the input comes first
/// if the frame is not whole.
#[must_use]
pub fn sees_frame(rest: &[u8]) -> bool {
    let [_, second, rest @ ..] = rest else { return false };
    let extended = match second & 127 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some((long, rest)) = rest.split_at_checked(extended) else { return false };
    let long = long.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if extended == 0 { u64::from(second & 127) } else { long };
    let key = if second & 128 == 0 { 0 } else { 4 };
    (rest.len() as u64).checked_sub(key).is_some_and(|there| there >= length)
}
