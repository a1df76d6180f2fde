//! Addresses of `gateway.toml`: listeners, backends, hosts, paths, origins, networks.
use super::{problem::Wrong, value::quoted};
use crate::{access::canonical, listener::ListenAddress, route::HostPattern, upstream::BackendAddress};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

/// Reads a listening address: `IP:PORT`, `[IPv6]:PORT` or `unix:PATH` (relative to `base`).
///
/// # Errors
/// Says what is wrong with the text and what would be right.
pub fn listen_address(text: &str, base: &Path) -> Result<ListenAddress, Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path, base).map(ListenAddress::Unix);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress::Tcp(address));
    }
    let message = format!("{} is not an address to listen on", quoted(text));
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest.trim_end_matches('/'));
    let port = bare.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let help = match (bare.rsplit_once(':'), port) {
        (Some(("localhost", _)), Some(port)) => format!("write \"127.0.0.1:{port}\""),
        (None | Some(("" | "*", _)), Some(port)) => format!("write \"0.0.0.0:{port}\" or \"[::]:{port}\""),
        _ if bare.parse::<SocketAddr>().is_ok() => format!("write {}", quoted(bare)),
        _ if bare.parse::<Ipv6Addr>().is_ok() => format!("write \"[{bare}]:8080\""),
        _ if bare.parse::<IpAddr>().is_ok() => format!("write \"{bare}:8080\""),
        _ => "write an IP address with a port, such as \"0.0.0.0:443\", or \"unix:PATH\"".into(),
    };
    Err(Wrong::new(message, help))
}

/// The path of a Unix socket, which the kernel bounds (`sun_path`, unix(7)).
fn unix_path(path: &str, base: &Path) -> Result<PathBuf, Wrong> {
    const LONGEST: usize = 107;
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path.contains('\0') {
        return Err(Wrong::new("the path of the socket is missing", "write \"unix:run/pulsegate.sock\""));
    }
    let joined = base.join(path);
    if joined.as_os_str().len() > LONGEST {
        let message = format!("the path of the socket, {}, is too long", quoted(&joined.to_string_lossy()));
        return Err(Wrong::new(message, format!("Unix sockets have paths of at most {LONGEST} bytes")));
    }
    Ok(joined)
}

/// The address of a backend: `ws://`, `wss://`, `unix:PATH` or `builtin:echo`.
pub(super) fn backend(text: &str, base: &Path) -> Result<BackendAddress, Wrong> {
    const FORM: &str = "write ws://HOST:PORT, wss://HOST:PORT, unix:PATH or builtin:echo";
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path, base).map(BackendAddress::Unix);
    }
    if text == "builtin:echo" {
        return Ok(BackendAddress::Echo);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let help = if text.starts_with("builtin:") { "the only one built in is \"builtin:echo\"" } else { FORM };
        return Err(Wrong::new(format!("{} is not the address of a backend", quoted(text)), help));
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "ws" => false,
        "wss" => true,
        "srv+ws" => return service(rest, false),
        "srv+wss" => return service(rest, true),
        "http" | "tcp" => return Err(wrong_scheme(scheme, &format!("ws://{rest}"))),
        "https" | "tls" => return Err(wrong_scheme(scheme, &format!("wss://{rest}"))),
        _ => return Err(Wrong::new(format!("{} is not a scheme of backends", quoted(scheme)), FORM)),
    };
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err(Wrong::new("a backend's address cannot carry a user or password", FORM));
    }
    let (host, port) = host_and_port(authority, tls)?;
    if path.contains(['?', '#']) {
        let help = "leave out what follows the path: the client's own query crosses to the backend";
        return Err(Wrong::new(format!("{} has a query or a fragment", quoted(text)), help));
    }
    Ok(BackendAddress::Tcp { tls, host, port, path: prefix(if path.is_empty() { "/" } else { path })? })
}

