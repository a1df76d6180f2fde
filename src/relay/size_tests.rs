//! What an idle session costs in the core.
use super::*;
use crate::protocol::{heartbeat::Heartbeat, scanner::Scanner};

/// A gateway holds one of these for each of its sessions, a million of them perhaps: a field that is added here is paid
/// for by all. What is rare is boxed.
#[test]
fn an_idle_session_stays_small() {
    let sizes = [
        ("Relay", size_of::<Relay>(), 584),
        ("Leg", size_of::<Leg>(), 264),
        ("Scanner", size_of::<Scanner>(), 48),
        ("Heartbeat", size_of::<Heartbeat>(), 120),
    ];
    for (name, size, most) in sizes {
        assert!(size <= most, "{name}: {size} bytes, at most {most}: {sizes:?}");
    }
}
