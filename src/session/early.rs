//! Bytes that wait to be relayed.

/// What has been read and is not relayed yet, because it came right behind a handshake, over its sender's rate, or was too much
/// for one turn; never empty between turns.
pub(super) struct Early {
    bytes: Vec<u8>,
    /// Where what waits begins.
    from: usize,
    /// How many of them the relay has been told of.
    told: usize,
}

impl Early {
    /// What the relay has not been told of.
    pub(super) fn new(bytes: Vec<u8>) -> Option<Box<Self>> {
        (!bytes.is_empty()).then(|| Box::new(Self { bytes, from: 0, told: 0 }))
    }

    /// What the relay has been told of.
    pub(super) fn told(bytes: &[u8]) -> Box<Self> {
        Box::new(Self { bytes: bytes.to_vec(), from: 0, told: bytes.len() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// Takes as much as fits: how much that is, and how much of its end the relay has not been told of.
    pub(super) fn take(&mut self, into: &mut [u8]) -> (usize, usize) {
        let waiting = &self.bytes[self.from..];
        let taken = waiting.len().min(into.len());
        into[..taken].copy_from_slice(&waiting[..taken]);
        self.from += taken;
        let fresh = taken.saturating_sub(self.told);
        self.told -= taken - fresh;
        (taken, fresh)
    }

    /// Puts bytes before those that wait; the relay has been told of them.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        // Mostly they were just taken.
        if let Some(from) = self.from.checked_sub(bytes.len()) {
            self.bytes[from..self.from].copy_from_slice(bytes);
            self.from = from;
        } else {
            self.bytes.splice(..self.from, bytes.iter().copied());
            self.from = 0;
        }
        self.told += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_taken_and_put_back_comes_in_order_and_is_told_once() {
        assert!(Early::new(Vec::new()).is_none());
        let mut early = Early::new(b"abcdefgh".to_vec()).unwrap();
        let mut room = [0; 3];
        assert_eq!((early.take(&mut room), room), ((3, 3), *b"abc"));
        early.put_back(b"c");
        assert_eq!((early.take(&mut room), room), ((3, 2), *b"cde"));
        // More than was taken: held back from before.
        early.put_back(b"uvwxyz");
        assert!(!early.is_empty());
        let mut all = [0; 16];
        assert_eq!(early.take(&mut all), (9, 3));
        assert_eq!(&all[..9], b"uvwxyzfgh");
        assert!(early.is_empty());
        let mut told = Early::told(b"ij");
        assert_eq!(told.take(&mut all), (2, 0));
        assert!(told.is_empty());
    }
}
