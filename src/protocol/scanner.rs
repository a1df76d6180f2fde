//! What arrives on a leg, frame by frame: where frames begin and end, and whether they may pass.
//!
//! A chunk is scanned in place. Data frames pass without being touched; headers and control frames are
//! only acted upon when they are whole, so what is left of a chunk is held until the next one.

use super::{
    Role,
    frame::{CONTROL_MAX, Header, Opcode, Snippet},
    mask,
    utf8::Validator,
    violation::Violation,
};

pub use super::tally::Tally;

/// What a scanner lets pass. Its owner keeps them, since all sessions of a route have the same.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub role: Role,
    /// permessage-deflate was agreed (RFC 7692).
    pub deflate: bool,
    /// Text that is not compressed must be UTF-8 (RFC 6455 section 8.1).
    pub utf8: bool,
    /// Bytes of payload in one frame.
    pub frame_limit: u64,
    /// Bytes of payload in one message.
    pub message_limit: u64,
    /// Frames of one message; `u16::MAX` for any number.
    pub fragment_limit: u16,
}

/// The message under way (RFC 6455 section 5.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Message {
    #[default]
    None,
    /// Text to be checked, masked.
    MaskedText,
    /// Text to be checked, as it is.
    Text,
    /// Anything else: binary, compressed, or text that nobody checks.
    Opaque,
}

/// Where a scan stopped, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Everything up to here passes.
    pub at: usize,
    pub stop: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The chunk is used up.
    End,
    /// The rest of the chunk is a header or control frame that is not whole yet.
    Partial,
    /// A data frame ended here, and the caller wanted to know.
    Boundary,
    /// A whole control frame begins here.
    Control(Control),
    /// What begins or goes on here must not pass.
    Violation(Violation),
}

/// A whole control frame in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    pub opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload: (usize, usize),
}

impl Control {
    /// The first byte behind the frame.
    #[must_use]
    pub fn end(&self) -> usize {
        self.payload.1
    }

    /// The payload, unmasked into `room`.
    pub fn payload<'a>(&self, chunk: &[u8], room: &'a mut [u8; 125]) -> &'a [u8] {
        let source = &chunk[self.payload.0..self.payload.1];
        let target = &mut room[..source.len()];
        match self.mask {
            Some(key) => mask::apply(source, key, 0, target),
            None => target.copy_from_slice(source),
        }
        target
    }
}

/// The state between chunks.
#[derive(Debug, Default)]
pub struct Scanner {
    message: Message,
    /// The frame under way ends its message.
    fin: bool,
    /// Frames of the message under way so far.
    fragments: u16,
    /// The masking key of the frame under way, if it has one; while text is checked, turned so that it begins at the next byte.
    key: [u8; 4],
    utf8: Validator,
    /// Payload of the frame under way that has not arrived.
    left: u64,
    /// Payload of the message under way, as announced by its frames so far.
    size: u64,
    held: Option<Box<Snippet>>,
    messages: u64,
    /// Frames that ended no data message, modulo 2^32: fragments but the last, and control frames.
    others: u32,
}

impl Scanner {
    /// Data messages that arrived whole.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Frames and data messages that arrived whole.
    #[inline]
    #[must_use]
    pub fn tally(&self) -> Tally {
        let messages = self.messages as u32;
        Tally { frames: messages.wrapping_add(self.others), messages }
    }

    /// Whether what passed ends inside a data frame.
    #[inline]
    #[must_use]
    pub fn inside_frame(&self) -> bool {
        self.left > 0
    }

    /// Whether a frame, or its header, is unfinished.
    #[inline]
    #[must_use]
    pub fn unfinished(&self) -> bool {
        self.left > 0 || self.held.is_some()
    }

    /// Bytes held back from the last chunk: the next chunk must begin with them.
    #[must_use]
    #[inline]
    pub fn held(&self) -> &[u8] {
        self.held.as_deref().map_or(&[], Snippet::bytes)
    }

    /// Copies the held bytes to the start of `chunk` and forgets them; how many they were (at most 130).
    #[inline]
    pub fn take_held(&mut self, chunk: &mut [u8]) -> usize {
        let Some(held) = self.held.take() else { return 0 };
        let length = held.bytes().len();
        chunk[..length].copy_from_slice(held.bytes());
        length
    }

