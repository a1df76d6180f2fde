//! PEM files named in `gateway.toml`: read, bounded, and checked against each other.
use super::problem::Wrong;
use crate::listener::CertificateFiles;
use rustls::{RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{io::Read, path::Path};

/// Reads a certificate chain.
///
/// # Errors
/// If the file cannot be read or holds no certificate.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let pem = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let shown = path.display();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Wrong::new(
            format!("{shown} holds no certificate"),
            "name a PEM file that starts with -----BEGIN CERTIFICATE-----",
        )),
        Err(error) => Err(Wrong::new(format!("{shown} is not PEM: {error}"), "name a PEM file")),
    }
}

/// Reads a private key.
///
/// # Errors
/// If the file cannot be read or holds no private key.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        let help = if encrypted {
            "an encrypted key cannot be used: decrypt it with openssl pkey -in KEY -out PLAIN"
        } else {
            "name a PEM file with a PRIVATE KEY (PKCS#8, PKCS#1 or SEC1)"
        };
        Wrong::new(format!("{} holds no private key: {error}", path.display()), help)
    })
}

/// Reads a certificate with its key and makes sure that they belong together.
///
/// # Errors
/// Names the key of the configuration (`certificate` or `key`) and what is wrong with its file.
pub fn read_pair(files: &CertificateFiles) -> Result<CertifiedKey, Vec<(&'static str, Wrong)>> {
    let (chain, key) = (read_chain(&files.certificate), read_key(&files.key));
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => {
            let wrong = [chain.err().map(|wrong| ("certificate", wrong)), key.err().map(|wrong| ("key", wrong))];
            return Err(wrong.into_iter().flatten().collect());
        }
    };
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        vec![if let rustls::Error::InconsistentKeys(_) = error {
            let help = "name the key it was made for; the certificate of that key comes first in its file";
            ("key", Wrong::new(format!("{key} is not the key of {certificate}"), help))
        } else if let rustls::Error::InvalidCertificate(error) = error {
            let help = "name a PEM file with X.509 certificates";
            ("certificate", Wrong::new(format!("{certificate} cannot be used: {error}"), help))
        } else {
            let help = "use an RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or Ed25519 key";
            ("key", Wrong::new(format!("{key} cannot be used: {error}"), help))
        }]
    })
}

/// Reads the authorities that backends must chain to.
///
/// # Errors
/// If the file cannot be read or holds anything that is not a certificate.
pub fn read_authorities(path: &Path) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| {
            let help = "name a PEM file with certificates of authorities";
            Wrong::new(format!("{} cannot be used: {error}", path.display()), help)
        })?;
    }
    Ok(roots)
}

/// A regular file of a plausible size, whole.
fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    const LARGEST: u64 = 4 << 20;
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let help = "name a readable file; relative paths start at the folder of the configuration file";
        Wrong::new(format!("{shown} cannot be read: {error}"), help)
    };
    let facts = std::fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > LARGEST {
        return Err(Wrong::new(format!("{shown} is not a file of at most 4 MiB"), "name a PEM file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::parse;
    use std::{fs, path::Path};

    fn write(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        fs::write(folder.join(format!("{name}.pem")), made.cert.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }

    fn told(folder: &Path, certificate: &str, key: &str) -> String {
        let text = format!(
            r#"listener = [{{ address = "127.0.0.1:1", tls = {{ certificate = "{certificate}", key = "{key}" }} }}]
route = [{{ upstream = "u" }}]
upstream.u = {{ servers = ["wss://h"], tls = {{ ca = "a.pem" }} }}
"#
        );
        parse("g", &text, folder).map_or_else(|errors| errors.to_string(), |_| String::new())
    }

    #[test]
    fn a_pair_is_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write(path, "a");
        write(path, "b");
        fs::write(path.join("empty.pem"), "nothing").unwrap();
        fs::write(path.join("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(
            path.join("locked.key"),
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        )
        .unwrap();
        assert_eq!(told(path, "a.pem", "a.key"), "");
        let swapped = told(path, "a.pem", "b.key");
        assert!(swapped.starts_with("g:1:") && swapped.contains(": listener.tls.key: "), "{swapped}");
        assert!(swapped.contains("b.key is not the key of"), "{swapped}");
        assert!(told(path, "bad.pem", "a.key").contains("bad.pem cannot be used"));
        assert!(told(path, "empty.pem", "a.pem").contains("empty.pem holds no certificate"));
        assert!(told(path, "empty.pem", "a.pem").contains("a.pem holds no private key"));
        assert!(told(path, "a.pem", "locked.key").contains("encrypted"));
        assert!(told(path, ".", "/dev/zero").contains("/dev/zero is not a file"));
    }

    #[test]
    fn authorities_must_be_certificates() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a");
        fs::write(folder.path().join("a.pem"), "").unwrap();
        assert!(told(folder.path(), "a.pem", "a.key").contains("upstream.u.tls.ca: "));
    }
}
