//! Names to addresses, kept for a moment.
use super::dns::Dns;
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long an answer is kept. The system's resolver does not tell how long it would be good for.
const KEPT: Duration = Duration::from_secs(10);
/// How long a failure is kept, so that those who waited for it do not ask one after the other.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// One pool's names; bounded by its configuration. One question per name is under way at a time: each occupies a
/// thread until the system's resolver gives up.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    dns: Dns,
    names: Mutex<HashMap<String, Arc<Name>>>,
}

/// What is known of one name, and since when.
type Name = tokio::sync::Mutex<Option<(Instant, Result<Vec<IpAddr>, String>)>>;

impl Resolver {
    pub(super) fn new(dns: Dns) -> Self {
        Self { dns, ..Self::default() }
    }

    /// The addresses of a host, in the resolver's order.
    ///
    /// # Errors
    /// The name does not resolve, or to no address.
    pub(crate) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = bare(host).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let name = self.name(host);
        let mut known = name.lock().await;
        let answer = match &*known {
            Some((at, Ok(addresses))) if at.elapsed() < KEPT => Ok(addresses.clone()),
            Some((at, Err(error))) if at.elapsed() < FAILURE_KEPT => Err(error.clone()),
            Some(_) | None => {
                let answer = self.ask(host).await;
                *known = Some((Instant::now(), answer.clone()));
                answer
            }
        };
        let addresses = answer.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
        Ok(addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// None of the addresses took a connection: asks anew next time.
    pub(super) fn forget(&self, host: &str) {
        // One who is asking just now learns the newest anyway.
        if let Ok(mut known) = self.name(host).try_lock() {
            *known = None;
        }
    }

    async fn ask(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match self.dns.server {
            Some(_) => Ok(self.dns.host(host, 0).await?.addresses.iter().map(|found| found.at.ip()).collect()),
            None => system(host).await,
        }
    }

    fn name(&self, host: &str) -> Arc<Name> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(names.entry(host.to_owned()).or_default())
    }
}

/// What the system's resolver says: files, the DNS, or whatever it is set to ask.
pub(super) async fn system(host: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in tokio::net::lookup_host((host, 0)).await.map_err(|error| error.to_string())? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
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
        assert!(resolver.names.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_name_is_kept_until_it_is_forgotten_or_old() {
        tokio::time::pause();
        let resolver = Resolver::default();
        let kept: IpAddr = "192.0.2.1".parse().unwrap();
        let keep = async || *resolver.name("localhost").lock().await = Some((Instant::now(), Ok(vec![kept])));
        let loopback = async || resolver.resolve("localhost", 80).await.unwrap().iter().all(|at| at.ip().is_loopback());
        keep().await;
        assert_eq!(resolver.resolve("localhost", 80).await.unwrap(), [SocketAddr::new(kept, 80)]);
        tokio::time::advance(KEPT).await;
        assert!(loopback().await);
        keep().await;
        resolver.forget("localhost");
        assert!(loopback().await);
    }

    #[tokio::test]
    async fn a_failure_is_kept_for_a_second() {
        tokio::time::pause();
        let resolver = Resolver::default();
        assert!(resolver.resolve("no-such-host.invalid", 80).await.is_err());
        *resolver.name("localhost").lock().await = Some((Instant::now(), Err("down".to_owned())));
        assert_eq!(resolver.resolve("localhost", 80).await.unwrap_err().to_string(), "down");
        tokio::time::advance(FAILURE_KEPT).await;
        assert!(resolver.resolve("localhost", 80).await.is_ok());
    }
}
