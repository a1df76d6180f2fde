//! What is valid in a configuration and yet probably not meant.
use super::{
    AdminConfig, Ceilings, Config,
    value::{quoted, time_text},
};
use crate::{
    listener::{CertificateFiles, ListenAddress, ListenerTls, trust::ClientSource},
    pacing::Pace,
    pem,
    relay::Side,
    route::RouteConfig,
    upstream::{BackendAddress, Resolve, UpstreamConfig},
};
use std::{
    fs,
    net::{IpAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    revocation_list::CertificateRevocationList,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates that expire sooner are warned of.
const SOON: Duration = Duration::from_secs(21 * 24 * 60 * 60);

/// All warnings, one sentence each.
pub(super) fn warnings(config: &Config, ceilings: &Ceilings, now: SystemTime) -> Vec<String> {
    let certificates = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let mut warnings: Vec<String> =
        certificates.flat_map(|tls: &ListenerTls| &tls.certificates).flat_map(|files| of_chain(files, now)).collect();
    let clients = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.clients.as_ref()?.crl.as_ref());
    warnings.extend(clients.flat_map(|crl| of_revocations(crl, now)));
    let tls = config.listeners.iter().any(|listener| listener.tls.is_some());
    for route in &config.routes {
        warnings.extend(Side::BOTH.into_iter().filter_map(|side| of_interval(route, side)));
        if tls && route.origins.is_none() {
            warnings.push(format!(
                "route {} lists no origins: any web page may open sessions with its visitors' cookies; \
                 set origins = [\"https://…\"]",
                quoted(&route.name)
            ));
        }
    }
    for upstream in &config.upstreams {
        if !config.routes.iter().any(|route| route.upstream == upstream.name) {
            warnings.push(format!("upstream {} is used by no route", quoted(&upstream.name)));
        }
        warnings.extend(upstream.dials.sources.iter().filter_map(|source| of_source(upstream, *source)));
    }
    warnings.extend(of_passwords(config));
    warnings.extend(of_client_address(config));
    warnings.extend(config.admin.iter().flat_map(of_admin));
    warnings.extend(of_drain(config));
    warnings.extend(of_ceilings(config, ceilings));
    warnings
}

fn of_interval(route: &RouteConfig, side: Side) -> Option<String> {
    let heartbeat = &route.options.relay.heartbeat[side];
    let limit = heartbeat.path_idle_limit?;
    let (name, leg, limit_text) = (quoted(&route.name), side.label(), time_text(limit));
    match heartbeat.ping_interval {
        None => Some(format!(
            "route {name}: heartbeat.{leg}.ping_interval is off, though its path_idle_limit is {limit_text}"
        )),
        Some(interval) if interval > limit / 2 => Some(format!(
            "route {name}: heartbeat.{leg}.ping_interval is {}, above half of its path_idle_limit of {limit_text}; \
             set at most \"{}\"",
            time_text(interval),
            time_text(limit / 2)
        )),
        Some(_) => None,
    }
}

/// A floating address may come later, so this is no mistake.
fn of_source(upstream: &UpstreamConfig, source: IpAddr) -> Option<String> {
    let error = UdpSocket::bind((source, 0)).err()?;
    Some(format!("upstream {}: source {source} cannot be used on this machine now: {error}", quoted(&upstream.name)))
}

/// Whether others than its owner and group may read a file.
fn is_open(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.mode() & 0o007 != 0)
}

/// Of `access.basic`: who may read the hashes, and who the passwords.
fn of_passwords(config: &Config) -> Vec<String> {
    let asking = config.routes.iter().filter_map(|route| Some((route, route.options.access.basic.as_ref()?)));
    let (routes, mut files): (Vec<_>, Vec<_>) = asking.map(|(route, basic)| (quoted(&route.name), &basic.file)).unzip();
    files.sort();
    files.dedup();
    let open = files.into_iter().filter(|file| is_open(file));
    let mut warnings: Vec<String> = open
        .map(|file| {
            let file = file.display();
            format!("{file}: every user of this machine can read the hashes of access.basic; chmod 640 it")
        })
        .collect();
    let plain = config.listeners.iter().filter(|listener| listener.tls.is_none()).find_map(|listener| match &listener
        .address
    {
        ListenAddress::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
        ListenAddress::Tcp(_) | ListenAddress::Unix(_) => None,
    });
    if let (Some(route), Some(address)) = (routes.first(), plain) {
        warnings.push(format!(
            "route {route} asks for passwords, and they can be read on the network of {address}, which has no TLS; \
             set tls, or keep it to proxies on a network you trust"
        ));
    }
    warnings
}

fn of_client_address(config: &Config) -> Option<String> {
    let ClientSource::Header(name) = &config.gateway.client_address else { return None };
    let unix = config.listeners.iter().any(|listener| matches!(listener.address, ListenAddress::Unix(_)));
    (config.gateway.trusted_proxies.is_empty() && !unix).then(|| {
        format!(
            "gateway.client_address is {}, and nobody is believed about it: name the proxies in front in \
             gateway.trusted_proxies",
            quoted(name.as_str())
        )
    })
}

fn of_admin(admin: &AdminConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let file = admin.token_file.as_ref();
    if let Some(file) = file.filter(|file| is_open(file)) {
        let file = file.display();
        warnings.push(format!("{file}: every user of this machine can read the token of [admin]; chmod 640 it"));
    }
    match (&admin.address, admin.is_local(), file) {
        (ListenAddress::Tcp(_), true, None) => warnings.push(
            "admin lists sessions, and nobody can end one or drain a backend: set admin.token_file, or use a Unix socket"
                .into(),
        ),
        (ListenAddress::Tcp(address), false, _) => warnings.push(format!(
            "admin listens on {address} without TLS: its token can be read on the network; keep it to a network you trust"
        )),
        (ListenAddress::Tcp(_), true, Some(_)) | (ListenAddress::Unix(_), ..) => {}
    }
    warnings
}

