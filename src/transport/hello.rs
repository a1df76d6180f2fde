//! What a TLS client prefers, seen in its first words before rustls parses them, and what it is offered.
use rustls::{CipherSuite, ServerConfig};
use std::sync::Arc;

/// What a listener offers, in two orders of preference.
#[derive(Clone, Debug)]
pub struct ServerConfigs {
    pub(super) ours: Arc<ServerConfig>,
    pub(super) theirs: Arc<ServerConfig>,
}

impl ServerConfigs {
    /// Prefers cipher suites in the order of `config`, but for clients that would have ChaCha20 before all others: they have
    /// no AES instructions, and get what they prefer.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        let with = |ignore_client_order| {
            let mut config = (*config).clone();
            config.ignore_client_order = ignore_client_order;
            Arc::new(config)
        };
        Self { ours: with(true), theirs: with(false) }
    }
}

/// Whether the first cipher suite that a ClientHello names is ChaCha20: so does a device without AES instructions.
///
/// Looks where that suite stands in a ClientHello that begins here and is in one piece (RFC 8446 section 4.1.2). The answer
/// decides between two orders of preference and nothing else, so bytes that are no ClientHello may give any.
pub(super) fn prefers_chacha(hello: &[u8]) -> bool {
    /// Of the record's header, the message's header, the version and the random bytes.
    const BEFORE_SESSION_ID: usize = 5 + 4 + 2 + 32;
    let Some((&length, rest)) = hello.get(BEFORE_SESSION_ID..).and_then(<[u8]>::split_first) else { return false };
    let Some(suites) = rest.get(usize::from(length) + 2..) else { return false };
    let mut suites = suites.chunks_exact(2).map(|suite| u16::from_be_bytes([suite[0], suite[1]]));
    // Some clients put a reserved value first, to keep servers from depending on what they know (RFC 8701).
    let first = suites.find(|suite| suite & 0x0f0f != 0x0a0a);
    matches!(
        first.map(CipherSuite::from),
        Some(
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(session_id: u8, suites: &[u8]) -> Vec<u8> {
        let mut hello = vec![0; 43];
        hello.push(session_id);
        hello.extend(vec![7; usize::from(session_id)]);
        hello.extend([0, suites.len() as u8]);
        hello.extend(suites);
        hello
    }

    #[test]
    fn the_first_suite_that_means_anything_counts() {
        for session_id in [0, 32] {
            assert!(prefers_chacha(&hello(session_id, &[0x13, 0x03, 0x13, 0x01])));
            assert!(prefers_chacha(&hello(session_id, &[0x5a, 0x5a, 0xcc, 0xa9])));
            assert!(!prefers_chacha(&hello(session_id, &[0x13, 0x01, 0x13, 0x03])));
        }
    }

    #[test]
    fn a_piece_says_nothing() {
        let hello = hello(32, &[0x13, 0x03]);
        assert!((0..hello.len()).all(|length| !prefers_chacha(&hello[..length])));
    }
}
