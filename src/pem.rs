//! PEM files: certificates and private keys, read, bounded, and checked against each other.
use rustls::{RootCertStore, crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};
use std::{io::Read, path::Path};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

/// What is wrong with a file, which the message names, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct PemError {
    pub holds: Holds,
    pub message: String,
    pub help: &'static str,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Certificates,
    Key,
    Revocations,
}

impl PemError {
    fn new(holds: Holds, message: String, help: &'static str) -> Self {
        Self { holds, message, help }
    }
}

/// Reads a certificate chain.
///
/// # Errors
/// If the file cannot be read or holds no certificate.
pub fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let wrong = |message, help| Err(PemError::new(Holds::Certificates, message, help));
    let pem = read(path, Holds::Certificates)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let shown = path.display();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => wrong(
            format!("{shown} holds no certificate"),
            "name a PEM file that starts with -----BEGIN CERTIFICATE-----",
        ),
        Err(error) => wrong(format!("{shown} is not PEM: {error}"), "name a PEM file"),
    }
}

/// Reads a private key.
///
/// # Errors
/// If the file cannot be read or holds no private key.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let pem = read(path, Holds::Key)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        let help = if encrypted {
            "an encrypted key cannot be used: decrypt it with openssl pkey -in KEY -out PLAIN"
        } else {
            "name a PEM file with a PRIVATE KEY (PKCS#8, PKCS#1 or SEC1)"
        };
        PemError::new(Holds::Key, format!("{} holds no private key: {error}", path.display()), help)
    })
}

/// Reads a certificate chain with its key and makes sure that they belong together.
///
/// # Errors
/// What is wrong with either file, or with both.
pub fn read_pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, Vec<PemError>> {
    let (chain, private) = match (read_chain(certificate), read_key(key)) {
        (Ok(chain), Ok(private)) => (chain, private),
        (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
    };
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        vec![if let rustls::Error::InconsistentKeys(_) = error {
            let help = "name the key it was made for; the certificate of that key comes first in its file";
            PemError::new(Holds::Key, format!("{key} is not the key of {certificate}"), help)
        } else if let rustls::Error::InvalidCertificate(error) = error {
            let help = "name a PEM file with X.509 certificates";
            PemError::new(Holds::Certificates, format!("{certificate} cannot be used: {error}"), help)
        } else {
            let help = "use an RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) or Ed25519 key";
            PemError::new(Holds::Key, format!("{key} cannot be used: {error}"), help)
        }]
    })
}

/// Reads the authorities that peers must chain to.
///
/// # Errors
/// If the file cannot be read or holds anything that is not a certificate.
pub fn read_authorities(path: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| {
            let help = "name a PEM file with certificates of authorities";
            PemError::new(Holds::Certificates, format!("{} cannot be used: {error}", path.display()), help)
        })?;
    }
    Ok(roots)
}

/// Reads lists of revoked certificates.
///
/// # Errors
/// If the file cannot be read or holds no such list, or one that is none.
pub fn read_revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let wrong = |message, help| Err(PemError::new(Holds::Revocations, message, help));
    let pem = read(path, Holds::Revocations)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let (shown, help) = (path.display(), "name a PEM file that starts with -----BEGIN X509 CRL-----");
    match lists {
        Ok(lists) if lists.is_empty() => wrong(format!("{shown} holds no revocation list"), help),
        Ok(lists) => match lists.iter().find_map(|list| CertificateRevocationList::from_der(list).err()) {
            None => Ok(lists),
            Some(error) => wrong(format!("{shown} holds what is no revocation list: {error}"), help),
        },
        Err(error) => wrong(format!("{shown} is not PEM: {error}"), help),
    }
}

/// A regular file of a plausible size, whole.
fn read(path: &Path, holds: Holds) -> Result<Vec<u8>, PemError> {
    const LARGEST: u64 = 4 << 20;
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let help = "name a readable file; relative paths start at the folder of the configuration file";
        PemError::new(holds, format!("{shown} cannot be read: {error}"), help)
    };
    let facts = std::fs::metadata(path).map_err(unreadable)?;
    if !facts.is_file() || facts.len() > LARGEST {
        return Err(PemError::new(holds, format!("{shown} is not a file of at most 4 MiB"), "name a PEM file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}
