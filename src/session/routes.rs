//! The routes as they are now, for sessions that were opened when they may have been others.
use crate::{relay::RelayConfig, route::RouteConfig};
use std::{cell::RefCell, collections::HashMap, sync::Arc};

/// Every route by its name.
pub type RoutesByName = HashMap<String, Arc<RouteConfig>>;

/// One worker's view of the routes; a reload replaces it.
#[derive(Debug, Default)]
pub struct Routes {
    by_name: RefCell<Arc<RoutesByName>>,
    /// Settings of sessions that keep a part of older ones: few kinds, each shared by its sessions.
    mixed: RefCell<Vec<Arc<RelayConfig>>>,
}

impl Routes {
    /// From now on these are the routes.
    pub fn replace(&self, routes: Arc<RoutesByName>) {
        *self.by_name.borrow_mut() = routes;
        self.mixed.borrow_mut().clear();
    }

    /// A route as it is now; none if it is gone.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<RouteConfig>> {
        self.by_name.borrow().get(name).cloned()
    }

    /// What a session of this route that runs by `old` is to run by; none if the route is gone.
    #[must_use]
    pub fn renewed(&self, name: &str, old: &RelayConfig) -> Option<Arc<RelayConfig>> {
        let newer = Arc::clone(&self.by_name.borrow().get(name)?.options.relay);
        let renewed = old.renewed(&newer);
        if Arc::ptr_eq(&renewed, &newer) {
            return Some(newer);
        }
        let mut mixed = self.mixed.borrow_mut();
        if let Some(known) = mixed.iter().find(|known| ***known == *renewed) {
            return Some(Arc::clone(known));
        }
        mixed.push(Arc::clone(&renewed));
        Some(renewed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        relay::Pings,
        route::{HostPattern, tests::route},
    };

    #[test]
    fn sessions_that_keep_the_same_part_share_their_settings() {
        let (routes, mut config) = (Routes::default(), route(HostPattern::Any, "/"));
        let old = Arc::clone(&config.options.relay);
        assert!(routes.renewed("/", &old).is_none());
        let relay = Arc::make_mut(&mut config.options.relay);
        (relay.pings, relay.pace) = (Pings::Answer, Some(7));
        let name = config.name.clone();
        routes.replace(Arc::new(HashMap::from([(name.clone(), Arc::new(config))])));
        let (first, second) = (routes.renewed(&name, &old).unwrap(), routes.renewed(&name, &old).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((first.pings, first.pace), (Pings::Forward, Some(7)));
        let newest = Arc::clone(&routes.get(&name).unwrap().options.relay);
        assert!(Arc::ptr_eq(&routes.renewed(&name, &newest).unwrap(), &newest));
    }
}
