//! The backends of a pool as they are now: names that are resolved anew change them while the pool serves.
use super::Backend;
use std::sync::{Arc, PoisonError, RwLock};

/// A list that is replaced as a whole; touched by opening handshakes, never by frames.
#[derive(Debug)]
pub(super) struct Members(RwLock<Arc<[Arc<Backend>]>>);

impl Members {
    pub(super) fn new(backends: impl IntoIterator<Item = Arc<Backend>>) -> Self {
        Self(RwLock::new(backends.into_iter().collect()))
    }

    /// The list as it is at this moment; it stays so for whoever holds it.
    pub(super) fn now(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
