//! What a peer does with our pings: it answers each with its pong, at once.

use pulsegate::relay::Side;

/// The opcodes with FIN set (RFC 6455 sections 5.5.2 and 5.5.3).
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// The frame that answers the ping at the start of `bytes`, and the length of both. `side`: where the peer is. A client
/// masks, here with zeros; a backend does not, and finds masked what it is sent.
pub(crate) fn answer(side: Side, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (&[opcode, length], rest) = bytes.split_first_chunk()?;
    let payload = usize::from(length & !MASKED);
    assert_eq!(
        (opcode, length & MASKED != 0),
        (PING, side == Side::Upstream),
        "only pings come, masked as the role asks"
    );
    let mut pong = Vec::with_capacity(6 + payload);
    let used = match side {
        Side::Downstream => {
            pong.extend([PONG, MASKED | length, 0, 0, 0, 0]);
            pong.extend(rest.get(..payload)?);
            2 + payload
        }
        Side::Upstream => {
            let (key, masked) = rest.split_first_chunk::<4>()?;
            pong.extend([PONG, length & !MASKED]);
            pong.extend(masked.get(..payload)?.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
            6 + payload
        }
    };
    Some((pong, used))
}
