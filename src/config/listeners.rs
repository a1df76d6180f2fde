//! Every `[[listener]]` and its certificates.
use super::{address, certificate, file::Table, keys, problem::Wrong, value};
use crate::listener::{CertificateFiles, ListenAddress, ListenerConfig, ListenerTls, TlsVersion};
use std::path::Path;
use toml::de::DeValue;

pub(super) fn read(root: &Table<'_>, base: &Path) -> Vec<ListenerConfig> {
    let tables = root.each("listener", &keys::LISTENER);
    if root.has_none("listener") {
        let help = "add [[listener]] with address = \"127.0.0.1:8080\"";
        root.report_absent("listener", Wrong::new("there is no listener", help));
    }
    let mut listeners: Vec<ListenerConfig> = Vec::new();
    for table in tables {
        let address = table.require("address", "write address = \"0.0.0.0:443\"", |value| {
            address::listen_address(&value::text(value)?, base)
        });
        let tls = read_listener_tls(&table, base);
        let Some(address) = address else { continue };
        let any_port = matches!(&address, ListenAddress::Tcp(address) if address.port() == 0);
        if !any_port && listeners.iter().any(|listener| listener.address == address) {
            let help = "give each its own address, or remove this one";
            table.report("address", Wrong::new("another listener has the same address", help));
        }
        listeners.push(ListenerConfig { address, tls });
    }
    listeners
}

fn read_listener_tls(listener: &Table<'_>, base: &Path) -> Option<ListenerTls> {
    if !listener.has("tls") {
        return None;
    }
    let table = listener.child("tls", &keys::LISTENER_TLS);
    let mut certificates = Vec::new();
    if table.has("certificates") {
        if table.has("certificate") || table.has("key") {
            let help = "move the single pair into certificates, as its first and default one";
            table.report("certificates", Wrong::new("this stands beside certificate and key", help));
        }
        let pairs = table.each("certificates", &keys::CERTIFICATE);
        if pairs.is_empty() {
            table.report("certificates", Wrong::new("there is no certificate", "list at least one"));
        }
        certificates.extend(pairs.iter().filter_map(|pair| read_pair(pair, base)));
    } else {
        certificates.extend(read_pair(&table, base));
    }
    let mut min_version = TlsVersion::Tls12;
    table.set("min_version", &mut min_version, value::word(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]));
    Some(ListenerTls { certificates, min_version })
}

fn read_pair(table: &Table<'_>, base: &Path) -> Option<CertificateFiles> {
    let path = |value: &DeValue<'_>| value::text(value).map(|text| base.join(text));
    let certificate = table.require("certificate", "write certificate = \"tls/fullchain.pem\"", path);
    let key = table.require("key", "write key = \"tls/privkey.pem\"", path);
    let files = CertificateFiles { certificate: certificate?, key: key? };
    if let Err(wrongs) = certificate::read_pair(&files) {
        for (key, wrong) in wrongs {
            table.report(key, wrong);
        }
    }
    Some(files)
}
