//! Routes and pools at run time, built anew for each configuration from what of the former ones still stands.
use super::StartError;
use crate::{
    access::Guard,
    config::Config,
    metrics::Meters,
    route::{Route, RouteConfig, Router},
    session::RoutesByName,
    upstream::{Backend, BackendAddress, Upstream, UpstreamConfig, UpstreamTlsError},
};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

/// Where sessions go.
pub(super) struct Routing {
    upstreams: HashMap<String, Arc<Upstream>>,
    pub(super) routes: Arc<RoutesByName>,
    pub(super) router: Arc<Router>,
    /// Backends that no pool has any more, while sessions are left on them: one that comes back is still known.
    former: Vec<Weak<Backend>>,
}

impl Routing {
    /// Whatever is the same in `old` stays: a route's settings, a pool, a backend with all that is known of it.
    pub(super) fn build(config: &Config, old: Option<&Self>, meters: &Arc<Meters>) -> Result<Self, StartError> {
        let mut upstreams = HashMap::new();
        for upstream in &config.upstreams {
            upstreams.insert(upstream.name.clone(), pool(upstream, old, meters)?);
        }
        let routes: HashMap<String, Arc<RouteConfig>> =
            config.routes.iter().map(|route| (route.name.clone(), known_route(route, old))).collect();
        let bound = |route: &RouteConfig| match upstreams.get(&route.upstream) {
            Some(upstream) => {
                let config = Arc::clone(&routes[&route.name]);
                Ok(Route { guard: guard(&config, old)?, config, upstream: Arc::clone(upstream) })
            }
            None => Err(StartError::NoUpstream { route: route.name.clone(), upstream: route.upstream.clone() }),
        };
        let router = Router::new(config.routes.iter().map(bound).collect::<Result<_, _>>()?);
        let former = old.map_or_else(Vec::new, |old| old.former.clone());
        Ok(Self { routes: Arc::new(routes), router: Arc::new(router), upstreams, former })
    }

    /// The pools whose authorities, or our certificate for them, were replaced, by name.
    pub(super) fn trusting_others_than(&self, old: &Self, config: &Config) -> Vec<String> {
        let rebuilt = |upstream: &&UpstreamConfig| match (
            old.upstreams.get(&upstream.name),
            self.upstreams.get(&upstream.name),
        ) {
            (Some(old), Some(new)) => old.config() == new.config() && !Arc::ptr_eq(old, new),
            (None, _) | (_, None) => false,
        };
        config.upstreams.iter().filter(rebuilt).map(|upstream| upstream.name.clone()).collect()
    }

    /// It takes the place of `old`: backends that are gone retire, and those that came back serve again. Answers whether there are
    /// such.
    pub(super) fn take_over(&mut self, old: &Self) -> bool {
        let stays = |pool: &Arc<Upstream>| self.upstreams.get(pool.name()).is_some_and(|new| Arc::ptr_eq(new, pool));
        old.upstreams.values().filter(|pool| !stays(pool)).for_each(|pool| pool.supersede());
        let (before, after) = (old.backends(), self.backends());
        let back = after.iter().any(|backend| backend.retired());
        for backend in &before {
            backend.retire(true);
            self.former.push(Arc::downgrade(backend));
        }
        for backend in &after {
            backend.retire(false);
        }
        let gone = before.iter().any(|backend| backend.retired());
        self.upstreams.values().for_each(|upstream| upstream.settle());
        self.former
            .retain(|backend| backend.upgrade().is_some_and(|backend| backend.retired() && backend.sessions() > 0));
        back || gone
    }

    fn backends(&self) -> Vec<Arc<Backend>> {
        self.upstreams.values().flat_map(|upstream| upstream.backends().to_vec()).collect()
    }

    /// The pools, in no order.
    pub(super) fn pools(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.values().cloned().collect()
    }

    fn known(&self, upstream: &str, address: &BackendAddress) -> Vec<Arc<Backend>> {
        let serving = self.upstreams.get(upstream).into_iter().flat_map(|upstream| upstream.backends().to_vec());
        let former = self.former.iter().filter_map(Weak::upgrade).filter(|backend| backend.upstream == upstream);
        serving.chain(former).filter(|backend| backend.address == *address).collect()
    }
}

fn pool(
    config: &UpstreamConfig,
    old: Option<&Routing>,
    meters: &Arc<Meters>,
) -> Result<Arc<Upstream>, UpstreamTlsError> {
    if let Some(known) = old.and_then(|old| old.upstreams.get(&config.name))
        && known.config() == config
        && known.credentials_stand()?
    {
        return Ok(Arc::clone(known));
    }
    Upstream::with(config, meters, |address| old.map_or_else(Vec::new, |old| old.known(&config.name, address)))
}

