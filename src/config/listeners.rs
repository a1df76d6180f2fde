//! Every `[[listener]]` and its certificates.
use super::{address, file::Table, keys, problem::Wrong, value};
use crate::{
    listener::{
        CertificateFiles, ClientCertificates, ListenAddress, ListenerConfig, ListenerTls, TlsVersion, Verify,
        proxy_protocol::ProxyProtocol,
    },
    pem::{self, Holds},
};
use std::{path::Path, sync::Arc};
use toml::de::DeValue;

/// `trusting`: whether proxies are named whom the gateway trusts.
pub(super) fn read(root: &Table<'_>, base: &Path, trusting: bool) -> Vec<ListenerConfig> {
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
        let health = table.read("health", |value| address::prefix(&value::text(value)?)).map(Arc::from);
        let Some(address) = address else { continue };
        let proxy_protocol = read_proxy_protocol(&table, trusting, &address);
        let any_port = matches!(&address, ListenAddress::Tcp(address) if address.port() == 0);
        if !any_port && listeners.iter().any(|listener| listener.address == address) {
            let help = "give each its own address, or remove this one";
            table.report("address", Wrong::new("another listener has the same address", help));
        }
        listeners.push(ListenerConfig { address, tls, health, proxy_protocol });
    }
    listeners
}

fn read_proxy_protocol(table: &Table<'_>, trusting: bool, address: &ListenAddress) -> ProxyProtocol {
    let mut proxy_protocol = ProxyProtocol::Off;
    let words = &[("off", ProxyProtocol::Off), ("require", ProxyProtocol::Require)];
    table.set("proxy_protocol", &mut proxy_protocol, value::word(words));
    let believed = trusting || matches!(address, ListenAddress::Unix(_));
    if proxy_protocol == ProxyProtocol::Require && !believed {
        let help = "name the proxies in front: gateway.trusted_proxies = [\"10.0.0.0/8\"]";
        table.report("proxy_protocol", Wrong::new("nobody could connect, as no proxy is trusted", help));
    }
    proxy_protocol
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
    let clients = read_clients(&table, base);
    Some(ListenerTls { certificates, min_version, clients })
}

fn read_clients(tls: &Table<'_>, base: &Path) -> Option<ClientCertificates> {
    if !tls.has("clients") {
        return None;
    }
    let table = tls.child("clients", &keys::LISTENER_CLIENTS);
    let ca = table.require("ca", "write ca = \"tls/clients-ca.pem\"", |value| {
        let path = base.join(value::text(value)?);
        pem::read_authorities(&path).map(|_| path).map_err(Wrong::from)
    });
    let crl = table.read("crl", |value| {
        let path = base.join(value::text(value)?);
        pem::read_revocations(&path).map(|_| path).map_err(Wrong::from)
    });
    let mut verify = Verify::Require;
    table.set("verify", &mut verify, value::word(&[("require", Verify::Require), ("optional", Verify::Optional)]));
    Some(ClientCertificates { ca: ca?, crl, verify })
}

