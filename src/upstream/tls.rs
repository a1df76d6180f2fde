//! TLS towards `wss` backends: whom to trust.
use super::{BackendAddress, UpstreamConfig, resolve::bare};
use crate::{
    pem::{self, PemError},
    transport::provider,
};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    client::WantsClientCert,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, ServerName};
use std::sync::{Arc, OnceLock};
use tokio_rustls::TlsConnector;

/// Why an upstream's TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    #[error("upstream {upstream}: tls.ca: {source}")]
    Ca { upstream: String, source: PemError },
    #[error("upstream {upstream}: tls.certificate and tls.key: {wrong}")]
    Identity { upstream: String, wrong: String },
    #[error("upstream {upstream}: no authorities of the platform: {source}; install ca-certificates, or set tls.ca")]
    Platform { upstream: String, source: rustls::Error },
    #[error("upstream {upstream}: `{host}` is no host name that a certificate could be for")]
    HostName { upstream: String, host: String },
}

/// What a pool's TLS is made of.
pub(super) struct Credentials {
    /// What it trusts. `None`: the platform's.
    authorities: Option<RootCertStore>,
    /// What it shows to backends that ask.
    identity: Option<CertifiedKey>,
}

impl Credentials {
    pub(super) fn read(config: &UpstreamConfig) -> Result<Self, UpstreamTlsError> {
        let upstream = &config.name;
        let authorities = config.ca.as_ref().map(|path| pem::read_authorities(path));
        let identity = config.dials.identity.as_ref().map(|files| pem::read_pair(&files.certificate, &files.key));
        Ok(Self {
            authorities: authorities
                .transpose()
                .map_err(|source| UpstreamTlsError::Ca { upstream: upstream.clone(), source })?,
            identity: identity.transpose().map_err(|wrong| {
                let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
                UpstreamTlsError::Identity { upstream: upstream.clone(), wrong: wrong.join("; ") }
            })?,
        })
    }
}

/// A new key has a new certificate.
impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        let roots = |one: &Self| one.authorities.as_ref().map(|store| store.roots.clone());
        let chain = |one: &Self| one.identity.as_ref().map(|identity| identity.cert.clone());
        roots(self) == roots(other) && chain(self) == chain(other)
    }
}

/// The connector for a pool's `wss` backends; `None` if it has none.
pub(super) fn connector(
    config: &UpstreamConfig,
    credentials: &Credentials,
) -> Result<Option<TlsConnector>, UpstreamTlsError> {
    let mut needed = false;
    for server in &config.servers {
        match &server.address {
            BackendAddress::Tcp { tls: true, host, .. } => {
                needed = true;
                server_name(host)
                    .map_err(|_| UpstreamTlsError::HostName { upstream: config.name.clone(), host: host.clone() })?;
            }
            BackendAddress::Service { tls: true, .. } => {
                needed = true;
                let host = server.address.service_domain().to_owned();
                server_name(&host).map_err(|_| UpstreamTlsError::HostName { upstream: config.name.clone(), host })?;
            }
            BackendAddress::Tcp { tls: false, .. }
            | BackendAddress::Service { tls: false, .. }
            | BackendAddress::Unix(_)
            | BackendAddress::Echo => {}
        }
    }
    if !needed {
        return Ok(None);
    }
    let trusting = match &credentials.authorities {
        Some(roots) => builder().with_root_certificates(roots.clone()),
        None => with_platform(&config.name)?,
    };
    let mut tls = match &credentials.identity {
        Some(identity) => trusting.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone()))),
        None => trusting.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(tls))))
}

/// A connector for a service that is no pool. `authorities`: its own ones, instead of the platform's.
pub(crate) fn trusting(
    whose: &str,
    authorities: Option<&[CertificateDer<'static>]>,
) -> Result<TlsConnector, UpstreamTlsError> {
    let trusting = match authorities {
        Some(certificates) => {
            let mut roots = RootCertStore::empty();
            // They were checked when the configuration was read.
            roots.add_parsable_certificates(certificates.iter().cloned());
            builder().with_root_certificates(roots)
        }
        None => with_platform(whose)?,
    };
    let mut tls = trusting.with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// The name sent as SNI and looked for in the certificate.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, rustls_pki_types::InvalidDnsNameError> {
    ServerName::try_from(bare(host).to_owned())
}

/// Reads the platform's roots once per process: it takes tens of milliseconds.
fn with_platform(upstream: &str) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, UpstreamTlsError> {
    static PLATFORM: OnceLock<Result<Arc<rustls_platform_verifier::Verifier>, rustls::Error>> = OnceLock::new();
    let verifier = PLATFORM
        .get_or_init(|| rustls_platform_verifier::Verifier::new(Arc::new(provider())).map(Arc::new))
        .clone()
        .map_err(|source| UpstreamTlsError::Platform { upstream: upstream.to_owned(), source })?;
    Ok(builder().dangerous().with_custom_certificate_verifier(verifier))
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NONE: Credentials = Credentials { authorities: None, identity: None };

    fn pool(tls: bool, host: &str) -> UpstreamConfig {
        let address = BackendAddress::Tcp { tls, host: host.to_owned(), port: 443, path: "/".to_owned() };
        UpstreamConfig::new("chat", vec![address.into()])
    }

    #[test]
    fn only_wss_needs_a_connector() {
        assert!(connector(&pool(false, "chat.example.com"), &NONE).unwrap().is_none());
    }

    #[test]
    fn the_platforms_authorities_are_found_or_their_lack_is_explained() {
        match connector(&pool(true, "chat.example.com"), &NONE) {
            Ok(connector) => assert_eq!(connector.unwrap().config().alpn_protocols, [b"http/1.1"]),
            Err(error) => assert!(error.to_string().contains("install ca-certificates"), "{error}"),
        }
    }

    #[test]
    fn a_host_is_checked_before_anything_is_dialled() {
        let error = connector(&pool(true, "under score!"), &NONE).err().unwrap();
        assert!(matches!(error, UpstreamTlsError::HostName { .. }));
        assert!(server_name("[2001:db8::1]").is_ok());
    }
}
