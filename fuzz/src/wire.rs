//! A second reading of RFC 6455, byte by byte and without a line in common with `protocol`: what a stream of frames holds.
use std::fmt;

/// Something whole on the wire: a data message, or a control frame.
#[derive(Clone, PartialEq, Eq)]
pub enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// The message was compressed; its payload as it came.
    Compressed(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Vec<u8>),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, payload) = match self {
            Self::Text(payload) => ("Text", payload),
            Self::Binary(payload) => ("Binary", payload),
            Self::Compressed(payload) => ("Compressed", payload),
            Self::Ping(payload) => ("Ping", payload),
            Self::Pong(payload) => ("Pong", payload),
            Self::Close(payload) => ("Close", payload),
        };
        write!(f, "{name}({})", payload.escape_ascii())
    }
}

/// The frame under way, once its header is whole.
#[derive(Debug)]
struct Frame {
    opcode: u8,
    fin: bool,
    key: [u8; 4],
    left: u64,
    seen: usize,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Wire {
    masked: bool,
    deflate: bool,
    head: Vec<u8>,
    frame: Option<Frame>,
    control: Vec<u8>,
    message: Option<Item>,
    closed: bool,
    /// Whatever is whole, in the order in which it became whole.
    pub items: Vec<Item>,
    /// The bytes of all data frames, headers too, as they stand on the wire.
    pub data: Vec<u8>,
}

impl Wire {
    /// `masked`: a client's frames. `deflate`: RSV1 may mark a message.
    #[must_use]
    pub fn new(masked: bool, deflate: bool) -> Self {
        Self {
            masked,
            deflate,
            head: Vec::new(),
            frame: None,
            control: Vec::new(),
            message: None,
            closed: false,
            items: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Reads on.
    ///
    /// # Errors
    /// What is wrong with the stream, at the first byte that shows it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))
    }

    /// Whether the stream stands between two frames.
    #[must_use]
    pub fn at_border(&self) -> bool {
        self.frame.is_none() && self.head.is_empty()
    }

    /// Whether a close frame was seen.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    fn byte(&mut self, byte: u8) -> Result<(), String> {
        if self.closed {
            return Err("a byte behind a close frame".into());
        }
        let Some(frame) = &mut self.frame else {
            self.head.push(byte);
            return self.header();
        };
        let plain = byte ^ frame.key[frame.seen % 4];
        frame.seen += 1;
        frame.left -= 1;
        if frame.opcode >= 8 {
            self.control.push(plain);
        } else {
            self.data.push(byte);
            match &mut self.message {
                Some(Item::Text(payload) | Item::Binary(payload) | Item::Compressed(payload)) => payload.push(plain),
                other => return Err(format!("payload for {other:?}")),
            }
        }
        self.end_of_frame()
    }

    fn header(&mut self) -> Result<(), String> {
        let head = &self.head;
        let (opcode, fin) = (head[0] & 15, head[0] >= 128);
        if ![0, 1, 2, 8, 9, 10].contains(&opcode) {
            return Err(format!("opcode {opcode}"));
        }
        let allowed = if self.deflate && (opcode == 1 || opcode == 2) { 0x40 } else { 0 };
        if head[0] & 0x70 & !allowed != 0 {
            return Err("reserved bits".into());
        }
        if opcode < 8 && (opcode == 0) != self.message.is_some() {
            return Err(format!("opcode {opcode} out of order"));
        }
        if opcode >= 8 && !fin {
            return Err("a fragmented control frame".into());
        }
        if head.len() < 2 {
            return Ok(());
        }
        if (head[1] >= 128) != self.masked {
            return Err("the mask bit".into());
        }
        let short = head[1] & 127;
        if opcode >= 8 && short > 125 {
            return Err("a control frame over 125 bytes".into());
        }
        let extended = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key_at = 2 + extended;
        if head.len() < key_at + if self.masked { 4 } else { 0 } {
            return Ok(());
        }
        let long = head[2..key_at].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        let left = if extended == 0 { u64::from(short) } else { long };
        let least = [0, 0, 126, 0, 0, 0, 0, 0, 65536][extended];
        if left < least || left >> 63 != 0 {
            return Err(format!("a length of {left} in {extended} bytes"));
        }
        let key = if self.masked { [0, 1, 2, 3].map(|index| head[key_at + index]) } else { [0; 4] };
        if opcode < 8 {
            self.data.extend_from_slice(head);
        }
        match (opcode, head[0] & 0x40 != 0) {
            (1 | 2, true) => self.message = Some(Item::Compressed(Vec::new())),
            (1, false) => self.message = Some(Item::Text(Vec::new())),
            (2, false) => self.message = Some(Item::Binary(Vec::new())),
            _ => {}
        }
        self.frame = Some(Frame { opcode, fin, key, left, seen: 0 });
        self.head.clear();
        self.end_of_frame()
    }

    fn end_of_frame(&mut self) -> Result<(), String> {
        let Some(Frame { opcode, fin, left: 0, .. }) = self.frame else { return Ok(()) };
        self.frame = None;
        match opcode {
            8 => {
                self.closed = true;
                self.items.push(Item::Close(std::mem::take(&mut self.control)));
            }
            9 => self.items.push(Item::Ping(std::mem::take(&mut self.control))),
            10 => self.items.push(Item::Pong(std::mem::take(&mut self.control))),
            _ if fin => self.items.extend(self.message.take()),
            _ => {}
        }
        Ok(())
    }
}
