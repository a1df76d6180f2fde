//! Bytes for a leg that its transport has not taken yet.

/// A queue of bytes that owns no memory while empty, and counts the stream's positions.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Option<Box<Waiting>>,
    /// Bytes ever put into the outgoing stream, waiting or not.
    position: u64,
}

/// At least one byte. Boxed, for most of the time nothing waits.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Bytes at the beginning that the transport took already.
    start: usize,
}

impl Outbox {
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Bytes that wait.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting().len()
    }

    /// What goes out next.
    #[inline]
    #[must_use]
    pub fn waiting(&self) -> &[u8] {
        self.waiting.as_deref().map_or(&[], |waiting| &waiting.bytes[waiting.start..])
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
        if bytes.is_empty() {
            return;
        }
        let waiting = self.waiting.get_or_insert_default();
        if waiting.start > waiting.bytes.len() / 2 {
            waiting.bytes.drain(..waiting.start);
            waiting.start = 0;
        }
        waiting.bytes.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
    }

    /// The transport took the first `count` bytes.
    pub fn take(&mut self, count: usize) {
        let Some(waiting) = &mut self.waiting else { return };
        waiting.start += count;
        debug_assert!(waiting.start <= waiting.bytes.len());
        if waiting.start >= waiting.bytes.len() {
            self.waiting = None;
        }
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.position -= self.len() as u64;
        self.waiting = None;
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
        assert_eq!(outbox.taken(), 16);
        assert!(outbox.waiting.is_none(), "an idle leg owns no buffer");
        outbox.push(b"gone");
        outbox.clear();
        assert_eq!((outbox.taken(), outbox.position()), (16, 16));
    }
}