/// A name with SRV records: `_SERVICE._tcp.DOMAIN`, and a path.
fn service(rest: &str, tls: bool) -> Result<BackendAddress, Wrong> {
    let (name, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    let labelled = name.splitn(3, '.').take(2).filter(|label| label.len() > 1 && label.starts_with('_')).count() == 2;
    let domain = name.splitn(3, '.').nth(2).unwrap_or_default();
    if !labelled || rustls_pki_types::DnsName::try_from(domain).is_err() {
        let help = "write srv+ws://_SERVICE._tcp.DOMAIN, without a port: SRV records tell the ports";
        return Err(Wrong::new(format!("{} is not the name of a service", quoted(name)), help));
    }
    let path = prefix(if path.is_empty() { "/" } else { path })?;
    Ok(BackendAddress::Service { tls, name: name.to_ascii_lowercase(), path })
}

fn wrong_scheme(scheme: &str, right: &str) -> Wrong {
    Wrong::new(format!("{} is not a scheme of backends", quoted(scheme)), format!("write {}", quoted(right)))
}

fn host_and_port(authority: &str, tls: bool) -> Result<(String, u16), Wrong> {
    let wrong = |message: String| Wrong::new(message, "write HOST:PORT, such as 10.0.0.1:8000 or [::1]:8000");
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| wrong("the bracket is not closed".into()))?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(wrong(format!("{} is not an IPv6 address", quoted(host))));
            }
            (host, port)
        }
        None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => {
            if tls {
                443
            } else {
                80
            }
        }
        None => return Err(wrong(format!("{} is not a port", quoted(port)))),
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => port,
            Ok(_) | Err(_) => return Err(wrong(format!("{} is not a port", quoted(digits)))),
        },
    };
    if rustls_pki_types::ServerName::try_from(host).is_err() {
        return Err(wrong(format!("{} is not a host", quoted(host))));
    }
    Ok((host.to_ascii_lowercase(), port))
}

