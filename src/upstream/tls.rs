//! TLS towards `wss` backends: whom to trust.
use super::{BackendAddress, UpstreamConfig, resolve::bare};
use crate::pem::{self, PemError};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};
use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio_rustls::TlsConnector;

/// Why an upstream's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    #[error("upstream {upstream}: tls.ca: {source}")]
    Ca { upstream: String, source: PemError },
    #[error("upstream {upstream}: no authorities of the platform: {source}; install ca-certificates, or set tls.ca")]
    Platform { upstream: String, source: rustls::Error },
    #[error("upstream {upstream}: `{host}` is no host name that a certificate could be for")]
    HostName { upstream: String, host: String },
}

/// The authorities of a pool that names its own.
pub(super) fn authorities(config: &UpstreamConfig) -> Result<Option<RootCertStore>, UpstreamTlsError> {
    let read = |path: &PathBuf| {
        pem::read_authorities(path).map_err(|source| UpstreamTlsError::Ca { upstream: config.name.clone(), source })
    };
    config.ca.as_ref().map(read).transpose()
}

/// The connector for a pool's `wss` backends; `None` if it has none. `authorities`: its own ones, instead of the platform's.
pub(super) fn connector(
    config: &UpstreamConfig,
    authorities: Option<&RootCertStore>,
) -> Result<Option<TlsConnector>, UpstreamTlsError> {
    let mut needed = false;
    for server in &config.servers {
        match &server.address {
            BackendAddress::Tcp { tls: true, host, .. } => {
                needed = true;
                server_name(host)
                    .map_err(|_| UpstreamTlsError::HostName { upstream: config.name.clone(), host: host.clone() })?;
            }
            BackendAddress::Tcp { tls: false, .. } | BackendAddress::Unix(_) | BackendAddress::Echo => {}
        }
    }
    if !needed {
        return Ok(None);
    }
    let mut tls = match authorities {
        Some(roots) => with_roots(roots.clone()),
        None => with_platform(&config.name)?,
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(tls))))
}

/// A connector for a service that is no pool. `authorities`: its own ones, instead of the platform's.
pub(crate) fn trusting(
    whose: &str,
    authorities: Option<&[CertificateDer<'static>]>,
) -> Result<TlsConnector, UpstreamTlsError> {
    let mut tls = match authorities {
        Some(certificates) => {
            let mut roots = RootCertStore::empty();
            // They were checked when the configuration was read.
            roots.add_parsable_certificates(certificates.iter().cloned());
            with_roots(roots)
        }
        None => with_platform(whose)?,
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// The name sent as SNI and looked for in the certificate.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, rustls_pki_types::InvalidDnsNameError> {
    ServerName::try_from(bare(host).to_owned())
}

fn with_roots(roots: RootCertStore) -> ClientConfig {
    builder().with_root_certificates(roots).with_no_client_auth()
}

/// Reads the platform's roots once per process: it takes tens of milliseconds.
fn with_platform(upstream: &str) -> Result<ClientConfig, UpstreamTlsError> {
    static PLATFORM: OnceLock<Result<Arc<rustls_platform_verifier::Verifier>, rustls::Error>> = OnceLock::new();
    let verifier = PLATFORM
        .get_or_init(|| rustls_platform_verifier::Verifier::new(Arc::new(aws_lc_rs::default_provider())).map(Arc::new))
        .clone()
        .map_err(|source| UpstreamTlsError::Platform { upstream: upstream.to_owned(), source })?;
    Ok(builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pool(tls: bool, host: &str) -> UpstreamConfig {
        let address = BackendAddress::Tcp { tls, host: host.to_owned(), port: 443, path: "/".to_owned() };
        UpstreamConfig::new("chat", vec![address.into()])
    }

    #[test]
    fn only_wss_needs_a_connector() {
        assert!(connector(&pool(false, "chat.example.com"), None).unwrap().is_none());
    }

    #[test]
    fn the_platforms_authorities_are_found_or_their_lack_is_explained() {
        match connector(&pool(true, "chat.example.com"), None) {
            Ok(connector) => assert_eq!(connector.unwrap().config().alpn_protocols, [b"http/1.1"]),
            Err(error) => assert!(error.to_string().contains("install ca-certificates"), "{error}"),
        }
    }

    #[test]
    fn a_host_is_checked_before_anything_is_dialled() {
        let error = connector(&pool(true, "under score!"), None).err().unwrap();
        assert!(matches!(error, UpstreamTlsError::HostName { .. }));
        assert!(server_name("[2001:db8::1]").is_ok());
    }
}
