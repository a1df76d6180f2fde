//! What the report says of a pool.
use crate::{
    config::value::{quoted, time_text},
    upstream::{BalanceKind, CheckKind, DialConfig, HashKey, ProxyVersion, Resolve, Share, UpstreamConfig},
};
use std::fmt;

/// A pool: how it balances and checks, its servers, and how they are dialled.
pub(super) fn write_upstream(out: &mut fmt::Formatter<'_>, upstream: &UpstreamConfig) -> fmt::Result {
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
