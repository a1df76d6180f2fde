//! What a client's certificate says of it, as header values have it. The certificate was verified before.
use data_encoding::{BASE64, HEXLOWER};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The whole certificate, as the `Client-Cert` header has it (RFC 9440 section 2.1).
pub(super) fn structured(der: &[u8]) -> Option<String> {
    Some(format!(":{}:", BASE64.encode(der)))
}

/// `CN=device-7, O=Example`
pub(super) fn subject(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| certificate.subject().to_string())
}

pub(super) fn issuer(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| certificate.issuer().to_string())
}

/// In hex.
pub(super) fn serial(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| HEXLOWER.encode(certificate.raw_serial()))
}

/// SHA-256 of the whole certificate, in hex.
pub(super) fn fingerprint(der: &[u8]) -> Option<String> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    Some(HEXLOWER.encode(suite.common.hash_provider.hash(der).as_ref()))
}

/// Those by which programs know each other, separated by commas.
pub(super) fn names(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| {
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are no text")]
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(*name),
            _ => None,
        });
        names.collect::<Vec<_>>().join(",")
    })
}

fn parsed(der: &[u8], tell: impl FnOnce(&X509Certificate<'_>) -> String) -> Option<String> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| tell(&certificate))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    #[test]
    fn a_certificate_is_told_in_headers() {
        let mut params = CertificateParams::new(vec!["device-7.test".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://test/device-7".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "device-7");
        params.serial_number = Some(SerialNumber::from(vec![0x0a, 0xff]));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let der = made.der();
        assert_eq!(subject(der).as_deref(), Some("CN=device-7"));
        assert_eq!(issuer(der).as_deref(), Some("CN=device-7"));
        assert_eq!(serial(der).as_deref(), Some("0aff"));
        assert_eq!(names(der).as_deref(), Some("device-7.test,spiffe://test/device-7"));
        assert_eq!(fingerprint(der).unwrap().len(), 64);
        assert_eq!(fingerprint(b"abc").unwrap()[..8], *"ba7816bf");
        assert_eq!(structured(b"abc").as_deref(), Some(":YWJj:"));
        assert_eq!(subject(b"no certificate"), None);
    }
}
