//! Close codes and close frames (RFC 6455 sections 5.5.1 and 7.4).
use super::violation::Violation;
use std::borrow::Cow;

/// What a close frame without a code is recorded as (RFC 6455 section 7.1.5); never on the wire.
pub const NO_CODE: u16 = 1005;
/// The longest reason that fits behind a code, in bytes of UTF-8 (RFC 6455 section 5.5).
pub const MAX_REASON: usize = 123;

/// A code that may stand in a close frame: 1000–1003, 1007–1014, 3000–4999.
///
/// 1005, 1006 and 1015 are never on the wire (RFC 6455 section 7.4.1), so they cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    pub const NORMAL: Self = Self(1000);
    pub const GOING_AWAY: Self = Self(1001);
    pub const PROTOCOL_ERROR: Self = Self(1002);
    pub const INVALID_PAYLOAD: Self = Self(1007);
    pub const POLICY: Self = Self(1008);
    pub const TOO_BIG: Self = Self(1009);
    pub const INTERNAL: Self = Self(1011);
    pub const SERVICE_RESTART: Self = Self(1012);
    pub const TRY_AGAIN: Self = Self(1013);

    /// The code, if it is one that RFC 6455 and the IANA registry allow on the wire.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A close frame of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<Words = &'static str> {
    /// `None`: without a code.
    pub code: Option<CloseCode>,
    /// At most 123 bytes of UTF-8; what is longer is left out.
    pub reason: Words,
}

/// A close frame whose words may be somebody else's: an operator's.
pub type SpokenFrame = CloseFrame<Cow<'static, str>>;

impl CloseFrame {
    /// The same frame, with these words instead of its own if there are any.
    #[must_use]
    pub fn saying(self, words: Option<&str>) -> SpokenFrame {
        let reason = words.map_or(Cow::Borrowed(self.reason), |words| Cow::Owned(words.to_owned()));
        CloseFrame { code: self.code, reason }
    }
}

impl<Words: AsRef<str>> CloseFrame<Words> {
    /// Code and reason as a payload; a reason needs a code.
    #[must_use]
    pub fn payload(&self) -> ([u8; 125], usize) {
        let mut payload = [0; 125];
        let Some(code) = self.code else { return (payload, 0) };
        let reason = self.reason.as_ref();
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_REASON)];
        payload[..2].copy_from_slice(&code.get().to_be_bytes());
        payload[2..2 + reason.len()].copy_from_slice(reason);
        (payload, 2 + reason.len())
    }

    /// The number this frame is recorded as.
    #[must_use]
    pub fn recorded(&self) -> u16 {
        self.code.map_or(NO_CODE, CloseCode::get)
    }
}

/// The code in the (unmasked) payload of a close frame; `None` if it has none.
///
/// # Errors
/// A payload of one byte, a code that must not be sent, or a reason that is not UTF-8 (section 5.5.1).
pub fn parse(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    let [high, low, reason @ ..] = payload else {
        return if payload.is_empty() { Ok(None) } else { Err(Violation::ClosePayload) };
    };
    let code = CloseCode::new(u16::from_be_bytes([*high, *low])).ok_or(Violation::CloseCode)?;
    std::str::from_utf8(reason).map_err(|_| Violation::CloseReason)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        let valid = |code| CloseCode::new(code).is_some();
        assert!([1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999].into_iter().all(valid));
        assert!(![0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX].into_iter().any(valid));
    }

    #[test]
    fn payloads() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03"), Err(Violation::ClosePayload));
        assert_eq!(parse(b"\x03\xe8bye"), Ok(Some(CloseCode::NORMAL)));
        assert_eq!(parse(b"\x03\xed"), Err(Violation::CloseCode));
        assert_eq!(parse(b"\x03\xe8\xff"), Err(Violation::CloseReason));
    }

    #[test]
    fn own_frames_read_back() {
        let frame = CloseFrame { code: Some(CloseCode::GOING_AWAY), reason: "bye" };
        let (payload, length) = frame.payload();
        assert_eq!(&payload[..length], b"\x03\xe9bye");
        assert_eq!(CloseFrame { code: None, reason: "" }.payload().1, 0);
    }

    #[test]
    fn an_operators_words_are_cut_at_a_letter() {
        let own = CloseFrame { code: Some(CloseCode::GOING_AWAY), reason: "terminated" };
        assert_eq!(own.saying(None).payload(), own.payload());
        let (payload, length) = own.saying(Some(&"é".repeat(70))).payload();
        assert_eq!(length, 2 + 122);
        assert_eq!(parse(&payload[..length]), Ok(Some(CloseCode::GOING_AWAY)));
    }
}
