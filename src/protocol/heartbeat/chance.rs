//! When pings go out by chance, so that legs opened together are not pinged together.

use super::Heartbeat;

/// The numbers nobody may guess or synchronise with; drawn by the caller, per leg.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// Marks our pings, so that only their pongs are swallowed.
    pub secret: u64,
    /// Moves pings about.
    pub jitter: u64,
}

impl Heartbeat {
    /// A factor from `1 - jitter` to `1 + jitter`.
    pub(super) fn spread(&mut self, jitter: f64) -> f64 {
        1.0 + jitter * (2.0 * self.random() - 1.0)
    }

    /// A number from 0 to 1 that nobody needs to find unguessable (splitmix64).
    pub fn random(&mut self) -> f64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.jitter;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
