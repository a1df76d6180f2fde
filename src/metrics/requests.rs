//! What one worker counts of one route's plain HTTP requests.
use super::{
    count::{Count, Histogram},
    meter::MOMENTS,
};
use std::time::Duration;

/// What became of a plain HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// The backend's answer went to the client, whole.
    Answered,
    /// The client left before it had all of its answer.
    ClientLeft,
    /// The client sent its request, or took its answer, too slowly.
    ClientStalled,
    /// No backend could be reached, or none spoke HTTP.
    BackendFailed,
    /// No backend is there, or all are left alone.
    NoBackend,
    /// A backend said nothing for too long.
    BackendTimeout,
    /// The backend ended its answer early.
    BackendBroke,
    /// The gateway itself refused: an origin, a limit.
    Refused,
}

impl RequestResult {
    pub(super) const ALL: [Self; 8] = [
        Self::Answered,
        Self::ClientLeft,
        Self::ClientStalled,
        Self::BackendFailed,
        Self::NoBackend,
        Self::BackendTimeout,
        Self::BackendBroke,
        Self::Refused,
    ];

    /// The word in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ClientLeft => "client_left",
            Self::ClientStalled => "client_stalled",
            Self::BackendFailed => "backend_failed",
            Self::NoBackend => "no_backend",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendBroke => "backend_broke",
            Self::Refused => "refused",
        }
    }
}

/// Classes of status codes, `1xx` to `5xx`.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Plain HTTP requests of a route.
#[derive(Debug)]
pub struct RequestMeter {
    pub(super) open: Count,
    pub(super) results: [Count; RequestResult::ALL.len()],
    pub(super) statuses: [Count; CLASSES.len()],
    pub(super) received: Count,
    pub(super) sent: Count,
    /// From a request's head to that of its answer.
    pub(super) took: Histogram<14>,
}

impl Default for RequestMeter {
    fn default() -> Self {
        Self {
            open: Count::default(),
            results: Default::default(),
            statuses: Default::default(),
            received: Count::default(),
            sent: Count::default(),
            took: Histogram::new(&MOMENTS),
        }
    }
}

impl RequestMeter {
    /// A request came; [`RequestMeter::ended`] is to follow.
    pub fn began(&self) {
        self.open.add(1);
    }

    /// It is over. `class` is the first digit of its status, and `took` the time to the answer's head; `received` and `sent` are the
    /// bytes of its body and of the answer's.
    pub fn ended(&self, result: RequestResult, class: Option<u16>, took: Option<Duration>, received: u64, sent: u64) {
        self.open.take(1);
        self.results[result as usize].add(1);
        if let Some(status) = class.and_then(|class| self.statuses.get(usize::from(class).wrapping_sub(1))) {
            status.add(1);
        }
        if let Some(took) = took {
            self.took.observe(took);
        }
        self.received.add(received);
        self.sent.add(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_their_place_in_the_list_of_all() {
        for (place, result) in RequestResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, place);
        }
    }
}
