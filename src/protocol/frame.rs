//! Frame headers in, control frames out (RFC 6455 section 5.2).
use super::{Role, mask, violation::Violation};

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;
/// The longest header: two bytes, a 64-bit length, a masking key.
pub const HEADER_MAX: usize = 14;
/// The longest control frame: a short header, a masking key, a payload.
pub const CONTROL_MAX: usize = 2 + 4 + CONTROL_PAYLOAD_MAX;

/// A few bytes, a whole control frame at most, in place: where they are kept, a box of them is one pointer.
#[derive(Clone, Copy)]
pub struct Snippet {
    bytes: [u8; CONTROL_MAX],
    length: u8,
}

impl Snippet {
    /// Copies `bytes`; what is more than a control frame can be is cut off.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let length = bytes.len().min(CONTROL_MAX);
        let mut room = [0; CONTROL_MAX];
        room[..length].copy_from_slice(&bytes[..length]);
        Self { bytes: room, length: length as u8 }
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for Snippet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Snippet").field(&self.bytes()).finish()
    }
}

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// Whether it is close, ping or pong.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// As it stands in a frame's first byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// A frame header, checked but for what depends on the frames before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub fin: bool,
    pub rsv1: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if it is not whole yet.
    ///
    /// `role` is ours: a server wants masked frames, a client unmasked ones (section 5.1). `deflate` lets RSV1
    /// stand on the first frame of a message (RFC 7692 section 6).
    ///
    /// # Errors
    /// The violation, as early as the bytes show it.
    #[inline]
    pub fn parse(bytes: &[u8], role: Role, deflate: bool) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = match first & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        };
        let fin = first & 0x80 != 0;
        let rsv1 = first & 0x40 != 0;
        let first_of_message = matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || (rsv1 && !(deflate && first_of_message)) {
            return Err(Violation::ReservedBit);
        }
        let masked = second & 0x80 != 0;
        match role {
            Role::Server if !masked => return Err(Violation::MaskMissing),
            Role::Client if masked => return Err(Violation::MaskUnexpected),
            Role::Server | Role::Client => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() {
            if !fin {
                return Err(Violation::ControlFragmented);
            }
            if usize::from(short) > CONTROL_PAYLOAD_MAX {
                return Err(Violation::ControlTooLong);
            }
        }
        let Some((length, extended)) = Self::length(short, rest)? else { return Ok(None) };
        let mask = if masked {
            let Some(&[a, b, c, d]) = rest.get(extended..extended + 4) else { return Ok(None) };
            Some([a, b, c, d])
        } else {
            None
        };
        let size = 2 + extended + if masked { 4 } else { 0 };
        Ok(Some(Self { fin, rsv1, opcode, mask, length, size }))
    }

    /// The payload length and how many bytes its extended form takes.
    #[inline]
    fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
        match short {
            126 => {
                let Some(&[a, b]) = rest.get(..2) else { return Ok(None) };
                let length = u16::from_be_bytes([a, b]);
                if length < 126 { Err(Violation::LengthNotMinimal) } else { Ok(Some((u64::from(length), 2))) }
            }
            127 => {
                let Some(&[a, b, c, d, e, f, g, h]) = rest.get(..8) else { return Ok(None) };
                let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                if length >> 63 != 0 {
                    return Err(Violation::LengthTooLong);
                }
                if length <= u64::from(u16::MAX) { Err(Violation::LengthNotMinimal) } else { Ok(Some((length, 8))) }
            }
            short => Ok(Some((u64::from(short), 0))),
        }
    }
}

/// A whole control frame of our own, ready for the wire.
#[derive(Clone, Copy, Debug)]
pub struct ControlFrame(Snippet);

