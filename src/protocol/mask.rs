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

#[cfg(test)]
mod tests {
    use super::*;

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
