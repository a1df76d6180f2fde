//! Which library does TLS's cryptography.
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};

/// aws-lc-rs; AES-GCM by `ring` where that is the faster of the two.
///
/// aws-lc has wide AES for AVX-512 only. A processor with `vaes` but without it (AMD before Zen 4, Intel's desktops since Alder Lake) is
/// given half its speed there and all of it by `ring`, which has BoringSSL's code for AVX2. Keys of `ring` lie within the connection's
/// state instead of two boxes further, too. Handshakes are aws-lc's everywhere: `ring` knows no post-quantum key exchange.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if is_wide_by_avx2_only() {
        provider.cipher_suites = ring::DEFAULT_CIPHER_SUITES.to_vec();
    }
    provider
}

#[cfg(target_arch = "x86_64")]
fn is_wide_by_avx2_only() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("vaes") && has!("vpclmulqdq") && !has!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_wide_by_avx2_only() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_libraries_have_the_same_suites() {
        let suites = |of: &[rustls::SupportedCipherSuite]| of.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        assert_eq!(suites(ring::DEFAULT_CIPHER_SUITES), suites(aws_lc_rs::DEFAULT_CIPHER_SUITES));
        assert_eq!(suites(&provider().cipher_suites), suites(aws_lc_rs::DEFAULT_CIPHER_SUITES));
    }
}
