//! Frames as the simulated peers write and read them: tungstenite's headers, not the gateway's scanner.
use std::io::Cursor;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) opcode: OpCode,
    pub(crate) masked: bool,
    pub(crate) fin: bool,
    pub(crate) payload: Vec<u8>,
    /// As it stood on the wire.
    pub(crate) raw: Vec<u8>,
}

pub(crate) const TEXT: OpCode = OpCode::Data(Data::Text);
pub(crate) const BINARY: OpCode = OpCode::Data(Data::Binary);
pub(crate) const CONTINUE: OpCode = OpCode::Data(Data::Continue);
pub(crate) const CLOSE: OpCode = OpCode::Control(Control::Close);
pub(crate) const PING: OpCode = OpCode::Control(Control::Ping);
pub(crate) const PONG: OpCode = OpCode::Control(Control::Pong);

fn mask(bytes: &mut [u8], key: [u8; 4]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte ^= key[index % 4];
    }
}

/// A frame on the wire.
pub(crate) fn encode(opcode: OpCode, fin: bool, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let header = FrameHeader { is_final: fin, opcode, mask: key, ..FrameHeader::default() };
    let mut raw = Vec::with_capacity(payload.len() + 14);
    header.format(payload.len() as u64, &mut raw).unwrap();
    let start = raw.len();
    raw.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut raw[start..], key);
    }
    raw
}

/// Marks a frame as the first of a compressed message (RFC 7692 section 6).
pub(crate) fn set_rsv1(raw: &mut [u8]) {
    raw[0] |= 0x40;
}

/// The first frame of `bytes`; `None` if it is not whole.
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Frame>, String> {
    let mut cursor = Cursor::new(bytes);
    let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|error| format!("no frame: {error}"))? else {
        return Ok(None);
    };
    let (start, length) = (cursor.position() as usize, usize::try_from(length).unwrap());
    let reserved = (header.rsv1 && matches!(header.opcode, OpCode::Control(_))) || header.rsv2 || header.rsv3;
    if reserved || length > 200_000 {
        return Err(format!("no frame anybody sent: {header:?}, {length} bytes"));
    }
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let mut payload = body.to_vec();
    if let Some(key) = header.mask {
        mask(&mut payload, key);
    }
    let raw = bytes[..start + length].to_vec();
    Ok(Some(Frame { opcode: header.opcode, masked: header.mask.is_some(), fin: header.is_final, payload, raw }))
}

/// The code of a close frame; 1005 for none.
pub(crate) fn code(payload: &[u8]) -> u16 {
    payload.first_chunk::<2>().map_or(1005, |code| u16::from_be_bytes(*code))
}
