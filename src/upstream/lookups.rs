//! When the names of a pool are looked up, and what becomes of the answers.
use super::{
    Backend, Upstream,
    members::{Named, Refreshed},
};
use futures_util::future::join_all;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::timeout;

impl Upstream {
    /// How many of its servers are names whose addresses are looked up again and again.
    #[must_use]
    pub fn names(&self) -> usize {
        self.members.names().count()
    }

    /// Looks one of its names up, and has its backends be what the answer says.
    pub async fn refresh(&self, name: usize) -> Refreshed {
        match self.members.names().nth(name) {
            Some(named) => {
                let _one_at_a_time = named.asking.lock().await;
                self.ask(named).await
            }
            None => Refreshed::NEVER,
        }
    }

    /// Looks up the names that were not looked up yet, for so long at most.
    pub async fn look_up(&self, within: Duration) {
        let asked = |named: &Named| named.asked.load(Ordering::Acquire);
        if self.members.names().all(asked) {
            return;
        }
        let first = self.members.names().map(|named| async move {
            let _one_at_a_time = named.asking.lock().await;
            if !asked(named) {
                self.ask(named).await;
            }
        });
        // Whoever has no answer then is tried as what stands for it.
        let _ = Box::pin(timeout(within, join_all(first))).await;
    }

    async fn ask(&self, named: &Named) -> Refreshed {
        let found = self.dns.find(&named.address, named.is_known()).await;
        let (pool, address) = (&self.config.name, &named.address);
        let server = self.config.servers.iter().find(|server| server.address == *address);
        let hold = |backend: &Backend| server.into_iter().for_each(|server| self.hold(server, backend));
        let fresh = |at| {
            let meter = |name: &str| self.meters.backend(pool, name);
            let backend = Backend::metered_at(pool, address.clone(), Some(at), meter);
            hold(&backend);
            Arc::new(backend)
        };
        let refreshed = self.members.apply(named, found, fresh, hold);
        named.asked.store(true, Ordering::Release);
        refreshed
    }
}