    /// Keeps the rest of a chunk, a header or control frame that is not whole, until more arrives.
    pub fn hold(&mut self, rest: &[u8]) {
        debug_assert!(self.held.is_none() && rest.len() < CONTROL_MAX);
        self.held = Some(Box::new(Snippet::new(rest)));
    }

    /// Scans `chunk` from `from` on, up to what is not a data frame, or up to the first frame border if asked.
    pub fn scan(&mut self, rules: &Rules, chunk: &[u8], from: usize, to_boundary: bool) -> Scan {
        let mut at = from;
        // Where the frame under way begins, if it begins in this chunk.
        let mut begin = None;
        loop {
            if self.left > 0 {
                let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(chunk.len() - at);
                if let Err(violation) = self.payload(&chunk[at..at + length]) {
                    return self.refuse(violation, begin, from);
                }
                at += length;
                if self.left > 0 {
                    return Scan { at, stop: Stop::End };
                }
                if to_boundary {
                    return Scan { at, stop: Stop::Boundary };
                }
            }
            if !to_boundary && self.message == Message::None {
                let messages;
                (at, messages) = whole_messages(rules, chunk, at);
                self.messages += u64::from(messages);
            }
            let rest = &chunk[at..];
            if rest.is_empty() {
                return Scan { at, stop: Stop::End };
            }
            let header = match Header::parse(rest, rules.role, rules.deflate) {
                Ok(Some(header)) => header,
                Ok(None) => return Scan { at, stop: Stop::Partial },
                Err(violation) => return Scan { at, stop: Stop::Violation(violation) },
            };
            if header.opcode.is_control() {
                return self.control(header, at, rest.len());
            }
            if let Err(violation) = self.begin(rules, header) {
                return self.refuse(violation, Some(at), from);
            }
            begin = Some(at);
            at += header.size;
            if to_boundary && self.left == 0 {
                return Scan { at, stop: Stop::Boundary };
            }
        }
    }

    /// Passes a chunk that consists of whole messages of one frame each; how many. Otherwise nothing has happened.
    #[inline]
    pub fn whole(&mut self, rules: &Rules, chunk: &[u8]) -> Option<u32> {
        if self.message != Message::None || self.unfinished() {
            return None;
        }
        let (end, messages) = whole_messages(rules, chunk, 0);
        if end < chunk.len() {
            return None;
        }
        self.messages += u64::from(messages);
        Some(messages)
    }

    fn control(&mut self, header: Header, at: usize, available: usize) -> Scan {
        let size = header.size + header.length as usize;
        if available < size {
            return Scan { at, stop: Stop::Partial };
        }
        self.others = self.others.wrapping_add(1);
        let control = Control { opcode: header.opcode, mask: header.mask, payload: (at + header.size, at + size) };
        Scan { at, stop: Stop::Control(control) }
    }

    /// Nothing of the frame passes that has not passed with an earlier chunk.
    fn refuse(&mut self, violation: Violation, begin: Option<usize>, from: usize) -> Scan {
        if begin.is_some() {
            self.left = 0;
        } else {
            // The other side holds the first part of this frame and will never see its end.
            self.left = self.left.max(1);
        }
        Scan { at: begin.unwrap_or(from), stop: Stop::Violation(violation) }
    }

    /// A data frame begins (sections 5.2 and 5.4).
    fn begin(&mut self, rules: &Rules, header: Header) -> Result<(), Violation> {
        match (header.opcode, self.message) {
            (Opcode::Continuation, Message::None) => return Err(Violation::ContinuationWithoutMessage),
            (Opcode::Continuation, Message::MaskedText | Message::Text | Message::Opaque) => {}
            (Opcode::Text, Message::None) => {
                self.message = match header.mask {
                    _ if header.rsv1 || !rules.utf8 => Message::Opaque,
                    Some(_) => Message::MaskedText,
                    None => Message::Text,
                };
            }
            (Opcode::Binary, Message::None) => self.message = Message::Opaque,
            (Opcode::Text | Opcode::Binary, Message::MaskedText | Message::Text | Message::Opaque) => {
                return Err(Violation::MessageInsideMessage);
            }
            // The caller handles control frames.
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return Ok(()),
        }
        if header.length > rules.frame_limit {
            return Err(Violation::FrameTooBig);
        }
        self.size = self.size.saturating_add(header.length);
        if self.size > rules.message_limit {
            return Err(Violation::MessageTooBig);
        }
        self.fragments = self.fragments.saturating_add(1);
        if self.fragments > rules.fragment_limit {
            return Err(Violation::TooManyFragments);
        }
        self.fin = header.fin;
        self.key = header.mask.unwrap_or_default();
        self.left = header.length;
        if header.length == 0 { self.finish() } else { Ok(()) }
    }

