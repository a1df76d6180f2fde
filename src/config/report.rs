//! What `pulsegate check` prints: everything that will be served, and what to think twice about.
mod pools;

use super::{
    AdminConfig, Ceilings, Config, access, detection, idle_bytes_per_day,
    routes::pattern_text,
    value::{quoted, time_text},
    warnings,
};
use crate::{
    access::rates::RatesConfig,
    listener::{ClientCertificates, ListenAddress, ListenerConfig, TlsVersion, Verify, proxy_protocol::ProxyProtocol},
    pem,
    protocol::heartbeat::{HeartbeatConfig, HeartbeatKind},
    relay::{PerSide, Side},
    route::{Edits, HeaderEdits, HostPattern, Line, PlainHttp, RouteConfig, Router},
    upstream::{BackendAddress, ServerConfig},
};
use pools::write_upstream;
use std::{
    fmt,
    time::{Duration, SystemTime},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The output of `pulsegate check`; displays as the text and then a line for each warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub text: String,
    pub warnings: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if !self.warnings.is_empty() {
            f.write_str("\nwarnings\n")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "  {warning}"))
    }
}

/// Describes a configuration; `now` judges the dates of certificates, which are read once more.
#[must_use]
pub fn report(config: &Config, ceilings: &Ceilings, now: SystemTime) -> Report {
    let text = Served { config, ceilings }.to_string();
    Report { text, warnings: warnings::warnings(config, ceilings, now) }
}

struct Served<'a> {
    config: &'a Config,
    ceilings: &'a Ceilings,
}

impl fmt::Display for Served<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_all(f, self.config, self.ceilings)
    }
}

fn write_all(out: &mut fmt::Formatter<'_>, config: &Config, ceilings: &Ceilings) -> fmt::Result {
    writeln!(out, "listeners")?;
    config.listeners.iter().try_for_each(|listener| write_listener(out, listener))?;
    if let Some(admin) = &config.admin {
        write_admin(out, admin)?;
    }
    writeln!(out, "\nroutes, in matching order")?;
    let router = Router::new(config.routes.clone());
    router.matching_order().try_for_each(|route| write_route(out, config, route))?;
    writeln!(out, "\nupstreams")?;
    config.upstreams.iter().try_for_each(|upstream| write_upstream(out, upstream))?;
    write_ceilings(out, config, ceilings)?;
    writeln!(
        out,
        "\nAn idle leg is counted with ping, pong and an acknowledgement for each interval: 12 bytes of payload, WebSocket\n\
         headers and masking key, 40 bytes of TCP and IPv4 headers a packet, and over TLS 22 bytes a record."
    )
}

fn write_listener(out: &mut fmt::Formatter<'_>, listener: &ListenerConfig) -> fmt::Result {
    let address = &listener.address;
    let health = listener.health.as_deref().map_or_else(String::new, |path| format!(", readiness at {path}"));
    let proxied = match listener.proxy_protocol {
        ProxyProtocol::Off => "",
        ProxyProtocol::Require => ", behind proxies that speak the PROXY protocol",
    };
    let Some(tls) = &listener.tls else { return writeln!(out, "  {address}, plain{health}{proxied}") };
    let versions = match tls.min_version {
        TlsVersion::Tls12 => "TLS 1.2 and 1.3",
        TlsVersion::Tls13 => "TLS 1.3",
    };
    writeln!(out, "  {address}, {versions}{health}{proxied}")?;
    if let Some(ClientCertificates { ca, crl, verify }) = &tls.clients {
        let may = match verify {
            Verify::Require => "clients need",
            Verify::Optional => "clients may show",
        };
        let but = crl.as_ref().map_or_else(String::new, |crl| format!(", unless {} revokes it", crl.display()));
        writeln!(out, "    {may} a certificate of {}{but}", ca.display())?;
    }
    for (index, files) in tls.certificates.iter().enumerate() {
        let file = files.certificate.display();
        let default = if index == 0 && tls.certificates.len() > 1 { ", the default one" } else { "" };
        writeln!(out, "    {file}{}{default}", certificate_text(files).unwrap_or_default())?;
    }
    Ok(())
}

