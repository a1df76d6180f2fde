//! Which service is asked: an address as an operator has it at hand.
use crate::upstream::BackendAddress;
use http::{Uri, uri::PathAndQuery};
use std::{fmt, str::FromStr};

/// A WebSocket service: `ws://`, `wss://`, or `unix:PATH` with `:` and a request path if it is not `/`. `http://` and `https://`
/// stand for the first two, as in a browser's `new WebSocket`.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub(super) address: BackendAddress,
    /// Path and query of the request.
    pub(super) asked: PathAndQuery,
}

/// Why a text names no service, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct TargetError {
    message: String,
    help: String,
}

const FORM: &str = "write ws://HOST[:PORT]/PATH, wss://HOST[:PORT]/PATH or unix:SOCKET[:/PATH]";

fn wrong(message: impl Into<String>, help: impl Into<String>) -> TargetError {
    TargetError { message: message.into(), help: help.into() }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix(rest);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let local = ["localhost", "127.", "[::1]"].iter().any(|start| text.starts_with(start));
            let scheme = if local { "ws" } else { "wss" };
            return Err(wrong(format!("`{text}` has no scheme"), format!("write {scheme}://{text}")));
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(wrong(format!("`{scheme}` is no scheme of WebSocket services"), FORM)),
        };
        // The fragment stays with who asks (RFC 6455 section 3).
        let rest = rest.split('#').next().unwrap_or_default();
        let uri: Uri = format!("ws://{rest}").parse().map_err(|error| wrong(format!("`{text}`: {error}"), FORM))?;
        let authority = uri.authority().ok_or_else(|| wrong(format!("`{text}` has no host"), FORM))?;
        if authority.as_str().contains('@') {
            let help = "give it as a header: -H \"Authorization: Basic …\"";
            return Err(wrong("a user or password in the address is not sent", help));
        }
        let host = authority.host().to_ascii_lowercase();
        if rustls_pki_types::ServerName::try_from(host.trim_matches(['[', ']'])).is_err() {
            return Err(wrong(format!("`{host}` is not a host"), FORM));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => Some(digits),
            Some(_) | None => None,
        };
        let port = match port.map(str::parse::<u16>) {
            None => 80 + 363 * u16::from(tls),
            Some(Ok(port)) if port > 0 => port,
            Some(Ok(_) | Err(_)) => return Err(wrong(format!("`{authority}` has no valid port"), FORM)),
        };
        // Its text has the slash that stands before a query alone, its value has not.
        let asked = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let asked = asked.parse().map_err(|error| wrong(format!("`{text}`: {error}"), FORM))?;
        let address = BackendAddress::Tcp { tls, host, port, path: "/".to_owned() };
        Ok(Self { address, asked })
    }
}

fn unix(rest: &str) -> Result<Target, TargetError> {
    let (socket, asked) = match rest.rsplit_once(":/") {
        Some((socket, path)) if !socket.is_empty() => (socket, format!("/{path}")),
        Some(_) | None => (rest, "/".to_owned()),
    };
    let socket = socket.strip_prefix("//").unwrap_or(socket);
    if socket.is_empty() {
        return Err(wrong("the path of the socket is missing", FORM));
    }
    let asked = asked.parse().map_err(|error| wrong(format!("`{asked}` is no path to ask for: {error}"), FORM))?;
    Ok(Target { address: BackendAddress::Unix(socket.into()), asked })
}

impl Target {
    /// Whether it is asked over TLS.
    pub(super) fn tls(&self) -> bool {
        match &self.address {
            BackendAddress::Tcp { tls, .. } | BackendAddress::Service { tls, .. } => *tls,
            BackendAddress::Unix(_) | BackendAddress::Echo => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, asked) = (self.address.to_string(), self.asked.as_str());
        match &self.address {
            BackendAddress::Unix(_) if asked != "/" => write!(f, "{address}:{asked}"),
            BackendAddress::Service { .. } | BackendAddress::Unix(_) | BackendAddress::Echo => f.write_str(&address),
            BackendAddress::Tcp { .. } => write!(f, "{}{asked}", address.trim_end_matches('/')),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn services_are_named_as_browsers_and_gateway_toml_name_them() {
        let shown = |text: &str| text.parse::<Target>().unwrap().to_string();
        assert_eq!(shown("wss://Chat.Example/socket?room=1#top"), "wss://chat.example/socket?room=1");
        assert_eq!(shown("https://chat.example"), "wss://chat.example/");
        assert_eq!(shown("http://127.0.0.1:8000/a"), "ws://127.0.0.1:8000/a");
        assert_eq!(shown("ws://[::1]:81?x"), "ws://[::1]:81/?x");
        assert_eq!(shown("unix:/run/chat.sock"), "unix:/run/chat.sock");
        assert_eq!(shown("unix:///run/chat.sock:/a?b"), "unix:/run/chat.sock:/a?b");
    }

    #[test]
    fn what_names_no_service_is_told_how_to_be_right() {
        for (text, help) in [
            ("localhost:8000", "write ws://localhost:8000"),
            ("chat.example/a", "write wss://chat.example/a"),
            ("ftp://chat.example", "wss://HOST"),
            ("ws://", "ws://HOST"),
            ("ws://a:0/", "ws://HOST"),
            ("ws://a:99999/", "ws://HOST"),
            ("ws://u:p@a/", "-H \"Authorization"),
            ("unix:", "unix:SOCKET"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(help), "{text}: {error}");
        }
    }
}
