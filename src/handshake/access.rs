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

impl Caller<'_> {
    /// The headers that a service which decides is sent.
    fn told(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        remove_hop_by_hop(&mut headers);
        self.provenance.tell(&mut headers, self.authority);
        headers
    }
}

/// What becomes of it.
pub(super) enum Entry {
    Granted(Granted),
    /// The answer of the service that was asked.
    Answered(Response<Body>),
}

/// What such an answer is counted as.
pub(super) const ANSWERED: HandshakeResult = HandshakeResult::AuthRefused;

/// The same for a plain request. The rates are those of sessions: a page asks for more than they would allow. But a wrong
/// password counts as a handshake, and who guessed too often has to wait, as with handshakes.
pub(super) async fn check_plain(route: &Route, rates: &Rates, caller: &Caller<'_>) -> Result<Entry, Refusal> {
    let client = caller.provenance.client;
    let may_guess = route.guard.may_guess(caller.headers);
    if may_guess && route.guard.admits(client) {
        rates.allow(Counted::Handshakes, client, caller.now).map_err(Refusal::Rate)?;
    }
    let asked = Asked { client, method: caller.method, target: caller.target, headers: caller.headers };
    match route.guard.check(&asked, || caller.told()).await {
        Ok(Decision::Answered(answer)) => Ok(Entry::Answered(passed_on(answer))),
        Ok(Decision::Granted(granted)) => Ok(Entry::Granted(granted)),
        Err(refusal) => {
            if may_guess && let NotLetIn::Credentials(_) = &refusal {
                rates.take(Counted::Handshakes, client, caller.now).map_err(Refusal::Rate)?;
            }
            Err(Refusal::Entry(refusal))
        }
    }
}

/// In this order: the route's lists, the rates for handshakes, password, service, the rates for sessions.
pub(super) async fn check(route: &Route, rates: &Rates, caller: &Caller<'_>) -> Result<Entry, Refusal> {
    let client = caller.provenance.client;
    if !route.guard.admits(client) {
        return Err(Refusal::Entry(NotLetIn::Address));
    }
    rates.take(Counted::Handshakes, client, caller.now).map_err(Refusal::Rate)?;
    let asked = Asked { client, method: caller.method, target: caller.target, headers: caller.headers };
    match route.guard.check(&asked, || caller.told()).await.map_err(Refusal::Entry)? {
        Decision::Answered(answer) => Ok(Entry::Answered(passed_on(answer))),
        Decision::Granted(granted) => {
            rates.take(Counted::Sessions, client, caller.now).map_err(Refusal::Rate)?;
            Ok(Entry::Granted(granted))
        }
    }
}
