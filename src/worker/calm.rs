//! What a worker does when opening handshakes have ceased for a while: what they needed, idle sessions do not.
use std::{cell::Cell, sync::OnceLock};

/// Ticks without a handshake after which it is calm: two seconds.
const CALM_TICKS: u8 = 4;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Has every worker of this process call `give_back`, on its own thread, once no opening handshake came for two seconds after
/// some did. An allocator that keeps freed blocks for each thread can give them back then: nothing of an idle session
/// would ever make it. The first call of this function counts; allocators are the whole process's, too.
pub fn when_calm(give_back: fn()) {
    // Whoever came first stays.
    let _ = GIVE_BACK.set(give_back);
}

/// Whether handshakes came lately.
#[derive(Debug, Default)]
pub(super) struct Calm {
    greeted: Cell<bool>,
    /// Until it is calm; 0 when it is.
    ticks: Cell<u8>,
}

impl Calm {
    /// A handshake begins.
    pub(super) fn disturb(&self) {
        self.greeted.set(true);
    }

    /// To be called in each tick.
    pub(super) fn tick(&self) {
        if self.falls()
            && let Some(give_back) = GIVE_BACK.get()
        {
            give_back();
        }
    }

    /// Whether it has become calm with this tick.
    fn falls(&self) -> bool {
        let before = self.ticks.get();
        self.ticks.set(if self.greeted.take() { CALM_TICKS } else { before.saturating_sub(1) });
        before == 1 && self.ticks.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_becomes_calm_once_after_the_last_handshake() {
        let calm = Calm::default();
        let ticks = |count: u8| (0..count).filter(|_| calm.falls()).count();
        assert_eq!(ticks(20), 0, "nothing was disturbed");
        for _ in 0..3 {
            calm.disturb();
            assert_eq!(ticks(CALM_TICKS), 0, "too early");
        }
        calm.disturb();
        calm.disturb();
        assert_eq!(ticks(1 + CALM_TICKS), 1);
        assert_eq!(ticks(20), 0, "once is enough");
    }
}
