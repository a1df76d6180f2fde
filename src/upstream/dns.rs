//! Asks the DNS which addresses a name has, and for how long that is good (RFC 1035; SRV: RFC 2782).
use super::{BackendAddress, dns_runtime::Runtime, resolve};
use futures_util::future::{join, join_all};
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

/// What a lookup learned of a name.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) addresses: Vec<Address>,
    pub(super) good_for: Duration,
    pub(super) gaps: Gaps,
}

/// One of the addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) at: SocketAddr,
    /// What it is to take of what the name gets, in thousandths of an even part.
    pub(super) part: u32,
}

impl Address {
    /// An even part.
    pub(super) const EVEN: u32 = 1000;
}

/// What a lookup could not learn, and why: addresses of that family may be there still.
#[derive(Clone, Debug, Default)]
pub(super) struct Gaps {
    pub(super) v4: Option<String>,
    pub(super) v6: Option<String>,
}

impl Gaps {
    /// Whether this address may be there, though it was not found.
    pub(super) fn may_hide(&self, at: SocketAddr) -> bool {
        if at.is_ipv4() { self.v4.is_some() } else { self.v6.is_some() }
    }

    /// Why not all was learned, if so.
    pub(super) fn cause(&self) -> Option<&str> {
        self.v4.as_deref().or(self.v6.as_deref())
    }

    fn add(&mut self, more: Self) {
        self.v4 = self.v4.take().or(more.v4);
        self.v6 = self.v6.take().or(more.v6);
    }
}

/// What the DNS says of a host.
struct Host {
    addresses: Vec<IpAddr>,
    good_for: Duration,
    gaps: Gaps,
    /// Why it has no address, if it has none.
    none: String,
}

/// Why there is no address of a family.
enum Missing {
    /// The DNS says so.
    None(String),
    /// It did not say.
    Unknown(String),
}

impl Dns {
    /// All addresses of a backend's name, at least one. `known`: some are in use.
    ///
    /// # Errors
    /// Why there is none, for the log.
    pub(super) async fn find(&self, address: &BackendAddress, known: bool) -> Result<Found, String> {
        let mut found = match address {
            BackendAddress::Tcp { host, port, .. } => self.host(host, *port).await?,
            BackendAddress::Service { name, .. } => self.service(name, known).await?,
            BackendAddress::Unix(_) | BackendAddress::Echo => return Err("it has no name".to_owned()),
        };
        let addresses = &mut found.addresses;
        addresses.sort_unstable_by_key(|address| address.at);
        addresses.dedup_by(|twin, first| {
            let same = twin.at == first.at;
            first.part += if same { twin.part } else { 0 };
            same
        });
        addresses.truncate(MOST);
        if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
    }

    /// A host's A and AAAA records. What the DNS does not know, the system may: from files, or by other protocols.
    pub(super) async fn host(&self, host: &str, port: u16) -> Result<Found, String> {
        let Host { mut addresses, mut good_for, mut gaps, none } = self.look_up(host).await;
        if addresses.is_empty() {
            if self.server.is_some() {
                return Err(none);
            }
            addresses = resolve::system(host).await?;
            good_for = UNTOLD;
            gaps.v4.take_if(|_| addresses.iter().any(IpAddr::is_ipv4));
            gaps.v6.take_if(|_| addresses.iter().any(IpAddr::is_ipv6));
        }
        let even = |ip| Address { at: SocketAddr::new(ip, port), part: Address::EVEN };
        Ok(Found { addresses: addresses.into_iter().map(even).collect(), good_for, gaps })
    }

    /// The families apart, so that what is unknown of one does not look as if there was none.
    async fn look_up(&self, host: &str) -> Host {
        let (v4, v6) =
            join(self.family(host, LookupIpStrategy::Ipv4Only), self.family(host, LookupIpStrategy::Ipv6Only)).await;
        let mut found = Host {
            addresses: Vec::new(),
            good_for: Duration::MAX,
            gaps: Gaps::default(),
            none: "the name has no address".to_owned(),
        };
        let Host { addresses, good_for, gaps, none } = &mut found;
        for (family, gap) in [(v6, &mut gaps.v6), (v4, &mut gaps.v4)] {
            match family {
                Ok((some, its_time)) => {
                    addresses.extend(some);
                    addresses.sort_unstable();
                    addresses.dedup();
                    *good_for = its_time.min(*good_for);
                }
                Err(Missing::None(cause)) => *none = cause,
                Err(Missing::Unknown(cause)) => {
                    none.clone_from(&cause);
                    *gap = Some(cause);
                }
            }
        }
        found
    }

