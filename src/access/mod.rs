//! Who may come in: addresses, passwords, an HTTP service that decides, and how many at a time.
mod basic;
mod client;
mod forward;
mod networks;
pub mod rates;
mod users;

pub use basic::{Authorization, BasicConfig};
pub use forward::{ForwardConfig, Service};
pub(crate) use networks::canonical;
pub use networks::{Addresses, Networks};
pub use users::{Users, UsersError};

use crate::upstream::{UpstreamTlsError, trusting};
use basic::{Basic, Hashing, NotIn};
use client::Client;
use forward::{Forward, NoAnswer, Said};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header::AUTHORIZATION, uri::PathAndQuery,
};
use hyper::body::Incoming;
use std::{net::IpAddr, path::PathBuf, time::Duration};

/// `access` of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessConfig {
    pub addresses: Addresses,
    pub basic: Option<BasicConfig>,
    pub forward: Option<ForwardConfig>,
}

impl AccessConfig {
    /// The longest that password and service may take together, when all is slow.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let password = self.basic.as_ref().map_or(Duration::ZERO, |_| basic::PATIENCE);
        password.saturating_add(self.forward.as_ref().map_or(Duration::ZERO, |forward| forward.timeout))
    }

    /// Files that it was read from, and that may be replaced.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let users = self.basic.iter().map(|basic| basic.file.clone());
        let authorities = self.forward.iter().filter_map(|forward| forward.service.ca.as_ref());
        users.chain(authorities.map(|(file, _)| file.clone())).collect()
    }
}

/// What stands at a route's door, shared by all workers.
#[derive(Debug, Default)]
pub struct Guard {
    addresses: Addresses,
    basic: Option<Basic>,
    forward: Option<Forward>,
}

/// A handshake as a guard sees it.
pub(crate) struct Asked<'a> {
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: &'a Method,
    /// Path and query as received.
    pub(crate) target: &'a PathAndQuery,
    pub(crate) headers: &'a HeaderMap,
}

/// A name and a password, or what is to be taken for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// They were right before.
    Known,
    New,
}

/// What becomes of it.
pub(crate) enum Decision {
    Granted(Granted),
    /// The service said no, and how: the client is to hear it.
    Answered(Response<Incoming>),
}

/// Why it is refused.
#[derive(Debug)]
pub(crate) enum NotLetIn {
    Address,
    /// A name and its password are asked for, by these headers.
    Credentials((HeaderName, HeaderValue)),
    /// What is to decide cannot: nobody is let in then.
    Failed {
        status: StatusCode,
        cause: String,
    },
}

impl Guard {
    /// # Errors
    /// If the authorities for a service with TLS cannot be had.
    pub fn new(config: &AccessConfig) -> Result<Self, UpstreamTlsError> {
        let forward = |config: &ForwardConfig| {
            let service = &config.service;
            let roots = service.ca.as_ref().map(|(_, roots)| roots.as_slice());
            let tls = service.tls.then(|| trusting("of access.forward", roots)).transpose()?;
            Ok(Forward::new(config.clone(), Client::new(tls)))
        };
        Ok(Self {
            addresses: config.addresses.clone(),
            basic: config.basic.clone().map(|basic| Basic::new(basic, Hashing::of_the_process())),
            forward: config.forward.as_ref().map(forward).transpose()?,
        })
    }

    /// Whether the lists let an address in: the cheapest question comes first.
    pub(crate) fn admits(&self, client: Option<IpAddr>) -> bool {
        self.addresses.admit(client)
    }

    /// Whether it takes its time to decide: a password is hashed, or a service asked.
    pub(crate) fn takes_time(&self) -> bool {
        self.basic.is_some() || self.forward.is_some()
    }

    /// What it is that a request shows where a password is asked for, if it shows anything.
    pub(crate) fn guess(&self, headers: &HeaderMap) -> Option<Guess> {
        let basic = self.basic.as_ref().filter(|_| headers.contains_key(AUTHORIZATION))?;
        Some(if basic.remembers(headers) { Guess::Known } else { Guess::New })
    }

    /// Asks for the password, then the service. `told` makes the headers that the service is sent, of what the password has
    /// brought, if it is asked.
    pub(crate) async fn check(
        &self,
        asked: &Asked<'_>,
        told: impl FnOnce(&Granted) -> HeaderMap,
    ) -> Result<Decision, NotLetIn> {
        if !self.admits(asked.client) {
            return Err(NotLetIn::Address);
        }
        let mut granted = Granted::default();
        if let Some(basic) = &self.basic {
            granted = basic.check(asked.headers).await.map_err(|not_in| refused(basic, not_in))?;
        }
        if let Some(forward) = &self.forward {
            // Boxed, as all that few handshakes wait for: what a handshake takes is what its cache lines are spread over.
            match Box::pin(forward.ask(asked.method, asked.target, told(&granted))).await {
                Ok(Said::Yes(more)) => granted.headers.extend(more.headers),
                Ok(Said::No(answer)) => return Ok(Decision::Answered(answer)),
                Err(NoAnswer { status, cause }) => return Err(NotLetIn::Failed { status, cause }),
            }
        }
        Ok(Decision::Granted(granted))
    }
}

fn refused(basic: &Basic, not_in: NotIn) -> NotLetIn {
    match not_in {
        NotIn::Wrong => NotLetIn::Credentials(basic.config().challenge()),
        NotIn::Busy => NotLetIn::Failed {
            status: StatusCode::SERVICE_UNAVAILABLE,
            cause:
                "more passwords than can be checked wait for it; gateway.rates.handshakes_per_address slows guessing"
                    .into(),
        },
    }
}

/// What the backend is told of a client that was let in.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    /// In order; `None` removes.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

impl Granted {
    fn set(&mut self, name: HeaderName, value: Option<HeaderValue>) {
        self.headers.push((name, value));
    }

    /// Whether a header is one of those that it sets or removes, in its underscore spelling too.
    pub(crate) fn concerns(&self, name: &HeaderName) -> bool {
        let name = name.as_str().replace('_', "-");
        self.headers.iter().any(|(own, _)| own.as_str().replace('_', "-") == name)
    }

    /// Removes what the client wrote in these headers, in their underscore spellings too, which CGI-like backends take for the same; then
    /// sets them.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        if self.headers.is_empty() {
            return;
        }
        let mut kept = HeaderMap::with_capacity(headers.len() + self.headers.len());
        for (name, value) in headers.iter().filter(|(name, _)| !self.concerns(name)) {
            kept.append(name, value.clone());
        }
        for (name, value) in &self.headers {
            if let Some(value) = value {
                kept.append(name, value.clone());
            }
        }
        *headers = kept;
    }
}
