//! From a handshake whose route is known to whether its client may come in.
use super::{
    forwarded::Provenance,
    headers::remove_hop_by_hop,
    response::{Body, Refusal, passed_on},
};
use crate::{
    access::{
        Asked, Decision, Granted, Guess, NotLetIn,
        rates::{Counted, Rates},
    },
    metrics::HandshakeResult,
    route::Route,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response,
    header::{AUTHORIZATION, COOKIE},
    uri::PathAndQuery,
};
use tokio::time::Instant;

/// What the route's guard and the gateway's rates go by.
pub(super) struct Caller<'a> {
    pub(super) provenance: &'a Provenance,
    pub(super) method: &'a Method,
    pub(super) target: &'a PathAndQuery,
    /// As the client named us.
    pub(super) authority: &'a HeaderValue,
    pub(super) headers: &'a HeaderMap,
    /// Makes headers for the backend what the route says.
    pub(super) edit: &'a dyn Fn(&mut HeaderMap),
}

/// What a service judges a client by, as it came: `headers.request` may hide it from the backend.
static JUDGED: [HeaderName; 2] = [AUTHORIZATION, COOKIE];

impl Caller<'_> {
    /// The headers that a service which decides is sent: the backend's, so that nobody forges to the one what the other never sees.
    fn told(&self, granted: &Granted) -> HeaderMap {
        let mut headers = self.headers.clone();
        remove_hop_by_hop(&mut headers);
        self.provenance.tell(&mut headers, self.authority);
        granted.apply(&mut headers);
        let judged = JUDGED.each_ref().map(|name| headers.get_all(name).iter().cloned().collect::<Vec<_>>());
        (self.edit)(&mut headers);
        for (name, values) in JUDGED.iter().zip(judged) {
            headers.remove(name);
            for value in values {
                headers.append(name, value);
            }
        }
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
/// And why, in the log.
pub(super) const SERVICE_REFUSED: &str = "the access.forward service refused";

/// The same for a plain request. The rates are those of sessions: a page asks for more than they would allow. But a password that
/// was not right before counts as a handshake, before it is looked at: many at a time could be guessed otherwise. And whose
/// address has spent its rate has to wait, even with a right one: the answer would tell that it is.
pub(super) async fn check_plain(route: &Route, rates: &Rates, caller: &Caller<'_>) -> Result<Entry, Refusal> {
    let (client, counted_as) = (caller.provenance.client.ip(), caller.provenance.counted);
    let guess = if route.guard.admits(client) { route.guard.guess(caller.headers) } else { None };
    let counted = match guess {
        None => Ok(()),
        Some(Guess::Known) => rates.allow(Counted::Handshakes, counted_as, now()),
        Some(Guess::New) => rates.take(Counted::Handshakes, counted_as, now()),
    };
    // The rate of all together keeps nobody out who is right: only who is not finds out whether it is spent.
    let wrong = match counted {
        Ok(()) => None,
        Err(too_many) if too_many.one_address => return Err(Refusal::Rate(too_many)),
        Err(too_many) => Some(too_many),
    };
    let asked = Asked { client, method: caller.method, target: caller.target, headers: caller.headers };
    match (route.guard.check(&asked, |granted| caller.told(granted)).await, wrong) {
        (Ok(Decision::Answered(answer)), _) => Ok(Entry::Answered(passed_on(answer))),
        (Ok(Decision::Granted(granted)), _) => Ok(Entry::Granted(granted)),
        (Err(NotLetIn::Credentials(_)), Some(too_many)) => Err(Refusal::Rate(too_many)),
        (Err(refusal), _) => Err(Refusal::Entry(refusal)),
    }
}

/// In this order: the route's lists, the rates for handshakes, password, service, the rates for sessions.
pub(super) async fn check(route: &Route, rates: &Rates, caller: &Caller<'_>) -> Result<Entry, Refusal> {
    let (client, counted) = (caller.provenance.client.ip(), caller.provenance.counted);
    if !route.guard.admits(client) {
        return Err(Refusal::Entry(NotLetIn::Address));
    }
    rates.take(Counted::Handshakes, counted, now()).map_err(Refusal::Rate)?;
    let asked = Asked { client, method: caller.method, target: caller.target, headers: caller.headers };
    match route.guard.check(&asked, |granted| caller.told(granted)).await.map_err(Refusal::Entry)? {
        Decision::Answered(answer) => Ok(Entry::Answered(passed_on(answer))),
        Decision::Granted(granted) => {
            rates.take(Counted::Sessions, counted, now()).map_err(Refusal::Rate)?;
            Ok(Entry::Granted(granted))
        }
    }
}

/// To be asked for each time: password and service take seconds.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
