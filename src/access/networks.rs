//! Sets of networks, and which addresses may come in.
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Networks that an address can be looked up in: thousands of them cost a few steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Disjoint and in ascending order, as are the next.
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Networks {
    /// An IPv4 network written as an IPv6 one (`::ffff:192.0.2.0/120`) is the IPv4 network.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match canonical(*network) {
                IpNet::V4(network) => v4.push(network.trunc()),
                IpNet::V6(network) => v6.push(network.trunc()),
            }
        }
        Self { v4: Ipv4Net::aggregate(&v4), v6: Ipv6Net::aggregate(&v6) }
    }

    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let after = self.v4.partition_point(|network| network.network() <= address);
                after > 0 && self.v4[after - 1].contains(&address)
            }
            IpAddr::V6(address) => {
                let after = self.v6.partition_point(|network| network.network() <= address);
                after > 0 && self.v6[after - 1].contains(&address)
            }
        }
    }

    /// Whether every address is in it.
    fn is_everyone(&self) -> bool {
        self.v4.first().is_some_and(|network| network.prefix_len() == 0)
            && self.v6.first().is_some_and(|network| network.prefix_len() == 0)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            self.v4.iter().map(|network| IpNet::V4(*network)).chain(self.v6.iter().map(|network| IpNet::V6(*network)));
        for (index, network) in all.enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            match network.prefix_len() == network.max_prefix_len() {
                true => write!(f, "{}", network.addr())?,
                false => write!(f, "{network}")?,
            }
        }
        Ok(())
    }
}

/// The IPv4 network where one is written as an IPv6 one; addresses are compared so.
pub(crate) fn canonical(network: IpNet) -> IpNet {
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(six) => mapped(six).map_or(network, IpNet::V4),
    }
}

fn mapped(network: Ipv6Net) -> Option<Ipv4Net> {
    let address: Ipv4Addr = Ipv6Addr::to_ipv4_mapped(&network.addr())?;
    Ipv4Net::new(address, network.prefix_len().checked_sub(96)?).ok().map(|network| network.trunc())
}

/// Which addresses may open sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub allow: Networks,
    /// Stands above `allow`.
    pub deny: Networks,
}

impl Default for Addresses {
    fn default() -> Self {
        let everyone = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        Self { allow: Networks::new(&everyone), deny: Networks::default() }
    }
}

impl Addresses {
    /// `None`, a client without an address, passes where everyone does.
    #[must_use]
    pub fn admit(&self, client: Option<IpAddr>) -> bool {
        match client {
            Some(client) => self.allow.contains(client) && !self.deny.contains(client),
            None => self.admit_everyone(),
        }
    }

    #[must_use]
    pub fn admit_everyone(&self) -> bool {
        self.allow.is_everyone() && self.deny.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn networks(list: &[&str]) -> Networks {
        Networks::new(&list.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn networks_are_found_whatever_their_order_and_overlap() {
        let set =
            networks(&["192.0.2.128/25", "10.1.0.0/16", "10.0.0.0/8", "2001:db8::/32", "::ffff:198.51.100.0/120"]);
        for inside in ["10.0.0.0", "10.1.2.3", "10.255.255.255", "192.0.2.200", "198.51.100.7", "2001:db8:ffff::1"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.0.2.127", "198.51.101.0", "2001:db9::", "::1", "0.0.0.0"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(set.contains("::ffff:10.0.0.1".parse().unwrap()), "as a socket for both families tells it");
    }

    #[test]
    fn a_host_alone_is_a_network_of_one() {
        let set = networks(&["192.0.2.1/32", "2001:db8::1/128"]);
        assert!(set.contains("192.0.2.1".parse().unwrap()) && !set.contains("192.0.2.2".parse().unwrap()));
        assert!(set.contains("2001:db8::1".parse().unwrap()) && !set.contains("2001:db8::2".parse().unwrap()));
    }

    #[test]
    fn whom_both_lists_name_is_denied() {
        let lists = Addresses { allow: networks(&["10.0.0.0/8"]), deny: networks(&["10.6.0.0/16"]) };
        assert!(lists.admit(address("10.5.0.1")));
        assert!(!lists.admit(address("10.6.0.1")));
        assert!(!lists.admit(address("192.0.2.1")));
        assert!(!lists.admit(None), "whoever has no address is in no list");
    }

    #[test]
    fn without_lists_everyone_may() {
        let lists = Addresses::default();
        assert!(lists.admit(None) && lists.admit(address("192.0.2.1")) && lists.admit(address("2001:db8::1")));
        let denied = Addresses { deny: networks(&["192.0.2.1/32"]), ..lists };
        assert!(!denied.admit(address("192.0.2.1")) && denied.admit(address("192.0.2.2")));
        assert!(!denied.admit(None));
    }
}
