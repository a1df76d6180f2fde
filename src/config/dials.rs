//! How an `[upstream.NAME]` dials its backends.
use super::{file::Table, keys, problem::Wrong, value};
use crate::{
    pem::{self, Holds},
    upstream::{BackendAddress, DialConfig, IdentityFiles, ProxyVersion, Resolve, ServerConfig},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};
use toml::de::DeValue;

/// The keys of the table that say how `servers` are dialled.
pub(super) fn read(table: &Table<'_>, servers: &[ServerConfig], base: &Path) -> DialConfig {
    let mut dials = DialConfig { sources: sources(table, servers), ..DialConfig::default() };
    let most =
        |value: &DeValue<'_>| value::count(value, 1, 1 << 20).map(|most| usize::try_from(most).unwrap_or(1 << 20));
    table.set("max_dials", &mut dials.max_dials, value::unless("off", most));
    table.set("retry_budget", &mut dials.retry_budget, value::unless("off", |value| value::share(value, 10.0)));
    table.set("retry_backoff", &mut dials.retry_backoff, value::duration_or_zero);
    table.set("resolve", &mut dials.resolve, value::word(&[("all", Resolve::All), ("one", Resolve::One)]));
    if dials.resolve == Resolve::One
        && servers.iter().any(|server| matches!(server.address, BackendAddress::Service { .. }))
    {
        let help = "leave resolve out, or write the host and port of one backend";
        table.report("resolve", Wrong::new("the targets of a srv+ws:// server are always backends of their own", help));
    }
    dials.resolver = table.read("resolver", resolver);
    let versions = &[("off", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))];
    table.set("proxy_protocol", &mut dials.proxy_protocol, value::word(versions));
    let tls = table.child("tls", &keys::UPSTREAM_TLS);
    dials.identity = identity(&tls, base);
    dials.server_name = tls.read("server_name", server_name);
    dials
}

/// Two files, or none.
fn identity(tls: &Table<'_>, base: &Path) -> Option<IdentityFiles> {
    if !tls.has("certificate") && !tls.has("key") {
        return None;
    }
    let path = |value: &DeValue<'_>| value::text(value).map(|text| base.join(text));
    let certificate = tls.require("certificate", "write certificate = \"tls/client.pem\"", path);
    let key = tls.require("key", "write key = \"tls/client.key\"", path);
    let files = IdentityFiles { certificate: certificate?, key: key? };
    for wrong in pem::read_pair(&files.certificate, &files.key).err().into_iter().flatten() {
        let key = match wrong.holds {
            Holds::Certificates | Holds::Revocations => "certificate",
            Holds::Key => "key",
        };
        tls.report(key, wrong.into());
    }
    Some(files)
}

/// The port of the DNS is 53 where none is written.
fn resolver(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    let text = value::text(value)?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    let address = text.parse().or_else(|_| bare.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)));
    address.map_err(|_| {
        let help = "write the address of a DNS server, such as \"10.0.0.2:53\"";
        Wrong::new(format!("{} is not an IP address with a port", value::quoted(&text)), help)
    })
}

fn server_name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let name = value::text(value)?.to_ascii_lowercase();
    if rustls_pki_types::ServerName::try_from(name.as_str()).is_err() {
        let help = "write a host name or an IP address, without a port: \"chat.example.com\"";
        return Err(Wrong::new(format!("{} is no name that a certificate could be for", value::quoted(&name)), help));
    }
    Ok(name)
}

fn sources(table: &Table<'_>, servers: &[ServerConfig]) -> Vec<IpAddr> {
    let sources = table.list("source", source).unwrap_or_default();
    for (index, source) in sources.iter().enumerate() {
        if sources[..index].contains(source) {
            table.report("source", Wrong::new(format!("{source} is listed twice"), "list each address once"));
        }
    }
    for server in servers {
        let BackendAddress::Tcp { host, .. } = &server.address else { continue };
        let Ok(address) = host.parse::<IpAddr>() else { continue };
        if !sources.is_empty() && !sources.iter().any(|source| source.is_ipv4() == address.is_ipv4()) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("{address} cannot be reached from any of them, for none is an {family} one");
            table.report("source", Wrong::new(message, format!("add an {family} address of this machine")));
        }
    }
    sources
}

