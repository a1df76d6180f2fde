//! Our side of TLS against rustls' own client, over sockets in memory.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::transport::{ServerTlsStream, Socket, Stream, Transport, provider};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use std::{
    future::poll_fn,
    io::{Read, Write},
    pin::Pin,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio_rustls::TlsConnector;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate, and clients that trust it.
struct Authority {
    server: Arc<ServerConfig>,
    roots: RootCertStore,
}

impl Authority {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["gate.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        server.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { server: Arc::new(server), roots }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth()
    }

    async fn accept(&self, socket: DuplexStream) -> io::Result<ServerTlsStream> {
        let configs = ServerConfigs::new(Arc::clone(&self.server));
        ServerTlsStream::accept(&configs, RecordRoom::default(), Socket::Memory(socket)).await
    }

    /// A client past its handshake, with nothing of either side under way.
    async fn client_and_server(&self, version: &'static SupportedProtocolVersion) -> (Client, ServerTlsStream) {
        let (theirs, ours) = duplex(1024 * 1024);
        let mut client = Client::new(self.client(version), theirs);
        let (server, ()) = tokio::join!(self.accept(ours), client.shake());
        (client, server.unwrap())
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("gate.test").unwrap()
}

/// rustls' client, whose records the test holds in its hands.
struct Client {
    tls: ClientConnection,
    socket: DuplexStream,
}

impl Client {
    fn new(config: ClientConfig, socket: DuplexStream) -> Self {
        Self { tls: ClientConnection::new(Arc::new(config), name()).unwrap(), socket }
    }

    async fn shake(&mut self) {
        while self.tls.is_handshaking() {
            let records = self.records();
            self.socket.write_all(&records).await.unwrap();
            if self.tls.is_handshaking() {
                self.hear().await.unwrap();
            }
        }
        let records = self.records();
        self.socket.write_all(&records).await.unwrap();
    }

    /// What rustls wants to send.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Seals these bytes as one record.
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        self.records()
    }

    /// Reads the socket once; the end of the stream too.
    async fn hear(&mut self) -> io::Result<usize> {
        let mut room = [0; 4096];
        let length = self.socket.read(&mut room).await?;
        let mut rest = &room[..length];
        loop {
            self.tls.read_tls(&mut rest)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            if rest.is_empty() {
                return Ok(length);
            }
        }
    }

    /// Plaintext, all of this length.
    async fn read(&mut self, length: usize) -> Vec<u8> {
        let mut read = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.tls.reader().read(&mut read[filled..]) {
                Ok(0) => panic!("an end after {filled} bytes"),
                Ok(more) => filled += more,
                Err(_) => assert!(self.hear().await.unwrap() > 0, "an end after {filled} bytes"),
            }
        }
        read
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 3 % 251) as u8).collect()
}

/// One read, as a session does it; `None` if nothing is there.
async fn read_now(server: &mut ServerTlsStream) -> Option<io::Result<Vec<u8>>> {
    let mut room = vec![0; 64 * 1024];
    poll_fn(|cx| {
        let ServerTlsStream { wire, tls } = &mut *server;
        Poll::Ready(match tls.poll_read(wire, cx, &mut room) {
            Poll::Ready(Ok(length)) => Some(Ok(room[..length].to_vec())),
            Poll::Ready(Err(error)) => Some(Err(error)),
            Poll::Pending => None,
        })
    })
    .await
}

/// It owns no buffer.
fn is_lean(server: &ServerTlsStream) -> bool {
    let ServerTls { partial, ahead, unsent, .. } = &*server.tls;
    [partial, ahead, unsent].iter().all(|buffer| buffer.capacity() == 0)
}

