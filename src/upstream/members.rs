//! The backends of a pool as they are now: names that are looked up anew change them while the pool serves.
use super::{Backend, BackendAddress, ServerConfig, dns::Found};
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
    /// Another pool has its backends now, and they are no more its to change.
    superseded: bool,
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
    /// Whether a backend has left the pool, so that its sessions are to end, or came back before all of them were told.
    pub reviewed: bool,
}

impl Refreshed {
    /// There is no such name.
    pub(super) const NEVER: Self = Self { after: Duration::MAX, reviewed: false };
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
                ..Addresses::default()
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

    /// Has each backend be held to its entry; `servers` are those that these were made of.
    pub(super) fn hold(&self, servers: &[ServerConfig], hold: impl Fn(&ServerConfig, &Backend)) {
        for (entry, server) in self.entries.iter().zip(servers) {
            match entry {
                Entry::Fixed(backend) => hold(server, backend),
                Entry::Named(named) => {
                    hold(server, &named.itself);
                    named.found().serving.iter().for_each(|member| hold(server, &member.backend));
                }
            }
        }
    }

    /// Lookups change nothing any more: another pool has the backends.
    pub(super) fn supersede(&self) {
        self.names().for_each(|named| named.found().superseded = true);
    }

    /// The entries that are names.
    pub(super) fn names(&self) -> impl Iterator<Item = &Named> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Fixed(_) => None,
            Entry::Named(named) => Some(&**named),
        })
    }

    /// Does what a lookup of a name says. An answer without addresses, or none at all, changes nothing, and one with gaps takes
    /// nothing away: a resolver in trouble ends no session. `fresh` makes a backend, and `hold` holds one that is back to its entry.
    pub(super) fn apply(
        &self,
        named: &Named,
        found: Result<Found, String>,
        fresh: impl Fn(SocketAddr) -> Arc<Backend>,
        hold: impl Fn(&Backend),
    ) -> Refreshed {
        let (reviewed, good_for) = match found {
            Ok(found) => {
                let most = if found.gaps.cause().is_some() { AFTER_FAILURE } else { LATEST };
                (named.take(&found, fresh, hold), found.good_for.clamp(SOONEST, most))
            }
            Err(cause) => {
                named.fail(&cause);
                (false, AFTER_FAILURE)
            }
        };
        self.compose();
        // Gateways that were started together do not ask together.
        Refreshed { after: good_for.mul_f64(1.0 + 0.1 * fastrand::f64()), reviewed }
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

    /// Whether some of its addresses are backends.
    pub(super) fn is_known(&self) -> bool {
        !self.found().serving.is_empty()
    }

    /// Answers whether a backend left, or is back while sessions are left on it.
    fn take(&self, told: &Found, fresh: impl Fn(SocketAddr) -> Arc<Backend>, hold: impl Fn(&Backend)) -> bool {
        let mut found = self.found();
        if found.superseded {
            return false;
        }
        self.tell(&mut found.failing, told.gaps.cause());
        for Member { backend, missed } in &mut found.serving {
            let there = told.addresses.iter().any(|address| backend.at == Some(address.at));
            let hidden = backend.at.is_some_and(|at| told.gaps.may_hide(at));
            *missed = match (there, hidden) {
                (true, _) => 0,
                (false, true) => *missed,
                (false, false) => *missed + 1,
            };
        }
        let (stay, leave): (Vec<_>, Vec<_>) = found.serving.drain(..).partition(|member| member.missed < MISSED);
        found.serving = stay;
        for Member { backend, .. } in &leave {
            tracing::info!(upstream = backend.upstream, backend = backend.name, "its name has this address no more");
            backend.retire(true);
            found.former.push(Arc::downgrade(backend));
        }
        let mut reviewed = !leave.is_empty();
        for address in &told.addresses {
            let serving = found.serving.iter().find(|member| member.backend.at == Some(address.at));
            let backend = serving.map(|member| Arc::clone(&member.backend)).unwrap_or_else(|| {
                let mut former = found.former.iter().filter_map(Weak::upgrade);
                let backend = match former.find(|backend| backend.at == Some(address.at)) {
                    Some(back) => {
                        hold(&back);
                        reviewed |= back.sessions() > 0;
                        back
                    }
                    None => fresh(address.at),
                };
                tracing::info!(upstream = backend.upstream, backend = backend.name, "its name has this address");
                found.serving.push(Member { backend: Arc::clone(&backend), missed: 0 });
                backend
            });
            backend.retire(false);
            backend.set_part(address.part);
        }
        found
            .former
            .retain(|backend| backend.upgrade().is_some_and(|backend| backend.retired() && backend.sessions() > 0));
        reviewed
    }

    fn tell(&self, failing: &mut bool, gap: Option<&str>) {
        match (std::mem::replace(failing, gap.is_some()), gap) {
            (true, None) => tracing::info!(name = %self.address, "the name resolves again"),
            (false, Some(cause)) => tracing::warn!(
                name = %self.address,
                cause,
                "a part of the name does not resolve; the addresses it had of that are kept"
            ),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn fail(&self, cause: &str) {
        self.itself.set_unresolved(cause);
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
    use crate::upstream::{
        Lease,
        dns::{Address, Gaps},
    };

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
        partly_found(members, addresses, seconds, Gaps::default())
    }

    fn partly_found(members: &Members, addresses: &[&str], seconds: u64, gaps: Gaps) -> Refreshed {
        let even = |text: &&str| Address { at: text.parse().unwrap(), part: Address::EVEN };
        let addresses = addresses.iter().map(even).collect();
        let found = Found { addresses, good_for: Duration::from_secs(seconds), gaps };
        let named = members.names().next().unwrap();
        let fresh = |at| Arc::new(Backend::metered_at("chat", name(), Some(at), |_| Arc::default()));
        members.apply(named, Ok(found), fresh, |_| {})
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
            assert!(!found(&members, &["10.0.0.1:80"], 30).reviewed);
        }
        assert!(found(&members, &["10.0.0.1:80"], 30).reviewed && second.retired());
        assert_eq!(names(&members), ["ws://chat.test#10.0.0.1", "builtin:echo"]);
        let back = found(&members, &["10.0.0.1:80", "10.0.0.2:80"], 30);
        assert!(Arc::ptr_eq(&members.now()[1], &second) && !second.retired());
        assert!(back.reviewed, "its sessions were to end, and are not any more");
        assert!(!found(&members, &["10.0.0.1:80", "10.0.0.2:80"], 30).reviewed);
        drop(lease);
    }

    #[test]
    fn what_a_resolver_in_trouble_did_not_tell_does_not_leave() {
        let members = members();
        found(&members, &["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"], 30);
        let gaps = Gaps { v4: None, v6: Some("no answer".into()) };
        for _ in 0..MISSED * 2 {
            let refreshed = partly_found(&members, &["10.0.0.1:80", "10.0.0.3:80"], 300, gaps.clone());
            assert!(refreshed.after < AFTER_FAILURE * 2);
        }
        let there = ["10.0.0.1", "2001:db8::1", "10.0.0.3"].map(|at| format!("ws://chat.test#{at}"));
        assert_eq!(names(&members)[..3], there, "what was told counts, of one family as of the other");
    }

    #[test]
    fn a_pool_whose_place_another_has_taken_changes_no_backend() {
        let members = members();
        found(&members, &["10.0.0.1:80"], 30);
        members.supersede();
        for _ in 0..MISSED * 2 {
            assert!(!found(&members, &["10.0.0.2:80"], 30).reviewed);
        }
        assert!(!members.now()[0].retired());
    }

    #[test]
    fn a_backend_that_serves_is_not_retired() {
        let members = members();
        found(&members, &["10.0.0.1:80"], 30);
        members.now()[0].retire(true);
        found(&members, &["10.0.0.1:80"], 30);
        assert!(!members.now()[0].retired());
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
            let refreshed = members.apply(named, Err("no answer".into()), |_| panic!("nothing is new"), |_| {});
            assert!(!refreshed.reviewed && refreshed.after < AFTER_FAILURE * 2);
        }
        assert_eq!(names(&members), ["ws://chat.test#10.0.0.1", "builtin:echo"]);
    }

    #[test]
    fn what_stands_for_a_name_says_why_it_has_no_address() {
        let members = members();
        let named = members.names().next().unwrap();
        members.apply(named, Err("the DNS knows no such name".into()), |_| panic!("nothing is new"), |_| {});
        assert_eq!(members.now()[0].unresolved(), "the DNS knows no such name");
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