fn source(value: &DeValue<'_>) -> Result<IpAddr, Wrong> {
    let text = value::text(value)?;
    let wrong = |message: &str, help: &str| Wrong::new(format!("{} {message}", value::quoted(&text)), help);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    match bare.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            Err(wrong("stands for every address", "leave source out to have the kernel choose"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(wrong("is not an IP address", "write addresses of this machine, without a port: \"10.0.0.5\"")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::parse;
    use std::{fs, time::Duration};

    fn read_in(folder: &Path, servers: &str, more: &str) -> Result<DialConfig, String> {
        let text = format!(
            "listener = [{{ address = \"127.0.0.1:1\" }}]\nroute = [{{ upstream = \"u\" }}]\n[upstream.u]\nservers = [{servers}]\n{more}"
        );
        let config = parse("g", &text, folder).map_err(|errors| errors.to_string())?;
        Ok(config.upstreams.into_iter().next().unwrap().dials)
    }

    fn of(more: &str) -> Result<DialConfig, String> {
        read_in(Path::new(""), "\"wss://chat.internal\"", more)
    }

    #[test]
    fn silence_means_the_defaults() {
        assert_eq!(of(""), Ok(DialConfig::default()));
    }

    #[test]
    fn every_key_is_read() {
        let dials = of("source = [\"10.0.0.5\", \"[2001:db8::5]\"]\nmax_dials = 20\nretry_budget = 0.2\n\
                        retry_backoff = \"1s\"\ntls.server_name = \"Chat.example.com\"")
        .unwrap();
        assert_eq!(dials.sources, ["10.0.0.5".parse::<IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
        assert_eq!((dials.max_dials, dials.retry_budget), (Some(20), Some(0.2)));
        assert_eq!(
            (dials.retry_backoff, dials.server_name.as_deref()),
            (Duration::from_secs(1), Some("chat.example.com"))
        );
        let dns = of("resolve = \"one\"\nresolver = \"10.0.0.2\"").unwrap();
        assert_eq!((dns.resolve, dns.resolver), (Resolve::One, "10.0.0.2:53".parse().ok()));
        assert_eq!(of("resolver = \"[::1]:5353\"").unwrap().resolver, "[::1]:5353".parse().ok());
        let off = of("max_dials = \"off\"\nretry_budget = \"off\"\nretry_backoff = \"0s\"").unwrap();
        assert_eq!((off.max_dials, off.retry_budget, off.retry_backoff), (None, None, Duration::ZERO));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, said) in [
            ("source = \"10.0.0.5\"", "write [\"10.0.0.5\"]"),
            ("source = [\"10.0.0.5:80\"]", "without a port"),
            ("source = [\"0.0.0.0\"]", "leave source out"),
            ("source = [\"::1\", \"[::1]\"]", "listed twice"),
            ("max_dials = 0", "from 1 to"),
            ("retry_budget = -1", "from 0.0 to 10"),
            ("resolver = \"dns.internal\"", "such as \"10.0.0.2:53\""),
            ("resolve = \"some\"", "write \"all\" or \"one\""),
            ("tls.server_name = \"a b\"", "no name that a certificate"),
            ("tls.certificate = \"/none.pem\"", "upstream.u.tls.key: this key is missing"),
        ] {
            let told = of(text).unwrap_err();
            assert!(told.contains(said), "{text}: {told}");
        }
        let told = read_in(Path::new(""), "\"srv+ws://_c._tcp.h\"", "resolve = \"one\"").unwrap_err();
        assert!(told.contains("always backends of their own"), "{told}");
        let told = read_in(Path::new(""), "\"ws://[::1]:80\"", "source = [\"10.0.0.5\"]").unwrap_err();
        assert!(told.contains("none is an IPv6 one"), "{told}");
    }

    #[test]
    fn the_certificate_for_backends_is_checked_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
            fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        }
        let with = |key: &str| {
            let tls = format!("tls = {{ certificate = \"a.pem\", key = \"{key}\" }}");
            read_in(folder.path(), "\"wss://h\"", &tls)
        };
        assert_eq!(with("a.key").unwrap().identity.unwrap().certificate, folder.path().join("a.pem"));
        assert!(with("b.key").unwrap_err().contains("b.key is not the key of"));
    }
}
