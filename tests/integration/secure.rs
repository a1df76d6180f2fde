//! TLS on either leg, end to end.
use super::flow::{blocked, read_late, source};
use super::harness::{
    Backend, PATIENCE, Raw, Running, closed_with, content, frame, joined, next_head, one_route, patient, request,
    reset, soon,
};
use pulsegate::relay::EndReason;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    thread,
};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Self-signed certificates in a folder, each named after its host.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    pub(crate) fn of(hosts: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for host in hosts {
            let made = rcgen::generate_simple_self_signed(vec![(*host).to_owned()]).unwrap();
            fs::write(folder.path().join(format!("{host}.crt")), made.cert.pem()).unwrap();
            fs::write(folder.path().join(format!("{host}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        Self(folder)
    }

    /// A new key and certificate in the place of a host's old ones.
    pub(crate) fn replace(&self, host: &str) {
        self.replace_certificate(host)();
    }

    /// The same, but the key only when the answer is called.
    pub(crate) fn replace_certificate(&self, host: &str) -> impl FnOnce() + use<> {
        let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
        fs::write(self.path(host, "crt"), made.cert.pem()).unwrap();
        let (path, key) = (self.path(host, "key"), made.signing_key.serialize_pem());
        move || fs::write(path, key).unwrap()
    }

    pub(crate) fn remove(&self, host: &str, extension: &str) {
        fs::remove_file(self.path(host, extension)).unwrap();
    }

    /// What a client that trusts the certificate of `host` alone begins with; it keeps tickets.
    pub(crate) fn client(&self, host: &str, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate(host)).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// A TLS connection past a client's opening handshake for `path`.
    pub(crate) fn upgraded_to(
        &self,
        gateway: SocketAddr,
        path: &str,
        version: &'static SupportedProtocolVersion,
    ) -> Secure {
        upgrade(self.connect(gateway, "gate.test", version), path)
    }

    pub(crate) fn path(&self, host: &str, extension: &str) -> String {
        self.0.path().join(format!("{host}.{extension}")).display().to_string()
    }

    fn pair(&self, host: &str) -> String {
        format!("{{ certificate = {:?}, key = {:?} }}", self.path(host, "crt"), self.path(host, "key"))
    }

    /// A TLS listener with all of these certificates, the first one being the default.
    pub(crate) fn listener(&self, hosts: &[&str]) -> String {
        let pairs: Vec<_> = hosts.iter().map(|host| self.pair(host)).collect();
        format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{}] }}\n", pairs.join(", "))
    }

    pub(crate) fn certificate(&self, host: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(host, "crt")).unwrap()
    }

    /// A TLS connection that trusts the certificate of `host` alone.
    pub(crate) fn connect(
        &self,
        gateway: SocketAddr,
        host: &str,
        version: &'static SupportedProtocolVersion,
    ) -> Secure {
        connect_with(&self.client(host, version), gateway, host)
    }

    /// The same, past a WebSocket's opening handshake.
    fn websocket(&self, gateway: SocketAddr, version: &'static SupportedProtocolVersion) -> WebSocket<Secure> {
        let stream = self.connect(gateway, "gate.test", version);
        tungstenite::client("ws://gate.test/", stream).unwrap().0
    }

    /// The same, without any protocol.
    fn upgraded(&self, gateway: SocketAddr) -> Secure {
        let mut stream = self.connect(gateway, "gate.test", &TLS13);
        stream.write_all(request("/", "").as_bytes()).unwrap();
        head(&mut stream);
        stream
    }

    /// A TLS backend; its connections end when `serve` does.
    pub(crate) fn backend(
        &self,
        host: &str,
        serve: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
    ) -> Backend {
        let key = PrivateKeyDer::from_pem_file(self.path(host, "key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate(host)], key)
            .unwrap();
        let config = Arc::new(config);
        Backend::raw(move |socket| {
            serve(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket));
        })
    }
}

