//! Heads of requests and responses: what is parsed is valid, and what passes on is ours or was believed.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pulsegate_fuzz::{handshake, listener::Peer, route::Compression};
use std::net::{IpAddr, SocketAddr};

fuzz_target!(|bytes: &[u8]| {
    // The first byte says who is asking, the rest is the head.
    let [flags, bytes @ ..] = bytes else { return };
    let set = |bit: u8| flags & 1 << bit != 0;
    // Addresses that a head is likely to name, too.
    let address: IpAddr = if set(0) { [10, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() };
    let peer = Peer::new((!set(1)).then(|| SocketAddr::new(address, 4000)), set(2));
    let trusted = if set(3) { vec![net(address), net([10, 0, 0, 2].into())] } else { Vec::new() };
    let compression = if set(4) { Compression::Pass } else { Compression::Strip };
    if let Some(head) = handshake::read_request(bytes) {
        handshake::request(head, set(5) && set(6), &peer, &trusted, compression);
    }
    if let Some(head) = handshake::read_response(bytes) {
        handshake::response(head, b"dGhlIHNhbXBsZSBub25jZQ==");
    }
    handshake::first(bytes, 4 * usize::from(*flags));
    handshake::answer(bytes, usize::from(*flags));
    if let Ok(text) = std::str::from_utf8(bytes) {
        handshake::lists(text);
    }
});

fn net(address: IpAddr) -> ipnet::IpNet {
    address.into()
}
