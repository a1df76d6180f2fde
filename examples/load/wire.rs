//! Frames by hand (RFC 6455 section 5.2): written into a buffer, read from a stream of chunks without assembling them.
//!
//! It shares no code with the gateway, so that a mistake there cannot hide here.

pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The longest payload of a control frame.
pub(crate) const CONTROL_MAX: usize = 125;
const HEADER_MAX: usize = 14;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub(crate) length: u64,
    /// Bytes of the header itself.
    size: usize,
}

impl Header {
    pub(crate) fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }

    /// Reads the header at the start of `bytes`; `None` if it is not whole.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err("a reserved bit is set");
        }
        let (fin, opcode, short) = (first & 0x80 != 0, first & 0x0f, second & 0x7f);
        if matches!(opcode, 0x3..=0x7 | 0xb..) {
            return Err("a reserved opcode");
        }
        if opcode >= CLOSE && (!fin || usize::from(short) > CONTROL_MAX) {
            return Err("a control frame that is fragmented or too long");
        }
        let (length, extended) = match short {
            126 => {
                let Some(&[a, b]) = rest.get(..2) else { return Ok(None) };
                (u64::from(u16::from_be_bytes([a, b])), 2)
            }
            127 => {
                let Some(&[a, b, c, d, e, f, g, h]) = rest.get(..8) else { return Ok(None) };
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 8)
            }
            short => (u64::from(short), 0),
        };
        let (key, keyed) = if second & 0x80 == 0 {
            (None, 0)
        } else {
            let Some(&[a, b, c, d]) = rest.get(extended..extended + 4) else { return Ok(None) };
            (Some([a, b, c, d]), 4)
        };
        Ok(Some(Self { fin, opcode, key, length, size: 2 + extended + keyed }))
    }
}

/// What a stream of frames is made of. After each `Head` come one or more `Payload`, the last one marked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Head(Header),
    /// `at` is the place of these bytes in the frame's payload.
    Payload {
        bytes: &'a [u8],
        at: u64,
        last: bool,
    },
}

/// Reads a stream that arrives in chunks of any size.
#[derive(Default)]
pub(crate) struct Scanner {
    /// The first bytes of a header that a chunk cut, and how many.
    cut: [u8; HEADER_MAX],
    held: usize,
    /// Within a frame: bytes of payload that came, and that are to come.
    payload: Option<(u64, u64)>,
}

impl Scanner {
    /// Takes the next part off the front of `input`; `None` once it needs more.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Part<'a>>, &'static str> {
        if let Some((at, left)) = self.payload {
            if input.is_empty() && left > 0 {
                return Ok(None);
            }
            let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
            let (bytes, rest) = input.split_at(taken);
            *input = rest;
            let left = left - taken as u64;
            self.payload = (left > 0).then_some((at + taken as u64, left));
            return Ok(Some(Part::Payload { bytes, at, last: left == 0 }));
        }
        let header = if self.held == 0 { self.whole(input)? } else { self.mended(input)? };
        Ok(header.map(|header| {
            self.payload = Some((0, header.length));
            Part::Head(header)
        }))
    }

    fn whole(&mut self, input: &mut &[u8]) -> Result<Option<Header>, &'static str> {
        let header = Header::parse(input)?;
        if let Some(header) = &header {
            *input = &input[header.size..];
        } else {
            self.held = input.len();
            self.cut[..self.held].copy_from_slice(input);
            *input = &[];
        }
        Ok(header)
    }

    fn mended(&mut self, input: &mut &[u8]) -> Result<Option<Header>, &'static str> {
        while let [next, rest @ ..] = *input {
            self.cut[self.held] = *next;
            self.held += 1;
            *input = rest;
            if let Some(header) = Header::parse(&self.cut[..self.held])? {
                self.held = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

/// Appends a frame's header.
pub(crate) fn put_header(out: &mut Vec<u8>, fin: bool, opcode: u8, length: u64, key: Option<[u8; 4]>) {
    out.push(opcode | if fin { 0x80 } else { 0 });
    let masked = if key.is_some() { 0x80 } else { 0 };
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..=125), _) => out.push(masked | length),
        (_, Ok(length)) => {
            out.push(masked | 126);
            out.extend(length.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(masked | 127);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(key.unwrap_or_default().iter().take(if key.is_some() { 4 } else { 0 }));
}

/// Appends a whole frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: Option<[u8; 4]>) {
    put_header(out, true, opcode, payload.len() as u64, key);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key, 0);
    }
}