#[tokio::test]
async fn bytes_cross_in_pieces_of_any_size() {
    let authority = Authority::new();
    for version in VERSIONS {
        for piece in [1, 7, 1000, 70_000, 1_000_000] {
            let (theirs, ours) = duplex(piece);
            let length = if piece < 100 { 20_000 } else { 300_000 };
            let expected = content(length);
            let echoing = async {
                let mut transport = Transport::from(Stream::ServerTls(authority.accept(ours).await.unwrap()));
                let mut room = vec![0; 64 * 1024];
                loop {
                    let read = poll_fn(|cx| transport.poll_read(cx, &mut room, &mut [])).await.unwrap();
                    if read == 0 {
                        break;
                    }
                    let mut rest = &room[..read];
                    while !rest.is_empty() {
                        let taken = poll_fn(|cx| transport.poll_write(cx, rest)).await.unwrap();
                        rest = &rest[taken..];
                    }
                    poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
                }
                poll_fn(|cx| transport.poll_shutdown(cx)).await.unwrap();
            };
            let asking = async {
                let connector = TlsConnector::from(Arc::new(authority.client(version)));
                let (mut reader, mut writer) = tokio::io::split(connector.connect(name(), theirs).await.unwrap());
                let sending = async {
                    writer.write_all(&expected).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let mut echoed = Vec::new();
                // Without close_notify this would be an error.
                let (_, read) = tokio::join!(sending, reader.read_to_end(&mut echoed));
                read.unwrap();
                assert!(echoed == expected, "{version:?}, pieces of {piece}");
            };
            tokio::join!(echoing, asking);
        }
    }
}

#[tokio::test]
async fn a_read_takes_all_records_that_came_and_keeps_the_beginning_of_the_next() {
    for version in VERSIONS {
        let (mut client, mut server) = Authority::new().client_and_server(version).await;
        let mut records: Vec<u8> = (0..50).flat_map(|_| client.seal(&content(100))).collect();
        let last = client.seal(b"last");
        records.extend(&last[..last.len() - 1]);
        client.socket.write_all(&records).await.unwrap();
        assert_eq!(read_now(&mut server).await.unwrap().unwrap(), content(100).repeat(50));
        assert_eq!(server.tls.partial, last[..last.len() - 1]);
        assert!(read_now(&mut server).await.is_none());
        client.socket.write_all(&last[last.len() - 1..]).await.unwrap();
        assert_eq!(read_now(&mut server).await.unwrap().unwrap(), b"last");
        poll_fn(|cx| Pin::new(&mut server).poll_write(cx, b"!")).await.unwrap();
        assert!(is_lean(&server));
    }
}

#[tokio::test]
async fn plaintext_without_room_is_read_later() {
    let (mut client, mut server) = Authority::new().client_and_server(&TLS13).await;
    let records = client.seal(&content(10_000));
    client.socket.write_all(&records).await.unwrap();
    let mut read = vec![0; 10_000];
    for piece in read.chunks_mut(300) {
        server.read_exact(piece).await.unwrap();
    }
    assert!(read == content(10_000));
    assert!(server.tls.ahead.capacity() == 0);
}

#[tokio::test]
async fn keys_are_renewed_both_ways() {
    let (mut client, mut server) = Authority::new().client_and_server(&TLS13).await;
    for round in 0..3 {
        client.tls.refresh_traffic_keys().unwrap();
        let records = client.seal(b"under new keys");
        client.socket.write_all(&records).await.unwrap();
        assert_eq!(read_now(&mut server).await.unwrap().unwrap(), b"under new keys", "{round}");
        server.write_all(b"so are ours").await.unwrap();
        assert_eq!(client.read(11).await, b"so are ours", "{round}");
    }
}

#[tokio::test]
async fn what_a_blocked_socket_does_not_take_goes_first_when_it_drains() {
    for version in VERSIONS {
        let authority = Authority::new();
        let (theirs, ours) = duplex(5000);
        let mut client = Client::new(authority.client(version), theirs);
        let (server, ()) = tokio::join!(authority.accept(ours), client.shake());
        let mut server = server.unwrap();
        let expected = content(200_000);
        let taken = poll_fn(|cx| Pin::new(&mut server).poll_write(cx, &expected)).await.unwrap();
        assert_eq!(taken, SLOW_BATCH);
        assert!(server.tls.holds_back());
        let blocked = poll_fn(|cx| Poll::Ready(Pin::new(&mut server).poll_write(cx, &expected[taken..]))).await;
        assert!(blocked.is_pending(), "one batch at a time");
        let writing = async {
            server.write_all(&expected[taken..]).await.unwrap();
            server.flush().await.unwrap();
        };
        let (read, ()) = tokio::join!(client.read(expected.len()), writing);
        assert!(read == expected);
        assert!(is_lean(&server) && !server.tls.holds_back());
    }
}

#[tokio::test]
async fn records_after_which_nothing_makes_sense_cost_nothing_of_what_came_before() {
    for version in VERSIONS {
        let (mut client, mut server) = Authority::new().client_and_server(version).await;
        let mut records = client.seal(b"good");
        let end = records.len();
        records.extend(client.seal(b"bad"));
        records[end + 10] ^= 1;
        client.socket.write_all(&records).await.unwrap();
        assert_eq!(read_now(&mut server).await.unwrap().unwrap(), b"good");
        for _ in 0..2 {
            let error = read_now(&mut server).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            let refused = server.write_all(b"more").await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        }
        let error = loop {
            match client.hear().await {
                Ok(length) => assert!(length > 0, "an end without an alert"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("BadRecordMac"), "{error}");
        server.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn only_close_notify_is_an_end() {
    for version in VERSIONS {
        let (mut client, mut server) = Authority::new().client_and_server(version).await;
        let mut records = client.seal(b"bye");
        client.tls.send_close_notify();
        records.extend(client.records());
        client.socket.write_all(&records).await.unwrap();
        assert_eq!(read_now(&mut server).await.unwrap().unwrap(), b"bye");
        for _ in 0..2 {
            assert_eq!(read_now(&mut server).await.unwrap().unwrap(), b"");
        }
        server.write_all(b"bye too").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(client.read(7).await, b"bye too");
        while client.hear().await.unwrap() > 0 {}
        assert_eq!(client.tls.reader().read(&mut [0]).unwrap(), 0, "close_notify came");

        let (client, mut server) = Authority::new().client_and_server(version).await;
        drop(client);
        for _ in 0..2 {
            let error = read_now(&mut server).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}

#[tokio::test]
async fn a_ticket_goes_with_the_first_answer_and_is_taken() {
    let authority = Authority::new();
    let config = authority.client(&TLS13);
    for resumed in [false, true] {
        let (theirs, ours) = duplex(1024 * 1024);
        let mut client = Client::new(config.clone(), theirs);
        let (server, ()) = tokio::join!(authority.accept(ours), client.shake());
        let mut server = server.unwrap();
        assert_eq!(client.tls.handshake_kind() == Some(rustls::HandshakeKind::Resumed), resumed);
        server.flush().await.unwrap();
        let mut byte = [0];
        let heard = poll_fn(|cx| Poll::Ready(Pin::new(&mut client.socket).poll_read(cx, &mut ReadBuf::new(&mut byte))));
        assert!(heard.await.is_pending() && !server.tls.holds_back());
        server.write_all(b"answer").await.unwrap();
        assert_eq!(client.read(6).await, b"answer");
        assert!(client.tls.tls13_tickets_received() > 0);
        assert!(is_lean(&server));
    }
}

#[tokio::test]
async fn a_client_without_aes_instructions_gets_the_cipher_it_prefers() {
    let authority = Authority::new();
    for (first, expected) in [
        (CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        // The server of these tests has the order of rustls.
        (CipherSuite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_256_GCM_SHA384),
    ] {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(authority.roots.clone())
            .with_no_client_auth();
        let (theirs, ours) = duplex(1024 * 1024);
        let mut client = Client::new(config, theirs);
        let (server, ()) = tokio::join!(authority.accept(ours), client.shake());
        server.unwrap();
        assert_eq!(client.tls.negotiated_cipher_suite().unwrap().suite(), expected);
    }
}

#[tokio::test]
async fn a_handshake_in_fragments_is_put_together() {
    let authority = Authority::new();
    for version in VERSIONS {
        for capacity in [1, 1024 * 1024] {
            let mut config = authority.client(version);
            config.max_fragment_size = Some(40);
            let (theirs, ours) = duplex(capacity);
            let mut client = Client::new(config, theirs);
            let (server, ()) = tokio::join!(authority.accept(ours), client.shake());
            server.unwrap();
        }
    }
}

#[tokio::test]
async fn a_handshake_without_an_end_is_refused() {
    let authority = Authority::new();
    let (mut theirs, ours) = duplex(1024 * 1024);
    let accepting = authority.accept(ours);
    // A ClientHello of 65,535 bytes, one byte a record.
    let head = [1, 0, 0xff, 0xff];
    let bytes = head.into_iter().chain(std::iter::repeat(0));
    let records: Vec<u8> = bytes.take(60_000).flat_map(|byte| [22, 3, 1, 0, 1, byte]).collect();
    theirs.write_all(&records).await.unwrap();
    let error = accepting.await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("message buffer full"), "{error}");
}

#[tokio::test]
async fn a_failed_handshake_is_answered_with_an_alert() {
    let authority = Authority::new();
    let (mut theirs, ours) = duplex(1024);
    let accepting = authority.accept(ours);
    theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = accepting.await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let mut alert = Vec::new();
    theirs.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert[0], 21, "{alert:?}");

    let (theirs, ours) = duplex(1024);
    let accepting = authority.accept(ours);
    drop(theirs);
    assert_eq!(accepting.await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}
