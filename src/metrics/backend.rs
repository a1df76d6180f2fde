//! What is counted of one backend, by all workers together: touched by handshakes and ends, never by frames.
use crate::relay::EndReason;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Why a backend was dialled in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Its name does not resolve.
    Resolve,
    Connect,
    Tls,
    /// Not connected in time.
    ConnectTimeout,
    /// What it answered is no WebSocket handshake.
    Handshake,
    /// Connected, but no answer in time.
    AnswerTimeout,
    /// It answered 502, 503 or 504.
    Unavailable,
    /// It was not dialled: `max_dials` others are under way, or its pool's `retry_budget` is spent.
    Queue,
    /// We lack descriptors, ports or memory, or could not ask at all: no fault of the backend.
    Own,
}

impl DialFailure {
    pub(super) const ALL: [Self; 9] = [
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::ConnectTimeout,
        Self::Handshake,
        Self::AnswerTimeout,
        Self::Unavailable,
        Self::Queue,
        Self::Own,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::ConnectTimeout => "connect_timeout",
            Self::Handshake => "handshake",
            Self::AnswerTimeout => "answer_timeout",
            Self::Unavailable => "unavailable",
            Self::Queue => "queue",
            Self::Own => "own",
        }
    }
}

/// Why a backend is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// A dial or an opening handshake failed.
    Failed,
    /// Its sessions died right after they began.
    YoungDeaths,
    /// It answered pings, and most of its sessions missed their deadlines together.
    Frozen,
    /// Checks of it failed.
    Check,
}

impl Ejection {
    pub(super) const ALL: [Self; 4] = [Self::Failed, Self::YoungDeaths, Self::Frozen, Self::Check];

    /// Its name in logs, metrics and answers.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::YoungDeaths => "young_deaths",
            Self::Frozen => "frozen",
            Self::Check => "check",
        }
    }
}

/// One backend's counters. They outlive the backend, so that a reload does not set them back.
#[derive(Debug, Default)]
pub struct BackendMeter {
    down: AtomicBool,
    sessions: AtomicU64,
    requests: AtomicU64,
    dials: AtomicU64,
    failures: [AtomicU64; DialFailure::ALL.len()],
    ended: [AtomicU64; EndReason::ALL.len()],
    ejections: [AtomicU64; Ejection::ALL.len()],
}

impl BackendMeter {
    /// It works, or it is left alone for now.
    pub fn show_up(&self, up: bool) {
        self.down.store(!up, Relaxed);
    }

    /// A session, or an opening handshake that may become one, holds it; [`BackendMeter::released`] is to follow.
    pub fn held(&self) {
        self.sessions.fetch_add(1, Relaxed);
    }

    pub fn released(&self) {
        self.sessions.fetch_sub(1, Relaxed);
    }

    /// A plain request goes to it; [`BackendMeter::answered`] is to follow.
    pub fn asked(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub fn answered(&self) {
        self.requests.fetch_sub(1, Relaxed);
    }

    /// It is dialled.
    pub fn dialled(&self) {
        self.dials.fetch_add(1, Relaxed);
    }

    /// That was in vain.
    pub fn failed(&self, failure: DialFailure) {
        self.failures[failure as usize].fetch_add(1, Relaxed);
    }

    /// One of its sessions ended.
    pub fn ended(&self, reason: EndReason) {
        self.ended[reason as usize].fetch_add(1, Relaxed);
    }

    /// It works no more, and is left alone.
    pub fn ejected(&self, cause: Ejection) {
        self.show_up(false);
        self.ejections[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn ejections(&self, cause: Ejection) -> u64 {
        self.ejections[cause as usize].load(Relaxed)
    }

    pub(super) fn up(&self) -> bool {
        !self.down.load(Relaxed)
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn dials(&self) -> u64 {
        self.dials.load(Relaxed)
    }

    pub(super) fn failures(&self, failure: DialFailure) -> u64 {
        self.failures[failure as usize].load(Relaxed)
    }

    pub(super) fn ends(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_their_place_in_the_list_of_all() {
        for (place, failure) in DialFailure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
        }
        for (place, cause) in Ejection::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
        }
    }
}
