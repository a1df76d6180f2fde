//! Accepts connections and brings them to their opening handshake.
use std::{net::SocketAddr, path::PathBuf};

/// A `[[listener]]` as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    pub address: ListenAddress,
    pub tls: Option<ListenerTls>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Certificates of a TLS listener; the first is the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
}

/// PEM files, absolute or relative to the working directory (already joined with the folder of `gateway.toml`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
