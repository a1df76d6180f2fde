//! From the fuzzer's bytes to what peers say: frames, mostly well-formed, and noise.
use arbitrary::{Result, Unstructured};

/// Bytes of payload in one generated frame, at most: past both borders of the length's short form.
const LONGEST: usize = 700;

/// Appends a frame, or a few bytes that may be none. `masked`: as a client writes it.
///
/// # Errors
/// If the input is used up.
pub fn say(u: &mut Unstructured<'_>, masked: bool, into: &mut Vec<u8>) -> Result<()> {
    let kind: u8 = u.arbitrary()?;
    if kind >= 0xf0 {
        let length = u.int_in_range(0..=20)?.min(u.len());
        into.extend_from_slice(u.bytes(length)?);
        return Ok(());
    }
    // The high bit of the kind is FIN, turned so that whole frames are the common case.
    let opcode = [0, 1, 2, 8, 9, 10, 1, 2][usize::from(kind & 7)];
    let fin = if kind & 0x08 == 0 { 0x80 } else { 0 };
    let rsv1 = if kind & 0x70 == 0x70 { 0x40 } else { 0 };
    let payload = payload(u, opcode)?;
    let key = if masked { Some(u.arbitrary()?) } else { None };
    frame(fin | rsv1 | opcode, &payload, key, into);
    Ok(())
}

fn payload(u: &mut Unstructured<'_>, opcode: u8) -> Result<Vec<u8>> {
    let length = match u.arbitrary::<u8>()? {
        short @ 0..=199 => usize::from(short % 32),
        200..=219 => u.int_in_range(124..=128)?,
        220..=255 => u.int_in_range(0..=LONGEST)?,
    };
    let own = length.min(u.len());
    let mut payload = u.bytes(own)?.to_vec();
    // A long payload need not cost a long input.
    payload.resize(length, b'x');
    if opcode == 8 && length >= 2 && payload[0] < 0x80 {
        let code = [1000u16, 1001, 1005, 1011, 1012, 1014, 3000, 4999][usize::from(payload[0] % 8)];
        payload[..2].copy_from_slice(&code.to_be_bytes());
    }
    Ok(payload)
}

/// Appends a frame with a length in its shortest form.
pub fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>, into: &mut Vec<u8>) {
    let mask = if key.is_some() { 0x80 } else { 0 };
    into.push(first);
    match payload.len() {
        short @ 0..=125 => into.push(mask | short as u8),
        long @ 126..=0xffff => {
            into.push(mask | 126);
            into.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            into.push(mask | 127);
            into.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    let key = key.inspect(|key| into.extend_from_slice(key)).unwrap_or_default();
    into.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
}
