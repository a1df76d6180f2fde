//! TLS on listeners: certificates, the choice by server name, and the handshake under its deadline.
use super::{CertificateFiles, ClientCertificates, ListenerTls, TlsVersion, Verify};
use crate::{
    metrics::CertificateExpiry,
    pem::{self, PemError},
    transport::{RecordRoom, ServerConfigs, ServerTlsStream, Socket, Stream, note_server_name, provider},
};
use rustls::{
    CipherSuite, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, VerifierBuilderError,
        WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
};
use rustls_pki_types::CertificateRevocationListDer;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a TLS listener cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Files(Vec<PemError>),
    #[error("{}: not a certificate: {what}", .file.display())]
    BadCertificate { file: PathBuf, what: String },
    #[error("a TLS listener needs a certificate")]
    NoCertificates,
    #[error("certificates of clients cannot be verified: {0}")]
    Clients(#[from] VerifierBuilderError),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What a TLS listener serves with. Shared between workers, for the key that seals session tickets is in it.
#[derive(Clone, Debug)]
pub struct Secured {
    configs: ServerConfigs,
    made_of: ListenerTls,
    certificates: Arc<Certificates>,
    /// What clients' certificates are judged by.
    clients: Option<Judges>,
    ticketer: Arc<dyn ProducesTickets>,
}

impl Secured {
    /// Reads the files of a TLS listener. Tickets that `former` gave stay good.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(tls: &ListenerTls, former: Option<&Self>) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::read(&tls.certificates)?);
        let ticketer = match former {
            Some(former) => Arc::clone(&former.ticketer),
            None => aws_lc_rs::Ticketer::new()?,
        };
        let clients = tls.clients.as_ref().map(Judges::read).transpose()?;
        let mut config = server_config(tls.min_version, clients.as_ref(), Arc::clone(&certificates))?;
        // A session that is resumed shows no certificate: it could have been revoked meanwhile.
        if clients.is_none() {
            config.ticketer = Arc::clone(&ticketer);
            config.send_tls13_tickets = 1;
        }
        let configs = ServerConfigs::new(Arc::new(config));
        Ok(Self { configs, made_of: tls.clone(), certificates, clients, ticketer })
    }

    /// For new handshakes.
    #[must_use]
    pub fn configs(&self) -> &ServerConfigs {
        &self.configs
    }

    /// Whether the two have the same certificates, in the same order, and judge those of clients by the same ones.
    #[must_use]
    pub fn has_certificates_of(&self, other: &Self) -> bool {
        let chains = |secured: &Self| secured.certificates.all.iter().map(|one| one.cert.clone()).collect::<Vec<_>>();
        chains(self) == chains(other) && self.clients == other.clients
    }

    /// Whether nothing would change for clients if one took the place of the other.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        let settings = |tls: &ListenerTls| (tls.min_version, tls.clients.as_ref().map(|clients| clients.verify));
        settings(&self.made_of) == settings(&other.made_of) && self.has_certificates_of(other)
    }
}

fn server_config(
    min_version: TlsVersion,
    clients: Option<&Judges>,
    certificates: Arc<Certificates>,
) -> Result<ServerConfig, TlsError> {
    static BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    static ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    let versions = match min_version {
        TlsVersion::Tls12 => BOTH,
        TlsVersion::Tls13 => ONLY_13,
    };
    let mut provider = provider();
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
    let provider = Arc::new(provider);
    let verifier = match clients {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(clients) => clients.verifier(Arc::clone(&provider))?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Resumption by tickets alone: no table of sessions behind a lock.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // Early data could be replayed, and with it a handshake.
    config.max_early_data_size = 0;
    Ok(config)
}

/// Authorities whose certificates clients may show, and what they have revoked.
#[derive(Clone, Debug)]
struct Judges {
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    verify: Verify,
}

impl PartialEq for Judges {
    fn eq(&self, other: &Self) -> bool {
        (&self.roots.roots, &self.revoked) == (&other.roots.roots, &other.revoked)
    }
}

impl Judges {
    fn read(clients: &ClientCertificates) -> Result<Self, TlsError> {
        let roots = pem::read_authorities(&clients.ca);
        let revoked = clients.crl.as_deref().map_or(Ok(Vec::new()), pem::read_revocations);
        match (roots, revoked) {
            (Ok(roots), Ok(revoked)) => Ok(Self { roots: Arc::new(roots), revoked, verify: clients.verify }),
            (roots, revoked) => Err(TlsError::Files(roots.err().into_iter().chain(revoked.err()).collect())),
        }
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider)
            .with_crls(self.revoked.iter().cloned());
        let builder = match self.verify {
            Verify::Require => builder,
            Verify::Optional => builder.allow_unauthenticated(),
        };
        Ok(builder.build()?)
    }
}

