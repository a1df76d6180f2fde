//! The layers around a request for a session, and what hyper asks for each request of a connection.
use super::{
    plain::PlainBody,
    response::{Body, Refusal},
    service::{Behind, Visit, peer_name},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use std::{
    cell::Cell,
    future::{Future, ready},
    pin::Pin,
    rc::Rc,
    sync::Arc,
};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    limit::GlobalConcurrencyLimitLayer,
    load_shed::{LoadShedLayer, error::Overloaded},
    timeout::{TimeoutLayer, error::Elapsed},
};
use tower_http::{body::UnsyncBoxBody, catch_panic::CatchPanicLayer};
use tracing::Instrument;

type Answering<B> = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>>>>;
/// A body as it leaves the stack.
pub(super) type StackBody = UnsyncBoxBody<Bytes, BoxError>;
/// What the stack answers.
pub(super) type StackAnswer = Result<Response<StackBody>, BoxError>;
/// A body as it leaves the service: the stack's, or that of a plain request's answer.
pub(super) type SentBody = Either<StackBody, PlainBody>;

/// The stack through which a request for a session goes. From the outside in:
///
/// 1. catch-panic stands outermost, so that a bug in any layer ends one handshake with a 500, and never a worker;
/// 2. the errors of the layers below become answers here;
/// 3. the timeout stands outside of all that can wait: it bounds even a dial that fails over for ever;
/// 4. load-shed stands outside the limit, so that a handshake that would wait for a place is a 503 at once;
/// 5. the concurrency limit, one for all connections, stands right before the work that it bounds: the dials.
///
/// Plain requests go past it: their answers may take hours, and have bounds of their own.
///
/// None of them reaches into a session: they end with the 101, and a session's limits are its `Permit`.
fn stack(visit: &Rc<Visit>) -> impl Service<Request<Behind>, Response = Response<StackBody>, Error = BoxError> + use<> {
    let panicked = {
        let visit = Rc::clone(visit);
        move |_: Box<dyn std::any::Any + Send>| visit.refuse(&Refusal::Internal)
    };
    let failed = {
        let visit = Rc::clone(visit);
        move |answer: Result<Response<Body>, BoxError>| -> Result<Response<Body>, BoxError> {
            Ok(answer.unwrap_or_else(|error| visit.refuse(&layer_refusal(&error))))
        }
    };
    let heart = {
        let visit = Rc::clone(visit);
        move |request: Request<Behind>| {
            let visit = Rc::clone(&visit);
            let answer = async move {
                let answer = visit.answer(request).await;
                Ok(answer.unwrap_or_else(|refusal| visit.refuse(&refusal)))
            };
            Box::pin(answer) as Answering<Body>
        }
    };
    ServiceBuilder::new()
        .layer(CatchPanicLayer::custom(panicked))
        .map_result(failed)
        .layer(TimeoutLayer::new(visit.edge.terms().patience))
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&visit.edge.dials)))
        .service(tower::service_fn(heart))
}

/// The stack's answer to a request that has begun, as it is sent.
pub(super) async fn answer(visit: &Rc<Visit>, request: Request<Behind>) -> StackAnswer {
    let (peer, method, uri) = (&visit.peer, request.method(), request.uri());
    let span = tracing::debug_span!("handshake", peer = peer_name(peer), %method, path = uri.path());
    let answering = async {
        let mut answer = stack(visit).oneshot(request).await?;
        visit.end(&mut answer);
        tracing::debug!(status = answer.status().as_u16(), "answered");
        Ok(answer)
    };
    answering.instrument(span).await
}

/// What hyper asks for the answer to each request of a connection. `first` is that to the first one, if it has been found already.
pub(super) fn service(
    visit: &Rc<Visit>,
    first: Option<StackAnswer>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<SentBody>,
    Error = BoxError,
    Future = Answering<SentBody>,
> + Unpin
+ use<> {
    let (visit, first) = (Rc::clone(visit), Cell::new(first));
    hyper::service::service_fn(move |request: Request<Incoming>| {
        if let Some(answer) = first.take() {
            return Box::pin(ready(answer.map(|answer| answer.map(Either::Left)))) as Answering<SentBody>;
        }
        let visit = Rc::clone(&visit);
        visit.begin(&request, None);
        if visit.is_plain(&request) {
            return Box::pin(async move { Ok(visit.relayed(request).await.map(Either::Right)) });
        }
        let answer = async move {
            let answer = answer(&visit, request.map(Either::Right)).await;
            Ok(answer?.map(Either::Left))
        };
        Box::pin(answer)
    })
}

fn layer_refusal(error: &BoxError) -> Refusal {
    if error.is::<Elapsed>() {
        Refusal::TimedOut
    } else if error.is::<Overloaded>() {
        Refusal::Overloaded
    } else {
        Refusal::Internal
    }
}
