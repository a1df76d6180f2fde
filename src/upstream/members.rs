//! The backends of a pool as they are now: names that are looked up anew change them while the pool serves.
use super::{Backend, BackendAddress, ServerConfig, backend::Terms, dns::Found};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak, atomic::AtomicBool},
    time::Duration,
};

/// In so many answers in a row an address is missing before it leaves: servers with many addresses tell of some at a time.
const MISSED: u32 = 3;
/// A name is looked up again when its answer is no longer good, within these bounds.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(300);
/// And so soon after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The entries of `servers`, and the list they make, which is replaced as a whole. Touched by opening handshakes and lookups,
/// never by frames.
#[derive(Debug)]
pub(super) struct Members {
    entries: Vec<Entry>,
    list: RwLock<Arc<[Arc<Backend>]>>,
}

#[derive(Debug)]
enum Entry {
    Fixed(Arc<Backend>),
    Named(Box<Named>),
}

/// A name, all of whose addresses are backends.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) address: BackendAddress,
    /// Who looks it up holds this, so that one at a time does.
    pub(super) asking: tokio::sync::Mutex<()>,
    /// Whether it was looked up once: from then on no session waits for a lookup.
    pub(super) asked: AtomicBool,
    /// Stands for the name while it has no address.
    itself: Arc<Backend>,
    found: Mutex<Addresses>,
}

#[derive(Debug, Default)]
struct Addresses {
    serving: Vec<Member>,
    /// Those that left, while sessions are left on them.
    former: Vec<Weak<Backend>>,
    failing: bool,
}

#[derive(Debug)]
struct Member {
    backend: Arc<Backend>,
    missed: u32,
}

/// What came of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Refreshed {
    /// When to look up again.
    pub after: Duration,
    /// Whether a backend has left the pool: its sessions are to end.
    pub left: bool,
}

impl Refreshed {
    /// There is no such name.
    pub(super) const NEVER: Self = Self { after: Duration::MAX, left: false };
}

impl BackendAddress {
    /// Whether it is a name whose addresses are looked up. This machine's own name is none: it has its own ways to be reached.
    #[must_use]
    pub fn is_name(&self) -> bool {
        match self {
            Self::Tcp { host, .. } => {
                let local = host == "localhost" || host.ends_with(".localhost");
                !local && super::resolve::bare(host).parse::<IpAddr>().is_err()
            }
            Self::Service { .. } => true,
            Self::Unix(_) | Self::Echo => false,
        }
    }
}

