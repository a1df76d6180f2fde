//! The process's descriptor limit (`RLIMIT_NOFILE`), which `main` raises at start.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn raising_reaches_the_hard_limit() {
        let raised = raise().unwrap();
        assert_eq!(raised, limit());
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), raised);
    }
}
