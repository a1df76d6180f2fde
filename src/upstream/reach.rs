//! A connection to a backend for plain HTTP: one that is kept, or a new one.
use super::{
    Affinity, Backend, Ends, OpenError, Upstream,
    asking::path,
    choose::{Asking, Burden, Patience},
    connect::Dialled,
    pool::Failure,
};
use crate::{
    metrics::DialFailure,
    route::{HostHeader, RouteOptions},
    transport::{Backstop, Stream},
};
use http::{Version, header::HOST, request::Parts, uri::InvalidUri};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// A connection to a backend, and the hold on it.
pub(crate) struct Reached<T> {
    pub(crate) way: Way<T>,
    pub(crate) lease: RequestLease,
}

pub(crate) enum Way<T> {
    Kept(T),
    /// It was dialled from `began` on.
    Fresh {
        stream: Box<Stream>,
        began: Instant,
    },
}

/// A plain request's hold on a backend: counted while it lives.
#[derive(Debug)]
pub(crate) struct RequestLease {
    backend: Arc<Backend>,
}

impl RequestLease {
    pub(crate) fn new(backend: Arc<Backend>) -> Self {
        backend.meter().asked();
        Self { backend }
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for RequestLease {
    fn drop(&mut self) {
        self.backend.meter().answered();
    }
}

impl Upstream {
    /// Chooses a backend as for a session, and takes the connection to it that `kept` has, or a new one. Nothing was said on it
    /// yet, so a backend that cannot be dialled is left for the next. Needs a local runtime.
    ///
    /// # Errors
    /// No backend could be reached: 502, 503 or 504.
    pub(crate) async fn reach<T>(
        &self,
        options: &RouteOptions,
        affinity: Affinity,
        ends: Option<&Ends>,
        mut kept: impl FnMut(&Arc<Backend>) -> Option<T>,
    ) -> Result<Reached<T>, OpenError> {
        self.look_up(options.connect).await;
        let (backends, patience) = (self.backends(), Patience { began: Instant::now(), options });
        let stuck = self.stuck(affinity, &backends);
        let mut tried = vec![false; backends.len()];
        let mut failures: Vec<(&Arc<Backend>, Failure)> = Vec::new();
        while let Some(index) =
            self.chooser.choose(&backends, Asking { burden: Burden::Request, affinity, stuck, patience, tried: &tried })
        {
            tried[index] = true;
            let backend = &backends[index];
            let lease = RequestLease::new(Arc::clone(backend));
            // Only a new one tells whether a backend that was down is back.
            let takes_kept = self.may_keep() && !backend.health.on_trial(Instant::now());
            if let Some(connection) = takes_kept.then(|| kept(backend)).flatten() {
                return Ok(Reached { way: Way::Kept(connection), lease });
            }
            if !self.retries.admit(failures.len()).await {
                failures.push((backend, Failure::Spent));
                break;
            }
            backend.meter().dialled();
            let began = Instant::now();
            match self.dialled(backend, options.connect, ends).await {
                Ok(stream) => return Ok(Reached { way: Way::Fresh { stream: Box::new(stream), began }, lease }),
                Err(failure) => {
                    self.failed(backend, began, &failure);
                    failures.push((backend, failure));
                }
            }
        }
        Err(self.error(&backends, &failures, &tried))
    }

    /// Whether a connection may serve another request: not where each begins with a word on its client.
    pub(crate) fn may_keep(&self) -> bool {
        self.dialer.proxy_protocol.is_none()
    }

    async fn dialled(&self, backend: &Arc<Backend>, within: Duration, ends: Option<&Ends>) -> Result<Stream, Failure> {
        let _place = backend.places.enter(within).await.map_err(|most| Failure::Queue { most, within })?;
        let Dialled { stream, .. } = self.dialer.dial(backend, within, Some(Backstop::Backends), ends).await?;
        Ok(stream)
    }

    /// A backend answered a plain request on a connection that was dialled from `began` on, and not that it cannot serve.
    pub(crate) fn answered(&self, backend: &Backend, began: Instant) {
        backend.answered(began);
    }
}

impl Backend {
    /// A connection to it was no good for a request. That is counted, but no reason to leave it alone: a single request may
    /// be what it cannot bear.
    pub(crate) fn broke(&self) {
        self.meter().failed(DialFailure::Handshake);
    }

    /// A plain request as it goes to this backend, out of what crosses from the client.
    ///
    /// # Errors
    /// The base path and the request's path make no valid path together.
    pub(crate) fn plain_head(&self, mut head: Parts, host: HostHeader) -> Result<Parts, InvalidUri> {
        match host {
            HostHeader::Client => {}
            HostHeader::Upstream => drop(head.headers.insert(HOST, self.host())),
        }
        head.uri = path(self.base_path(), &head.uri)?;
        head.version = Version::HTTP_11;
        Ok(head)
    }
}
