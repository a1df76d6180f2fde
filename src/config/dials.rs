//! How an `[upstream.NAME]` dials its backends.
use super::{file::Table, problem::Wrong, value};
use crate::upstream::{BackendAddress, DialConfig, ServerConfig};
use std::net::IpAddr;
use toml::de::DeValue;

/// The keys of the table that say how `servers` are dialled.
pub(super) fn read(table: &Table<'_>, servers: &[ServerConfig]) -> DialConfig {
    DialConfig { sources: sources(table, servers) }
}

fn sources(table: &Table<'_>, servers: &[ServerConfig]) -> Vec<IpAddr> {
    let sources = table.list("source", source).unwrap_or_default();
    for (index, source) in sources.iter().enumerate() {
        if sources[..index].contains(source) {
            table.report("source", Wrong::new(format!("{source} is listed twice"), "list each address once"));
        }
    }
    for server in servers {
        let BackendAddress::Tcp { host, .. } = &server.address else { continue };
        let Ok(address) = host.parse::<IpAddr>() else { continue };
        if !sources.is_empty() && !sources.iter().any(|source| source.is_ipv4() == address.is_ipv4()) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("{address} cannot be reached from any of them, for none is an {family} one");
            table.report("source", Wrong::new(message, format!("add an {family} address of this machine")));
        }
    }
    sources
}

fn source(value: &DeValue<'_>) -> Result<IpAddr, Wrong> {
    let text = value::text(value)?;
    let wrong = |message: &str, help: &str| Wrong::new(format!("{} {message}", value::quoted(&text)), help);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    match bare.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            Err(wrong("stands for every address", "leave source out to have the kernel choose"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(wrong("is not an IP address", "write addresses of this machine, without a port: \"10.0.0.5\"")),
    }
}
