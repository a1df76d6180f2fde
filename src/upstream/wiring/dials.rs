//! Places for dials, the budget for further tries, and what is shown to backends that ask for a certificate.
use super::*;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::Semaphore;

fn dialled_so(servers: Vec<BackendAddress>, ca: Option<PathBuf>, dials: DialConfig) -> Arc<Upstream> {
    let balance = BalanceKind::RoundRobin;
    let servers = servers.into_iter().map(Into::into).collect();
    Upstream::new(&UpstreamConfig { balance, fail_timeout: SOON, ca, dials, ..UpstreamConfig::new("chat", servers) })
        .unwrap()
}

async fn open_soon(upstream: &Upstream) -> Result<Answer, OpenError> {
    let options = RouteOptions { connect: Duration::from_millis(100), ..options(SOON) };
    let (host_header, affinity) = (HostHeader::Client, Affinity::default());
    upstream.open(UpstreamRequest { head: plain(), options: &options, host_header, affinity }).await
}

/// A backend that shakes hands with as many as `permits` has; and how many it knows.
async fn slow(permits: &Rc<Semaphore>) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, permits) = (Rc::new(Cell::new(0)), Rc::clone(permits));
    let counter = Rc::clone(&count);
    tokio::task::spawn_local(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counter.set(counter.get() + 1);
            let permits = Rc::clone(&permits);
            tokio::task::spawn_local(async move {
                permits.acquire().await.unwrap().forget();
                answered(&mut tcp, GOOD).await;
            });
        }
    });
    (address, count)
}

#[test]
fn dials_beyond_max_dials_wait_for_a_place() {
    local(async {
        let permits = Rc::new(Semaphore::new(0));
        let (address, count) = slow(&permits).await;
        let upstream = dialled_so(vec![ws(address)], None, DialConfig { max_dials: Some(2), ..DialConfig::default() });
        let dials = [(); 5].map(|()| {
            let upstream = Arc::clone(&upstream);
            tokio::task::spawn_local(async move { accepted(open(&upstream, plain()).await) })
        });
        while count.get() < 2 {
            tokio::task::yield_now().await;
        }
        // Whoever comes now finds no place, and says so; the backend is not blamed.
        let error = error(open_soon(&upstream).await);
        assert_eq!(error.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(error.cause.contains("all 2 places of max_dials were taken for 0.1s"), "{}", error.cause);
        assert_eq!((count.get(), upstream.backends()[0].ailment()), (2, None));
        permits.add_permits(5);
        for dial in dials {
            dial.await.unwrap();
        }
        assert_eq!(count.get(), 5);
    });
}

#[test]
fn a_limit_counts_once_its_pool_serves() {
    local(async {
        let old =
            dialled_so(vec![BackendAddress::Echo], None, DialConfig { max_dials: Some(1), ..DialConfig::default() });
        let backend = Arc::clone(&old.backends()[0]);
        let _place = backend.places.enter(SOON).await.unwrap();
        let known = |_: &BackendAddress| vec![Arc::clone(&backend)];
        let new = Upstream::with(&UpstreamConfig::new("chat", vec![BackendAddress::Echo.into()]), &old.meters, known)
            .unwrap();
        assert_eq!(backend.places.enter(Duration::ZERO).await.err(), Some(1), "a reload may be refused yet");
        new.settle();
        assert!(backend.places.enter(Duration::ZERO).await.is_ok());
    });
}

#[test]
fn a_full_backend_is_passed_over_for_one_with_a_place() {
    local(async {
        let permits = Rc::new(Semaphore::new(0));
        let ((full, _), (free, count)) = (slow(&permits).await, backend(GOOD).await);
        let dials = DialConfig { max_dials: Some(1), ..DialConfig::default() };
        let upstream = dialled_so(vec![ws(full), ws(free)], None, dials);
        let _place = upstream.backends()[0].places.enter(SOON).await.unwrap();
        for _ in 0..2 {
            let lease = accepted(open_soon(&upstream).await).lease;
            assert_eq!(lease.backend().name, format!("ws://{free}"));
        }
        assert_eq!(count.get(), 2);
    });
}

#[test]
fn a_spent_budget_ends_the_search_and_is_told() {
    local(async {
        let dials = DialConfig { retry_budget: Some(0.0), retry_backoff: Duration::ZERO, ..DialConfig::default() };
        let ((one, two), (alive, _)) = ((dead(), dead()), backend(GOOD).await);
        let upstream = dialled_so(vec![ws(one), ws(two)], None, dials.clone());
        let mut granted = 0;
        while !error(open(&upstream, plain()).await).cause.contains("not tried, for retry_budget is spent") {
            granted += 1;
        }
        assert!((100..1000).contains(&granted), "{granted}");
        // The first one is never refused.
        let upstream = dialled_so(vec![ws(alive)], None, dials);
        for _ in 0..101 {
            accepted(open(&upstream, plain()).await);
        }
    });
}

/// A `wss` backend for `backend.test` that asks for a certificate of this authority.
async fn asking_backend(folder: &tempfile::TempDir, authority: &CertificateDer<'static>) -> (SocketAddr, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["backend.test".to_owned()]).unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut tls) = acceptor.accept(tcp).await {
                assert_eq!(tls.get_ref().1.server_name(), Some("backend.test"));
                tokio::task::spawn_local(async move { answered(&mut tls, GOOD).await });
            }
        }
    });
    (address, ca)
}

#[test]
fn a_backend_that_asks_is_shown_a_certificate_and_judged_by_its_own_name() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
        let identity =
            IdentityFiles { certificate: folder.path().join("client.pem"), key: folder.path().join("client.key") };
        std::fs::write(&identity.certificate, made.cert.pem()).unwrap();
        std::fs::write(&identity.key, made.signing_key.serialize_pem()).unwrap();
        let (address, ca) = asking_backend(&folder, made.cert.der()).await;
        let (host, port) = (address.ip().to_string(), address.port());
        let server = BackendAddress::Tcp { tls: true, host, port, path: "/".into() };
        let named = DialConfig { server_name: Some("backend.test".into()), ..DialConfig::default() };
        let shown = DialConfig { identity: Some(identity.clone()), ..named.clone() };

        let upstream = dialled_so(vec![server.clone()], Some(ca.clone()), shown.clone());
        accepted(open(&upstream, plain()).await);
        assert!(upstream.credentials_stand().unwrap());
        let renewed = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
        std::fs::write(&identity.certificate, renewed.cert.pem()).unwrap();
        std::fs::write(&identity.key, renewed.signing_key.serialize_pem()).unwrap();
        assert!(!upstream.credentials_stand().unwrap(), "a reload takes over the new pair");

        for without in [named, DialConfig { server_name: None, ..shown }] {
            let upstream = dialled_so(vec![server.clone()], Some(ca.clone()), without);
            assert_eq!(error(open(&upstream, plain()).await).status, StatusCode::BAD_GATEWAY);
        }
    });
}
