//! The process's descriptor limit (`RLIMIT_NOFILE`): raised at start, and how many sessions fit into it.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Descriptors kept for what is not a session: listeners, runtimes, logs, name lookups, handshakes under way.
const RESERVE: u64 = 64;
/// Descriptors of one worker's runtime and listening sockets, besides.
const PER_WORKER: u64 = 8;
/// A session holds one descriptor for each leg.
const PER_SESSION: u64 = 2;

/// Raises the soft limit to the hard limit and answers it. For `main`: it concerns the whole process.
///
/// # Errors
/// When the kernel refuses, which leaves the limit as it was.
pub fn raise() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The limit as it stands.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many sessions fit: what `max_sessions = "auto"` means. At least one.
#[must_use]
pub fn sessions(limit: u64, workers: usize, listeners: usize) -> usize {
    let per_worker = PER_WORKER.saturating_add(u64::try_from(listeners).unwrap_or(u64::MAX));
    let workers = u64::try_from(workers).unwrap_or(u64::MAX).saturating_mul(per_worker);
    let left = limit.saturating_sub(RESERVE).saturating_sub(workers);
    usize::try_from(left / PER_SESSION).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_session_takes_two_descriptors_after_the_reserve() {
        assert_eq!(sessions(1024, 2, 1), (1024 - 64 - 2 * 9) / 2);
    }

    #[test]
    fn a_tiny_limit_still_lets_one_session_in() {
        assert_eq!(sessions(10, 4, 4), 1);
    }

    #[test]
    fn no_limit_is_no_overflow() {
        assert!(sessions(u64::MAX, 64, 8) > 1 << 30);
    }

    #[test]
    fn raising_reaches_the_hard_limit() {
        let raised = raise().unwrap();
        assert_eq!(raised, limit());
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), raised);
    }
}
