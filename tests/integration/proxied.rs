//! The PROXY protocol, from proxies in front and towards backends.
use super::harness::{Backend, Raw, Running, request, soon};
use super::secure::{Certificates, over};
use pulsegate::metrics::text::Format;
use rustls::version::TLS13;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// A gateway whose listener wants PROXY headers, from `proxies`.
fn gateway(proxies: &str, server: &str, extra: &str) -> Running {
    Running::start(&format!(
        "gateway.trusted_proxies = [{proxies}]\n{extra}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = \"require\"\n\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nservers = [{server:?}]\n"
    ))
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn proxied(gateway: &Running, header: &[u8]) -> Raw {
    let mut client = Raw::connect(gateway.address());
    client.send(header);
    client.send(request("/", "X-Forwarded-For: 6.6.6.6\r\n").as_bytes());
    client
}

#[test]
fn the_header_of_a_trusted_proxy_names_the_client() {
    let (backend, handed) = Backend::recorder("");
    let gateway = gateway("\"127.0.0.1\"", &backend.url(), "defaults.timeouts.close = \"50ms\"");
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1a\xcb\x00\x71\x09\x0a\x00\x00\x01\x12\x34\x01\xbb\xea\x00\x0b\x01vpce-12345";
    for (header, client) in [
        (&b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"[..], "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
        (v2, "203.0.113.9"),
    ] {
        let mut peer = proxied(&gateway, header);
        assert!(peer.head().starts_with("HTTP/1.1 101 "));
        let head = text(soon(&handed));
        assert!(head.contains(&format!("\r\nX-Forwarded-For: {client}\r\n")), "{head}");
        peer.reset();
        assert_eq!(gateway.verdict().client.to_string(), client);
    }
    // The proxy speaks for itself, and is believed as it would be without: what it forwards is the client's own.
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut peer = proxied(&gateway, header);
        assert!(peer.head().starts_with("HTTP/1.1 101 "));
        assert!(text(soon(&handed)).contains("\r\nX-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n"));
    }
}

#[test]
fn whoever_else_connects_is_dropped() {
    let (backend, _handed) = Backend::recorder("");
    let stranger = gateway("\"203.0.113.1\"", &backend.url(), "");
    let trusted = gateway("\"127.0.0.1\"", &backend.url(), "defaults.timeouts.handshake = \"200ms\"");
    for (gateway, header) in [
        (&stranger, &b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"[..]),
        (&trusted, b""),
        (&trusted, b"PROXY TCP4 nobody\r\n"),
        (&trusted, b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 "),
    ] {
        let mut client = TcpStream::connect(gateway.address()).unwrap();
        // It may be gone already.
        let _ = client.write_all(header);
        let _ = client.write_all(request("/", "").as_bytes());
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{}", header.escape_ascii());
    }
    let mut silent = TcpStream::connect(trusted.address()).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap_or(0), 0, "the deadline has passed");
    let counted = |gateway: &Running| gateway.operator().metrics(Format::Prometheus);
    assert!(counted(&stranger).contains("result=\"proxy_protocol\"} 1"), "{}", counted(&stranger));
    assert!(counted(&trusted).contains("result=\"proxy_protocol\"} 4"), "{}", counted(&trusted));
}

#[test]
fn tls_begins_behind_the_header() {
    let certificates = Certificates::of(&["gate.test"]);
    let (backend, handed) = Backend::recorder("");
    let listener = certificates.listener(&["gate.test"]);
    let gateway = Running::start(&format!(
        "gateway.trusted_proxies = [\"127.0.0.1\"]\n{listener}proxy_protocol = \"require\"\n\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nservers = [{:?}]\n",
        backend.url()
    ));
    let client = certificates.client("gate.test", &TLS13);
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n").unwrap();
    let mut secure = over(&client, stream, "gate.test");
    secure.write_all(request("/", "").as_bytes()).unwrap();
    let head = text(soon(&handed));
    assert!(head.contains("\r\nX-Forwarded-For: 203.0.113.7\r\n"), "{head}");
    assert!(head.contains("\r\nX-Forwarded-Proto: https\r\n"), "{head}");
}

#[test]
fn backends_are_told_of_the_client() {
    let (backend, heads) = Backend::recorder("");
    for (version, told) in [
        ("v1", &b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\nGET / "[..]),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\x0a\x00\x00\x01\x12\x67\x01\xbbGET / "),
    ] {
        let gateway = Running::start(&format!(
            "gateway.trusted_proxies = [\"127.0.0.1\"]\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = \"require\"\n\
             [[route]]\nupstream = \"u\"\n[upstream.u]\nservers = [{:?}]\nproxy_protocol = {version:?}\n",
            backend.url()
        ));
        let mut client = proxied(&gateway, b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n");
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        let head = soon(&heads);
        assert!(head.starts_with(told), "{}", head.escape_ascii());
    }
}

#[test]
fn a_gateway_behind_another_hears_of_the_client() {
    let (backend, heads) = Backend::recorder("");
    let inner = gateway("\"127.0.0.1\"", &backend.url(), "");
    let outer = Running::start(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nservers = [\"ws://{}\"]\nproxy_protocol = \"v2\"\n",
        inner.address()
    ));
    let mut client = Raw::connect(outer.address());
    client.send(request("/", "").as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    assert!(text(soon(&heads)).contains("\r\nX-Forwarded-For: 127.0.0.1"));
}