    async fn family(&self, host: &str, which: LookupIpStrategy) -> Result<(Vec<IpAddr>, Duration), Missing> {
        let resolver = self.resolver(which).map_err(Missing::Unknown)?;
        let found = resolver.lookup_ip(host).await.map_err(|error| {
            let none = error.is_nx_domain() || error.is_no_records_found();
            if none { Missing::None(told(error)) } else { Missing::Unknown(told(error)) }
        })?;
        Ok((found.iter().collect(), left(found.valid_until())))
    }

    /// The targets of the first priority that has addresses (RFC 2782); later ones are there for when it has none. Whether it has
    /// some may be unknown: then what is `known` stays.
    async fn service(&self, name: &str, known: bool) -> Result<Found, String> {
        let found = self.resolver(LookupIpStrategy::Ipv4AndIpv6)?.srv_lookup(name).await.map_err(told)?;
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
        let mut gaps = Gaps::default();
        for equal in targets.chunk_by(|one, other| one.priority == other.priority) {
            let names: Vec<String> = equal.iter().map(|target| target.target.to_ascii()).collect();
            let hosts = join_all(names.iter().map(|name| self.look_up(name))).await;
            let mut some = Vec::new();
            for (target, host) in equal.iter().zip(hosts) {
                gaps.add(host.gaps);
                if host.addresses.is_empty() {
                    error = host.none;
                } else {
                    good_for = good_for.min(host.good_for);
                    let at = |ip| SocketAddr::new(ip, target.port);
                    some.push((target.weight, host.addresses.into_iter().map(at).collect()));
                }
            }
            if !some.is_empty() {
                return Ok(Found { addresses: parts(&some), good_for, gaps });
            }
            if known && let Some(cause) = gaps.cause() {
                return Err(cause.to_owned());
            }
        }
        Err(error)
    }

    /// A new one each time: then `resolv.conf` is read anew, and nothing outlives the runtime it was made on.
    fn resolver(&self, families: LookupIpStrategy) -> Result<Resolver<Runtime>, String> {
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
        options.ip_strategy = families;
        options.cache_size = 0;
        builder.build().map_err(told)
    }
}

/// What the addresses of targets of one priority are to take, by the targets' weights (RFC 2782): those of a target share its weight.
fn parts(targets: &[(u16, Vec<SocketAddr>)]) -> Vec<Address> {
    let lightest = targets.iter().map(|(weight, _)| *weight).filter(|weight| *weight > 0).min();
    let weight = |weight: u16| match (weight, lightest) {
        (_, None) => 1.0,
        // "A very small chance of being selected"
        (0, Some(lightest)) => f64::from(lightest) / 100.0,
        (weight, Some(_)) => f64::from(weight),
    };
    let sum: f64 = targets.iter().map(|target| weight(target.0)).sum();
    let count: usize = targets.iter().map(|target| target.1.len()).sum();
    let of_target = |(its, addresses): &(u16, Vec<SocketAddr>)| {
        let even = sum / count as f64;
        let part = weight(*its) / addresses.len() as f64 / even * f64::from(Address::EVEN);
        let part = part.round().max(1.0) as u32;
        addresses.iter().map(move |at| Address { at: *at, part }).collect::<Vec<_>>()
    };
    targets.iter().flat_map(of_target).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[(u16, usize)]) -> Vec<u32> {
        let at = |number| SocketAddr::from(([10, 0, 0, 1], number));
        let target = |(weight, count): &(u16, usize)| (*weight, (0..*count as u16).map(at).collect());
        parts(&weights.iter().map(target).collect::<Vec<_>>()).iter().map(|address| address.part).collect()
    }

    #[test]
    fn addresses_take_the_weight_of_their_target() {
        assert_eq!(of(&[(10, 1), (30, 1)]), [500, 1500]);
        assert_eq!(of(&[(10, 2), (10, 1)]), [750, 750, 1500], "those of a target share it");
        assert_eq!(of(&[(0, 1), (0, 1)]), [1000, 1000], "nothing is said");
        assert_eq!(of(&[(5, 1)]), [1000]);
        let slight = of(&[(0, 1), (1, 1), (99, 1)]);
        assert!(slight[0] < slight[1] && slight[0] > 0, "{slight:?}");
    }
}
