//! Bytes for a leg that its transport has not taken yet.

/// A queue of bytes that owns no memory while empty, and counts the stream's positions.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes ever put into the outgoing stream, waiting or not.
    position: u64,
}

impl Outbox {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// What goes out next.
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The end of the outgoing stream so far, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How much of the outgoing stream the transport has taken, in bytes.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.position - self.len() as u64
    }

    /// Bytes that the transport took without waiting here.
    #[inline]
    pub fn passed(&mut self, count: usize) {
        debug_assert!(self.is_empty());
        self.position += count as u64;
    }

    /// Appends bytes that the transport did not take.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
    }

    /// The transport took the first `count` bytes.
    pub fn take(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len());
        if self.start >= self.bytes.len() {
            self.clear();
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.position -= self.len() as u64;
        self.bytes = Vec::new();
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_positions() {
        let mut outbox = Outbox::default();
        outbox.passed(10);
        outbox.push(b"abcd");
        outbox.take(3);
        assert_eq!((outbox.waiting(), outbox.taken(), outbox.position()), (&b"d"[..], 13, 14));
        outbox.push(b"ef");
        assert_eq!(outbox.waiting(), b"def");
        outbox.take(3);
        assert!(outbox.is_empty());
        assert_eq!((outbox.taken(), outbox.bytes.capacity()), (16, 0), "an idle leg owns no buffer");
    }
}
