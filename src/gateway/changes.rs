//! What a reload changes: found by comparing two configurations, and told to the operator.
use crate::{
    config::{Config, GatewayConfig, LogConfig},
    listener::ListenerConfig,
    route::RouteConfig,
    upstream::UpstreamConfig,
};
use std::{collections::HashMap, fmt, hash::Hash};

/// Names that are told of one kind of change; more are counted.
const TOLD: usize = 20;

/// What a reload changed. Its `Display` is one line for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub routes: Altered,
    pub upstreams: Altered,
    /// As `UPSTREAM ADDRESS`. None is ever changed: one with another address is another one.
    pub backends: Altered,
    /// By address. Changed are those that begin or cease to speak TLS, or want another version of it.
    pub listeners: Altered,
    /// Listeners and upstreams whose certificates or authorities were replaced.
    pub certificates: Vec<String>,
    /// Keys outside of routes, upstreams and listeners that were changed.
    pub settings: Vec<&'static str>,
    /// Keys that differ in the file, and take effect only when the gateway is started anew.
    pub restart: Vec<&'static str>,
    /// Running sessions that take over new heartbeats, limits or timeouts.
    pub configured: usize,
    /// Running sessions that end, spread over `gateway.drain.spread`, for their route or backend is gone.
    pub retired: usize,
}

/// Names of what is new, gone, or different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Altered {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Changes {
    /// What the texts of two configurations tell; certificates are files of their own.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self {
            routes: Altered::between(&old.routes, &new.routes, |route| route.name.clone()),
            upstreams: Altered::between(&old.upstreams, &new.upstreams, |upstream| upstream.name.clone()),
            backends: Altered::between(&backends(old), &backends(new), Clone::clone),
            ..Self::default()
        };
        changes.listeners =
            Altered::between(&counted(&old.listeners), &counted(&new.listeners), |(name, ..)| name.clone());
        changes.of_settings(old, new);
        changes
    }

    /// Whether the gateway goes on exactly as before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let altered = [&self.routes, &self.upstreams, &self.backends, &self.listeners];
        altered.iter().all(|altered| altered.is_empty()) && self.certificates.is_empty() && self.settings.is_empty()
    }

    /// Every key is named here, so that a new one is not forgotten.
    fn of_settings(&mut self, old: &Config, new: &Config) {
        let GatewayConfig {
            workers,
            max_sessions,
            max_http_connections,
            memory_limit,
            trusted_proxies,
            client_address,
            pid_file,
            upgrade_timeout,
            drain,
            rates,
            watch,
        } = &old.gateway;
        let LogConfig { level, format, sessions } = &old.log;
        let gateway = &new.gateway;
        let settings = [
            ("gateway.max_sessions", *max_sessions != gateway.max_sessions),
            ("gateway.max_http_connections", *max_http_connections != gateway.max_http_connections),
            ("gateway.memory_limit", *memory_limit != gateway.memory_limit),
            ("gateway.trusted_proxies", *trusted_proxies != gateway.trusted_proxies),
            ("gateway.client_address", *client_address != gateway.client_address),
            ("gateway.drain", *drain != gateway.drain),
            ("gateway.rates", *rates != gateway.rates),
            ("gateway.watch", *watch != gateway.watch),
            ("log.level", *level != new.log.level),
            ("log.sessions", *sessions != new.log.sessions),
            ("defaults", old.defaults != new.defaults),
        ];
        let restart = [
            ("gateway.workers", *workers != gateway.workers),
            ("gateway.pid_file", *pid_file != gateway.pid_file),
            ("gateway.upgrade_timeout", *upgrade_timeout != gateway.upgrade_timeout),
            ("log.format", *format != new.log.format),
            ("access_log", old.access_log != new.access_log),
            ("admin", old.admin != new.admin),
        ];
        let differing = |keys: &[(&'static str, bool)]| keys.iter().filter(|key| key.1).map(|key| key.0).collect();
        self.settings = differing(&settings);
        self.restart = differing(&restart);
    }
}

fn backends(config: &Config) -> Vec<String> {
    let of = |upstream: &UpstreamConfig| -> Vec<String> {
        upstream.servers.iter().map(|server| format!("{} {}", upstream.name, server.address)).collect()
    };
    config.upstreams.iter().flat_map(of).collect()
}

/// Listeners on a port of the kernel's choice may have one address: the second and further ones are told by a number.
fn counted(listeners: &[ListenerConfig]) -> Vec<(String, &ListenerConfig)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let name = |listener: &ListenerConfig| {
        let address = listener.address.to_string();
        let count = seen.entry(address.clone()).or_default();
        *count += 1;
        if *count == 1 { address } else { format!("{address} ({count})") }
    };
    listeners.iter().map(name).zip(listeners).collect()
}

