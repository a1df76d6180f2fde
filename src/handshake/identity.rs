//! What a client's certificate says of it, as header values have it. The certificate was verified before.
use data_encoding::{BASE64, HEXLOWER};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::{
    objects::oid_registry,
    prelude::{AttributeTypeAndValue, FromDer, GeneralName, RelativeDistinguishedName, X509Certificate, X509Name},
};

/// The whole certificate, as the `Client-Cert` header has it (RFC 9440 section 2.1).
pub(super) fn structured(der: &[u8]) -> Option<String> {
    Some(format!(":{}:", BASE64.encode(der)))
}

/// `CN=device-7, O=Example`. What could be taken for another part of the name has a backslash (RFC 4514 section 2.4).
pub(super) fn subject(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| distinguished(certificate.subject()))
}

pub(super) fn issuer(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| distinguished(certificate.issuer()))
}

/// In hex.
pub(super) fn serial(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| Some(HEXLOWER.encode(certificate.raw_serial())))
}

/// SHA-256 of the whole certificate, in hex.
pub(super) fn fingerprint(der: &[u8]) -> Option<String> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    Some(HEXLOWER.encode(suite.common.hash_provider.hash(der).as_ref()))
}

/// Those by which programs know each other, separated by commas; one in a name is `%2C`.
pub(super) fn names(der: &[u8]) -> Option<String> {
    parsed(der, |certificate| {
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others are no text")]
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                Some(name.replace(',', "%2C"))
            }
            _ => None,
        });
        Some(names.collect::<Vec<_>>().join(","))
    })
}

/// `None`: part of it is no text.
fn distinguished(name: &X509Name<'_>) -> Option<String> {
    let parts = name.iter_rdn().map(|part| {
        let attributes: Option<Vec<String>> = part.iter().map(attribute).collect();
        Some(attributes?.join(" + "))
    });
    Some(parts.collect::<Option<Vec<String>>>()?.join(", "))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let part = RelativeDistinguishedName::new(vec![attribute.clone()]);
    let text = X509Name::new(vec![part], &[]).to_string_with_registry(oid_registry()).ok()?;
    let (name, value) = text.split_once('=')?;
    Some(format!("{name}={}", escaped(value)))
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.char_indices().next_back().map(|(place, _)| place);
    for (place, one) in value.char_indices() {
        let escapes = match one {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            ' ' => place == 0 || Some(place) == last,
            '#' => place == 0,
            _ => false,
        };
        if escapes {
            text.push('\\');
        }
        if one == '\0' { text.push_str("\\00") } else { text.push(one) }
    }
    text
}

fn parsed(der: &[u8], tell: impl FnOnce(&X509Certificate<'_>) -> Option<String>) -> Option<String> {
    X509Certificate::from_der(der).ok().and_then(|(_, certificate)| tell(&certificate))
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

    #[test]
    fn a_name_cannot_pass_for_two() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://test/a,spiffe://test/admin".try_into().unwrap()));
        params.distinguished_name.push(DnType::OrganizationName, "#1, CN=admin + O=\"x\\\" ");
        params.distinguished_name.push(DnType::CommonName, "dévice");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let told = subject(made.der()).unwrap();
        assert_eq!(told, r#"CN=dévice, O=\#1\, CN=admin \+ O=\"x\\\"\ "#);
        assert_eq!(names(made.der()).as_deref(), Some("spiffe://test/a%2Cspiffe://test/admin"));
    }

    #[test]
    fn a_name_that_is_no_text_is_not_told() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let mut der = made.der().to_vec();
        for place in 0..der.len() - 7 {
            if der[place..].starts_with(b"Example") {
                der[place] = 0xff;
            }
        }
        assert_eq!(subject(&der), None);
    }
}