fn write_edits(out: &mut fmt::Formatter<'_>, way: &str, edits: &Edits) -> fmt::Result {
    let lines = |lines: &[Line]| lines.iter().map(|line| line.spelling.to_string()).collect::<Vec<_>>();
    let removed = edits.remove.iter().map(ToString::to_string).collect();
    let done = [("removed", removed), ("set", lines(&edits.set)), ("added", lines(&edits.add))];
    done.iter()
        .filter(|(_, names)| !names.is_empty())
        .try_for_each(|(how, names)| writeln!(out, "    headers {way} {how}: {}", names.join(", ")))
}

fn write_admin(out: &mut fmt::Formatter<'_>, admin: &AdminConfig) -> fmt::Result {
    let address = &admin.address;
    let who = match (address, admin.is_local(), &admin.token_file) {
        (ListenAddress::Unix(_), ..) => "whoever may open the socket (0660) reads and changes",
        (ListenAddress::Tcp(_), true, None) => "whoever is on this machine reads, nobody changes",
        (ListenAddress::Tcp(_), true, Some(_)) => "whoever is on this machine reads, the token changes",
        (ListenAddress::Tcp(_), false, _) => "the token reads and changes",
    };
    writeln!(out, "\nadmin\n  {address}: {who}")?;
    if !admin.hosts.is_empty() {
        writeln!(out, "    reached as {} too", admin.hosts.join(", "))?;
    }
    Ok(())
}

/// ` for NAMES, until DATE`
fn certificate_text(files: &crate::listener::CertificateFiles) -> Option<String> {
    let chain = pem::read_chain(&files.certificate).ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names: Vec<&str> = alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None })
        .collect();
    let names = if names.is_empty() { leaf.subject().to_string() } else { names.join(", ") };
    Some(format!(" for {names}, until {}", warnings::date_text(leaf.validity().not_after.timestamp())))
}

fn write_route(out: &mut fmt::Formatter<'_>, config: &Config, route: &RouteConfig) -> fmt::Result {
    let pattern = pattern_text(&route.host, &route.path);
    let name = if route.name == pattern { String::new() } else { format!(" ({})", quoted(&route.name)) };
    let any = if route.host == HostPattern::Any { "any host, " } else { "" };
    let plain = match route.http {
        PlainHttp::Refuse => "",
        PlainHttp::Proxy => ", plain HTTP too",
    };
    writeln!(out, "  {any}{pattern}{name} to upstream {}{plain}", quoted(&route.upstream))?;
    let HeaderEdits { request, response } = &*route.options.headers;
    write_edits(out, "to the backend", request)?;
    write_edits(out, "to the client", response)?;
    if let Some(told) = access::told(&route.options.access) {
        writeln!(out, "    {told}")?;
    }
    let servers: &[ServerConfig] = config
        .upstreams
        .iter()
        .find(|upstream| upstream.name == route.upstream)
        .map_or(&[], |upstream| upstream.servers.as_slice());
    let wire = PerSide {
        downstream: Wire::of(
            config.listeners.iter().any(|listener| matches!(listener.address, ListenAddress::Tcp(_))),
            config.listeners.iter().any(|listener| listener.tls.is_some()),
        ),
        upstream: Wire::of(
            servers
                .iter()
                .any(|server| matches!(server.address, BackendAddress::Tcp { .. } | BackendAddress::Service { .. })),
            servers.iter().any(|server| {
                matches!(
                    server.address,
                    BackendAddress::Tcp { tls: true, .. } | BackendAddress::Service { tls: true, .. }
                )
            }),
        ),
    };
    let relay = &route.options.relay;
    for side in Side::BOTH {
        write_leg(out, side, &relay.heartbeat[side], relay.timeouts.stall, wire[side])?;
    }
    Ok(())
}

/// What a leg's heartbeat crosses, at its dearest.
#[derive(Clone, Copy)]
enum Wire {
    /// It does not leave the machine.
    Local,
    Plain,
    Tls,
}

impl Wire {
    fn of(network: bool, tls: bool) -> Self {
        match (network, tls) {
            (false, _) => Self::Local,
            (true, false) => Self::Plain,
            (true, true) => Self::Tls,
        }
    }
}