/// A path prefix: starts with `/`, ends without one, and is one that a request's path can match.
pub(super) fn prefix(path: &str) -> Result<String, Wrong> {
    if !path.starts_with('/') {
        let right = format!("/{}", path.trim_end_matches('*').trim_end_matches('/'));
        return Err(Wrong::new("a path starts with /", format!("write {}", quoted(&right))));
    }
    let wrong = |message: &str, help: &str| Err(Wrong::new(format!("{} {message}", quoted(path)), help));
    if path.contains(['?', '#']) {
        return wrong("has a query or a fragment", "write the path alone");
    }
    if path.contains(['*', '{']) {
        return wrong("is a pattern", "write a prefix: \"/chat\" serves /chat and all below it");
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2f") || lower.contains("%5c") || lower.contains('\\') {
        return wrong(
            "has an encoded slash or a backslash",
            "requests with such paths are refused; write plain slashes",
        );
    }
    if lower.replace("%2e", ".").split('/').any(|segment| segment == "." || segment == "..") {
        return wrong("has a dot segment", "requests with such paths are refused; write the path they stand for");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>`^|}".contains(&byte)) {
        return wrong("has characters that paths carry encoded", "percent-encode them, as in \"/caf%C3%A9\"");
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

/// Which hosts a route serves: a name, `*.` and a name, or an address.
pub(super) fn host(text: &str) -> Result<HostPattern, Wrong> {
    let wrong = |message: &str, help: String| Err(Wrong::new(format!("{} {message}", quoted(text)), help));
    let lower = text.to_ascii_lowercase();
    if lower == "*" {
        return wrong("stands for any host", "leave host out to serve any".into());
    }
    if lower.contains("://") || lower.contains('/') {
        return wrong(
            "is not a host",
            "write the name alone, such as \"chat.example.com\"; the path has its own key".into(),
        );
    }
    if !lower.is_ascii() {
        return wrong("is not a host as it is on the wire", "write its ASCII form, which starts with xn--".into());
    }
    if let Some(name) = lower.strip_prefix("*.") {
        return if is_name(name) {
            Ok(HostPattern::Wildcard(format!(".{name}")))
        } else {
            wrong("is not a wildcard", "write \"*.example.com\"".into())
        };
    }
    let address = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = address.unwrap_or(&lower).parse::<Ipv6Addr>() {
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    if let Some((name, port)) = lower.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        return wrong("has a port", format!("write {}: routes serve every listener", quoted(name)));
    }
    if is_name(&lower) {
        return Ok(HostPattern::Exact(lower));
    }
    wrong("is not a host", "write a name such as \"chat.example.com\" or \"*.example.com\"".into())
}

/// A host by which a browser may reach the admin listener: a name or an address, without a port.
pub(super) fn admin_host(text: &str) -> Result<String, Wrong> {
    match host(text)? {
        HostPattern::Exact(name) => Ok(name),
        HostPattern::Wildcard(_) | HostPattern::Any => {
            Err(Wrong::new(format!("{} is a pattern", quoted(text)), "list each host by its whole name"))
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.ends_with('.') && !name.contains('*') && rustls_pki_types::ServerName::try_from(name).is_ok()
}

/// An origin as browsers send it: lower case, without a default port (RFC 6454 section 6.1).
pub(super) fn origin(text: &str) -> Result<String, Wrong> {
    const FORM: &str = "write \"https://example.com\", with a port if it is not the usual one, or \"null\"";
    let wrong = |message: &str, help: String| Err(Wrong::new(format!("{} {message}", quoted(text)), help));
    let lower = text.to_ascii_lowercase();
    if lower == "null" {
        return Ok(lower);
    }
    if lower.contains('*') {
        return wrong("is a pattern", "list each origin, or leave origins out to allow all".into());
    }
    let Some((scheme, rest)) = lower.split_once("://") else {
        return wrong("has no scheme", format!("write {}", quoted(&format!("https://{lower}"))));
    };
    if scheme == "ws" || scheme == "wss" {
        let page = if scheme == "ws" { "http" } else { "https" };
        return wrong("is not the origin of a page", format!("write {}", quoted(&format!("{page}://{rest}"))));
    }
    if let Some((authority, _)) = rest.split_once('/') {
        return wrong("has a path", format!("write {}", quoted(&format!("{scheme}://{authority}"))));
    }
    let scheme_valid = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let visible = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\"\\".contains(&byte));
    if !scheme_valid || !visible || rest.is_empty() {
        return wrong("is not an origin", FORM.into());
    }
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return Ok(lower),
    };
    if host_and_port(rest, true).is_err() {
        return wrong("is not an origin", FORM.into());
    }
    Ok(format!("{scheme}://{}", rest.strip_suffix(usual).unwrap_or(rest)))
}

/// A network in CIDR form, or a single address.
///
/// # Errors
/// Says what is wrong with the text and what would be right.
pub fn network(text: &str) -> Result<IpNet, Wrong> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map(canonical).map_err(|_| {
        let help = "write a network such as \"10.0.0.0/8\" or an address such as \"::1\"";
        Wrong::new(format!("{} is not a network", quoted(text)), help)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The help in the mistake of each text.
    fn helps<T: std::fmt::Debug>(read: impl Fn(&str) -> Result<T, Wrong>, texts: &[(&str, &str)]) {
        for (text, help) in texts {
            let wrong = read(text).unwrap_err();
            assert!(wrong.help.contains(help), "{text}: {wrong}");
        }
    }

    #[test]
    fn listening_addresses_are_told_how_to_be_right() {
        let read = |text: &str| listen_address(text, Path::new(""));
        assert_eq!(read("[::]:443"), Ok(ListenAddress::Tcp("[::]:443".parse().unwrap())));
        let wrong = [
            ("8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("*:8080", "0.0.0.0:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("http://10.0.0.1:80/", "\"10.0.0.1:80\""),
            ("10.0.0.1", "10.0.0.1:8080"),
            ("::1", "[::1]:8080"),
            ("", "0.0.0.0:443"),
            ("unix:", "unix:run"),
        ];
        helps(read, &wrong);
        helps(read, &[(&format!("unix:{}", "x".repeat(108)), "107 bytes")]);
    }

    #[test]
    fn backends_are_told_how_to_be_right() {
        let read = |text: &str| backend(text, Path::new(""));
        assert_eq!(read("unix:///run/a"), Ok(BackendAddress::Unix("/run/a".into())));
        let wrong = [
            ("https://h/x", "wss://h/x"),
            ("10.0.0.1:80", "ws://HOST:PORT"),
            ("builtin:ecko", "builtin:echo"),
            ("ws://", "HOST:PORT"),
            ("ws://:80", "HOST:PORT"),
            ("ws://h:", "HOST:PORT"),
            ("ws://h:0", "HOST:PORT"),
            ("ws://h:+1", "HOST:PORT"),
            ("ws://[::1", "HOST:PORT"),
            ("ws://[::1]80", "HOST:PORT"),
            ("ws://::1:80", "HOST:PORT"),
            ("ws://a b:80", "HOST:PORT"),
            ("ws://u:p@h", "ws://HOST:PORT"),
            ("ws://h/#a", "leave out"),
            ("ws://h/../a", "stand for"),
        ];
        helps(read, &wrong);
    }

    #[test]
    fn paths_are_those_that_requests_can_have() {
        assert_eq!(prefix("/a/b//"), Ok("/a/b".into()));
        assert_eq!(prefix("/caf%C3%A9"), Ok("/caf%C3%A9".into()));
        let wrong = [
            ("a/*", "\"/a\""),
            ("/a?b", "path alone"),
            ("/a/*", "prefix"),
            ("/a%2Fb", "plain slashes"),
            ("/a/%2e./b", "stand for"),
            ("/é", "percent-encode"),
        ];
        helps(prefix, &wrong);
    }

    #[test]
    fn hosts_are_names_wildcards_or_addresses() {
        assert_eq!(host("A.Example"), Ok(HostPattern::Exact("a.example".into())));
        assert_eq!(host("*.a.example"), Ok(HostPattern::Wildcard(".a.example".into())));
        assert_eq!(host("0::1"), Ok(HostPattern::Exact("[::1]".into())));
        assert_eq!(host("10.0.0.1"), Ok(HostPattern::Exact("10.0.0.1".into())));
        let wrong = [
            ("*", "leave host out"),
            ("https://a.example/", "name alone"),
            ("a.example:80", "\"a.example\""),
            ("bücher.example", "xn--"),
            ("*.*.example", "*.example.com"),
            ("a*.example", "*.example.com"),
            ("a.example.", "chat.example.com"),
            ("", "chat.example.com"),
        ];
        helps(host, &wrong);
    }

    #[test]
    fn origins_are_as_browsers_send_them() {
        assert_eq!(origin("HTTP://A.example:80"), Ok("http://a.example".into()));
        assert_eq!(origin("https://a.example:8443"), Ok("https://a.example:8443".into()));
        assert_eq!(origin("chrome-extension://abc"), Ok("chrome-extension://abc".into()));
        let wrong = [
            ("a.example", "https://a.example"),
            ("https://a.example/", "\"https://a.example\""),
            ("wss://a.example", "https://a.example"),
            ("https://*.example", "list each"),
            ("https://", "https://example.com"),
            ("https://a.example:x", "https://example.com"),
        ];
        helps(origin, &wrong);
    }

    #[test]
    fn networks_are_blocks_or_addresses() {
        assert_eq!(network("fd00::/8").unwrap().prefix_len(), 8);
        assert_eq!(network("10.0.0.1").unwrap().prefix_len(), 32);
        helps(network, &[("10.0.0.0/33", "10.0.0.0/8"), ("private", "10.0.0.0/8")]);
    }
}