fn of_drain(config: &Config) -> Option<String> {
    let drain = &config.gateway.drain;
    let close = config.routes.iter().map(|route| route.options.relay.timeouts.close).max().unwrap_or_default();
    let (spread, what) = match (drain.pace, config.gateway.max_sessions) {
        (Pace::Spread(spread), _) => (spread, format!("spread {}", time_text(spread))),
        (Pace::Rate(rate), Some(sessions)) => {
            let time = drain.pace.time(sessions);
            (time, format!("rate {rate} for {sessions} sessions {}", time_text(time)))
        }
        // How many there will be is anybody's guess.
        (Pace::Rate(_), None) => return None,
    };
    let needed = drain.delay + spread + close;
    (needed > drain.timeout).then(|| {
        format!(
            "drain does not fit its timeout: delay {}, {what} and timeouts.close {} take {}, drain.timeout is {}; \
             sessions will be told faster, or be cut",
            time_text(drain.delay),
            time_text(close),
            time_text(needed),
            time_text(drain.timeout)
        )
    })
}

fn of_ceilings(config: &Config, ceilings: &Ceilings) -> Vec<String> {
    let Some(wanted) = config.gateway.max_sessions else { return Vec::new() };
    let mut warnings = Vec::new();
    if wanted > ceilings.sessions() {
        warnings.push(format!(
            "gateway.max_sessions is {wanted}, but the descriptor limit of {} allows {}; raise the limit (ulimit -n)",
            ceilings.descriptors,
            ceilings.sessions()
        ));
    }
    for upstream in &config.upstreams {
        // How many addresses a name has is anybody's guess.
        if upstream.dials.resolve == Resolve::All && upstream.servers.iter().any(|server| server.address.is_name()) {
            continue;
        }
        let addresses =
            upstream.servers.iter().filter(|server| matches!(server.address, BackendAddress::Tcp { .. })).count();
        let ports = usize::try_from(ceilings.ports).unwrap_or(usize::MAX);
        let allowed = addresses.saturating_mul(ports).saturating_mul(upstream.dials.sources.len().max(1));
        if addresses == upstream.servers.len() && wanted > allowed {
            warnings.push(format!(
                "gateway.max_sessions is {wanted}, but local ports allow {allowed} to upstream {}; \
                 add servers or source addresses, or widen net.ipv4.ip_local_port_range",
                quoted(&upstream.name)
            ));
        }
    }
    warnings
}

/// What is wrong with a chain that `parse` accepted: its order, and its dates.
fn of_chain(files: &CertificateFiles, now: SystemTime) -> Vec<String> {
    let file = files.certificate.display();
    let chain = match pem::read_chain(&files.certificate) {
        Ok(chain) => chain,
        Err(wrong) => return vec![wrong.to_string()],
    };
    let parsed: Vec<X509Certificate<'_>> =
        chain.iter().filter_map(|one| X509Certificate::from_der(one).ok()).map(|(_, one)| one).collect();
    if parsed.len() != chain.len() {
        return vec![format!("{file}: a certificate of the chain cannot be read")];
    }
    let mut warnings = Vec::new();
    if parsed.windows(2).any(|pair| pair[0].issuer() != pair[1].subject()) {
        warnings.push(format!("{file}: the chain is out of order; each certificate is followed by that of its issuer"));
    }
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(seconds).unwrap_or(i64::MAX);
    for one in parsed {
        let (from, until) = (one.validity().not_before.timestamp(), one.validity().not_after.timestamp());
        let subject = one.subject().to_string();
        let whose = if subject.is_empty() { String::new() } else { format!(" of {subject}") };
        let left = Duration::from_secs(u64::try_from(until.saturating_sub(now)).unwrap_or(0));
        if until < now {
            warnings.push(format!("{file}: the certificate{whose} expired on {}", date_text(until)));
        } else if left <= SOON {
            let days = left.as_secs() / DAY.as_secs();
            warnings.push(format!("{file}: the certificate{whose} expires on {}, in {days} days", date_text(until)));
        } else if from > now {
            warnings.push(format!("{file}: the certificate{whose} is not valid before {}", date_text(from)));
        }
    }
    warnings
}

/// Lists of revoked certificates that were to be replaced: they still hold.
fn of_revocations(file: &Path, now: SystemTime) -> Vec<String> {
    let lists = match pem::read_revocations(file) {
        Ok(lists) => lists,
        Err(wrong) => return vec![wrong.to_string()],
    };
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let parsed = lists.iter().filter_map(|list| CertificateRevocationList::from_der(list).ok());
    let due = parsed.filter_map(|(_, list)| Some((list.issuer().to_string(), list.next_update()?.timestamp())));
    due.filter(|(_, due)| u64::try_from(*due).unwrap_or(0) < seconds)
        .map(|(issuer, due)| {
            format!("{}: the revocation list of {issuer} was to be replaced by {}", file.display(), date_text(due))
        })
        .collect()
}

/// The day of a time given in seconds since 1970, in UTC.
pub(super) fn date_text(seconds: i64) -> String {
    let clamped = seconds.clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    jiff::Timestamp::from_second(clamped).map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%d").to_string())
}