fn write_leg(
    out: &mut fmt::Formatter<'_>,
    side: Side,
    heartbeat: &HeartbeatConfig,
    stall: Option<Duration>,
    wire: Wire,
) -> fmt::Result {
    let leg = side.label();
    let Some(interval) = heartbeat.ping_interval else {
        writeln!(out, "    {leg:8}  no heartbeat")?;
        return writeln!(
            out,
            "              a peer that vanishes is never found, one that takes no data {}",
            within(stall)
        );
    };
    let jitter = heartbeat.jitter * 100.0;
    let interval = time_text(interval);
    let schedule = match (heartbeat.kind, heartbeat.ping_timeout) {
        (HeartbeatKind::Pong, _) => {
            format!("an unsolicited pong every {interval} ±{jitter:.0} %, nobody is called dead")
        }
        (HeartbeatKind::Ping, None) => format!("a ping every {interval} ±{jitter:.0} %, nobody is called dead"),
        (HeartbeatKind::Ping, Some(timeout)) => {
            format!("a ping every {interval} ±{jitter:.0} %, to be answered within {}", time_text(timeout))
        }
    };
    let found = detection(heartbeat, stall);
    writeln!(out, "    {leg:8}  {schedule}")?;
    writeln!(
        out,
        "              a peer that vanishes is found {}, one that hangs {}, one that takes no data {}",
        within(found.silent),
        within(found.acknowledging),
        within(found.blocked)
    )?;
    let cost = |tls| size_text(idle_bytes_per_day(heartbeat, tls));
    match wire {
        Wire::Local => Ok(()),
        Wire::Plain => writeln!(out, "              an idle one costs {} a day", cost(false)),
        Wire::Tls => writeln!(out, "              an idle one costs {} a day over TLS", cost(true)),
    }
}

fn within(bound: Option<Duration>) -> String {
    bound.map_or_else(|| "never".into(), |bound| format!("within {}", time_text(bound)))
}

fn write_ceilings(out: &mut fmt::Formatter<'_>, config: &Config, ceilings: &Ceilings) -> fmt::Result {
    let Ceilings { descriptors, ports } = ceilings;
    let (sessions, reserve) = (ceilings.sessions(), Ceilings::RESERVE);
    writeln!(out, "\nceilings")?;
    if let Some(most) = config.gateway.max_sessions {
        writeln!(out, "  {most} sessions by max_sessions")?;
    }
    if config.routes.iter().any(|route| route.http == PlainHttp::Proxy) {
        let most = ceilings.max_http_connections(&config.gateway);
        writeln!(out, "  {most} connections of plain HTTP by max_http_connections")?;
    }
    write_rates(out, &config.gateway.rates)?;
    writeln!(out, "  {sessions} sessions by the descriptor limit of {descriptors} (2 for each, {reserve} kept back)")?;
    let tcp =
        |server: &ServerConfig| matches!(server.address, BackendAddress::Tcp { .. } | BackendAddress::Service { .. });
    if config.upstreams.iter().any(|upstream| upstream.servers.iter().any(tcp)) {
        writeln!(out, "  {ports} sessions to each TCP address of a backend by the local ports, from each source")?;
    }
    Ok(())
}

fn write_rates(out: &mut fmt::Formatter<'_>, rates: &RatesConfig) -> fmt::Result {
    let RatesConfig { handshakes, handshakes_per_address, sessions, sessions_per_address } = rates;
    let told = [
        (handshakes, "handshakes by rates.handshakes"),
        (handshakes_per_address, "handshakes from one address by rates.handshakes_per_address"),
        (sessions, "new sessions by rates.sessions"),
        (sessions_per_address, "new sessions from one address by rates.sessions_per_address"),
    ];
    told.iter().try_for_each(|(rate, what)| rate.iter().try_for_each(|rate| writeln!(out, "  {rate} {what}")))
}

/// A number of bytes in the largest unit that leaves a whole part.
fn size_text(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", (bytes + 512) >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}

#[cfg(test)]
mod tests;