    /// Payload of the frame under way.
    #[inline]
    fn payload(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        match self.message {
            Message::MaskedText => self.check(bytes)?,
            Message::Text => self.utf8.push(bytes).map_err(|_| Violation::TextNotUtf8)?,
            Message::None | Message::Opaque => {}
        }
        self.left -= bytes.len() as u64;
        if self.left == 0 { self.finish() } else { Ok(()) }
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let key = &mut self.key;
        let mut room = [0; 4096];
        for part in bytes.chunks(room.len()) {
            // Plain ASCII, most of all text, need not be unmasked to be known as such.
            if !self.utf8.is_between() || !mask::hides_ascii(part, *key, 0) {
                let plain = &mut room[..part.len()];
                mask::apply(part, *key, 0, plain);
                self.utf8.push(plain).map_err(|_| Violation::TextNotUtf8)?;
            }
            key.rotate_left(part.len() % 4);
        }
        Ok(())
    }

    /// The frame under way is whole.
    #[inline]
    fn finish(&mut self) -> Result<(), Violation> {
        if !self.fin {
            self.others = self.others.wrapping_add(1);
            return Ok(());
        }
        if matches!(self.message, Message::MaskedText | Message::Text) {
            self.utf8.finish().map_err(|_| Violation::TextNotUtf8)?;
        }
        self.message = Message::None;
        self.fragments = 0;
        self.size = 0;
        self.messages += 1;
        Ok(())
    }
}

/// Messages of one frame below 64 KiB that are whole in `chunk` from `from` on: where they end, and how many. They are most of
/// what there is, and leave no state behind. Anything else, a violation too, is left to the way that knows it all.
#[inline]
fn whole_messages(rules: &Rules, chunk: &[u8], from: usize) -> (usize, u32) {
    let limit = rules.frame_limit.min(rules.message_limit);
    let (mask_bit, mask_size) = match rules.role {
        Role::Server => (0x80, 4),
        Role::Client => (0, 0),
    };
    let mut at = from;
    let mut messages = 0;
    while let Some(&[first, second]) = chunk.get(at..at + 2) {
        // FIN, no reserved bit but that of compression, text or binary.
        let compressed = first & 0x40 != 0;
        if !matches!(first & !0x40, 0x81 | 0x82) || second & 0x80 != mask_bit || (compressed && !rules.deflate) {
            break;
        }
        let (size, length) = match second & 0x7f {
            126 => {
                let Some(&[high, low]) = chunk.get(at + 2..at + 4) else { break };
                let length = usize::from(u16::from_be_bytes([high, low]));
                // Not in its shortest form.
                if length < 126 {
                    break;
                }
                (4, length)
            }
            127 => break,
            short => (2, usize::from(short)),
        };
        let begin = at + size + mask_size;
        let end = begin + length;
        if end > chunk.len() || length as u64 > limit {
            break;
        }
        if first == 0x81 && rules.utf8 {
            let key = if mask_size > 0 {
                [chunk[begin - 4], chunk[begin - 3], chunk[begin - 2], chunk[begin - 1]]
            } else {
                [0; 4]
            };
            if !mask::hides_ascii(&chunk[begin..end], key, 0) {
                break;
            }
        }
        messages += 1;
        at = end;
        if first != 0x81 || !rules.utf8 {
            // Streams repeat themselves: while the next header says the same, where the one after it stands is known
            // before this one is read, and the processor need not wait for it.
            let span = size + mask_size + length;
            let same = if size == 4 { u32::MAX } else { u32::from_ne_bytes([0xff, 0xff, 0, 0]) };
            let pattern = head(chunk, begin - mask_size - size) & same;
            while at + span.max(4) <= chunk.len() && head(chunk, at) & same == pattern {
                messages += 1;
                at += span;
            }
        }
    }
    (at, messages)
}

/// Four bytes of `chunk`, as they are in memory; zeros where it ends.
#[inline]
fn head(chunk: &[u8], at: usize) -> u32 {
    chunk.get(at..at + 4).map_or(0, |four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests;