/// AES-128 protects a session as well as AES-256 does, and its SHA-256 costs a handshake less than SHA-384.
fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The certificates of one listener, by the names they are valid for.
#[derive(Debug)]
struct Certificates {
    /// Exact names, and wildcards as `.example.com`; lower case.
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
    /// For clients that name no server, or none that we know.
    default: Arc<CertifiedKey>,
    /// In the order of the configuration.
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    fn read(files: &[CertificateFiles]) -> Result<Self, TlsError> {
        let mut by_name = BTreeMap::new();
        let mut all = Vec::new();
        for files in files {
            let certified = pem::read_pair(&files.certificate, &files.key).map_err(TlsError::Files)?;
            let certified = Arc::new(certified);
            for name in names(&certified, &files.certificate)? {
                by_name.entry(name).or_insert_with(|| Arc::clone(&certified));
            }
            all.push(certified);
        }
        Ok(Self { by_name, default: all.first().cloned().ok_or(TlsError::NoCertificates)?, all })
    }

    /// The exact name, else a wildcard for it (which stands for one label, RFC 6125 section 6.4.3), else the default.
    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name else { return &self.default };
        let name = name.to_ascii_lowercase();
        let wildcard = || name.find('.').and_then(|dot| self.by_name.get(&name[dot..]));
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        note_server_name(hello.server_name());
        Some(Arc::clone(self.find(hello.server_name())))
    }
}

/// The names that a certificate is valid for: its subject alternative names, or its common name if it has none.
fn names(certified: &CertifiedKey, file: &Path) -> Result<Vec<String>, TlsError> {
    let bad = |what: String| TlsError::BadCertificate { file: file.into(), what };
    let Some(leaf) = certified.cert.first() else { return Err(TlsError::NoCertificates) };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| bad(error.to_string()))?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
    let names: Vec<&str> = match &alternatives {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only DNS names can be asked for by SNI (RFC 6066 section 3)"
        )]
        Some(alternatives) => alternatives
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
            .collect(),
        None => parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect(),
    };
    Ok(names.into_iter().map(|name| name.trim_start_matches('*').to_ascii_lowercase()).collect())
}

/// Until when the certificate in these files is valid; `None`: there is none that can be read.
#[must_use]
pub fn expiry(files: &CertificateFiles) -> Option<CertificateExpiry> {
    let chain = pem::read_chain(&files.certificate).ok()?;
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    Some(CertificateExpiry { file: files.certificate.clone(), not_after: leaf.validity().not_after.timestamp() })
}

/// One worker's side of a TLS listener.
#[derive(Clone, Debug)]
pub struct Acceptor {
    configs: ServerConfigs,
    room: RecordRoom,
}

impl Acceptor {
    /// `room` is the worker's.
    #[must_use]
    pub fn new(configs: ServerConfigs, room: RecordRoom) -> Self {
        Self { configs, room }
    }

