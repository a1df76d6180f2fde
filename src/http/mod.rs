//! Plain HTTP requests for routes that also serve them: from a request head to a backend's streamed answer.
//!
//! Connections to backends are kept in a pool of our own, of hyper's `client::conn`: a worker's streams stay on its thread, its
//! backends are chosen by the pool of the route, and each may be a Unix socket, none of which hyper-util's `Client` knows.
pub(crate) mod body;
mod exchange;
pub(crate) mod framing;
mod ledger;
mod pool;
pub(crate) mod request;
mod response;

pub(crate) use exchange::{Asked, exchange};
pub(crate) use ledger::{Due, Ledger, Report};
pub use ledger::{RequestRecord, RequestResult};
pub(crate) use pool::Connections;
