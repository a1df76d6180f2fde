//! Which backends get what: weights, backups, limits, hashes and cookies.

use super::{super::check, *};
use crate::{metrics::Ejection, relay::EndReason};
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
        let failing = pool_of(vec![server(spare.0, BACKUP), server(dead(), Share::default())], |_| {});
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

fn sticky() -> StickyConfig {
    let (cookie, path) = ("gate".into(), "/".into());
    StickyConfig { cookie, path, max_age: None, same_site: SameSite::Lax, secret: None }
}

#[test]
fn a_cookie_leads_back_while_its_backend_serves() {
    local(async {
        let (one, two) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(one.0, limited(2)), server(two.0, Share::default())];
        let upstream = pool_of(servers, |config| config.sticky = Some(sticky()));
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

#[test]
fn when_all_are_out_they_are_shared_out_as_if_none_was() {
    local(async {
        let (one, two) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(one.0, Share::default()), server(two.0, Share::default())];
        let upstream = pool_of(servers, |config| config.balance = BalanceKind::RoundRobin);
        for backend in upstream.backends().iter() {
            backend.health.put_out(Cause { kind: Ejection::Check, words: String::new() });
        }
        for _ in 0..4 {
            accepted(open(&upstream, plain()).await);
        }
        assert_eq!((one.1.get(), two.1.get()), (2, 2));
        upstream.backends()[0].health.checked(tokio::time::Instant::now());
        for _ in 0..4 {
            accepted(open(&upstream, plain()).await);
        }
        assert_eq!((one.1.get(), two.1.get()), (6, 2), "one that is well comes first");
    });
}

#[test]
fn a_cookie_leads_to_a_backend_that_is_out_when_all_are() {
    local(async {
        let (one, two) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(one.0, Share::default()), server(two.0, Share::default())];
        let upstream = pool_of(servers, |config| config.sticky = Some(sticky()));
        let mut answer = HeaderMap::new();
        upstream.stick(Affinity::default(), &upstream.backends()[1], false, &mut answer);
        let mut brought = HeaderMap::new();
        let line = answer["set-cookie"].to_str().unwrap();
        brought.insert("cookie", line.split(';').next().unwrap().parse().unwrap());
        for backend in upstream.backends().iter() {
            backend.health.put_out(Cause { kind: Ejection::Check, words: String::new() });
        }
        for _ in 0..3 {
            assert_eq!(open_for(&upstream, "/", &brought).await.lease.backend().name, format!("ws://{}", two.0));
        }
    });
}

#[test]
fn one_that_returns_gets_its_share_slowly() {
    local(async {
        let (steady, back) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(steady.0, Share::default()), server(back.0, Share::default())];
        let upstream = pool_of(servers, |config| config.slow_start = Some(SOON * 100));
        let returning = &upstream.backends()[1];
        let words = String::new();
        returning.health.put_out(Cause { kind: Ejection::Check, words });
        returning.checked(Ok(()), None);
        assert!(returning.part() < 0.1 && upstream.backends()[0].part() == 1.0);
        for _ in 0..40 {
            accepted(open(&upstream, plain()).await);
        }
        assert!(back.1.get() < 20, "{} of 40", back.1.get());
        upstream.backends()[0].set_drained(true);
        accepted(open(&upstream, plain()).await);
        assert!(back.1.get() > 0, "alone, it takes all");
    });
}