/// Masks or unmasks in place; `at` is the place of `bytes` in the frame's payload.
pub(crate) fn mask(bytes: &mut [u8], mut key: [u8; 4], at: u64) {
    key.rotate_left((at % 4) as usize);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// `count` messages of `size` bytes in one buffer, each a frame of its own; a client's are masked, each by its own key.
pub(crate) fn messages(count: usize, size: usize, text: bool, masked: bool) -> Vec<u8> {
    let letters = b"Pack my box with five dozen liquor jugs. ";
    let payload: Vec<u8> = if text {
        letters.iter().copied().cycle().take(size).collect()
    } else {
        (0..size).map(|at| (at.wrapping_mul(167) >> 3) as u8).collect()
    };
    let mut out = Vec::with_capacity(count * (size + HEADER_MAX));
    for _ in 0..count {
        let key = masked.then(|| fastrand::u32(..).to_be_bytes());
        put_frame(&mut out, if text { TEXT } else { BINARY }, &payload, key);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Opcode, end of message and unmasked payload of each frame, the stream coming in chunks of `step`.
    fn read(stream: &[u8], step: usize) -> Vec<(u8, bool, Vec<u8>)> {
        let (mut scanner, mut frames) = (Scanner::default(), Vec::new());
        let mut now = None;
        for mut chunk in stream.chunks(step) {
            while let Some(part) = scanner.next(&mut chunk).unwrap() {
                match part {
                    Part::Head(header) => now = Some((header, Vec::new())),
                    Part::Payload { bytes, at, last } => {
                        let (header, payload) = now.as_mut().unwrap();
                        assert_eq!(at, payload.len() as u64);
                        let mut bytes = bytes.to_vec();
                        mask(&mut bytes, header.key.unwrap_or_default(), at);
                        payload.extend(bytes);
                        if last {
                            let (header, payload) = now.take().unwrap();
                            assert_eq!(header.length, payload.len() as u64);
                            frames.push((header.opcode, header.fin, payload));
                        }
                    }
                }
            }
        }
        assert!(now.is_none(), "a frame is left open");
        frames
    }

    #[test]
    fn whatever_is_written_reads_back_in_chunks_of_any_size() {
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        let sizes = [0, 1, 125, 126, 300, 65535, 65536, 70_000];
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (index, size) in sizes.into_iter().enumerate() {
            let payload: Vec<u8> = (0..size).map(|at: usize| at as u8).collect();
            let opcode = [TEXT, BINARY][index % 2];
            put_frame(&mut stream, opcode, &payload, if index % 3 == 0 { None } else { key });
            expected.push((opcode, true, payload));
            put_frame(&mut stream, PING, b"are you there", key);
            expected.push((PING, true, b"are you there".to_vec()));
        }
        put_header(&mut stream, false, TEXT, 2, None);
        stream.extend(b"ab");
        expected.push((TEXT, false, b"ab".to_vec()));
        put_header(&mut stream, true, 0, 0, None);
        expected.push((0, true, Vec::new()));
        for step in [1, 2, 3, 7, 13, 64, 1000, 65536, stream.len()] {
            assert_eq!(read(&stream, step), expected, "chunks of {step}");
        }
    }

    #[test]
    fn broken_headers_are_named() {
        for broken in [[0xc2, 0], [0x83, 0], [0x8b, 0], [0x09, 0], [0x89, 126]] {
            assert!(Scanner::default().next(&mut &broken[..]).is_err(), "{broken:x?}");
        }
    }

    #[test]
    fn messages_have_their_size_and_text_is_text() {
        for (text, opcode) in [(true, TEXT), (false, BINARY)] {
            let frames = read(&messages(3, 200, text, true), 1 << 20);
            assert_eq!(frames.len(), 3);
            for (found, fin, payload) in frames {
                assert_eq!((found, fin, payload.len()), (opcode, true, 200));
                assert!(!text || payload.is_ascii());
            }
        }
    }
}
