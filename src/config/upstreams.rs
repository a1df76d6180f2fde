//! Every `[upstream.NAME]` and its servers.
use super::{address, dials, file::Table, keys, problem::Wrong, value};
use crate::{
    pem,
    upstream::{BackendAddress, BalanceKind, UpstreamConfig},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use toml::de::DeValue;

/// Every pool by name, `None` where it has mistakes of its own, so that routes to it are not called wrong too.
pub(super) fn read(root: &Table<'_>, base: &Path) -> Vec<(String, Option<UpstreamConfig>)> {
    let tables = root.named("upstream", &keys::UPSTREAM);
    tables.into_iter().map(|(name, table)| (name.clone(), read_upstream(name, &table, base))).collect()
}

fn read_upstream(name: String, table: &Table<'_>, base: &Path) -> Option<UpstreamConfig> {
    let server = |value: &DeValue<'_>| address::backend(&value::text(value)?, base);
    let servers = table.list("servers", server);
    table.must_have("servers", "write servers = [\"ws://HOST:PORT\"]");
    let mut balance = BalanceKind::LeastSessions;
    let kinds = &[
        ("round_robin", BalanceKind::RoundRobin),
        ("least_sessions", BalanceKind::LeastSessions),
        ("random", BalanceKind::Random),
    ];
    table.set("balance", &mut balance, value::word(kinds));
    let mut fail_timeout = Duration::from_secs(10);
    table.set("fail_timeout", &mut fail_timeout, value::duration);
    let tls = table.child("tls", &keys::UPSTREAM_TLS);
    let ca: Option<PathBuf> = tls.read("ca", |value| {
        let path = base.join(value::text(value)?);
        pem::read_authorities(&path).map(|_| path).map_err(Wrong::from)
    });

    let servers = servers?;
    if servers.is_empty() && table.read("servers", |value| Ok(value.as_array().is_some_and(|list| list.is_empty())))? {
        table.report("servers", Wrong::new("there is no server", "list at least one, such as \"ws://10.0.0.1:8000\""));
    }
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].contains(server) {
            table.report("servers", Wrong::new("a server is listed twice", "list each once"));
        }
    }
    let encrypted = servers.iter().any(|server| matches!(server, BackendAddress::Tcp { tls: true, .. }));
    if table.has("tls") && !encrypted && !servers.is_empty() {
        let help = "write wss:// for backends that speak TLS, or remove tls";
        table.report("tls", Wrong::new("no server of this pool is a wss:// one", help));
    }
    let dials = dials::read(table, &servers, base);
    Some(UpstreamConfig { name, servers, balance, fail_timeout, ca, dials })
}
