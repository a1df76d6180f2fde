//! From a handshake whose route is known to whether its client may come in.
use super::{
    forwarded::Provenance,
    headers::remove_hop_by_hop,
    response::{Body, Refusal, passed_on},
};
use crate::{
    access::{
        Asked, Decision, Granted, NotLetIn,
        rates::{Counted, Rates},
    },
    metrics::HandshakeResult,
    route::Route,
};
use http::{HeaderMap, HeaderValue, Method, Response, uri::PathAndQuery};
use std::time::Instant;

/// What the route's guard and the gateway's rates go by.
pub(super) struct Caller<'a> {
    pub(super) provenance: &'a Provenance,
    pub(super) method: &'a Method,
    pub(super) target: &'a PathAndQuery,
    /// As the client named us.
    pub(super) authority: &'a HeaderValue,
    pub(super) headers: &'a HeaderMap,
    pub(super) now: Instant,
}

/// What becomes of it.
pub(super) enum Entry {
    Granted(Granted),
    /// The answer of the service that was asked.
    Answered(Response<Body>),
}

/// What such an answer is counted as.
pub(super) const ANSWERED: HandshakeResult = HandshakeResult::AuthRefused;

/// In this order: the route's lists, the rates for handshakes, password, service, the rates for sessions.
pub(super) async fn check(route: &Route, rates: &Rates, caller: &Caller<'_>) -> Result<Entry, Refusal> {
    let client = caller.provenance.client;
    if !route.guard.admits(client) {
        return Err(Refusal::Entry(NotLetIn::Address));
    }
    rates.take(Counted::Handshakes, client, caller.now).map_err(Refusal::Rate)?;
    let asked = Asked { client, method: caller.method, target: caller.target, headers: caller.headers };
    let told = || {
        let mut headers = caller.headers.clone();
        remove_hop_by_hop(&mut headers);
        caller.provenance.tell(&mut headers, caller.authority);
        headers
    };
    match route.guard.check(&asked, told).await.map_err(Refusal::Entry)? {
        Decision::Answered(answer) => Ok(Entry::Answered(passed_on(answer))),
        Decision::Granted(granted) => {
            rates.take(Counted::Sessions, client, caller.now).map_err(Refusal::Rate)?;
            Ok(Entry::Granted(granted))
        }
    }
}
