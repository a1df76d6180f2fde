//! From a URL to open connections.
use crate::{connection::Connection, failure::Failure, handshake, options::Load, stream::Stream, tally::Tally};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use rustls_platform_verifier::BuilderVerifierExt;
use std::{
    cell::{Cell, RefCell},
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::BufReader,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Connections from one loopback address, before the next one is used: it has some 28,000 ports.
const PORTS: u32 = 20_000;
/// What is read from the kernel at once below TLS: two records and a bit.
const TLS_READ: usize = 36 << 10;

/// Opens connections to one URL.
pub(crate) struct Dialer {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The request's head without its key and its end.
    request: String,
    limit: Duration,
    /// Connections tried so far.
    tried: Cell<u32>,
    /// Version, cipher suite and key exchange of the first connection with TLS.
    negotiated: RefCell<Option<String>>,
}

impl Dialer {
    /// # Errors
    /// When the URL, its host or the authorities are no good, in words for the user.
    pub(crate) fn new(url: &str, load: &Load) -> Result<Rc<Self>, Box<dyn Error>> {
        let uri: http::Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some(_) | None => return Err(format!("{url}: a URL starts with ws:// or wss://").into()),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url}: no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("{host}: {error}"))?
            .next()
            .ok_or_else(|| format!("{host}: no address"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        );
        for header in &load.header {
            request += header;
            request += "\r\n";
        }
        let tls = if tls { Some((connector(load)?, ServerName::try_from(host.to_owned())?)) } else { None };
        let limit = Duration::try_from_secs_f64(load.timeout)?;
        Ok(Rc::new(Self { address, tls, request, limit, tried: Cell::new(0), negotiated: RefCell::default() }))
    }

    /// Version, cipher suite and key exchange, once there is a connection with TLS.
    pub(crate) fn negotiated(&self) -> Option<String> {
        self.negotiated.borrow().clone()
    }

    pub(crate) async fn open(&self) -> Result<Connection, Failure> {
        let late = |_| Failure::TooSlow(self.limit.as_secs_f64());
        timeout(self.limit, self.dial()).await.map_err(late)?
    }

    async fn dial(&self) -> Result<Connection, Failure> {
        let tcp = self.connect().await.map_err(Failure::Connect)?;
        let mut stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((connector, name)) => {
                let tcp = BufReader::with_capacity(TLS_READ, tcp);
                let tls = connector.connect(name.clone(), tcp).await.map_err(Failure::Tls)?;
                self.negotiated.borrow_mut().get_or_insert_with(|| describe(tls.get_ref().1));
                Stream::Tls(Box::new(tls))
            }
        };
        let early = handshake::ask(&mut stream, &self.request).await?;
        Ok(Connection::new(stream, early))
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let tried = self.tried.replace(self.tried.get().wrapping_add(1));
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        let nth = (tried / PORTS % 250) as u8;
        if nth > 0 && matches!(self.address.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
            socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + nth), 0)))?;
        }
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

/// Opens as many connections as are asked for, a few at the same time. Those that fail are in the tally.
pub(crate) async fn open_all(dialer: &Rc<Dialer>, load: &Load, tally: &Rc<Tally>) -> Vec<Connection> {
    let (mut opened, mut dials, mut begun) = (Vec::with_capacity(load.conns), JoinSet::new(), 0);
    loop {
        while begun < load.conns && dials.len() < load.burst.max(1) {
            let dialer = Rc::clone(dialer);
            dials.spawn_local(async move { dialer.open().await });
            begun += 1;
        }
        match dials.join_next().await {
            None => return opened,
            Some(Ok(Ok(connection))) => {
                opened.push(connection);
                tally.opened();
            }
            Some(Ok(Err(failure))) => tally.failed(&failure),
            Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

fn describe(tls: &rustls::ClientConnection) -> String {
    let version = tls.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
    let suite = tls.negotiated_cipher_suite().map_or_else(String::new, |suite| format!("{:?}", suite.suite()));
    let group = tls.negotiated_key_exchange_group().map_or_else(String::new, |group| format!("{:?}", group.name()));
    format!("{version} {suite} {group}")
}

/// Every service is asked for the same work: one cipher suite of TLS 1.3, the one that all must have (RFC 8446 section
/// 9.1), classical key exchange, and no resumption.
fn connector(load: &Load) -> Result<TlsConnector, Box<dyn Error>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        let name = suite.suite();
        name == aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.suite() || suite.tls13().is_none()
    });
    provider.kx_groups =
        vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1, aws_lc_rs::kx_group::SECP384R1];
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = if load.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
    } else if let Some(path) = &load.ca {
        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|error| format!("{}: {error}", path.display()))?
        {
            roots.add(certificate?)?;
        }
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder.with_platform_verifier()?.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes any certificate, if its owner holds its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
