//! The same calls without the feature: they do nothing, and cost nothing.
use http::{HeaderMap, StatusCode, request::Parts};

#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival;

impl Arrival {
    #[must_use]
    pub fn now() -> Self {
        Self
    }

    pub fn secured(&mut self) {}
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake;

impl Handshake {
    #[must_use]
    pub fn begin(_arrival: Arrival, _path: &str, _headers: &HeaderMap) -> Self {
        Self
    }

    pub fn routed(&self, _route: &str) {}

    pub fn attach(&self, _session: &str, _head: &mut Parts) {}

    pub fn end(&self, _status: StatusCode) {}
}

#[derive(Clone, Copy, Debug)]
pub struct Attempt;

impl Attempt {
    #[must_use]
    pub fn begin(_head: &mut Parts, _backend: &str) -> Self {
        Self
    }

    pub fn dialled(&mut self) {}

    pub fn answered(&mut self, _status: StatusCode) {}
}
