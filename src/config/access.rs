//! Who may come in: `access` of a route and of `[defaults]`, and `[gateway] rates`.
use super::{address, file::Table, keys, problem::Wrong, value};
use crate::access::{AccessConfig, Addresses, Networks, rates::RatesConfig};
use std::sync::Arc;

/// What `base` says, with those keys replaced that `table` has.
pub(super) fn read(table: &Table<'_>, base: &Arc<AccessConfig>) -> Arc<AccessConfig> {
    let mut access = (**base).clone();
    let networks = |key: &str| {
        let list = table.list(key, |value| address::network(&value::text(value)?))?;
        Some((list.is_empty(), Networks::new(&list)))
    };
    if let Some((empty, allow)) = networks("allow") {
        if empty && table.read("allow", |value| Ok(value.as_array().is_some_and(|list| list.is_empty()))) == Some(true)
        {
            let help = "leave it out to let everyone, or list networks such as \"10.0.0.0/8\"";
            table.report("allow", Wrong::new("nobody could come in", help));
        }
        access.addresses.allow = allow;
    }
    if let Some((_, deny)) = networks("deny") {
        access.addresses.deny = deny;
    }
    Arc::new(access)
}

pub(super) fn read_rates(gateway: &Table<'_>) -> RatesConfig {
    let table = gateway.child("rates", &keys::RATES);
    let mut rates = RatesConfig::default();
    let rate = || value::unless("off", value::rate);
    table.set("handshakes", &mut rates.handshakes, rate());
    table.set("handshakes_per_address", &mut rates.handshakes_per_address, rate());
    table.set("sessions", &mut rates.sessions, rate());
    table.set("sessions_per_address", &mut rates.sessions_per_address, rate());
    rates
}

/// What `check` tells of it; `None` if everyone may come in.
pub(super) fn told(access: &AccessConfig) -> Option<String> {
    let Addresses { allow, deny } = &access.addresses;
    let mut parts = Vec::new();
    match (access.addresses.admit_everyone(), deny.is_empty()) {
        (true, _) => {}
        (false, true) => parts.push(format!("from {allow}")),
        (false, false) => parts.push(format!("from {allow}, but not from {deny}")),
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, parse};
    use std::path::Path;

    const REST: &str = "listener = [{ address = \"127.0.0.1:1\" }]\nupstream.u.servers = [\"builtin:echo\"]\n";

    fn read(routes: &str) -> Result<Config, String> {
        parse("g", &format!("{REST}{routes}"), Path::new("")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_route_replaces_the_lists_of_the_defaults_one_by_one() {
        let config = read(
            "[defaults]\naccess = { allow = [\"10.0.0.0/8\"], deny = [\"10.6.0.0/16\", \"10.7.0.1\"] }\n\
             [[route]]\nupstream = \"u\"\n[[route]]\npath = \"/b\"\nupstream = \"u\"\naccess.deny = []\n",
        )
        .unwrap();
        let told = |index: usize| super::told(&config.routes[index].options.access).unwrap();
        assert_eq!(told(0), "from 10.0.0.0/8, but not from 10.6.0.0/16, 10.7.0.1");
        assert_eq!(told(1), "from 10.0.0.0/8");
    }

    #[test]
    fn everyone_is_told_of_by_nothing() {
        let config = read("route = [{ upstream = \"u\", access.allow = [\"0.0.0.0/0\", \"::/0\"] }]").unwrap();
        assert_eq!(super::told(&config.routes[0].options.access), None);
        assert_eq!(*config.routes[0].options.access, *config.defaults.access);
    }

    #[test]
    fn lists_that_cannot_be_meant_are_mistakes() {
        for (access, expected) in [
            ("allow = []", "g:3:43: route.access.allow: nobody could come in; leave it out to let everyone"),
            ("allow = [\"10.0.0.300\"]", "route.access.allow: \"10.0.0.300\""),
            ("deny = \"10.0.0.1\"", "write [\"10.0.0.1\"]"),
            ("block = []", "known here: allow, deny"),
        ] {
            let mistakes = read(&format!("route = [{{ upstream = \"u\", access.{access} }}]")).unwrap_err();
            assert!(mistakes.contains(expected), "{access}: {mistakes}");
        }
    }

    #[test]
    fn rates_are_so_many_a_time_or_off() {
        let config = read(
            "gateway.rates = { handshakes = \"100/s\", sessions_per_address = \"30/m\", sessions = \"off\" }\n\
             route = [{ upstream = \"u\" }]",
        )
        .unwrap();
        let rates = config.gateway.rates;
        let text = |rate: Option<crate::pacing::Rate>| rate.map(|rate| rate.to_string());
        assert_eq!(text(rates.handshakes).as_deref(), Some("100/s"));
        assert_eq!(text(rates.sessions_per_address).as_deref(), Some("30/m"));
        assert_eq!((rates.sessions, rates.handshakes_per_address), (None, None));
        let mistakes = read("gateway.rates.handshakes = 100\nroute = [{ upstream = \"u\" }]").unwrap_err();
        assert!(mistakes.contains("gateway.rates.handshakes: 100 has no unit; write \"100/s\""), "{mistakes}");
    }
}
