//! Probes of services in this process. Times are scaled: a limit of a second stands for a minute.
#![allow(clippy::unwrap_used)]
use super::*;
use futures_util::FutureExt;
use std::{future::pending, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    time::{sleep, sleep_until},
};
use tokio_rustls::TlsAcceptor;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a service does besides answering.
#[derive(Clone)]
struct Service {
    /// Ends a connection after this much silence.
    cuts: Option<Duration>,
    /// Forgets a connection after this much silence, and tells nobody.
    forgets: Option<Duration>,
    /// Ends a connection at this age.
    ages: Option<Duration>,
    pings: Option<Duration>,
    pongs: bool,
    tls: Option<TlsAcceptor>,
}

const PLAIN: Service = Service { cuts: None, forgets: None, ages: None, pings: None, pongs: true, tls: None };

/// Listens on loopback, and serves until the runtime ends.
async fn listening(service: Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::task::spawn_local(async move {
                match service.tls.clone() {
                    None => serve(service, stream).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(service, stream).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn serve(service: Service, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let mut stream = socket.into_inner();
    let (born, mut moved) = (Instant::now(), Instant::now());
    let mut next_ping = service.pings.map(|every| born + every);
    let at = |time: Option<Instant>| match time {
        Some(time) => sleep_until(time).boxed_local(),
        None => pending().boxed_local(),
    };
    let mut read = Vec::new();
    loop {
        let done = tokio::select! {
            got = stream.read_buf(&mut read) => match got {
                Ok(1..) if service.forgets.is_some_and(|after| moved.elapsed() > after) => pending().await,
                Ok(1..) => {
                    moved = Instant::now();
                    answer(&service, &mut stream, &mut read).await
                }
                Ok(0) | Err(_) => true,
            },
            () = at(service.cuts.map(|after| moved + after)) => true,
            () = at(service.ages.map(|after| born + after)) => {
                stream.write_all(b"\x88\x06\x03\xe9late").await.ok();
                true
            }
            () = at(next_ping) => {
                next_ping = service.pings.map(|every| Instant::now() + every);
                moved = Instant::now();
                stream.write_all(b"\x89\x02hi").await.is_err()
            }
        };
        if done {
            stream.shutdown().await.ok();
            return;
        }
    }
}

/// Answers the control frames that stand in `read`: masked, and shorter than 126 bytes. Whether it closed.
async fn answer(service: &Service, stream: &mut (impl AsyncWrite + Unpin), read: &mut Vec<u8>) -> bool {
    while read.len() >= 6 {
        let length = usize::from(read[1] & 0x7f);
        if read.len() < 6 + length {
            break;
        }
        let frame: Vec<u8> = read.drain(..6 + length).collect();
        let payload: Vec<u8> = frame[6..].iter().enumerate().map(|(at, byte)| byte ^ frame[2 + at % 4]).collect();
        let (opcode, closes) = match frame[0] & 0x0f {
            0x9 if service.pongs => (0x8a, false),
            0x8 => (0x88, true),
            _ => continue,
        };
        let head = [opcode, u8::try_from(length).unwrap()];
        if stream.write_all(&[&head[..], &payload].concat()).await.is_err() || closes {
            return true;
        }
    }
    false
}

fn quick() -> ProbeOptions {
    ProbeOptions { count: 3, every: ms(5), watch: Duration::ZERO, ..ProbeOptions::default() }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(Box::pin(test))
}

async fn asked(url: &str, options: &ProbeOptions) -> Result<Findings, OpenFailure> {
    let (_stop, enough) = watch::channel(false);
    probe(&url.parse().unwrap(), options, &|_| {}, enough).await
}

/// What a probe of a service finds.
fn found(service: Service, options: &ProbeOptions) -> Findings {
    run(async {
        let url = format!("ws://{}/", listening(service).await);
        asked(&url, options).await.unwrap()
    })
}

fn searched(service: Service, limit: Duration, within: Duration) -> (IdleFindings, Advice) {
    found(service, &ProbeOptions { idle: Some(limit), within, ..quick() }).idle.unwrap()
}

#[test]
fn a_plain_service_is_described() {
    let found = found(PLAIN, &quick());
    assert_eq!((found.pings.sent, found.pings.round_trips.len()), (3, 3));
    assert_eq!((found.opened.tls.is_none(), found.left.is_none()), (true, true));
    let closing = found.closing.clone().unwrap();
    let answer = Ending::Close { code: 1000, reason: "probe".into() };
    assert_eq!(closing.answered.map(|(_, ending)| ending), Some(answer));
    assert_eq!(closing.ended.map(|(_, ending)| ending), Some(Ending::End));
    let text = found.to_string();
    for part in
        ["handshake    101 after ", "3 of 3 answered: least ", "1000, answered after ", "its pings    none came"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let json = found.json();
    assert_eq!(json["pings"]["answered"], 3);
    assert!(json["handshake_seconds"].as_f64().unwrap() > 0.0 && json["tls"].is_null());
}

#[test]
fn a_service_that_never_pongs_is_told_from_a_dead_one() {
    let found = found(Service { pongs: false, ..PLAIN }, &ProbeOptions { within: ms(300), ..quick() });
    assert_eq!((found.pings.sent, found.pings.round_trips.len()), (1, 0));
    assert!(found.closing.as_ref().unwrap().answered.is_some(), "it lives");
    assert!(found.to_string().contains("1 sent, none was answered"), "{found}");
}

#[test]
fn a_services_own_pings_are_counted_and_answered() {
    let options = ProbeOptions { watch: ms(1000), ..quick() };
    let found = found(Service { pings: Some(ms(100)), ..PLAIN }, &options);
    assert!((2..=10).contains(&found.own.pings.len()), "{:?}", found.own);
    let interval = found.own.interval().unwrap();
    assert!((ms(80)..ms(500)).contains(&interval), "{interval:?}");
    assert!(found.to_string().contains("its pings    one every "), "{found}");
}

#[test]
fn who_leaves_is_told_with_its_words() {
    let options = ProbeOptions { watch: Duration::from_secs(10), ..quick() };
    let found = found(Service { ages: Some(ms(100)), ..PLAIN }, &options);
    let (_, ending) = found.left.clone().unwrap();
    assert_eq!(ending, Ending::Close { code: 1001, reason: "late".into() });
    assert!(found.to_string().contains(r#"close frame 1001 "late""#), "{found}");
}

#[test]
fn enough_is_enough() {
    run(async {
        let url = format!("ws://{}/", listening(PLAIN).await);
        let (stop, enough) = watch::channel(false);
        let options = ProbeOptions { watch: Duration::from_secs(3600), ..quick() };
        let (target, ignore) = (url.parse().unwrap(), |_: fmt::Arguments<'_>| {});
        let probe = probe(&target, &options, &ignore, enough);
        let found = tokio::join!(probe, async {
            sleep(ms(200)).await;
            stop.send_replace(true);
        });
        assert!(found.0.unwrap().closing.is_some());
    });
}

#[test]
fn a_path_that_cuts_silent_connections_is_found_out_to_the_moment() {
    let cuts = Service { cuts: Some(ms(1000)), ..PLAIN };
    let (idle, advice) = searched(cuts, ms(6000), ms(5000));
    let IdleLimit::Cut { after, .. } = idle.limit else { panic!("{idle:?}") };
    assert!((ms(950)..ms(2000)).contains(&after), "{after:?}");
    assert!(idle.agreeing >= 2, "{idle:?}");
    assert_eq!(idle.companion.unwrap().ended, None, "pings keep it alive");
    let interval = advice.interval.unwrap();
    assert!(interval * 2 <= after && interval >= after / 4, "{interval:?}");
}

#[test]
fn a_path_that_forgets_silent_connections_is_narrowed_down() {
    let forgets = Service { forgets: Some(ms(700)), ..PLAIN };
    let (idle, advice) = searched(forgets, ms(4000), ms(1000));
    let IdleLimit::Between { lived, dead, .. } = idle.limit else { panic!("{idle:?}") };
    // The service's clock starts a little before ours.
    assert!(lived <= ms(750) && dead >= ms(600) && dead <= ms(1500), "{lived:?} {dead:?}");
    assert!(advice.interval.unwrap() * 2 <= lived.max(dead / 2), "{advice:?}");
}

#[test]
fn without_a_limit_the_default_is_kept() {
    for pongs in [true, false] {
        let (idle, advice) = searched(Service { pongs, ..PLAIN }, ms(400), ms(1000));
        let IdleLimit::Beyond { lived } = idle.limit else { panic!("{idle:?}") };
        assert!(lived >= ms(380), "{lived:?}");
        assert_eq!(advice.interval, Some(Duration::from_secs(20)));
        assert_eq!(advice.because.iter().any(|why| why.contains("never answers pings")), !pongs);
    }
}

#[test]
fn a_service_that_is_never_silent_is_not_tried_for_ever() {
    let (idle, advice) = searched(Service { pings: Some(ms(100)), ..PLAIN }, ms(2000), ms(5000));
    assert!(idle.never_silent.unwrap() < ms(1500), "{idle:?}");
    assert!(!idle.own.pings.is_empty());
    assert!(advice.because.iter().any(|why| why.contains("keeps the path open")), "{advice:?}");
}

#[test]
fn an_age_limit_is_not_taken_for_an_idle_limit() {
    let (idle, advice) = searched(Service { ages: Some(ms(800)), ..PLAIN }, ms(4000), ms(5000));
    assert!(matches!(idle.limit, IdleLimit::Cut { .. }), "{idle:?}");
    assert!(idle.companion.clone().unwrap().ended.is_some(), "{idle:?}");
    assert_eq!(advice.interval, None, "{advice:?}");
}

/// Answers one request with fixed bytes, and says what it was asked.
async fn fixed(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    (address, asked)
}

#[test]
fn refusals_say_what_to_do() {
    for (answer, told) in [
        ("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\ncontent-length: 0\r\n\r\n", "-H \"Authorization"),
        ("HTTP/1.1 403 Forbidden\r\nserver: cloudflare\r\ncontent-length: 0\r\n\r\n", "--origin https://"),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "is the path right"),
        ("HTTP/1.1 301 Moved\r\nLocation: https://a.example/b\r\ncontent-length: 0\r\n\r\n", "wss://a.example/b"),
        ("HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n", "proxy_http_version 1.1"),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "in trouble"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "an ordinary web page answers"),
        ("220 mail.example ESMTP\r\n", "wss://"),
    ] {
        let failure = run(async {
            let (address, _) = fixed(answer).await;
            asked(&format!("ws://{address}/"), &quick()).await.unwrap_err().to_string()
        });
        assert!(failure.contains(told), "{answer}: {failure}");
    }
    let failure = run(asked("ws://127.0.0.1:1/", &quick())).unwrap_err().to_string();
    assert!(failure.contains("nothing listens on this port"), "{failure}");
    let failure = run(asked("ws://no-such-host.invalid/", &quick())).unwrap_err().to_string();
    assert!(failure.contains("is the name right"), "{failure}");
}

#[test]
fn the_request_is_as_it_was_wished() {
    let head = run(async {
        let (address, head) = fixed("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let options = ProbeOptions {
            headers: vec![
                ("cookie".parse().unwrap(), "a=b".parse().unwrap()),
                ("host".parse().unwrap(), "chat.example".parse().unwrap()),
            ],
            subprotocols: vec!["one".parse().unwrap(), "two".parse().unwrap()],
            origin: Some("https://a.example".parse().unwrap()),
            ..quick()
        };
        asked(&format!("ws://{address}/a?b"), &options).await.unwrap_err();
        head.await.unwrap()
    });
    let lower = head.to_ascii_lowercase();
    assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
    for line in [
        "host: chat.example",
        "cookie: a=b",
        "sec-websocket-protocol: one",
        "sec-websocket-protocol: two",
        "origin: https://a.example",
        "sec-websocket-extensions: permessage-deflate",
        "sec-websocket-version: 13",
    ] {
        assert_eq!(lower.matches(line).count(), 1, "{line}\n{head}");
    }
}

#[test]
fn certificates_are_judged_and_shown() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "chat.example".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let service = Service { tls: Some(TlsAcceptor::from(Arc::new(config))), ..PLAIN };
    run(async {
        let port = listening(service).await.port();
        let with = |trust| ProbeOptions { trust, ..quick() };
        let url = format!("wss://localhost:{port}/");
        let failure = asked(&url, &quick()).await.unwrap_err().to_string();
        assert!(failure.contains("--insecure") && failure.contains("--ca"), "{failure}");

        let insecure = Trust { insecure: true, ca: None };
        let found = asked(&url, &with(insecure)).await.unwrap();
        let (tls, _) = found.opened.tls.clone().unwrap();
        assert_eq!((tls.version.as_str(), tls.subject.as_str(), tls.chain), ("1.3", "localhost, chat.example", 1));
        assert!(tls.distrust.is_some() && found.to_string().contains("NOT TRUSTED"), "{found}");
        assert!(found.json()["tls"]["certificate"]["days_left"].as_i64().unwrap() > 0);

        let trusted = Trust { insecure: false, ca: Some(ca.clone()) };
        let found = asked(&url, &with(trusted.clone())).await.unwrap();
        assert_eq!(found.opened.tls.unwrap().0.distrust, None);
        let failure = asked(&format!("wss://127.0.0.1:{port}/"), &with(trusted)).await.unwrap_err().to_string();
        assert!(failure.contains("other names"), "{failure}");
        let failure = asked(&format!("ws://127.0.0.1:{port}/"), &quick()).await.unwrap_err().to_string();
        assert!(failure.contains("wss://"), "{failure}");
    });
}

#[test]
fn unix_sockets_are_probed_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    run(async {
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::task::spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(PLAIN, stream).await;
        });
        let found = asked(&format!("unix:{}:/chat", path.display()), &quick()).await.unwrap();
        assert_eq!(found.pings.round_trips.len(), 3);
        assert!(found.to_string().contains("socket       unix:"), "{found}");
    });
}