impl ControlFrame {
    /// Makes a frame; a payload over 125 bytes is cut off there. A key masks it (section 5.3).
    #[must_use]
    pub fn new(opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) -> Self {
        let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)];
        let mut bytes = [0; CONTROL_MAX];
        bytes[0] = 0x80 | opcode.bits();
        // At most 125: fits.
        bytes[1] = payload.len() as u8;
        let start = if let Some(key) = key {
            bytes[1] |= 0x80;
            bytes[2..6].copy_from_slice(&key);
            6
        } else {
            2
        };
        let end = start + payload.len();
        match key {
            Some(key) => mask::apply(payload, key, 0, &mut bytes[start..end]),
            None => bytes[start..end].copy_from_slice(payload),
        }
        Self(Snippet { bytes, length: end as u8 })
    }

    /// The frame as it goes on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn server(bytes: &[u8]) -> Result<Option<Header>, Violation> {
        Header::parse(bytes, Role::Client, false)
    }

    #[test]
    fn lengths_of_all_three_forms() {
        assert_eq!(server(&[0x82, 5]).unwrap().unwrap().length, 5);
        assert_eq!(server(&[0x82, 126, 0, 126]).unwrap().unwrap().length, 126);
        let long = server(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap().unwrap();
        assert_eq!((long.length, long.size), (65536, 10));
    }

    #[test]
    fn a_header_that_is_not_whole_waits() {
        let whole = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        for cut in 0..whole.len() {
            assert_eq!(Header::parse(&whole[..cut], Role::Server, false), Ok(None), "{cut} bytes");
        }
        let header = Header::parse(&whole, Role::Server, false).unwrap().unwrap();
        assert_eq!((header.size, header.mask), (HEADER_MAX, Some([1, 2, 3, 4])));
    }

    #[test]
    fn lengths_must_be_minimal_and_63_bit() {
        assert_eq!(server(&[0x82, 126, 0, 125]), Err(Violation::LengthNotMinimal));
        assert_eq!(server(&[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255]), Err(Violation::LengthNotMinimal));
        assert_eq!(server(&[0x82, 127, 128, 0, 0, 0, 0, 0, 0, 0]), Err(Violation::LengthTooLong));
    }

    #[test]
    fn reserved_bits_follow_the_extension() {
        assert_eq!(server(&[0xc1, 0]), Err(Violation::ReservedBit));
        assert_eq!(server(&[0xa1, 0]), Err(Violation::ReservedBit));
        assert_eq!(server(&[0x91, 0]), Err(Violation::ReservedBit));
        assert!(Header::parse(&[0xc1, 0], Role::Client, true).unwrap().unwrap().rsv1);
        for opcode in [0x80, 0x88, 0x89, 0x8a] {
            assert_eq!(Header::parse(&[opcode | 0x40, 0], Role::Client, true), Err(Violation::ReservedBit));
        }
    }

    #[test]
    fn masks_follow_the_role() {
        assert_eq!(Header::parse(&[0x81, 0], Role::Server, false), Err(Violation::MaskMissing));
        assert_eq!(Header::parse(&[0x81, 0x80], Role::Client, false), Err(Violation::MaskUnexpected));
    }

    #[test]
    fn control_frames_are_whole_and_short() {
        assert_eq!(server(&[0x09, 0]), Err(Violation::ControlFragmented));
        assert_eq!(server(&[0x89, 126]), Err(Violation::ControlTooLong));
        assert_eq!(server(&[0x89, 125]).unwrap().unwrap().length, 125);
    }

    #[test]
    fn reserved_opcodes_are_refused() {
        for opcode in (0x3..=0x7).chain(0xb..=0xf) {
            assert_eq!(server(&[0x80 | opcode, 0]), Err(Violation::ReservedOpcode));
        }
    }

    #[test]
    fn own_control_frames_read_back() {
        let plain = ControlFrame::new(Opcode::Ping, b"abc", None);
        assert_eq!(plain.bytes(), [0x89, 3, b'a', b'b', b'c']);
        let masked = ControlFrame::new(Opcode::Pong, b"abc", Some([1, 2, 3, 4]));
        assert_eq!(masked.bytes(), [0x8a, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3]);
    }
}
