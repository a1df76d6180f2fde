//! What a reload changes on a worker.
use super::{Greeting, ListenerId, Listening, Worker};
use crate::{
    handshake::Terms,
    session::{
        RoutesByName,
        registry::{Key, Order},
    },
    shutdown::DrainPlan,
};
use std::{
    collections::HashSet,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::task::yield_now;

/// Sessions that are looked at before others of the worker get a turn.
const BATCH: usize = 1024;

/// Changes for all workers.
pub(crate) struct Update {
    pub(crate) terms: Arc<Terms>,
    pub(crate) routes: Arc<RoutesByName>,
    pub(crate) plan: DrainPlan,
    /// Sockets to accept on, for each worker.
    pub(crate) opened: Mutex<Vec<Vec<Listening>>>,
    pub(crate) secured: Vec<Greeting>,
    pub(crate) closed: Vec<ListenerId>,
    /// Names of routes whose running sessions take over new settings.
    pub(crate) configured: HashSet<String>,
    /// Whether a route or a backend is gone, or has come back.
    pub(crate) reviewed: bool,
}

/// How many of a worker's sessions an update concerns.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Updated {
    /// They take over new settings.
    pub(crate) configured: usize,
    /// They are to end.
    pub(crate) retired: usize,
}

impl Worker {
    /// Does what the update says. Sessions that it does not concern do not notice.
    pub(crate) async fn update(self: Rc<Self>, update: Arc<Update>) -> Updated {
        self.edge.replace(Arc::clone(&update.terms));
        self.context.routes.replace(Arc::clone(&update.routes));
        self.plan.set(update.plan);
        self.context.farewells.set(update.plan.pace);
        for listening in self.sockets_of(&update) {
            self.listen(listening);
        }
        for greeting in &update.secured {
            self.greet_by(greeting);
        }
        let updated = self.review(&update).await;
        self.close(&update.closed).await;
        updated
    }

    fn sockets_of(&self, update: &Update) -> Vec<Listening> {
        let mut opened = update.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(self.share.worker).unwrap_or(usize::MAX);
        opened.get_mut(index).map(std::mem::take).unwrap_or_default()
    }

    /// Ends, in the time of a drain, the sessions whose backend has left its pool. Answers how many.
    pub(crate) async fn shed(self: Rc<Self>) -> usize {
        let registry = &self.context.registry;
        let mut stranded: Vec<Key> = Vec::new();
        for (number, key) in registry.keys().into_iter().enumerate() {
            if number % BATCH == BATCH - 1 {
                yield_now().await;
            }
            stranded.extend(registry.facts(key).is_some_and(|facts| self.stranded(&facts)).then_some(key));
        }
        self.retire(&stranded)
    }

    async fn review(&self, update: &Update) -> Updated {
        let mut updated = Updated::default();
        if update.configured.is_empty() && !update.reviewed {
            return updated;
        }
        let registry = &self.context.registry;
        let mut stranded: Vec<Key> = Vec::new();
        for (number, key) in registry.keys().into_iter().enumerate() {
            if number % BATCH == BATCH - 1 {
                yield_now().await;
            }
            let Some(facts) = registry.facts(key) else { continue };
            if update.reviewed && self.stranded(&facts) {
                stranded.push(key);
            } else if update.configured.contains(&facts.route.name) {
                registry.order(key, Order::Configure);
                updated.configured += 1;
            }
        }
        if update.reviewed {
            updated.retired = self.retire(&stranded);
        }
        updated
    }
}