fn read_pair(table: &Table<'_>, base: &Path) -> Option<CertificateFiles> {
    let path = |value: &DeValue<'_>| value::text(value).map(|text| base.join(text));
    let certificate = table.require("certificate", "write certificate = \"tls/fullchain.pem\"", path);
    let key = table.require("key", "write key = \"tls/privkey.pem\"", path);
    let files = CertificateFiles { certificate: certificate?, key: key? };
    for wrong in pem::read_pair(&files.certificate, &files.key).err().into_iter().flatten() {
        let key = match wrong.holds {
            Holds::Certificates | Holds::Revocations => "certificate",
            Holds::Key => "key",
        };
        table.report(key, wrong.into());
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::parse;
    use std::{fs, path::Path};

    fn write(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        fs::write(folder.join(format!("{name}.pem")), made.cert.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }

    fn told(folder: &Path, certificate: &str, key: &str) -> String {
        let text = format!(
            r#"listener = [{{ address = "127.0.0.1:1", tls = {{ certificate = "{certificate}", key = "{key}" }} }}]
route = [{{ upstream = "u" }}]
upstream.u = {{ servers = ["wss://h"], tls = {{ ca = "a.pem" }} }}
"#
        );
        parse("g", &text, folder).map_or_else(|errors| errors.to_string(), |_| String::new())
    }

    #[test]
    fn a_pair_is_read_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write(path, "a");
        write(path, "b");
        fs::write(path.join("empty.pem"), "nothing").unwrap();
        fs::write(path.join("bad.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(
            path.join("locked.key"),
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        )
        .unwrap();
        assert_eq!(told(path, "a.pem", "a.key"), "");
        let swapped = told(path, "a.pem", "b.key");
        assert!(swapped.starts_with("g:1:") && swapped.contains(": listener.tls.key: "), "{swapped}");
        assert!(swapped.contains("b.key is not the key of"), "{swapped}");
        assert!(told(path, "bad.pem", "a.key").contains("bad.pem cannot be used"));
        assert!(told(path, "empty.pem", "a.pem").contains("empty.pem holds no certificate"));
        assert!(told(path, "empty.pem", "a.pem").contains("a.pem holds no private key"));
        assert!(told(path, "a.pem", "locked.key").contains("encrypted"));
        assert!(told(path, ".", "/dev/zero").contains("/dev/zero is not a file"));
    }

    #[test]
    fn mistakes_about_certificates_of_clients_say_what_would_be_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write(path, "a");
        let told = |clients: &str| {
            let text = format!(
                "listener = [{{ address = \"127.0.0.1:1\", tls = {{ certificate = \"a.pem\", key = \"a.key\", clients = {clients} }} }}]\n\
                 route = [{{ upstream = \"u\" }}]\nupstream.u.servers = [\"builtin:echo\"]\n"
            );
            parse("g", &text, path).map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        assert_eq!(told("{ ca = \"a.pem\" }"), "");
        assert_eq!(told("{ ca = \"a.pem\", verify = \"optional\" }"), "");
        for (clients, expected) in [
            ("{}", "listener.tls.clients.ca: this key is missing; write ca = "),
            ("{ verify = \"optional\" }", "listener.tls.clients.ca: this key is missing"),
            ("{ ca = \"a.key\" }", "listener.tls.clients.ca: "),
            ("{ ca = \"none.pem\" }", "none.pem cannot be read"),
            ("{ ca = \"a.pem\", crl = \"a.pem\" }", "listener.tls.clients.crl: "),
            ("{ ca = \"a.pem\", verify = \"on\" }", "listener.tls.clients.verify: \"on\""),
            ("{ ca = \"a.pem\", colour = \"red\" }", "known here: ca, crl, verify"),
            ("true", "listener.tls.clients: "),
        ] {
            let told = told(clients);
            assert!(told.starts_with("g:1:") && told.contains(expected), "{clients}: {told}");
            assert_eq!(told.lines().count(), 1, "{clients}: {told}");
        }
    }

    #[test]
    fn the_proxy_protocol_needs_somebody_who_may_speak_it() {
        let told = |first: &str, address: &str| {
            let text = format!(
                "{first}\nlistener = [{{ address = \"{address}\", proxy_protocol = \"require\" }}]\n\
                 route = [{{ upstream = \"u\" }}]\nupstream.u.servers = [\"builtin:echo\"]\n"
            );
            parse("g", &text, Path::new("/")).map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        assert!(told("", "127.0.0.1:1").contains("listener.proxy_protocol: nobody could connect"));
        assert!(
            told("gateway.trusted_proxies = []", "127.0.0.1:1")
                .contains("listener.proxy_protocol: nobody could connect")
        );
        assert_eq!(told("gateway.trusted_proxies = [\"10.0.0.0/8\"]", "127.0.0.1:1"), "");
        assert_eq!(told("gateway.trusted_proxies = [\"10.0.0.300\"]", "127.0.0.1:1").lines().count(), 1);
        assert_eq!(told("", "unix:s"), "");
        assert!(told("gateway.client_address = \"x forwarded\"", "unix:s").contains("gateway.client_address: "));
    }

    #[test]
    fn authorities_must_be_certificates() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a");
        fs::write(folder.path().join("a.pem"), "").unwrap();
        assert!(told(folder.path(), "a.pem", "a.key").contains("upstream.u.tls.ca: "));
    }
}