impl Members {
    /// `known`: backends of an address from before a reload, and `fresh` makes one.
    pub(super) fn new<'a>(
        servers: impl IntoIterator<Item = &'a ServerConfig>,
        all: bool,
        known: impl Fn(&BackendAddress) -> Vec<Arc<Backend>>,
        fresh: impl Fn(&ServerConfig) -> Arc<Backend>,
    ) -> Self {
        let entry = |server: &ServerConfig| {
            let address = &server.address;
            let (members, itself): (Vec<_>, Vec<_>) =
                known(address).into_iter().partition(|backend| backend.at.is_some());
            let itself = itself.into_iter().next().unwrap_or_else(|| fresh(server));
            if !address.is_name() || !all && !matches!(address, BackendAddress::Service { .. }) {
                return Entry::Fixed(itself);
            }
            let (former, serving): (Vec<_>, Vec<_>) = members.into_iter().partition(|backend| backend.retired());
            let found = Addresses {
                serving: serving.into_iter().map(|backend| Member { backend, missed: 0 }).collect(),
                former: former.iter().map(Arc::downgrade).collect(),
                failing: false,
            };
            let asked = AtomicBool::new(!found.serving.is_empty());
            Entry::Named(Box::new(Named {
                address: address.clone(),
                asking: tokio::sync::Mutex::default(),
                asked,
                itself,
                found: Mutex::new(found),
            }))
        };
        let this = Self { entries: servers.into_iter().map(entry).collect(), list: RwLock::new(Arc::new([])) };
        this.compose();
        this
    }

    /// The list as it is at this moment; it stays so for whoever holds it.
    pub(super) fn now(&self) -> Arc<[Arc<Backend>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds each backend to the terms of its entry; `servers` are those that these were made of.
    pub(super) fn hold(&self, servers: &[ServerConfig], terms: impl Fn(&ServerConfig) -> Terms) {
        for (entry, server) in self.entries.iter().zip(servers) {
            match entry {
                Entry::Fixed(backend) => backend.set_terms(terms(server)),
                Entry::Named(named) => {
                    named.itself.set_terms(terms(server));
                    named.found().serving.iter().for_each(|member| member.backend.set_terms(terms(server)));
                }
            }
        }
    }

    /// The entries that are names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Named> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Fixed(_) => None,
            Entry::Named(named) => Some(&**named),
        })
    }

    /// Does what a lookup of a name says. An answer without addresses, or none at all, changes nothing: a resolver in trouble
    /// ends no session.
    pub(super) fn apply(
        &self,
        named: &Named,
        found: Result<Found, String>,
        fresh: impl Fn(SocketAddr) -> Arc<Backend>,
    ) -> Refreshed {
        let (left, good_for) = match found {
            Ok(found) => (named.take(&found.addresses, fresh), Some(found.good_for)),
            Err(cause) => {
                named.fail(&cause);
                (false, None)
            }
        };
        self.compose();
        let after = good_for.map_or(AFTER_FAILURE, |time| time.clamp(SOONEST, LATEST));
        // Gateways that were started together do not ask together.
        Refreshed { after: after.mul_f64(1.0 + 0.1 * fastrand::f64()), left }
    }

    fn compose(&self) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for entry in &self.entries {
            match entry {
                Entry::Fixed(backend) => all.push(Arc::clone(backend)),
                Entry::Named(named) => {
                    let found = named.found();
                    all.extend(found.serving.iter().map(|member| Arc::clone(&member.backend)));
                    if found.serving.is_empty() {
                        all.push(Arc::clone(&named.itself));
                    }
                }
            }
        }
        *list = all.into();
    }
}

impl Named {
    fn found(&self) -> MutexGuard<'_, Addresses> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers whether a backend left.
    fn take(&self, addresses: &[SocketAddr], fresh: impl Fn(SocketAddr) -> Arc<Backend>) -> bool {
        let mut found = self.found();
        if std::mem::take(&mut found.failing) {
            tracing::info!(name = %self.address, "the name resolves again");
        }
        for member in &mut found.serving {
            let there = member.backend.at.is_some_and(|at| addresses.contains(&at));
            member.missed = if there { 0 } else { member.missed + 1 };
        }
        let (stay, leave): (Vec<_>, Vec<_>) = found.serving.drain(..).partition(|member| member.missed < MISSED);
        found.serving = stay;
        for Member { backend, .. } in &leave {
            tracing::info!(upstream = backend.upstream, backend = backend.name, "its name has this address no more");
            backend.retire(true);
            found.former.push(Arc::downgrade(backend));
        }
        for &at in addresses {
            if !found.serving.iter().any(|member| member.backend.at == Some(at)) {
                let back = found.former.iter().filter_map(Weak::upgrade).find(|backend| backend.at == Some(at));
                let backend = back.unwrap_or_else(|| fresh(at));
                backend.retire(false);
                tracing::info!(upstream = backend.upstream, backend = backend.name, "its name has this address");
                found.serving.push(Member { backend, missed: 0 });
            }
        }
        found
            .former
            .retain(|backend| backend.upgrade().is_some_and(|backend| backend.retired() && backend.sessions() > 0));
        !leave.is_empty()
    }

