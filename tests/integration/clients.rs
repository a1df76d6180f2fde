//! Certificates of clients.
use super::harness::{Backend, Running, configured, frame, request, soon};
use super::secure::{Certificates, Secure, connect_with};
use pulsegate::gateway::Changes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use std::{
    fs,
    io::{Read, Write},
    path::PathBuf,
    sync::{Arc, mpsc::Receiver},
};
use tempfile::TempDir;

/// An authority, with its files in a folder.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A client's certificate and its key.
type Pair = (CertificateDer<'static>, String);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "devices");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let this = Self { folder, issuer: Issuer::new(params, key) };
        this.revoke(&[]);
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn client(&self, serial: u64) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![format!("device-{serial}.test")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("device-{serial}"));
        params.serial_number = Some(SerialNumber::from(serial));
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key.serialize_pem())
    }

    /// Lists these as revoked, and no others.
    fn revoke(&self, serials: &[u64]) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(self.file("crl.pem"), list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }
}

struct Gate {
    running: Running,
    certificates: Certificates,
    heads: Receiver<Vec<u8>>,
    toml: String,
    _backend: Backend,
}

impl Gate {
    fn new(authority: &Authority, verify: &str) -> Self {
        let certificates = Certificates::of(&["gate.test"]);
        let (backend, heads) = Backend::recorder("");
        let toml = format!(
            "{}tls.clients = {{ ca = {:?}, crl = {:?}, verify = {verify:?} }}\n[[route]]\nupstream = \"u\"\n\
             headers.request.set = {{ X-Device = \"{{client_cert_subject}} {{client_cert_serial}} {{client_cert_names}}\", \
             Client-Cert = \"{{client_cert}}\" }}\n[upstream.u]\nservers = [{:?}]\n",
            certificates
                .listener(&["gate.test"])
                .replace("tls = { certificates", "tls.certificates")
                .replace("] }", "]"),
            authority.file("ca.pem"),
            authority.file("crl.pem"),
            backend.url()
        );
        Self { running: Running::start(&toml), certificates, heads, toml, _backend: backend }
    }

    fn reload(&self) -> Changes {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.running.operator().reload_to(configured(&self.toml))).unwrap()
    }

    fn connect(&self, pair: Option<&Pair>, version: &'static SupportedProtocolVersion) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificates.certificate("gate.test")).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match pair {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
        };
        connect_with(&Arc::new(config), self.running.address(), "gate.test")
    }

    /// Opens a session; the backend's view of it, if it comes so far.
    fn head(&self, pair: Option<&Pair>, version: &'static SupportedProtocolVersion) -> Option<String> {
        let mut stream = self.connect(pair, version);
        stream.write_all(request("/", "Client-Cert: :AAAA:\r\nX-Device: forged\r\n").as_bytes()).ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).ok()?;
        assert_eq!(&answer, b"HTTP/1.1 101");
        Some(String::from_utf8(soon(&self.heads)).unwrap())
    }
}

#[test]
fn a_client_without_a_good_certificate_stays_outside() {
    let (ours, others) = (Authority::new(), Authority::new());
    ours.revoke(&[9]);
    let gate = Gate::new(&ours, "require");
    for version in [&TLS13, &TLS12] {
        let head = gate.head(Some(&ours.client(7)), version).unwrap();
        assert!(head.contains("\r\nX-Device: CN=device-7 07 device-7.test\r\n"), "{head}");
        assert!(head.contains("\r\nClient-Cert: :MII"), "{head}");
        for outside in [None, Some(&others.client(7)), Some(&ours.client(9))] {
            assert_eq!(gate.head(outside, version), None);
        }
    }
}

#[test]
fn an_optional_certificate_cannot_be_forged() {
    let (ours, others) = (Authority::new(), Authority::new());
    let gate = Gate::new(&ours, "optional");
    let head = gate.head(None, &TLS13).unwrap().to_lowercase();
    assert!(!head.contains("client-cert") && !head.contains("forged"), "{head}");
    assert!(gate.head(Some(&ours.client(7)), &TLS13).unwrap().contains("CN=device-7 "));
    assert_eq!(gate.head(Some(&others.client(7)), &TLS13), None, "one that does not hold is worse than none");
}

#[test]
fn a_reload_takes_authorities_and_revocations_that_were_replaced() {
    let (ours, others) = (Authority::new(), Authority::new());
    let gate = Gate::new(&ours, "require");
    let (seven, other) = (ours.client(7), others.client(7));
    assert!(gate.reload().is_empty());
    let mut before = gate.connect(Some(&seven), &TLS13);
    before.write_all(request("/", "").as_bytes()).unwrap();
    before.read_exact(&mut [0; 12]).unwrap();
    ours.revoke(&[7]);
    assert_eq!(gate.reload().certificates, ["127.0.0.1:0"]);
    assert_eq!(gate.head(Some(&seven), &TLS13), None);
    fs::copy(others.file("ca.pem"), ours.file("ca.pem")).unwrap();
    fs::copy(others.file("crl.pem"), ours.file("crl.pem")).unwrap();
    assert_eq!(gate.reload().certificates, ["127.0.0.1:0"]);
    assert!(gate.head(Some(&other), &TLS13).is_some());
    before.write_all(&frame(0x89, true, b"still?")).unwrap();
    before.flush().unwrap();
    assert!(gate.running.sessions().iter().sum::<usize>() >= 1, "who is in stays");
}
