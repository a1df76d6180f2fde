//! What `pulsegate check` prints: everything that will be served, and what to think twice about.
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
    upstream::{
        BackendAddress, BalanceKind, CheckKind, DialConfig, HashKey, ProxyVersion, Resolve, ServerConfig, Share,
        UpstreamConfig,
    },
};
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

fn write_upstream(out: &mut fmt::Formatter<'_>, upstream: &UpstreamConfig) -> fmt::Result {
    let balance = balance_text(&upstream.balance);
    let rest = time_text(upstream.fail_timeout);
    writeln!(out, "  {}, {balance}, a failed backend rests for {rest}", quoted(&upstream.name))?;
    if let Some(check) = &upstream.check {
        let (interval, timeout) = (time_text(check.interval), time_text(check.timeout));
        let what = match check.kind {
            CheckKind::Tcp => "its port".to_owned(),
            CheckKind::Http => format!("GET {}", check.path),
            CheckKind::WebSocket => format!("a ping on {}", check.path),
        };
        writeln!(
            out,
            "    checked every {interval} by {what}, within {timeout}; out after {} failures, back after {} successes",
            check.fall, check.rise
        )?;
    }
    if let Some(sticky) = &upstream.sticky {
        writeln!(out, "    a client comes back to its backend by the cookie {}", quoted(&sticky.cookie))?;
    }
    for server in &upstream.servers {
        let expanded = server.address.is_name() && upstream.dials.resolve == Resolve::All;
        let all = if expanded { ", at every address of the name" } else { "" };
        writeln!(out, "    {}{all}{}", server.address, share_text(server.share))?;
    }
    write_dials(out, &upstream.dials)
}

fn write_dials(out: &mut fmt::Formatter<'_>, dials: &DialConfig) -> fmt::Result {
    match dials.proxy_protocol {
        None => {}
        Some(ProxyVersion::V1) => writeln!(out, "    told of clients by the PROXY protocol, version 1")?,
        Some(ProxyVersion::V2) => writeln!(out, "    told of clients by the PROXY protocol, version 2")?,
    }
    if !dials.sources.is_empty() {
        let sources: Vec<String> = dials.sources.iter().map(ToString::to_string).collect();
        writeln!(out, "    dialled from {}", sources.join(", "))?;
    }
    if let Some(most) = dials.max_dials {
        writeln!(out, "    at most {most} dials under way with each")?;
    }
    Ok(())
}

fn balance_text(balance: &BalanceKind) -> String {
    let key = match balance {
        BalanceKind::RoundRobin => return "round_robin".into(),
        BalanceKind::LeastSessions => return "least_sessions".into(),
        BalanceKind::Random => return "random".into(),
        BalanceKind::Hash(key) => key,
    };
    match key {
        HashKey::Address => "hash of the client's address".into(),
        HashKey::Header(name) => format!("hash of header {name}"),
        HashKey::Cookie(name) => format!("hash of cookie {name}"),
        HashKey::Query(name) => format!("hash of query parameter {name}"),
        HashKey::Path(number) => format!("hash of segment {number} of the path"),
    }
}

