//! Backends other than plain TCP: Unix sockets, the built-in echo, `wss`; and probes.

use super::*;

#[test]
fn a_unix_socket_is_a_backend() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            answered(&mut socket, GOOD).await;
        });
        let accepted = accepted(open(&pool(vec![BackendAddress::Unix(path)], None), plain()).await);
        assert_eq!(accepted.local_port, None);
    });
}

#[test]
fn the_built_in_echo_echoes_with_the_first_subprotocol() {
    local(async {
        let upstream = pool(vec![BackendAddress::Echo], None);
        let mut head = plain();
        head.headers.insert("sec-websocket-protocol", "v2.chat, v1.chat".parse().unwrap());
        let accepted = accepted(open(&upstream, head).await);
        assert_eq!(accepted.head.headers["sec-websocket-protocol"], "v2.chat");
        let mut socket = tokio_tungstenite::WebSocketStream::from_partially_read(
            accepted.stream,
            accepted.early,
            Role::Client,
            None,
        )
        .await;
        for message in [Message::text("hello"), Message::binary(vec![7; 100_000])] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        socket.send(Message::Ping("p".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
        socket.close(None).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            assert_eq!(message, Message::Close(None));
        }
    });
}

#[test]
fn the_built_in_echo_ends_with_its_stream() {
    local(async {
        let accepted = accepted(open(&pool(vec![BackendAddress::Echo], None), plain()).await);
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
        drop(accepted);
        no_task_left().await;
    });
}

#[test]
fn a_pool_is_shared_by_workers() {
    fn shared<T: Send + Sync>() {}
    shared::<Upstream>();
    let upstream = pool(vec![BackendAddress::Echo], None);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| local(async { drop(accepted(open(&upstream, plain()).await)) }));
        }
    });
    assert_eq!(upstream.backends()[0].sessions(), 0);
}

#[test]
fn a_wss_backend_that_is_silent_is_504_and_one_that_is_none_says_so() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let (_, ca) = secure_backend(&folder).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = BackendAddress::Tcp { tls: true, host: "127.0.0.1".into(), port, path: "/".into() };
        let upstream = pool(vec![address], Some(ca));
        let hasty = RouteOptions { connect: Duration::from_millis(50), ..options(SOON) };
        let (host_header, affinity) = (HostHeader::Client, Affinity::default());
        let request = UpstreamRequest { head: plain(), options: &hasty, host_header, affinity };
        let late = error(upstream.open(request).await);
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(late.cause.contains("no TLS handshake within 0.05s"), "{}", late.cause);
        drop(listener.accept().await.unwrap());
        tokio::task::spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            tcp.read_to_end(&mut Vec::new()).await.ok();
        });
        let plain_one = error(open(&upstream, plain()).await);
        assert!(plain_one.cause.contains("is it a ws:// backend?"), "{}", plain_one.cause);
    });
}

/// A `wss` backend with a certificate for `localhost`, and the file of the authority that signed it.
async fn secure_backend(folder: &tempfile::TempDir) -> (BackendAddress, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    assert_eq!(tls.get_ref().1.server_name(), Some("localhost"));
                    answered(&mut tls, GOOD).await;
                }
            });
        }
    });
    (BackendAddress::Tcp { tls: true, host: "localhost".into(), port, path: "/".into() }, ca)
}

#[test]
fn a_wss_backend_is_trusted_by_its_authority_only() {
    local(async {
        let folder = tempfile::tempdir().unwrap();
        let (address, ca) = secure_backend(&folder).await;
        let accepted = accepted(open(&pool(vec![address.clone()], Some(ca.clone())), plain()).await);
        assert!(matches!(accepted.stream, crate::transport::Stream::ClientTls(_)));
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
        let other = folder.path().join("other.pem");
        std::fs::write(&other, params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()).unwrap();
        let error = error(open(&pool(vec![address], Some(other)), plain()).await);
        assert_eq!(error.status, StatusCode::BAD_GATEWAY);
        assert!(error.cause.contains("UnknownIssuer; if its authority is your own"), "{}", error.cause);
    });
}

#[test]
fn an_unusable_ca_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate\n").unwrap();
    let address = BackendAddress::Tcp { tls: true, host: "localhost".into(), port: 1, path: "/".into() };
    for path in [empty, folder.path().join("missing.pem")] {
        let config =
            UpstreamConfig { ca: Some(path.clone()), ..UpstreamConfig::new("chat", vec![address.clone().into()]) };
        let error = Upstream::new(&config).err().unwrap().to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("; name a "), "{error}");
    }
}

#[test]
fn a_probe_says_how_far_it_came() {
    local(async {
        let (silent, _) = backend(GOOD.strip_suffix("\u{1}early").unwrap()).await;
        let (refusing, _) = backend("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        let upstream = pool(vec![BackendAddress::Echo, ws(silent), ws(refusing), ws(dead())], None);
        let expected = [
            "builtin:echo answers: connected in",
            "fails at ping: it accepts a handshake, but sent no pong within 0.5s",
            "fails at handshake: it runs, but answers 404 Not Found",
            "fails at connect: connecting to",
        ];
        for (index, expected) in expected.into_iter().enumerate() {
            let probe = probe(&upstream, index, Duration::from_millis(500)).await;
            assert!(probe.to_string().contains(expected), "{probe}");
            assert_eq!(probe.answers(), index == 0);
        }
    });
}