impl Altered {
    fn between<T: PartialEq, K: Eq + Hash + ToString>(old: &[T], new: &[T], name: impl Fn(&T) -> K) -> Self {
        let by_name = |all: &[T]| -> HashMap<K, usize> {
            all.iter().enumerate().map(|(index, one)| (name(one), index)).collect()
        };
        let (before, after) = (by_name(old), by_name(new));
        let names = |all: &[T], wanted: &dyn Fn(&T) -> bool| {
            all.iter().filter(|one| wanted(one)).map(|one| name(one).to_string()).collect()
        };
        Self {
            added: names(new, &|one| !before.contains_key(&name(one))),
            removed: names(old, &|one| !after.contains_key(&name(one))),
            changed: names(new, &|one| before.get(&name(one)).is_some_and(|index| old[*index] != *one)),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// Whether one is new or gone.
    pub(super) fn comes_or_goes(&self) -> bool {
        !(self.added.is_empty() && self.removed.is_empty())
    }

    fn tell(&self, clauses: &mut Vec<String>, what: &str, [added, removed, changed]: [&str; 3]) {
        for (names, how) in [(&self.added, added), (&self.removed, removed), (&self.changed, changed)] {
            clause(clauses, what, names, how);
        }
    }
}

fn clause<S: AsRef<str>>(clauses: &mut Vec<String>, what: &str, names: &[S], how: &str) {
    if names.is_empty() {
        return;
    }
    let told: Vec<&str> = names.iter().take(TOLD).map(AsRef::as_ref).collect();
    let more = match names.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if names.len() == 1 || what.is_empty() { "" } else { "s" };
    let what = if what.is_empty() { String::new() } else { format!("{what}{plural} ") };
    clauses.push(format!("{what}{}{more} {how}", told.join(", ")));
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        self.routes.tell(&mut clauses, "route", ["added", "removed", "changed"]);
        self.upstreams.tell(&mut clauses, "upstream", ["added", "removed", "changed"]);
        self.backends.tell(&mut clauses, "backend", ["added", "removed", "changed"]);
        self.listeners.tell(&mut clauses, "listener", ["opened", "closed", "changed"]);
        clause(&mut clauses, "", &self.certificates, "serves with replaced certificates");
        clause(&mut clauses, "", &self.settings, "changed");
        if clauses.is_empty() {
            clauses.push("nothing changed".to_owned());
        }
        let sessions = |count: usize| if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") };
        if self.configured > 0 {
            clauses.push(format!("{} in all take new heartbeats, limits and timeouts", sessions(self.configured)));
        }
        if self.retired > 0 {
            clauses.push(format!("{} drained, for route or backend is gone", sessions(self.retired)));
        }
        clause(&mut clauses, "", &self.restart, "differs, and takes effect only after a restart");
        f.write_str(&clauses.join("; "))
    }
}

/// Whether sessions of a route that run take something over when it changes so.
pub(super) fn concerns_running(old: &RouteConfig, new: &RouteConfig) -> bool {
    let (old, new) = (&old.options.relay, &new.options.relay);
    (&old.heartbeat, &old.timeouts, &old.limits, &old.pace) != (&new.heartbeat, &new.timeouts, &new.limits, &new.pace)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::parse;
    use std::path::Path;

    fn config(text: &str) -> Config {
        parse("test", text, Path::new("")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    const BASE: &str = r#"
gateway.max_sessions = 10
listener = [{ address = "127.0.0.1:1" }, { address = "127.0.0.1:0" }, { address = "127.0.0.1:0" }]
route = [{ name = "chat", upstream = "u" }, { name = "feed", path = "/feed", upstream = "u" }]
upstream.u.servers = ["ws://h:1", "ws://h:2"]
"#;

    fn told(new: &str) -> String {
        Changes::between(&config(BASE), &config(new)).to_string()
    }

    #[test]
    fn an_equal_configuration_changes_nothing() {
        assert!(Changes::between(&config(BASE), &config(&BASE.replace("10", "1_0"))).is_empty());
        assert_eq!(told(BASE), "nothing changed");
    }

    #[test]
    fn each_change_is_told_once_by_its_name() {
        assert_eq!(told(&BASE.replace("\"feed\"", "\"news\"")), "route news added; route feed removed");
        assert_eq!(told(&BASE.replace("\"/feed\"", "\"/news\"")), "route feed changed");
        assert_eq!(
            told(&BASE.replace("h:2", "h:3")),
            "upstream u changed; backend u ws://h:3 added; backend u ws://h:2 removed"
        );
        assert_eq!(
            told(&BASE.replace(", { address = \"127.0.0.1:0\" }]", "]").replace("127.0.0.1:1", "127.0.0.1:2")),
            "listener 127.0.0.1:2 opened; listeners 127.0.0.1:1, 127.0.0.1:0 (2) closed"
        );
        assert_eq!(
            told(&format!("defaults.pings = \"answer\"{}", BASE.replace("= 10", "= 11"))),
            "routes chat, feed changed; gateway.max_sessions, defaults changed"
        );
    }

    #[test]
    fn what_needs_a_restart_is_said_though_nothing_changed() {
        let changes = Changes::between(&config(BASE), &config(&format!("gateway.workers = 3{BASE}")));
        assert!(changes.is_empty());
        let told = changes.to_string();
        assert_eq!(told, "nothing changed; gateway.workers differs, and takes effect only after a restart");
    }

    #[test]
    fn very_many_names_are_counted() {
        let routes: Vec<String> = (0..50).map(|n| format!("{{ path = \"/{n}\", upstream = \"u\" }}")).collect();
        let list = format!("route = [{}]", routes.join(", "));
        let told = told(&BASE.replace(
            "route = [{ name = \"chat\", upstream = \"u\" }, { name = \"feed\", path = \"/feed\", upstream = \"u\" }]",
            &list,
        ));
        assert!(told.contains("/19 and 30 more added; routes chat, feed removed"), "{told}");
    }

    #[test]
    fn running_sessions_take_over_heartbeats_limits_and_timeouts_alone() {
        let chat = |text: &str| config(&format!("{text}{BASE}")).routes.remove(0);
        let old = chat("");
        for (text, concerns) in [
            ("defaults.heartbeat.client.ping_interval = \"1s\"", true),
            ("defaults.timeouts.idle = \"1s\"", true),
            ("defaults.limits.pace = \"1B\"", true),
            ("defaults.limits.client.frame = \"1B\"", true),
            ("defaults.pings = \"answer\"", false),
            ("defaults.timeouts.connect = \"1s\"", false),
        ] {
            assert_eq!(concerns_running(&old, &chat(text)), concerns, "{text}");
        }
    }
}
