//! Masking (RFC 6455 section 5.3).

/// Writes `source` XOR `key` into `target`; `offset` is the place of `source` in its payload.
///
/// # Panics
/// If the two differ in length.
#[inline]
pub fn apply(source: &[u8], key: [u8; 4], offset: u64, target: &mut [u8]) {
    assert_eq!(source.len(), target.len());
    let mut key = key;
    key.rotate_left((offset % 4) as usize);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut sources = source.chunks_exact(8);
    let mut targets = target.chunks_exact_mut(8);
    for (from, to) in sources.by_ref().zip(targets.by_ref()) {
        let word = u64::from_ne_bytes([from[0], from[1], from[2], from[3], from[4], from[5], from[6], from[7]]);
        to.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    for (index, (from, to)) in sources.remainder().iter().zip(targets.into_remainder()).enumerate() {
        *to = from ^ key[index % 4];
    }
}

/// Whether all of `source` XOR `key` is ASCII; `offset` is the place of `source` in its payload. A key of zeros masks
/// nothing.
#[inline]
#[must_use]
pub fn hides_ascii(source: &[u8], key: [u8; 4], offset: u64) -> bool {
    let mut key = key;
    key.rotate_left((offset % 4) as usize);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut high = 0;
    let mut blocks = source.chunks_exact(64);
    for block in blocks.by_ref() {
        let mut words = 0;
        for word in block.chunks_exact(8) {
            words |=
                wide ^ u64::from_ne_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        }
        high |= words;
    }
    let mut words = blocks.remainder().chunks_exact(8);
    for word in words.by_ref() {
        high |= wide ^ u64::from_ne_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
    }
    for (index, byte) in words.remainder().iter().enumerate() {
        high |= u64::from(byte ^ key[index % 4]);
    }
    high & 0x8080_8080_8080_8080 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_known_through_any_mask() {
        let key = [0x37, 0xfa, 0x21, 0x8d];
        for length in [0, 1, 3, 7, 8, 9, 63, 64, 65, 200] {
            let plain: Vec<u8> = (0..length).map(|at| (at % 128) as u8).collect();
            for offset in 0..5 {
                let mut masked = vec![0; plain.len()];
                apply(&plain, key, offset, &mut masked);
                assert!(hides_ascii(&masked, key, offset));
                assert!(hides_ascii(&plain, [0; 4], offset));
                for odd in 0..plain.len() {
                    masked[odd] ^= 0x80;
                    assert!(!hides_ascii(&masked, key, offset), "byte {odd} of {length}");
                    masked[odd] ^= 0x80;
                }
            }
        }
    }

    #[test]
    fn every_offset_and_length_agrees_with_the_definition() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let source: Vec<u8> = (0..100).collect();
        for offset in 0..9u64 {
            for length in 0..source.len() {
                let mut target = vec![0; length];
                apply(&source[..length], key, offset, &mut target);
                for (index, byte) in target.iter().enumerate() {
                    assert_eq!(*byte, source[index] ^ key[(index + offset as usize) % 4]);
                }
            }
        }
    }
}