/// What is unusual about a server's share.
fn share_text(share: Share) -> String {
    let weight = (share.weight != 1).then(|| format!(", weight {}", share.weight));
    let backup = share.backup.then(|| ", backup".to_owned());
    let most = share.max_sessions.map(|most| format!(", at most {most} sessions"));
    [weight, backup, most].into_iter().flatten().collect()
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{parse, tests::read};
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    const CEILINGS: Ceilings = Ceilings { descriptors: 1024, ports: 28_232 };

    fn day(text: &str) -> SystemTime {
        let time: jiff::Timestamp = format!("{text}T00:00:00Z").parse().unwrap();
        time.into()
    }

    fn warned(config: &Config, now: &str) -> Vec<String> {
        report(config, &CEILINGS, day(now)).warnings
    }

    #[test]
    fn the_shipped_file_is_reported_whole() {
        let config = read(include_str!("../../gateway.toml"));
        let expected = "\
listeners
  127.0.0.1:8080, plain

routes, in matching order
  any host, / to upstream \"demo\"
    client    a ping every 20s ±10 %, to be answered within 20s
              a peer that vanishes is found within 42s, one that hangs within 1m22s, one that takes no data within 1m22s
              an idle one costs 641 KiB a day
    upstream  a ping every 20s ±10 %, to be answered within 1m
              a peer that vanishes is found within 1m22s, one that hangs within 3m22s, one that takes no data within 1m22s

upstreams
  \"demo\", least_sessions, a failed backend rests for 10s
    builtin:echo

ceilings
  480 sessions by the descriptor limit of 1024 (2 for each, 64 kept back)

An idle leg is counted with ping, pong and an acknowledgement for each interval: 12 bytes of payload, WebSocket
headers and masking key, 40 bytes of TCP and IPv4 headers a packet, and over TLS 22 bytes a record.
";
        assert_eq!(report(&config, &CEILINGS, day("2026-01-01")).to_string(), expected);
    }

    #[test]
    fn routes_stand_in_matching_order() {
        let routes = [
            ("any", "", "/"),
            ("long", "", "/chat/room"),
            ("short", "*.b.test", "/"),
            ("longer", "*.a.b.test", "/"),
            ("exact", "c.test", "/"),
            ("deep", "c.test", "/deep"),
        ];
        let mut text =
            "listener = [{ address = \"127.0.0.1:1\" }]\nupstream.u.servers = [\"builtin:echo\"]\n".to_owned();
        for (name, host, path) in routes {
            let host = if host.is_empty() { String::new() } else { format!("host = \"{host}\"\n") };
            text += &format!("[[route]]\nname = \"{name}\"\n{host}path = \"{path}\"\nupstream = \"u\"\n");
        }
        let config = read(&text);
        let text = report(&config, &CEILINGS, day("2026-01-01")).text;
        let places: Vec<_> = ["deep", "exact", "longer", "short", "long", "any"]
            .into_iter()
            .map(|name| text.find(&format!("(\"{name}\")")).unwrap_or_else(|| panic!("{name} in {text}")))
            .collect();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn what_is_probably_not_meant_is_warned_of() {
        let config = read(
            r#"
            gateway = { max_sessions = 100_000, drain = { delay = "1s" } }
            listener = [{ address = "127.0.0.1:1" }]
            [[route]]
            name = "r"
            upstream = "u"
            heartbeat.client = { ping_interval = "31s", path_idle_limit = "1m" }
            heartbeat.upstream = { ping_interval = "off", path_idle_limit = "1m" }
            [upstream.u]
            servers = ["ws://10.0.0.1:1", "ws://10.0.0.2:2"]
            [upstream.spare]
            servers = ["builtin:echo"]
            "#,
        );
        let warned = warned(&config, "2026-01-01");
        let expected = [
            "heartbeat.client.ping_interval is 31s, above half of its path_idle_limit of 1m; set at most \"30s\"",
            "heartbeat.upstream.ping_interval is off, though its path_idle_limit is 1m",
            "upstream \"spare\" is used by no route",
            "delay 1s, spread 15s and timeouts.close 10s take 26s, drain.timeout is 25s",
            "the descriptor limit of 1024 allows 480",
            "local ports allow 56464 to upstream \"u\"",
        ];
        assert_eq!(warned.len(), expected.len(), "{warned:#?}");
        for (warned, expected) in warned.iter().zip(expected) {
            assert!(warned.contains(expected), "{warned}");
        }
        let text = report(&config, &CEILINGS, day("2026-01-01")).text;
        assert!(text.contains("upstream  no heartbeat\n"), "{text}");
        assert!(text.contains("28232 sessions to each TCP address"), "{text}");
    }

    #[test]
    fn passwords_that_others_read_and_headers_that_nobody_may_set_are_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        fs::write(&file, "ann:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n").unwrap();
        let told = |address: &str, mode: u32| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let text = format!(
                "gateway = {{ client_address = \"x-client\", rates.sessions_per_address = \"30/m\" }}\n\
                 listener = [{{ address = \"{address}\" }}]\nupstream.u.servers = [\"builtin:echo\"]\n\
                 defaults.access.basic.file = \"users\"\n\
                 route = [{{ upstream = \"u\" }}, {{ path = \"/b\", upstream = \"u\" }}]\n"
            );
            let config = parse("g", &text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
            report(&config, &CEILINGS, day("2026-01-01"))
        };
        let all = told("0.0.0.0:1", 0o644);
        let expected = [
            "users: every user of this machine can read the hashes",
            "0.0.0.0:1, which has no TLS",
            "nobody is believed",
        ];
        assert_eq!(all.warnings.len(), expected.len(), "{all}");
        for (warned, expected) in all.warnings.iter().zip(expected) {
            assert!(warned.contains(expected), "{warned}");
        }
        assert!(all.text.contains("\n  30/m new sessions from one address by rates.sessions_per_address\n"), "{all}");
        assert_eq!(told("127.0.0.1:1", 0o640).warnings.len(), 1);
        assert_eq!(told("unix:s", 0o640).warnings, [""; 0]);
    }

    /// A leaf for `chat.test` valid in all of 2026 and the authority that signed it, with the leaf's key, all PEM.
    fn chain() -> (String, String, String) {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "authority");
        let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["chat.test".to_owned(), "*.chat.test".to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "leaf");
        leaf.not_before = date_time_ymd(2026, 1, 1);
        leaf.not_after = date_time_ymd(2026, 12, 31);
        (leaf.signed_by(&key, &issuer).unwrap().pem(), authority_pem, key.serialize_pem())
    }

    fn with_tls(folder: &Path, chain: &[&str], key: &str) -> Config {
        fs::write(folder.join("c.pem"), chain.concat()).unwrap();
        fs::write(folder.join("c.key"), key).unwrap();
        let text = r#"
            listener = [{ address = "[::]:443", tls = { certificate = "c.pem", key = "c.key", min_version = "1.3" } }]
            route = [{ upstream = "u" }]
            upstream.u.servers = ["wss://h"]
        "#;
        parse("g", text, folder).unwrap()
    }

    #[test]
    fn certificates_are_judged_by_order_and_date() {
        let folder = tempfile::tempdir().unwrap();
        let (leaf, authority, key) = chain();
        let config = with_tls(folder.path(), &[&leaf, &authority], &key);
        let about_certificates = |config: &Config, now| {
            let warned = warned(config, now);
            assert!(warned.iter().any(|warning| warning.contains("lists no origins")), "{warned:?}");
            warned.into_iter().filter(|warning| warning.contains("c.pem: ")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(about_certificates(&config, "2026-06-01"), "");
        assert!(about_certificates(&config, "2026-12-11").contains("CN=leaf expires on 2026-12-31, in 20 days"));
        assert!(about_certificates(&config, "2027-01-02").contains("CN=leaf expired on 2026-12-31"));
        assert!(about_certificates(&config, "2025-12-01").contains("CN=leaf is not valid before 2026-01-01"));
        let text = report(&config, &CEILINGS, day("2026-06-01")).text;
        assert!(text.contains("[::]:443, TLS 1.3\n"), "{text}");
        assert!(text.contains("c.pem for chat.test, *.chat.test, until 2026-12-31\n"), "{text}");
        assert!(text.contains("827 KiB a day over TLS"), "{text}");
        assert!(text.contains("    wss://h, at every address of the name\n"), "{text}");

        let config = with_tls(folder.path(), &[&leaf, &leaf], &key);
        assert!(about_certificates(&config, "2026-06-01").contains("the chain is out of order"));
    }

    #[test]
    fn times_and_sizes_read_well() {
        let times = [(20_000, "20s"), (90_000, "1m30s"), (1500, "1s500ms"), (86_400_000, "24h")];
        for (millis, text) in times {
            assert_eq!(time_text(Duration::from_millis(millis)), text);
        }
        assert_eq!([size_text(98), size_text(656_640), size_text(6_566_400)], ["98 B", "641 KiB", "6.2 MiB"]);
    }
}
