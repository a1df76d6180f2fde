//! What a gateway stands on now, and how it comes to stand on something else.
use super::{
    Changes, StartError, changes::concerns_running, max_http_connections, max_sessions, names::Names, routing::Routing,
    served::Listeners, show,
};
use crate::{
    config::{Config, GatewayConfig, LogConfig},
    handshake::{Terms, admission::Admission},
    listener::{inherited::Inherited, trust::Trust},
    log::{self, verdict::VerdictLog},
    metrics::Meters,
    shutdown::DrainPlan,
    worker::{Update, Workers},
};
use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

/// All that a reload replaces, but for what the workers keep of it.
pub(super) struct Standing {
    pub(super) config: Config,
    pub(super) routing: Routing,
    pub(super) listeners: Listeners,
    pub(super) workers: usize,
    pub(super) reach: Workers,
    pub(super) admission: Arc<Admission>,
    pub(super) verdicts: Arc<VerdictLog>,
    pub(super) meters: Arc<Meters>,
    pub(super) names: Names,
}

impl Standing {
    /// Goes over to a new configuration, on all workers. Whatever can fail comes first.
    ///
    /// # Errors
    /// A file cannot be read, or an address not be bound; nothing is changed then.
    pub(super) async fn change(&mut self, new: Config) -> Result<Changes, StartError> {
        let mut changes = Changes::between(&self.config, &new);
        let mut routing = Routing::build(&new, Some(&self.routing), &self.meters)?;
        let mut prepared = self.listeners.prepare(&mut Inherited::default(), &new.listeners, self.workers)?;
        changes.certificates = std::mem::take(&mut prepared.renewed);
        changes.certificates.extend(routing.trusting_others_than(&self.routing, &new));
        if changes.is_empty() {
            return Ok(changes);
        }
        self.set(&new, &mut changes);
        let moved = routing.take_over(&self.routing);
        let orders = self.listeners.commit(prepared, self.workers);
        let update = Arc::new(Update {
            terms: terms(&new, &routing),
            routes: Arc::clone(&routing.routes),
            plan: DrainPlan::of(&new),
            opened: Mutex::new(orders.opened),
            secured: orders.secured,
            closed: orders.closed,
            configured: self.configured(&new),
            reviewed: moved || changes.routes.comes_or_goes() || changes.backends.comes_or_goes(),
        });
        for updated in self.reach.ask(move |worker| worker.update(update)).await {
            changes.configured += updated.configured;
            changes.retired += updated.retired;
        }
        // The workers have closed their sockets; now the files of Unix sockets go.
        drop(orders.former);
        self.routing = routing;
        if let Err(error) = self.names.follow(self.routing.pools()) {
            tracing::error!(%error, "names of backends are looked up no more");
        }
        // What needs a restart is told again until there was one.
        let GatewayConfig { workers, pid_file, upgrade_timeout, .. } = self.config.gateway.clone();
        let gateway = GatewayConfig { workers, pid_file, upgrade_timeout, ..new.gateway };
        let (access_log, admin) = (self.config.access_log.clone(), self.config.admin.clone());
        let log = LogConfig { format: self.config.log.format, ..new.log };
        self.config = Config { gateway, log, access_log, admin, ..new };
        show(&self.config, self.admission.max_sessions(), &self.meters);
        Ok(changes)
    }

    /// Sets what the workers share.
    fn set(&self, new: &Config, changes: &mut Changes) {
        let (was, is) = (&self.config.gateway, &new.gateway);
        if (was.max_sessions, was.memory_limit) != (is.max_sessions, is.memory_limit) {
            self.admission.limit(max_sessions(new), is.memory_limit);
        }
        if was.max_http_connections != is.max_http_connections {
            self.admission.limit_connections(max_http_connections(new));
        }
        if was.rates != is.rates {
            self.admission.rates().set(&is.rates, Instant::now());
        }
        self.verdicts.select(new.log.sessions);
        if self.config.log.level != new.log.level && !log::set_level(&new.log.level) {
            // The log is that of a program around us.
            changes.settings.retain(|key| *key != "log.level");
            changes.restart.push("log.level");
        }
    }

    /// Routes that stay, and whose sessions take over new settings.
    fn configured(&self, new: &Config) -> HashSet<String> {
        let old = &self.routing.routes;
        let concerns = |name: &str, new| old.get(name).is_some_and(|old| concerns_running(old, new));
        new.routes.iter().filter(|route| concerns(&route.name, route)).map(|route| route.name.clone()).collect()
    }

    /// Files that the configuration names, and that may be replaced while it stands.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let pairs = self.config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let clients = pairs.clone().filter_map(|tls| tls.clients.clone());
        let clients = clients.flat_map(|clients| [Some(clients.ca), clients.crl]).flatten();
        let pairs = pairs.flat_map(|tls| &tls.certificates);
        let authorities = self.config.upstreams.iter().filter_map(|upstream| upstream.ca.clone());
        let identities = self.config.upstreams.iter().filter_map(|upstream| upstream.dials.identity.clone());
        let identities = identities.flat_map(|files| [files.certificate, files.key]);
        let access = self.config.routes.iter().flat_map(|route| route.options.access.files());
        pairs
            .flat_map(|pair| [pair.certificate.clone(), pair.key.clone()])
            .chain(clients)
            .chain(authorities)
            .chain(identities)
            .chain(access)
            .collect()
    }
}

/// What the workers answer requests by.
pub(super) fn terms(config: &Config, routing: &Routing) -> Arc<Terms> {
    let trust = Trust {
        proxies: config.gateway.trusted_proxies.clone(),
        client_address: config.gateway.client_address.clone(),
    };
    Terms::new(config.defaults.clone(), trust, Arc::clone(&routing.router))
}
