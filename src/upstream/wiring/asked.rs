//! What a backend is asked: the names of a client's headers as they came, and ours as usual.

use super::*;
use crate::http::framing::{Watch, Watched};
use std::{convert::Infallible, rc::Rc};

/// The head that hyper's server makes of a client's bytes, and the names as they came.
async fn received(bytes: &str) -> Parts {
    let (mut client, server) = tokio::io::duplex(4096);
    let watch = Rc::<Watch>::default();
    let server = Watched::new(server, bytes::Bytes::new(), Rc::clone(&watch));
    client.write_all(bytes.as_bytes()).await.unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = Cell::new(Some(sender));
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        sender.take().unwrap().send(request.into_parts().0).ok();
        std::future::pending::<Result<http::Response<http_body_util::Empty<bytes::Bytes>>, Infallible>>()
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(server), service);
    let mut head = tokio::select! { head = receiver => head.unwrap(), _ = connection => panic!("ended") };
    head.extensions.insert(watch.names(1).unwrap());
    head
}

/// The head that a backend sees of a client's bytes.
async fn sent(bytes: &str, prepare: impl FnOnce(&mut Parts), host_header: HostHeader) -> (String, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = pool(vec![ws(address)], None);
    let mut head = received(bytes).await;
    prepare(&mut head);
    let options = options(SOON);
    let open = upstream.open(UpstreamRequest { head, options: &options, host_header, affinity: Affinity::default() });
    let backend = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        head_of(&mut tcp).await
    };
    tokio::select! { head = backend => (head, address), _ = open => panic!("nobody answered") }
}

/// The lines of a head without the key's value, sorted but for the first.
fn lines(head: &str) -> Vec<String> {
    let mut lines: Vec<String> = head.trim_end().lines().map(str::to_owned).collect();
    for line in &mut lines {
        if line.to_ascii_lowercase().starts_with("sec-websocket-key: ") {
            assert_eq!(line.split_off(19).len(), 24);
        }
    }
    lines[1..].sort();
    lines
}

#[test]
fn names_keep_the_clients_case_and_ours_are_spelled_as_in_the_rfc() {
    local(async {
        let client = "GET /chat?a=%2f HTTP/1.1\r\nHOST: chat.example.com\r\nCONNECTION: Upgrade\r\nupgrade: websocket\r\n\
            Sec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\nORIGIN: https://a\r\n\
            sec-websocket-protocol: a\r\nSEC-WebSocket-Extensions: permessage-deflate\r\nX-request-ID: 7\r\nx-Own: 1\r\n\r\n";
        let set = |head: &mut Parts| {
            head.headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
            head.headers.insert("x-real-ip", "192.0.2.1".parse().unwrap());
        };
        let (head, _) = sent(client, set, HostHeader::Client).await;
        assert_eq!(
            lines(&head),
            [
                "GET /chat?a=%2f HTTP/1.1",
                "Connection: Upgrade",
                "HOST: chat.example.com",
                "ORIGIN: https://a",
                "SEC-WebSocket-Extensions: permessage-deflate",
                "Sec-WebSocket-Key: ",
                "Sec-WebSocket-Version: 13",
                "Upgrade: websocket",
                "X-Forwarded-For: 192.0.2.1",
                "X-Real-IP: 192.0.2.1",
                "X-request-ID: 7",
                "sec-websocket-protocol: a",
                "x-Own: 1",
            ]
        );
    });
}

#[test]
fn a_lower_case_client_keeps_its_host_and_a_backend_can_have_its_own() {
    local(async {
        let client = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\norigin: null\r\n\r\n";
        let ours = ["Connection: Upgrade", "Sec-WebSocket-Key: ", "Sec-WebSocket-Version: 13", "Upgrade: websocket"];
        let (head, _) = sent(client, |_| {}, HostHeader::Client).await;
        let got = lines(&head);
        assert_eq!(got, [&["GET / HTTP/1.1"], &ours[..], &["host: a", "origin: null"]].concat());
        assert!(head.starts_with("GET / HTTP/1.1\r\nhost: a\r\n"), "Host comes first: {head}");
        let (head, address) = sent(client, |_| {}, HostHeader::Upstream).await;
        assert!(head.contains(&format!("\r\nHost: {address}\r\n")), "{head}");
        assert!(!head.contains("host: a"), "{head}");
    });
}
