//! Who may open a session now: session, address and memory limits, and draining.

/// The right to hold one session; given back on drop.
#[derive(Debug)]
pub struct Permit {
    _private: (),
}