    /// The server's side of the TLS handshake, all of it within `deadline`.
    ///
    /// # Errors
    /// What went wrong: a violation by the peer, its leaving, or `TimedOut`.
    pub async fn accept(&self, socket: Socket, deadline: Duration) -> io::Result<Stream> {
        let accepting = ServerTlsStream::accept(&self.configs, self.room.clone(), socket);
        match timeout(deadline, accepting).await {
            Ok(accepted) => Ok(Stream::ServerTls(accepted?)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake was not complete in time")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustls::{ClientConfig, pki_types::ServerName};
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    use std::fs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsConnector, client::TlsStream};

    fn acceptor(tls: &ListenerTls) -> Acceptor {
        Acceptor::new(Secured::read(tls, None).unwrap().configs().clone(), RecordRoom::default())
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Writes a self-signed certificate for `names` and its key.
        fn certificate(&self, stem: &str, names: &[&str]) -> CertificateFiles {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            let files = CertificateFiles { certificate: self.path(stem, "crt"), key: self.path(stem, "key") };
            fs::write(&files.certificate, made.cert.pem()).unwrap();
            fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
            files
        }

        fn path(&self, stem: &str, extension: &str) -> PathBuf {
            self.0.path().join(format!("{stem}.{extension}"))
        }
    }

    fn one(files: CertificateFiles) -> ListenerTls {
        ListenerTls { certificates: vec![files], min_version: TlsVersion::Tls12, clients: None }
    }

    /// A handshake between our acceptor and a client that trusts `roots` and names `name`.
    async fn shake(
        tls: &ListenerTls,
        roots: &CertificateFiles,
        name: &'static str,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> (io::Result<Stream>, io::Result<TlsStream<DuplexStream>>) {
        let mut store = RootCertStore::empty();
        store.add(CertificateDer::from_pem_file(&roots.certificate).unwrap()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = acceptor(tls);
        let connector = TlsConnector::from(Arc::new(client));
        let (ours, theirs) = duplex(64 * 1024);
        tokio::join!(
            acceptor.accept(Socket::Memory(ours), Duration::from_secs(10)),
            connector.connect(ServerName::try_from(name).unwrap(), theirs)
        )
    }

    static ALL: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

    #[tokio::test]
    async fn both_versions_shake_hands_and_carry_bytes() {
        let folder = Folder::new();
        let files = folder.certificate("one", &["gate.test"]);
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let (ours, theirs) =
                shake(&one(files.clone()), &files, "gate.test", &[version], &[b"h2", b"http/1.1"]).await;
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            assert_eq!(theirs.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            ours.write_all(b"hello").await.unwrap();
            ours.flush().await.unwrap();
            let mut read = [0; 5];
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello");
        }
    }

    #[tokio::test]
    async fn aes_128_comes_first_whatever_else_a_client_has() {
        let folder = Folder::new();
        let files = folder.certificate("one", &["gate.test"]);
        for version in ALL {
            let (_, theirs) = shake(&one(files.clone()), &files, "gate.test", &[version], &[]).await;
            let suite = theirs.unwrap().get_ref().1.negotiated_cipher_suite().unwrap();
            assert!(is_aes_128(suite.suite()), "{suite:?}");
        }
    }

    #[tokio::test]
    async fn min_version_and_alpn_are_obeyed() {
        let folder = Folder::new();
        let files = folder.certificate("one", &["gate.test"]);
        let mut tls = one(files.clone());
        let (ours, theirs) = shake(&tls, &files, "gate.test", ALL, &[b"h2"]).await;
        assert!(ours.is_err() && theirs.is_err(), "only http/1.1 is spoken");
        tls.min_version = TlsVersion::Tls13;
        let (ours, theirs) = shake(&tls, &files, "gate.test", &[&rustls::version::TLS12], &[]).await;
        assert!(ours.is_err() && theirs.is_err(), "TLS 1.2 is below the minimum");
    }

    #[tokio::test]
    async fn the_server_name_chooses_the_certificate() {
        let folder = Folder::new();
        let default = folder.certificate("default", &["default.test"]);
        let wild = folder.certificate("wild", &["*.example.test"]);
        let exact = folder.certificate("exact", &["chat.example.test"]);
        let tls = ListenerTls {
            certificates: vec![default.clone(), wild.clone(), exact.clone()],
            min_version: TlsVersion::Tls12,
            clients: None,
        };
        for (name, expected) in [("default.test", &default), ("a.example.test", &wild), ("chat.example.test", &exact)] {
            let (ours, theirs) = shake(&tls, expected, name, ALL, &[]).await;
            assert!(ours.is_ok() && theirs.is_ok(), "{name}: {theirs:?}");
        }
        let certificates = Certificates::read(&tls.certificates).unwrap();
        for name in [None, Some("other.test"), Some("a.b.example.test"), Some("example.test"), Some("127.0.0.1")] {
            assert!(Arc::ptr_eq(certificates.find(name), &certificates.default), "{name:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_meets_the_deadline() {
        let folder = Folder::new();
        let acceptor = acceptor(&one(folder.certificate("one", &["gate.test"])));
        let (ours, _theirs) = duplex(1024);
        let error = acceptor.accept(Socket::Memory(ours), Duration::from_secs(10)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let folder = Folder::new();
        let good = folder.certificate("good", &["gate.test"]);
        let other = folder.certificate("other", &["gate.test"]);
        fs::write(folder.path("empty", "pem"), "").unwrap();
        fs::write(folder.path("torn", "pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        fs::write(folder.path("noise", "pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        let file = |stem| folder.path(stem, "pem");
        let cases = [
            (file("missing"), good.key.clone(), "missing.pem cannot be read"),
            (file("empty"), good.key.clone(), "empty.pem holds no certificate"),
            (file("torn"), good.key.clone(), "torn.pem is not PEM"),
            (file("noise"), good.key.clone(), "noise.pem cannot be used"),
            (good.certificate.clone(), file("missing"), "missing.pem cannot be read"),
            (good.certificate.clone(), good.certificate.clone(), "good.crt holds no private key"),
            (good.certificate.clone(), other.key, "other.key is not the key of"),
        ];
        for (certificate, key, expected) in cases {
            let error = Secured::read(&one(CertificateFiles { certificate, key }), None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
