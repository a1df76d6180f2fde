//! Every `[upstream.NAME]` and its servers.
use super::{address, balance, checks, dials, file::Table, keys, problem::Wrong, value};
use crate::{
    pem,
    upstream::{BackendAddress, ServerConfig, Share, UpstreamConfig},
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
    let servers = table.list_of_either(
        "servers",
        &keys::SERVER,
        |value| server(value).map(ServerConfig::from),
        |table| read_server(table, server),
    );
    table.must_have("servers", "write servers = [\"ws://HOST:PORT\"]");
    let balance = balance::read(table);
    let sticky = balance::read_sticky(table, base);
    let mut fail_timeout = Duration::from_secs(10);
    table.set("fail_timeout", &mut fail_timeout, value::duration);
    let mut slow_start = Some(Duration::from_secs(30));
    table.set("slow_start", &mut slow_start, value::unless("off", value::duration));
    let check = checks::read(table);
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
        if servers[..index].iter().any(|other| other.address == server.address) {
            table.report("servers", Wrong::new("a server is listed twice", "list each once"));
        }
    }
    if !servers.is_empty() && servers.iter().all(|server| server.share.backup) {
        let wrong =
            Wrong::new("every server is a backup", "let at least one be none: backups wait until the others fail");
        table.report("servers", wrong);
    }
    let encrypted = servers.iter().any(|server| {
        matches!(server.address, BackendAddress::Tcp { tls: true, .. } | BackendAddress::Service { tls: true, .. })
    });
    if table.has("tls") && !encrypted && !servers.is_empty() {
        let help = "write wss:// for backends that speak TLS, or remove tls";
        table.report("tls", Wrong::new("no server of this pool is a wss:// one", help));
    }
    let dials = dials::read(table, &servers, base);
    Some(UpstreamConfig {
        name,
        servers,
        balance: balance?,
        sticky: sticky?,
        fail_timeout,
        slow_start,
        check: check?,
        ca,
        dials,
    })
}

fn read_server(
    table: &Table<'_>,
    address: impl Fn(&DeValue<'_>) -> Result<BackendAddress, Wrong>,
) -> Option<ServerConfig> {
    let address = table.require("url", "write url = \"ws://HOST:PORT\"", address);
    let mut share = Share::default();
    table.set("weight", &mut share.weight, |value| {
        value::count(value, 1, 1000).map(|weight| u32::try_from(weight).unwrap_or(1))
    });
    table.set("backup", &mut share.backup, value::boolean);
    let sessions =
        |value: &DeValue<'_>| value::count(value, 1, 1 << 32).map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    table.set("max_sessions", &mut share.max_sessions, value::unless("off", sessions));
    Some(ServerConfig { address: address?, share })
}
