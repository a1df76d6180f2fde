//! Names to addresses, kept for a moment.
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long an answer is kept. The system's resolver does not tell how long it would be good for.
const KEPT: Duration = Duration::from_secs(10);

/// One pool's names; bounded by its configuration.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    known: Mutex<HashMap<(String, u16), (Instant, Vec<SocketAddr>)>>,
}

impl Resolver {
    /// The addresses of a host, in the resolver's order.
    ///
    /// # Errors
    /// The name does not resolve, or to no address.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = bare(host).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let key = (host.to_owned(), port);
        if let Some((at, addresses)) = self.lock().get(&key)
            && at.elapsed() < KEPT
        {
            return Ok(addresses.clone());
        }
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        self.lock().insert(key, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    /// None of the addresses took a connection: asks anew next time.
    pub(super) fn forget(&self, host: &str, port: u16) {
        self.lock().remove(&(host.to_owned(), port));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, u16), (Instant, Vec<SocketAddr>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host without the brackets of an IPv6 literal.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn literals_need_no_resolver() {
        let resolver = Resolver::default();
        assert_eq!(resolver.resolve("127.0.0.1", 80).await.unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(resolver.resolve("[::1]", 80).await.unwrap(), ["[::1]:80".parse().unwrap()]);
        assert_eq!(resolver.resolve("::1", 80).await.unwrap(), ["[::1]:80".parse().unwrap()]);
        assert!(resolver.lock().is_empty());
    }

    #[tokio::test]
    async fn a_name_is_kept_until_it_is_forgotten_or_old() {
        tokio::time::pause();
        let resolver = Resolver::default();
        let kept: SocketAddr = "192.0.2.1:80".parse().unwrap();
        resolver.lock().insert(("localhost".into(), 80), (Instant::now(), vec![kept]));
        assert_eq!(resolver.resolve("localhost", 80).await.unwrap(), [kept]);
        tokio::time::advance(KEPT).await;
        assert!(resolver.resolve("localhost", 80).await.unwrap().iter().all(|address| address.ip().is_loopback()));
        resolver.forget("localhost", 80);
        assert!(resolver.lock().is_empty());
    }

    #[tokio::test]
    async fn an_unknown_name_is_an_error() {
        assert!(Resolver::default().resolve("no-such-host.invalid", 80).await.is_err());
    }
}
