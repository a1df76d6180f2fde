//! Which backends get what: weights, backups, limits, hashes and cookies.

use super::*;
use http::{HeaderMap, uri::PathAndQuery};

fn server(address: SocketAddr, share: Share) -> ServerConfig {
    ServerConfig { address: ws(address), share }
}

fn pool_of(servers: Vec<ServerConfig>, change: impl FnOnce(&mut UpstreamConfig)) -> Arc<Upstream> {
    let mut config = UpstreamConfig { balance: BalanceKind::RoundRobin, ..UpstreamConfig::new("chat", servers) };
    change(&mut config);
    Upstream::new(&config).unwrap()
}

async fn open_for(upstream: &Upstream, target: &'static str, headers: &HeaderMap) -> Accepted {
    let options = options(SOON);
    let affinity = upstream.affinity(None, &PathAndQuery::from_static(target), headers);
    let (head, host_header) = (plain(), HostHeader::Client);
    accepted(upstream.open(UpstreamRequest { head, options: &options, host_header, affinity }).await)
}

fn limited(most: usize) -> Share {
    Share { max_sessions: Some(most), ..Share::default() }
}

const BACKUP: Share = Share { weight: 1, backup: true, max_sessions: None };

#[test]
fn a_full_backend_overflows_to_others_and_then_503() {
    local(async {
        let (small, large) = (backend(GOOD).await, backend(GOOD).await);
        let upstream = pool_of(vec![server(small.0, limited(1)), server(large.0, limited(3))], |_| {});
        let mut open_now = Vec::new();
        for _ in 0..4 {
            open_now.push(accepted(open(&upstream, plain()).await));
        }
        assert_eq!((small.1.get(), large.1.get()), (1, 3));
        let full = error(open(&upstream, plain()).await);
        assert_eq!((full.status, full.backend), (StatusCode::SERVICE_UNAVAILABLE, None));
        assert_eq!(full.cause.matches("it has max_sessions sessions").count(), 2, "{}", full.cause);
        open_now.remove(0);
        accepted(open(&upstream, plain()).await);
        assert_eq!(small.1.get(), 2);
    });
}

#[test]
fn handshakes_at_the_same_time_do_not_exceed_a_limit() {
    local(async {
        let (address, count) = backend(GOOD).await;
        let upstream = pool_of(vec![server(address, limited(2))], |_| {});
        let all = futures_util::future::join_all((0..6).map(|_| open(&upstream, plain()))).await;
        assert_eq!(all.iter().filter(|answer| answer.is_ok()).count(), 2);
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn a_backup_serves_while_no_other_does() {
    local(async {
        let (main, spare) = (backend(GOOD).await, backend(GOOD).await);
        let upstream = pool_of(vec![server(spare.0, BACKUP), server(main.0, limited(2))], |_| {});
        let one = accepted(open(&upstream, plain()).await);
        let _two = accepted(open(&upstream, plain()).await);
        assert_eq!((main.1.get(), spare.1.get()), (2, 0));
        let _three = accepted(open(&upstream, plain()).await);
        assert_eq!(spare.1.get(), 1, "the other one is full");
        drop(one);
        let _four = accepted(open(&upstream, plain()).await);
        assert_eq!(main.1.get(), 3, "it has room again");
        upstream.backends()[1].set_drained(true);
        accepted(open(&upstream, plain()).await);
        assert_eq!(spare.1.get(), 2);
        let failing = pool_of(vec![server(spare.0, BACKUP), server(dead().await, Share::default())], |_| {});
        accepted(open(&failing, plain()).await);
        assert_eq!(spare.1.get(), 3, "a failed dial leads to it, too");
    });
}

#[test]
fn weights_share_out_sessions() {
    local(async {
        let (light, heavy) = (backend(GOOD).await, backend(GOOD).await);
        let share = Share { weight: 3, ..Share::default() };
        for balance in [BalanceKind::RoundRobin, BalanceKind::LeastSessions] {
            let before = (light.1.get(), heavy.1.get());
            let servers = vec![server(light.0, Share::default()), server(heavy.0, share)];
            let upstream = pool_of(servers, |config| config.balance = balance);
            let mut kept = Vec::new();
            for _ in 0..8 {
                kept.push(accepted(open(&upstream, plain()).await));
            }
            assert_eq!((light.1.get() - before.0, heavy.1.get() - before.1), (2, 6));
        }
    });
}

#[test]
fn a_key_leads_to_one_backend_and_on_when_that_fails() {
    local(async {
        let (one, two) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(one.0, Share::default()), server(two.0, Share::default())];
        let hash = |config: &mut UpstreamConfig| config.balance = BalanceKind::Hash(HashKey::Query("room".into()));
        let upstream = pool_of(servers, hash);
        let none = HeaderMap::new();
        let at = |accepted: &Accepted| accepted.lease.backend().name.clone();
        let home = at(&open_for(&upstream, "/?room=1", &none).await);
        for _ in 0..5 {
            assert_eq!(at(&open_for(&upstream, "/chat?x=1&room=1", &none).await), home);
        }
        let index = upstream.backends().iter().position(|backend| backend.name == home).unwrap();
        upstream.backends()[index].set_drained(true);
        assert_ne!(at(&open_for(&upstream, "/?room=1", &none).await), home);
    });
}

#[test]
fn a_cookie_leads_back_while_its_backend_serves() {
    local(async {
        let (one, two) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(one.0, limited(2)), server(two.0, Share::default())];
        let sticky = StickyConfig {
            cookie: "gate".into(),
            path: "/".into(),
            max_age: None,
            same_site: SameSite::Lax,
            secret: None,
        };
        let upstream = pool_of(servers, |config| config.sticky = Some(sticky));
        let first = open_for(&upstream, "/", &HeaderMap::new()).await;
        assert_eq!(first.lease.backend().name, format!("ws://{}", one.0));
        let mut answer = HeaderMap::new();
        upstream.stick(Affinity::default(), first.lease.backend(), false, &mut answer);
        let line = answer["set-cookie"].to_str().unwrap().to_owned();
        let mut brought = HeaderMap::new();
        brought.insert("cookie", line.split(';').next().unwrap().parse().unwrap());
        let again = open_for(&upstream, "/", &brought).await;
        assert_eq!(again.lease.backend().name, first.lease.backend().name);
        let full = open_for(&upstream, "/", &brought).await;
        assert_eq!(full.lease.backend().name, format!("ws://{}", two.0), "its own has no room");
    });
}
