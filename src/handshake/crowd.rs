//! Notices that nearly everybody seems to be one client: a proxy in front that is not trusted.
use std::{
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Sessions that are looked at,
const MANY: u32 = 100;
/// and those of them that may come from elsewhere.
const FEW: u32 = 5;

/// The clients of sessions, as far as it takes to see that they are one. Shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    told: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    address: Option<IpAddr>,
    same: u32,
    others: u32,
}

impl Crowd {
    /// A session was opened by `client`, while no proxy is trusted; `forwarded`: its request speaks of another client. Warns
    /// once, in the life of the gateway, when nearly all of many come from one address.
    pub(super) fn joined(&self, client: IpAddr, forwarded: bool) {
        if self.told.load(Relaxed) {
            return;
        }
        let all_one = self.seen.lock().unwrap_or_else(PoisonError::into_inner).note(client);
        if !all_one || self.told.swap(true, Relaxed) {
            return;
        }
        let and = if forwarded { ", and their requests name others as the client" } else { "" };
        tracing::warn!(
            "{} of the last {MANY} sessions or more come from {client}{and}: if a proxy stands there, limits and logs take all \
             its clients for one; add it to gateway.trusted_proxies (and set proxy_protocol = \"require\" in the \
             [[listener]] if it speaks the PROXY protocol)",
            MANY - FEW
        );
    }
}

impl Seen {
    /// Whether many were seen, and nearly all were one.
    fn note(&mut self, client: IpAddr) -> bool {
        if self.address == Some(client) {
            self.same += 1;
        } else {
            self.others += 1;
        }
        if self.address.is_none() || self.others > FEW {
            *self = Self { address: Some(client), same: 1, others: 0 };
        }
        self.same + self.others >= MANY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    /// After how many sessions it is seen that nearly all are one.
    fn noticed(clients: impl Iterator<Item = u8>) -> Option<usize> {
        let mut seen = Seen::default();
        clients.map(address).position(|client| seen.note(client))
    }

    #[test]
    fn one_address_is_noticed_and_a_few_others_hide_it_not() {
        assert_eq!(noticed([7].into_iter().cycle().take(100)), Some(99));
        let few = (0..100).map(|n| if n % 20 == 19 { n } else { 7 });
        assert_eq!(noticed(few), Some(99));
        assert_eq!(noticed((1..=6).chain([7].into_iter().cycle().take(200))), Some(105));
    }

    #[test]
    fn many_addresses_are_many_clients() {
        assert_eq!(noticed((0..=255).cycle().take(10_000)), None);
        assert_eq!(noticed((0..10_000).map(|n| if n % 10 == 0 { 1 } else { 2 })), None);
    }
}