/// What a client begins with that trusts the certificates of `gate.test` in all of these.
pub(crate) fn trusting(certificates: &[Certificates]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for one in certificates {
        roots.add(one.certificate("gate.test")).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Takes a connection past a client's opening handshake for `path`.
pub(crate) fn upgrade(mut stream: Secure, path: &str) -> Secure {
    stream.write_all(request(path, "").as_bytes()).unwrap();
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// A TLS connection to `host`.
pub(crate) fn connect_with(config: &Arc<ClientConfig>, gateway: SocketAddr, host: &str) -> Secure {
    over(config, TcpStream::connect(gateway).unwrap(), host)
}

/// TLS on a connection that is there already.
pub(crate) fn over(config: &Arc<ClientConfig>, socket: TcpStream, host: &str) -> Secure {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), patient(socket))
}

fn head(stream: &mut impl Read) -> String {
    next_head(stream).unwrap()
}

/// A gateway whose TLS listener is `gate.test`.
fn secure_gateway(server: &str, extra: &str) -> (Certificates, Running) {
    let certificates = Certificates::of(&["gate.test"]);
    let toml = one_route(server, extra) + &certificates.listener(&["gate.test"]);
    (certificates, Running::start(&toml))
}

/// Echoes until the session ends.
fn echo<S: Read + Write>(mut peer: WebSocket<S>) {
    while let Ok(message) = peer.read() {
        if message.is_text() || message.is_binary() {
            peer.send(message).unwrap();
        }
    }
}

#[test]
fn large_messages_cross_both_ways_in_both_versions() {
    let backend = Backend::websocket(echo);
    let (certificates, gateway) = secure_gateway(&backend.url(), "");
    for version in [&TLS12, &TLS13] {
        let mut client = certificates.websocket(gateway.address(), version);
        for (number, length) in [(1, 1), (2, 16_384), (3, 65_536), (4, 3_000_000), (5, 100)] {
            let message = Message::binary(content(number, length));
            client.send(message.clone()).unwrap();
            assert!(client.read().unwrap() == message, "{length} bytes");
        }
        let text = Message::text("Grüße ".repeat(100_000));
        client.send(text.clone()).unwrap();
        assert!(client.read().unwrap() == text);
        client.close(None).unwrap();
        closed_with(&mut client);
        assert_eq!(gateway.verdict().reason, EndReason::ClientClosed);
    }
}

#[test]
fn a_wss_backend_is_reached_and_its_early_bytes_too() {
    let certificates = Certificates::of(&["127.0.0.1"]);
    let backend = certificates.backend("127.0.0.1", |mut stream| {
        let request = head(&mut stream);
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        answer.extend(frame(0x81, false, b"early"));
        stream.write_all(&answer).unwrap();
        echo(WebSocket::from_raw_socket(stream, tungstenite::protocol::Role::Server, None));
    });
    let ca = certificates.path("127.0.0.1", "crt");
    let toml = one_route(&format!("wss://{}", backend.address), "") + &format!("tls = {{ ca = {ca:?} }}\n");
    let gateway = Running::start(&toml);
    let mut client = gateway.connect("/");
    assert_eq!(client.read().unwrap(), Message::text("early"));
    let message = Message::binary(content(9, 2_000_000));
    client.send(message.clone()).unwrap();
    assert!(client.read().unwrap() == message);
    client.close(None).unwrap();
    closed_with(&mut client);
    assert_eq!(gateway.verdict().reason, EndReason::ClientClosed);
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let hosts = ["default.test", "a.test", "b.test"];
    let certificates = Certificates::of(&hosts);
    let gateway = Running::start(&(one_route("builtin:echo", "") + &certificates.listener(&hosts)));
    for host in hosts {
        // A client trusts the certificate of its host alone.
        let stream = certificates.connect(gateway.address(), host, &TLS13);
        let (mut client, _) = tungstenite::client(format!("ws://{host}/"), stream).unwrap();
        client.send(Message::text(host)).unwrap();
        assert_eq!(client.read().unwrap(), Message::text(host));
    }
}

#[test]
fn frames_behind_the_request_are_not_lost() {
    let (certificates, gateway) = secure_gateway("builtin:echo", "");
    let mut stream = certificates.connect(gateway.address(), "gate.test", &TLS13);
    let mut bytes = request("/", "").into_bytes();
    bytes.extend(frame(0x81, true, b"one"));
    bytes.extend(frame(0x81, true, b"two"));
    stream.write_all(&bytes).unwrap();
    head(&mut stream);
    let mut echoed = [0; 10];
    stream.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"\x81\x03one\x81\x03two");
}

#[test]
fn violations_are_told_through_tls_behind_unread_bytes() {
    let limits = "defaults.limits.client = { message = \"1KiB\", frame = \"1KiB\" }";
    for (bytes, code) in [(frame(0x81, true, b"\xff\xff"), 1007), (vec![0x82, 0xfe, 0x04, 0x01, 0, 0, 0, 0], 1009)] {
        let (backend, ends) = Backend::reader();
        let (certificates, gateway) = secure_gateway(&backend.url(), limits);
        let mut stream = certificates.upgraded(gateway.address());
        stream.write_all(&[&bytes[..], &[0; 100_000]].concat()).unwrap();
        let mut told = Vec::new();
        // Without close_notify this would be an error.
        stream.read_to_end(&mut told).unwrap();
        assert_eq!(told[0], 0x88);
        assert_eq!(u16::from_be_bytes([told[2], told[3]]), code);
        assert_eq!(told.len(), 2 + usize::from(told[1]), "nothing behind the close frame");
        assert_eq!(soon(&ends).unwrap().0, 1001);
        assert_eq!(gateway.verdict().legs.downstream.code_sent, Some(code));
    }
}

