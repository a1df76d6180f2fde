//! What is measured: the one list of cases that the times, the instruction counts and the test of allocations share.

mod bytes;
mod heartbeat;
mod registry;
mod relay;
mod scan;
mod session;

use pulsegate::{
    config::{self, Config},
    route::RouteConfig,
};
use std::path::Path;

/// One thing that is done over and over.
pub(crate) struct Case {
    /// Theme and what is done, as in `relay/client-text-64`: the payload is 64 bytes.
    pub(crate) name: &'static str,
    /// Frames, beats or entries that one run handles: figures are given for one of them.
    pub(crate) units: u32,
    prepare: Box<dyn Fn() -> Run>,
}

/// Does it once.
pub(crate) type Run = Box<dyn FnMut()>;

impl Case {
    fn new(name: &'static str, units: u32, prepare: impl Fn() -> Run + 'static) -> Self {
        Self { name, units, prepare: Box::new(prepare) }
    }

    /// Makes what the case works on, and has done it a few times.
    pub(crate) fn warm(&self) -> Run {
        let mut run = (self.prepare)();
        for _ in 0..8 {
            run();
        }
        run
    }
}

/// All cases, by theme.
pub(crate) fn all() -> Vec<Case> {
    [scan::cases(), bytes::cases(), relay::cases(), session::cases(), heartbeat::cases(), registry::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// A masking key of a client's.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The first byte of a whole message's only frame (RFC 6455 section 5.2).
#[derive(Clone, Copy)]
enum Kind {
    Text = 0x81,
    Binary = 0x82,
}

/// `length` bytes of ASCII such as applications send.
fn ascii(length: usize) -> Vec<u8> {
    br#"{"type":"quote","symbol":"ACME","bid":101.25,"ask":101.50,"at":1767225600} "#
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect()
}

/// About `length` bytes of text of one to four bytes a character; at most three more.
fn mixed(length: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut letters = "Καλημέρα κόσμε, grüß Gott, 今日は世界 🙂 ".chars().cycle();
    while text.len() < length {
        text.extend(letters.next());
    }
    text.into_bytes()
}

/// A frame around this payload, masked if it has a key.
fn frame(kind: Kind, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask = if key.is_some() { 0x80 } else { 0 };
    let mut frame = vec![kind as u8];
    match payload.len() {
        length @ 0..126 => frame.push(mask | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(key.iter().flatten());
    let key = key.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A configuration with every key at its default, but for those of `defaults`; its only route.
fn route(defaults: &str) -> RouteConfig {
    let text = format!(
        "[defaults]\n{defaults}\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nupstream = \"pool\"\n\
         [upstream.pool]\nservers = [\"builtin:echo\"]\n"
    );
    let Config { mut routes, .. } =
        config::parse("bench", &text, Path::new(".")).unwrap_or_else(|errors| panic!("{errors}"));
    routes.remove(0)
}
