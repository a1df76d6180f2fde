//! Asks the DNS which addresses a name has, and for how long that is good (RFC 1035; SRV: RFC 2782).
use super::{BackendAddress, dns_runtime::Runtime, resolve};
use futures_util::future::join_all;
use hickory_resolver::{
    Resolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::NetError,
    proto::rr::{RData, rdata::SRV},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Addresses of one name that are used; no answer makes a pool larger.
const MOST: usize = 256;
/// How long an answer of the system's resolver is good, which does not tell.
const UNTOLD: Duration = Duration::from_secs(10);

/// Where names are looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Dns {
    /// `None`: where the system does.
    pub(super) server: Option<SocketAddr>,
}

/// The addresses of a name.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) good_for: Duration,
}

impl Dns {
    /// All addresses of a backend's name, at least one.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub(super) async fn find(&self, address: &BackendAddress) -> Result<Found, String> {
        let mut found = match address {
            BackendAddress::Tcp { host, port, .. } => self.host(host, *port).await?,
            BackendAddress::Service { name, .. } => self.service(name).await?,
            BackendAddress::Unix(_) | BackendAddress::Echo => return Err("it has no name".to_owned()),
        };
        found.addresses.sort_unstable();
        found.addresses.dedup();
        found.addresses.truncate(MOST);
        if found.addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
    }

    /// A host's A and AAAA records. What the DNS does not know, the system may: from files, or by other protocols.
    pub(super) async fn host(&self, host: &str, port: u16) -> Result<Found, String> {
        let error = match self.look_up(host).await {
            Ok((addresses, good_for)) => return Ok(Found { addresses: on(addresses, port), good_for }),
            Err(error) => error,
        };
        if self.server.is_some() {
            return Err(error);
        }
        let addresses = resolve::system(host).await?;
        Ok(Found { addresses: on(addresses, port), good_for: UNTOLD })
    }

    async fn look_up(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let found = self.resolver()?.lookup_ip(host).await.map_err(told)?;
        Ok((found.iter().collect(), left(found.valid_until())))
    }

    /// The targets of the first priority that has addresses (RFC 2782); later ones are there for when it has none.
    async fn service(&self, name: &str) -> Result<Found, String> {
        let found = self.resolver()?.srv_lookup(name).await.map_err(told)?;
        let mut good_for = left(found.valid_until());
        let mut targets: Vec<SRV> = found
            .answers()
            .iter()
            .filter_map(|record| if let RData::SRV(target) = &record.data { Some(target.clone()) } else { None })
            // A target of `.` says that there is no such service.
            .filter(|target| !target.target.is_root())
            .take(MOST)
            .collect();
        targets.sort_by_key(|target| target.priority);
        let mut error = "the service has no target".to_owned();
        for equal in targets.chunk_by(|one, other| one.priority == other.priority) {
            let hosts = equal.iter().map(|target| async {
                let found = self.look_up(&target.target.to_ascii()).await?;
                Ok::<_, String>((on(found.0, target.port), found.1))
            });
            let mut addresses = Vec::new();
            for found in join_all(hosts).await {
                match found {
                    Ok((of_one, its_time)) => {
                        addresses.extend(of_one);
                        good_for = good_for.min(its_time);
                    }
                    Err(cause) => error = cause,
                }
            }
            if !addresses.is_empty() {
                return Ok(Found { addresses, good_for });
            }
        }
        Err(error)
    }

    /// A new one each time: then `resolv.conf` is read anew, and nothing outlives the runtime it was made on.
    fn resolver(&self) -> Result<Resolver<Runtime>, String> {
        let mut builder = match self.server {
            None => Resolver::builder(Runtime::default()).map_err(told)?,
            Some(server) => {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = server.port());
                let servers = vec![NameServerConfig::new(server.ip(), true, connections)];
                let config = ResolverConfig::from_name_servers(servers);
                let mut builder = Resolver::builder_with_config(config, Runtime::default());
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                builder
            }
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        builder.build().map_err(told)
    }
}

fn on(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

fn left(valid_until: Instant) -> Duration {
    valid_until.saturating_duration_since(Instant::now())
}

fn told(error: NetError) -> String {
    if error.is_nx_domain() {
        return "the DNS knows no such name".to_owned();
    }
    if error.is_no_records_found() {
        return "the DNS has no address of this name".to_owned();
    }
    error.to_string()
}
