//! UTF-8 of text messages, across chunk and fragment borders (RFC 6455 section 8.1).
use simdutf8::compat::from_utf8;

/// The text was not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

/// Checks one message after the other; between chunks it keeps the bytes of a split code point.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validator {
    carry: [u8; 3],
    carried: u8,
}

impl Validator {
    /// Whether what came so far ends between two code points.
    #[inline]
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.carried == 0
    }

    /// Checks the next bytes of the message; fails as soon as they can no longer become UTF-8.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), NotUtf8> {
        let rest = if self.carried == 0 { bytes } else { &bytes[self.complete(bytes)?..] };
        match from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(NotUtf8),
            Err(error) => {
                let tail = &rest[error.valid_up_to()..];
                self.carry[..tail.len()].copy_from_slice(tail);
                self.carried = tail.len() as u8;
                Ok(())
            }
        }
    }

    /// The message ends here.
    pub fn finish(&mut self) -> Result<(), NotUtf8> {
        let split = std::mem::take(&mut self.carried);
        if split == 0 { Ok(()) } else { Err(NotUtf8) }
    }

    /// Tries to end the carried code point with the first of `bytes`; how many it took.
    #[cold]
    fn complete(&mut self, bytes: &[u8]) -> Result<usize, NotUtf8> {
        let mut point = [0; 4];
        let carried = usize::from(self.carried);
        point[..carried].copy_from_slice(&self.carry[..carried]);
        for (taken, byte) in bytes.iter().enumerate() {
            let length = carried + taken + 1;
            point[length - 1] = *byte;
            match std::str::from_utf8(&point[..length]) {
                Ok(_) => {
                    self.carried = 0;
                    return Ok(taken + 1);
                }
                Err(error) if error.error_len().is_some() => return Err(NotUtf8),
                Err(_) => {
                    self.carry[..length].copy_from_slice(&point[..length]);
                    self.carried = length as u8;
                }
            }
        }
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn in_chunks(bytes: &[u8], size: usize) -> Result<(), NotUtf8> {
        let mut validator = Validator::default();
        for chunk in bytes.chunks(size) {
            validator.push(chunk)?;
        }
        validator.finish()
    }

    #[test]
    fn fails_as_soon_as_it_can() {
        let mut validator = Validator::default();
        validator.push(b"\xf4").unwrap();
        assert_eq!(validator.push(b"\x90"), Err(NotUtf8), "beyond U+10FFFF");
    }

    #[test]
    fn a_message_must_not_end_inside_a_code_point() {
        let mut validator = Validator::default();
        validator.push("κ".as_bytes().get(..1).unwrap()).unwrap();
        assert_eq!(validator.finish(), Err(NotUtf8));
        assert_eq!(validator.push(b"next message").and_then(|()| validator.finish()), Ok(()));
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(text in ".{0,200}", size in 1usize..9) {
            prop_assert_eq!(in_chunks(text.as_bytes(), size), Ok(()));
        }

        #[test]
        fn agrees_with_the_standard_library(bytes in prop::collection::vec(prop::num::u8::ANY, 0..12), size in 1usize..5) {
            prop_assert_eq!(in_chunks(&bytes, size).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