    fn fail(&self, cause: &str) {
        let mut found = self.found();
        if !std::mem::replace(&mut found.failing, true) {
            let kept = found.serving.len();
            tracing::warn!(name = %self.address, cause, kept, "the name does not resolve; the addresses it had are kept");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::upstream::Lease;

    fn name() -> BackendAddress {
        BackendAddress::Tcp { tls: false, host: "chat.test".into(), port: 80, path: "/".into() }
    }

    fn members() -> Members {
        let (named, fixed) = (name().into(), BackendAddress::Echo.into());
        Members::new([&named, &fixed], true, |_| Vec::new(), fresh)
    }

    fn fresh(server: &ServerConfig) -> Arc<Backend> {
        Arc::new(Backend::new("chat", server.address.clone()))
    }

    fn found(members: &Members, addresses: &[&str], seconds: u64) -> Refreshed {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let found = Found { addresses, good_for: Duration::from_secs(seconds) };
        let named = members.names().next().unwrap();
        members
            .apply(named, Ok(found), |at| Arc::new(Backend::metered_at("chat", name(), Some(at), |_| Arc::default())))
    }

    fn names(members: &Members) -> Vec<String> {
        members.now().iter().map(|backend| backend.name.clone()).collect()
    }

    #[test]
    fn all_addresses_of_a_name_are_backends_in_its_place() {
        let members = members();
        assert_eq!(names(&members), ["ws://chat.test", "builtin:echo"]);
        found(&members, &["10.0.0.1:80", "[2001:db8::1]:80"], 30);
        assert_eq!(names(&members), ["ws://chat.test#10.0.0.1", "ws://chat.test#2001:db8::1", "builtin:echo"]);
    }

    #[test]
    fn an_address_leaves_when_it_is_missing_again_and_again_and_comes_back_as_it_was() {
        let members = members();
        found(&members, &["10.0.0.1:80", "10.0.0.2:80"], 30);
        let second = Arc::clone(&members.now()[1]);
        let lease = Lease::new(Arc::clone(&second));
        for _ in 1..MISSED {
            assert!(!found(&members, &["10.0.0.1:80"], 30).left);
        }
        assert!(found(&members, &["10.0.0.1:80"], 30).left && second.retired());
        assert_eq!(names(&members), ["ws://chat.test#10.0.0.1", "builtin:echo"]);
        found(&members, &["10.0.0.1:80", "10.0.0.2:80"], 30);
        assert!(Arc::ptr_eq(&members.now()[1], &second) && !second.retired());
        drop(lease);
    }

    #[test]
    fn a_pool_that_is_built_anew_keeps_the_addresses_and_what_is_known_of_them() {
        let old = members();
        found(&old, &["10.0.0.1:80"], 30);
        old.now()[0].prove();
        let known = |address: &BackendAddress| {
            old.now().iter().filter(|backend| backend.address == *address).cloned().collect::<Vec<_>>()
        };
        let server = ServerConfig::from(name());
        let new = Members::new([&server], true, known, fresh);
        assert!(Arc::ptr_eq(&new.now()[0], &old.now()[0]) && new.now()[0].proven());
        let one = Members::new([&server], false, known, fresh);
        assert_eq!(names(&one), ["ws://chat.test"]);
    }

    #[test]
    fn a_resolver_in_trouble_changes_nothing() {
        let members = members();
        found(&members, &["10.0.0.1:80"], 30);
        let named = members.names().next().unwrap();
        for _ in 0..10 {
            let refreshed = members.apply(named, Err("no answer".into()), |_| panic!("nothing is new"));
            assert!(!refreshed.left && refreshed.after < AFTER_FAILURE * 2);
        }
        assert_eq!(names(&members), ["ws://chat.test#10.0.0.1", "builtin:echo"]);
    }

    #[test]
    fn answers_are_good_for_their_time_within_bounds() {
        let members = members();
        for (seconds, least) in [(0, 1), (30, 30), (86_400, 300)] {
            let after = found(&members, &["10.0.0.1:80"], seconds).after;
            let least = Duration::from_secs(least);
            assert!((least..=least.mul_f64(1.1)).contains(&after), "{after:?}");
        }
    }

    #[test]
    fn only_names_of_other_machines_are_looked_up() {
        let of =
            |host: &str| BackendAddress::Tcp { tls: false, host: host.into(), port: 1, path: "/".into() }.is_name();
        assert!(of("chat.internal") && of("chat"));
        assert!(!of("localhost") && !of("a.localhost") && !of("10.0.0.1") && !of("::1") && !of("[::1]"));
    }
}
