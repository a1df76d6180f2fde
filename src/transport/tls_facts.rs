//! What a TLS handshake with a client told, for headers and the log.
use rustls::server::ServerConnectionData;
use rustls_pki_types::CertificateDer;
use std::cell::RefCell;

/// What a TLS handshake with a client told.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// Its IANA name.
    pub cipher: &'static str,
    /// The server's name that the client asked for.
    pub name: Option<Box<str>>,
    /// The client's certificate, if it was asked for one and has one; it was verified.
    pub certificate: Option<CertificateDer<'static>>,
}

thread_local! {
    /// The name asked for by the ClientHello that this thread takes in.
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// To be told by whoever chooses a certificate: rustls tells the name to nobody else.
pub fn note_server_name(name: Option<&str>) {
    ASKED.replace(name.map(Into::into));
}

/// The name that was noted last, once.
pub(super) fn noted_server_name() -> Option<Box<str>> {
    ASKED.take()
}

impl TlsFacts {
    pub(super) fn of(
        connection: &rustls::unbuffered::UnbufferedConnectionCommon<ServerConnectionData>,
        name: Option<Box<str>>,
    ) -> Self {
        let version = connection.protocol_version().and_then(|version| version.as_str());
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let certificate = connection.peer_certificates().and_then(<[_]>::first).cloned();
        Self {
            version: match version {
                Some("TLSv1_3") => "TLSv1.3",
                Some("TLSv1_2") => "TLSv1.2",
                Some(_) | None => "",
            },
            cipher: cipher.unwrap_or_default(),
            name,
            certificate: certificate.map(CertificateDer::into_owned),
        }
    }
}