#[test]
fn an_end_without_close_notify_is_a_lost_client() {
    let (backend, ends) = Backend::reader();
    let (certificates, gateway) = secure_gateway(&backend.url(), "");
    drop(certificates.upgraded(gateway.address()));
    assert_eq!(soon(&ends), Some((1001, "client connection lost".into())));
    assert_eq!(gateway.verdict().reason, EndReason::ClientGone);
}

#[test]
fn broken_records_are_a_lost_client() {
    let (backend, ends) = Backend::reader();
    let (certificates, gateway) = secure_gateway(&backend.url(), "");
    let mut stream = certificates.upgraded(gateway.address());
    // An application data record that nobody encrypted.
    stream.sock.write_all(&[23, 3, 3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(soon(&ends), Some((1001, "client connection lost".into())));
    assert_eq!(gateway.verdict().reason, EndReason::ClientGone);
}

#[test]
fn a_reset_while_records_wait_ends_the_session() {
    let (backend, sent) = source();
    let (certificates, gateway) = secure_gateway(&backend.url(), "defaults.timeouts.close = \"300ms\"");
    let mut stream = certificates.upgraded(gateway.address());
    // Bytes come, and nobody takes more of them than these.
    stream.read_exact(&mut [0; 1]).unwrap();
    blocked(&sent);
    reset(&stream.sock);
    drop(stream);
    let verdict = gateway.verdict();
    assert_eq!(verdict.reason, EndReason::ClientGone);
    joined("nothing is left of it", thread::spawn(move || gateway.drained()));
}

#[test]
fn a_slow_reader_behind_tls_holds_up_its_backend_and_loses_nothing() {
    let (backend, sent) = source();
    let (certificates, gateway) = secure_gateway(&backend.url(), "");
    read_late(certificates.websocket(gateway.address(), &TLS13), &sent);
}

#[test]
fn a_plain_client_on_a_tls_listener_is_refused() {
    let (_certificates, gateway) = secure_gateway("builtin:echo", "");
    let mut raw = Raw::connect(gateway.address());
    raw.send(request("/", "").as_bytes());
    let reading = thread::spawn(move || raw.end());
    let (bytes, _) = joined("the connection ends", reading);
    assert!(bytes < 32, "an alert at most; {PATIENCE:?} is far");
}

/// They are served by another task than the one that began.
#[test]
fn plain_requests_follow_each_other_over_tls() {
    let backend = Backend::raw(|mut stream| {
        while let Some(head) = next_head(&mut stream) {
            let mut body = vec![0; if head.starts_with("POST ") { 4 } else { 0 }];
            stream.read_exact(&mut body).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let certificates = Certificates::of(&["gate.test"]);
    let route = one_route(&backend.url(), "").replace("name = \"all\"\n", "name = \"all\"\nhttp = \"proxy\"\n");
    let gateway = Running::start(&(route + &certificates.listener(&["gate.test"])));
    let mut client = certificates.connect(gateway.address(), "gate.test", &TLS13);
    for pieces in [
        &["GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n"][..],
        &["GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n"],
        &["POST / HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 4\r\n\r\n", "bo", "dy"],
    ] {
        for piece in pieces {
            client.write_all(piece.as_bytes()).unwrap();
            client.flush().unwrap();
        }
        let answer = head(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        client.read_exact(&mut [0; 2]).unwrap();
    }
}

/// All of it comes in one piece, so that the end is known before the first answer.
#[test]
fn who_asks_and_ends_at_once_is_answered() {
    let certificates = Certificates::of(&["gate.test"]);
    let backend = Backend::raw(|_| {});
    let gateway = Running::start(&(one_route(&backend.url(), "") + &certificates.listener(&["gate.test"])));
    let get = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    for requests in [1, 3] {
        let mut client = certificates.connect(gateway.address(), "gate.test", &TLS13);
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).unwrap();
        }
        client.conn.writer().write_all(get.repeat(requests).as_bytes()).unwrap();
        client.conn.send_close_notify();
        let mut records = Vec::new();
        while client.conn.wants_write() {
            client.conn.write_tls(&mut records).unwrap();
        }
        client.sock.write_all(&records).unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 426 ").count(), requests, "{answers}");
    }
}
