//! Which library does TLS's cryptography.
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

/// aws-lc-rs; the ciphers by `ring` where that is the faster of the two.
///
/// aws-lc has wide AES for AVX-512 only. A processor with `vaes` but without it (AMD before Zen 4, Intel's desktops since Alder Lake) is
/// given half its speed there and all of it by `ring`, which has BoringSSL's code for AVX2. Keys of `ring` lie within the connection's
/// state instead of two boxes further, too. Handshakes are aws-lc's everywhere: `ring` knows no post-quantum key exchange.
pub(crate) fn provider() -> CryptoProvider {
    let provider = aws_lc_rs::default_provider();
    if has_wide_aes_for_avx2_only() { ciphers_by_ring(provider) } else { provider }
}

fn ciphers_by_ring(provider: CryptoProvider) -> CryptoProvider {
    CryptoProvider { cipher_suites: ring::DEFAULT_CIPHER_SUITES.to_vec(), ..provider }
}

#[cfg(target_arch = "x86_64")]
fn has_wide_aes_for_avx2_only() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("vaes") && has!("vpclmulqdq") && !has!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_wide_aes_for_avx2_only() -> bool {
    false
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
        version::{TLS12, TLS13},
    };
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use std::{
        io::{Read, Write},
        sync::Arc,
    };

    #[test]
    fn both_libraries_have_the_same_suites() {
        let suites = |of: &[rustls::SupportedCipherSuite]| of.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        assert_eq!(suites(ring::DEFAULT_CIPHER_SUITES), suites(aws_lc_rs::DEFAULT_CIPHER_SUITES));
        assert_eq!(suites(&provider().cipher_suites), suites(aws_lc_rs::DEFAULT_CIPHER_SUITES));
    }

    /// On a processor with AVX-512, too, where the program would not.
    #[test]
    fn ciphers_of_one_library_work_with_handshakes_of_the_other() {
        let suites = aws_lc_rs::DEFAULT_CIPHER_SUITES;
        for &suite in suites {
            let version = if suite.tls13().is_some() { &TLS13 } else { &TLS12 };
            let (mut server, mut client) = connected(&[suite], version);
            assert_eq!(client.negotiated_cipher_suite().map(|suite| suite.suite()), Some(suite.suite()));
            for length in [1, 256, 40_000] {
                let text = vec![b'a'; length];
                client.writer().write_all(&text).unwrap();
                let heard = carry(&mut client, &mut server, length);
                server.writer().write_all(&heard).unwrap();
                assert_eq!(carry(&mut server, &mut client, length), text, "{suite:?}");
            }
        }
    }

    fn connected(
        client_suites: &[rustls::SupportedCipherSuite],
        version: &'static SupportedProtocolVersion,
    ) -> (ServerConnection, ClientConnection) {
        // A suite of TLS 1.2 asks for a key of its own kind.
        let rsa = client_suites.iter().any(|suite| format!("{suite:?}").contains("_RSA_"));
        let algorithm = if rsa { &rcgen::PKCS_RSA_SHA256 } else { &rcgen::PKCS_ECDSA_P256_SHA256 };
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec!["gate.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let ours = Arc::new(ciphers_by_ring(aws_lc_rs::default_provider()));
        let server = ServerConfig::builder_with_provider(ours)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let theirs = CryptoProvider { cipher_suites: client_suites.to_vec(), ..aws_lc_rs::default_provider() };
        let client = ClientConfig::builder_with_provider(Arc::new(theirs))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from("gate.test").unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            cross(&mut client, &mut server);
            cross(&mut server, &mut client);
        }
        (server, client)
    }

    fn cross<A, B>(from: &mut rustls::ConnectionCommon<A>, to: &mut rustls::ConnectionCommon<B>) {
        let mut records = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut records).unwrap();
        }
        let mut records = &records[..];
        while !records.is_empty() {
            to.read_tls(&mut records).unwrap();
            to.process_new_packets().unwrap();
        }
    }

    fn carry<A, B>(
        from: &mut rustls::ConnectionCommon<A>,
        to: &mut rustls::ConnectionCommon<B>,
        length: usize,
    ) -> Vec<u8> {
        let mut heard = vec![0; length];
        let mut records = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut records).unwrap();
        }
        let (mut records, mut read) = (&records[..], 0);
        while !records.is_empty() {
            to.read_tls(&mut records).unwrap();
            to.process_new_packets().unwrap();
            while let Ok(more @ 1..) = to.reader().read(&mut heard[read..]) {
                read += more;
            }
        }
        assert_eq!(read, length);
        heard
    }
}