/// A route that is the same keeps its guard, with all that it knows.
fn guard(config: &Arc<RouteConfig>, old: Option<&Routing>) -> Result<Arc<Guard>, UpstreamTlsError> {
    let same = |route: &&Arc<Route>| Arc::ptr_eq(&route.config, config);
    match old.and_then(|old| old.router.matching_order().find(same)) {
        Some(route) => Ok(Arc::clone(&route.guard)),
        None => Guard::new(&config.options.access).map(Arc::new),
    }
}

fn known_route(config: &RouteConfig, old: Option<&Routing>) -> Arc<RouteConfig> {
    let known = old.and_then(|old| old.routes.get(&config.name)).filter(|known| ***known == *config);
    known.map_or_else(|| Arc::new(config.clone()), Arc::clone)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{config::parse, upstream::Lease};
    use std::path::Path;

    fn routing(upstreams: &str, routes: &str, old: Option<&Routing>) -> Routing {
        let text = format!("listener = [{{ address = \"127.0.0.1:0\" }}]\n{routes}\n{upstreams}");
        let config = parse("test", &text, Path::new("")).unwrap();
        let mut new = Routing::build(&config, old, &Meters::new(0)).unwrap();
        if let Some(old) = old {
            new.take_over(old);
        }
        new
    }

    const ROUTES: &str =
        "route = [{ name = \"a\", upstream = \"u\" }, { name = \"b\", path = \"/b\", upstream = \"u\" }]";
    const TWO: &str = "upstream.u.servers = [\"ws://h:1\", \"ws://h:2\"]";

    #[test]
    fn what_is_the_same_stays() {
        let old = routing(TWO, ROUTES, None);
        let new = routing(TWO, &ROUTES.replace("path = \"/b\"", "path = \"/c\""), Some(&old));
        assert!(Arc::ptr_eq(&old.routes["a"], &new.routes["a"]));
        assert!(!Arc::ptr_eq(&old.routes["b"], &new.routes["b"]));
        assert!(Arc::ptr_eq(&old.upstreams["u"], &new.upstreams["u"]));
    }

    #[test]
    fn a_changed_pool_keeps_its_backends_and_what_is_known_of_them() {
        let old = routing(TWO, ROUTES, None);
        old.upstreams["u"].backends()[1].prove();
        let new = routing(
            "upstream.u = { servers = [\"ws://h:3\", \"ws://h:2\"], balance = \"random\" }",
            ROUTES,
            Some(&old),
        );
        let (before, after) = (old.upstreams["u"].backends(), new.upstreams["u"].backends());
        assert!(Arc::ptr_eq(&before[1], &after[1]) && after[1].proven());
        assert_eq!([before[0].retired(), after[0].retired(), after[1].retired()], [true, false, false]);
    }

    #[test]
    fn what_goes_or_comes_back_is_told() {
        let one = "upstream.u.servers = [\"ws://h:2\"]";
        let old = routing(TWO, ROUTES, None);
        let _lease = Lease::new(Arc::clone(&old.upstreams["u"].backends()[0]));
        let moves = |text: &str, old: &Routing| {
            let text = format!("listener = [{{ address = \"127.0.0.1:0\" }}]\n{ROUTES}\n{text}");
            let config = parse("test", &text, Path::new("")).unwrap();
            let mut new = Routing::build(&config, Some(old), &Meters::new(0)).unwrap();
            (new.take_over(old), new)
        };
        let (same, old) = moves(&TWO.replace("]", "]\nupstream.u.balance = \"random\""), &old);
        let (gone, old) = moves(one, &old);
        let (back, _) = moves(TWO, &old);
        assert_eq!([same, gone, back], [false, true, true]);
    }

    #[test]
    fn a_backend_that_comes_back_while_sessions_are_left_on_it_is_the_same() {
        let old = routing(TWO, ROUTES, None);
        let first = Arc::clone(&old.upstreams["u"].backends()[0]);
        let lease = Lease::new(Arc::clone(&first));
        let one = "upstream.u.servers = [\"ws://h:2\"]";
        let without = routing(one, ROUTES, Some(&old));
        assert!(first.retired());
        let back = routing(TWO, ROUTES, Some(&without));
        assert!(Arc::ptr_eq(&first, &back.upstreams["u"].backends()[0]) && !first.retired());
        drop(lease);
        let again = routing(TWO, ROUTES, Some(&routing(one, ROUTES, Some(&back))));
        assert!(!Arc::ptr_eq(&first, &again.upstreams["u"].backends()[0]), "nothing of it was left");
        assert!(again.former.is_empty());
    }
}
