//! TLS of a probe: whom it trusts, what it sees, and `--insecure`.
use crate::pem::{self, PemError};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whom a probe trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// PEM file of the authorities; the platform's, if not given.
    pub ca: Option<PathBuf>,
    /// Whether a certificate that does not hold is only reported.
    pub insecure: bool,
}

/// What TLS agreed on, and the certificate that was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    pub version: String,
    pub cipher: String,
    /// The group of the key exchange.
    pub group: Option<String>,
    pub subject: String,
    pub issuer: String,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Certificates in the chain that was sent.
    pub chain: usize,
    /// Why the certificate does not hold; only with `insecure` can a probe go on then.
    pub distrust: Option<String>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("--ca: {0}")]
    Ca(PemError),
    #[error("no authorities of the platform: {0}; install ca-certificates, or name a PEM file with --ca")]
    Platform(Error),
    #[error("--ca: {0}")]
    Roots(rustls::client::VerifierBuilderError),
}

/// A connector whose verifier keeps what it objects to.
#[derive(Clone)]
pub(super) struct Secure {
    pub(super) connector: TlsConnector,
    judge: Arc<Judge>,
}

impl Secure {
    pub(super) fn new(trust: &Trust) -> Result<Self, TrustError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match &trust.ca {
            Some(path) => {
                let roots = Arc::new(pem::read_authorities(path).map_err(TrustError::Ca)?);
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .build()
                    .map_err(TrustError::Roots)?
            }
            None => {
                Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).map_err(TrustError::Platform)?)
            }
        };
        let judge = Arc::new(Judge {
            verifier,
            insecure: trust.insecure,
            provider: Arc::clone(&provider),
            objection: Mutex::default(),
        });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&judge) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), judge })
    }

    /// What a finished handshake agreed on.
    pub(super) fn facts(&self, connection: &rustls::ClientConnection) -> TlsFacts {
        let chain = connection.peer_certificates().unwrap_or_default();
        let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()).map(|(_, leaf)| leaf);
        let version = connection.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
        let suite = connection.negotiated_cipher_suite();
        TlsFacts {
            version: version.map_or_else(|| "?".to_owned(), |version| version.replace("TLSv1_", "1.")),
            cipher: suite.and_then(|suite| suite.suite().as_str()).unwrap_or("?").to_owned(),
            group: connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())),
            subject: leaf.as_ref().map(names).unwrap_or_default(),
            issuer: leaf.as_ref().map(|leaf| leaf.issuer().to_string()).unwrap_or_default(),
            not_after: leaf.as_ref().map_or(0, |leaf| leaf.validity().not_after.timestamp()),
            chain: chain.len(),
            distrust: self.judge.objection.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The names that a certificate is for; its subject if it lists none.
fn names(leaf: &X509Certificate<'_>) -> String {
    let listed = leaf.subject_alternative_name().ok().flatten();
    let names: Vec<String> = listed
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None })
        .collect();
    if names.is_empty() { leaf.subject().to_string() } else { names.join(", ") }
}

/// What an operator can do about an error of TLS.
pub(super) fn advice(error: &std::io::Error) -> &'static str {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its authority is not trusted here: name its PEM file with --ca, or look past it with --insecure; a chain \
             without its intermediate certificates looks the same"
        }
        Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "renew the certificate; --insecure looks past it"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "the certificate is for other names: ask by one of them, or look past it with --insecure",
        Some(Error::InvalidMessage(_)) => "it does not seem to speak TLS on this port: try ws://",
        Some(Error::NoApplicationProtocol) => "it refuses HTTP/1.1 (ALPN), which WebSockets need here",
        Some(_) | None => "",
    }
}

/// A verifier that keeps its objection, and waves it through if told to.
#[derive(Debug)]
struct Judge {
    verifier: Arc<dyn ServerCertVerifier>,
    insecure: bool,
    provider: Arc<CryptoProvider>,
    objection: Mutex<Option<String>>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.verifier.verify_server_cert(leaf, chain, name, ocsp, now);
        let objection = verdict.as_ref().err().map(ToString::to_string);
        *self.objection.lock().unwrap_or_else(PoisonError::into_inner) = objection;
        if self.insecure { Ok(ServerCertVerified::assertion()) } else { verdict }
    }

    // Signatures are checked always: they tell whether it holds the key of the certificate that it shows.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
