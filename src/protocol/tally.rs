//! Counts of what became whole on a leg.

/// How many frames and data messages became whole: since the beginning, modulo 2^32, or since an earlier tally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Control frames too.
    pub frames: u32,
    pub messages: u32,
}

impl Tally {
    /// Frames that ended no data message: fragments but the last, and control frames. Each is looked at by itself.
    #[inline]
    #[must_use]
    pub fn others(self) -> u32 {
        self.frames.wrapping_sub(self.messages)
    }

    /// What came after `earlier`.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            frames: self.frames.wrapping_sub(earlier.frames),
            messages: self.messages.wrapping_sub(earlier.messages),
        }
    }
}
