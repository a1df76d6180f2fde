//! Every `[[route]]`, checked against the upstreams and the other routes.
use super::{address, file::Table, keys, options, problem::Wrong, suggest, value};
use crate::{
    route::{HostHeader, HostPattern, PlainHttp, RouteConfig, RouteOptions},
    upstream::UpstreamConfig,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub(super) fn read(
    root: &Table<'_>,
    defaults: &RouteOptions,
    upstreams: &[(String, Option<UpstreamConfig>)],
    base: &Path,
) -> Vec<RouteConfig> {
    let tables = root.each("route", &keys::ROUTE);
    if root.has_none("route") {
        let help = "add [[route]] with upstream = \"NAME\"";
        root.report_absent("route", Wrong::new("there is no route", help));
    }
    let names: Vec<&str> = upstreams.iter().map(|(name, _)| name.as_str()).collect();
    let mut seen = Seen::default();
    let mut routes = Vec::new();
    for table in tables {
        if let Some(route) = read_route(&table, defaults, &names, base) {
            seen.enter(&table, &route);
            routes.push(route);
        }
    }
    routes
}

/// `None` if it has no host or path to compare with other routes, or no upstream.
fn read_route(table: &Table<'_>, defaults: &RouteOptions, upstreams: &[&str], base: &Path) -> Option<RouteConfig> {
    let upstream = read_upstream_name(table, upstreams);
    let options = options::read(table, defaults, base);
    let origins = table.list("origins", |value| address::origin(&value::text(value)?));
    let host = table.read("host", |value| address::host(&value::text(value)?));
    let host = host.or((!table.has("host")).then_some(HostPattern::Any));
    let path = table.read("path", |value| address::prefix(&value::text(value)?));
    let path = path.or_else(|| (!table.has("path")).then(|| "/".to_owned()));
    let mut strip_prefix = false;
    table.set("strip_prefix", &mut strip_prefix, value::boolean);
    let mut host_header = HostHeader::Client;
    let sources = &[("client", HostHeader::Client), ("upstream", HostHeader::Upstream)];
    table.set("host_header", &mut host_header, value::word(sources));
    let mut http = PlainHttp::Refuse;
    table.set("http", &mut http, value::word(&[("refuse", PlainHttp::Refuse), ("proxy", PlainHttp::Proxy)]));
    let name = table.read("name", value::text);
    let (host, path, upstream) = (host?, path?, upstream?);
    let name = name.unwrap_or_else(|| pattern_text(&host, &path));
    Some(RouteConfig { name, host, path, strip_prefix, upstream, host_header, origins, http, options })
}

fn read_upstream_name(table: &Table<'_>, upstreams: &[&str]) -> Option<String> {
    let help = upstreams.first().copied().unwrap_or("NAME");
    let upstream = table.require("upstream", &format!("write upstream = {}", value::quoted(help)), value::text);
    if let Some(name) = &upstream
        && !upstreams.contains(&name.as_str())
    {
        let help = if name.contains("://") || name.starts_with("unix:") || name.starts_with("builtin:") {
            format!("name a pool here and add [upstream.NAME] with servers = [{}]", value::quoted(name))
        } else {
            let add = format!("add [upstream.{name}] with servers = [\"ws://HOST:PORT\"]");
            suggest::existing(name, upstreams).map_or(add.clone(), |other| format!("{other} otherwise {add}"))
        };
        table.report_absent("upstream", Wrong::new(format!("there is no upstream {}", value::quoted(name)), help));
    }
    upstream
}

/// Host and path as text, such as `*.example.com/chat`; any host is left out.
pub(super) fn pattern_text(host: &HostPattern, path: &str) -> String {
    match host {
        HostPattern::Any => path.to_owned(),
        HostPattern::Exact(name) => format!("{name}{path}"),
        HostPattern::Wildcard(suffix) => format!("*{suffix}{path}"),
    }
}

/// Names and patterns of the routes read so far.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    patterns: BTreeMap<String, String>,
}

impl Seen {
    fn enter(&mut self, table: &Table<'_>, route: &RouteConfig) {
        let pattern = pattern_text(&route.host, &route.path);
        if let Some(other) = self.patterns.get(&pattern) {
            let message = format!("route {} serves the same host and path", value::quoted(other));
            let key = if table.has("path") || !table.has("host") { "path" } else { "host" };
            table.report(key, Wrong::new(message, "change host or path of one, or remove one"));
        } else if self.names.contains(&route.name) {
            let message = format!("another route is named {} too", value::quoted(&route.name));
            table.report("name", Wrong::new(message, "give each route its own name"));
        }
        self.names.insert(route.name.clone());
        self.patterns.entry(pattern).or_insert_with(|| route.name.clone());
    }
}