#[test]
fn a_backend_whose_sessions_die_young_is_left_alone() {
    local(async {
        let (bad, good) = (backend(GOOD).await, backend(GOOD).await);
        let servers = vec![server(bad.0, Share::default()), server(good.0, Share { backup: true, ..Share::default() })];
        let upstream = pool_of(servers, |_| {});
        let age = Duration::from_secs(1);
        for reason in [EndReason::UpstreamGone, EndReason::ClientGone, EndReason::UpstreamViolation] {
            let lease = accepted(open(&upstream, plain()).await).lease;
            lease.backend().session_ended(reason, age);
        }
        let lease = accepted(open(&upstream, plain()).await).lease;
        assert_eq!(lease.backend().name, format!("ws://{}", bad.0), "two do not matter, nor those that clients end");
        lease.backend().session_ended(EndReason::UpstreamGone, age);
        let (cause, left) = lease.backend().ailment().unwrap();
        assert_eq!(cause.kind, Ejection::YoungDeaths);
        assert!(left.is_some() && cause.words.contains("upstream_gone"), "{cause}");
        accepted(open(&upstream, plain()).await);
        assert_eq!(good.1.get(), 1);
    });
}

#[test]
fn sessions_that_die_together_put_their_backend_out_once() {
    local(async {
        let bad = backend(GOOD).await;
        let upstream = pool_of(vec![server(bad.0, Share::default())], |_| {});
        let mut leases = Vec::new();
        for _ in 0..10 {
            leases.push(accepted(open(&upstream, plain()).await).lease);
        }
        for lease in &leases {
            lease.backend().session_ended(EndReason::UpstreamGone, Duration::from_secs(1));
        }
        let (_, left) = leases[0].backend().ailment().unwrap();
        assert!(left.is_some_and(|left| left <= upstream.config().fail_timeout.mul_f64(1.1)), "{left:?}");
    });
}

#[test]
fn checks_say_what_they_found() {
    local(async {
        let answers = [
            ("HTTP/1.1 204 No Content\r\n\r\n", None),
            ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", None),
            (
                "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
                Some("its check failed: it answered 500 Internal Server Error to GET /up"),
            ),
        ];
        for (answer, expected) in answers {
            let (address, _) = answering(answer).await;
            let upstream = pool(vec![ws(address)], None);
            let check = CheckConfig { path: "/up".into(), ..CheckConfig::new(CheckKind::Http) };
            let found = check::once(&upstream, &upstream.backends()[0], &check).await;
            assert_eq!(found.err().as_deref(), expected);
        }
        let upstream = pool(vec![BackendAddress::Echo], None);
        let check = CheckConfig::new(CheckKind::WebSocket);
        assert_eq!(check::once(&upstream, &upstream.backends()[0], &check).await, Ok(()));
        let upstream = pool(vec![ws(dead())], None);
        let check = CheckConfig::new(CheckKind::Tcp);
        let found = check::once(&upstream, &upstream.backends()[0], &check).await.unwrap_err();
        assert!(found.contains("Connection refused"), "{found}");
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = pool(vec![ws(silent.local_addr().unwrap())], None);
        let check = CheckConfig { timeout: Duration::from_millis(50), ..CheckConfig::new(CheckKind::Http) };
        let found = check::once(&upstream, &upstream.backends()[0], &check).await.unwrap_err();
        assert_eq!(found, "no answer to the check within 0.05s");
    });
}

/// A backend that answers whatever it is asked.
async fn answering(answer: &'static str) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Rc::<Cell<usize>>::default());
    let counter = Rc::clone(&count);
    tokio::task::spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counter.set(counter.get() + 1);
            head_of(&mut tcp).await;
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, count)
}

#[test]
fn as_many_checks_as_are_wanted_change_what_is_thought() {
    let backend = Backend::new("chat", BackendAddress::Echo);
    let check = CheckConfig { rise: 2, fall: 3, ..CheckConfig::new(CheckKind::Tcp) };
    let found = |results: &[bool]| {
        for well in results {
            backend.checked(if *well { Ok(()) } else { Err("no".into()) }, Some(&check));
        }
        backend.ailment().is_none()
    };
    assert!(found(&[false, false, true, false, false]));
    assert!(!found(&[false]) && !found(&[true, false, true]) && found(&[true]));
    assert!(!found(&[false; 3]));
    backend.unchecked();
    assert!(backend.ailment().is_none(), "a reload took the check away");
}
