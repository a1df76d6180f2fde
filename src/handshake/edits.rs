//! Changes headers that cross as a route says.
use super::{
    headers::{alike, retain},
    identity,
};
use crate::{
    listener::Peer,
    route::{Edits, RouteConfig, Variable},
    session::ClientAddress,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;

/// What variables are taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) peer: &'a Peer,
    pub(super) client: ClientAddress,
    /// As the client named us.
    pub(super) host: Option<&'a HeaderValue>,
    pub(super) id: Option<&'a HeaderValue>,
    pub(super) route: &'a RouteConfig,
}

/// Removes, sets and adds.
pub(super) fn edit(headers: &mut HeaderMap, edits: &Edits, known: &Known<'_>) {
    let tell = |variable| known.tell(variable);
    if edits.is_empty() {
        return;
    }
    let lines: Vec<_> = edits.set.iter().map(|line| (&line.name, line.value.value(tell))).collect();
    // One that is set stays in its place, but spelled otherwise it is another header only for some.
    let set = |name: &HeaderName| lines.iter().any(|(set, value)| *set == name && value.is_some());
    retain(headers, |name| set(name) || !edits.names(name));
    for (name, value) in lines {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    for line in &edits.add {
        if let Some(value) = line.value.value(tell) {
            headers.append(&line.name, value);
        }
    }
}

impl Edits {
    /// Whether a header is removed or set, or is what CGI-like backends take for such a one: a client must not be able to say
    /// with an underscore what it cannot say with a dash.
    pub(super) fn names(&self, name: &HeaderName) -> bool {
        let mut named = self.remove.iter().chain(self.set.iter().map(|line| &line.name));
        named.any(|named| alike(named.as_str(), name.as_str()))
    }
}

impl<'a> Known<'a> {
    fn tell(&self, variable: Variable) -> Cow<'a, str> {
        let facts = self.peer.tls_facts.as_deref();
        let certificate = || facts.and_then(|facts| facts.certificate.as_ref());
        let of = |tell: fn(&[u8]) -> Option<String>| certificate().and_then(|der| tell(der)).unwrap_or_default().into();
        match variable {
            Variable::ClientAddress => self.client.ip().map(|client| client.to_string()).unwrap_or_default().into(),
            Variable::Host => header_text(self.host),
            Variable::Scheme => if self.peer.tls { "https" } else { "http" }.into(),
            Variable::Route => self.route.name.as_str().into(),
            Variable::SessionId => header_text(self.id),
            Variable::TlsVersion => facts.map_or("", |facts| facts.version).into(),
            Variable::TlsCipher => facts.map_or("", |facts| facts.cipher).into(),
            Variable::TlsName => facts.and_then(|facts| facts.name.as_deref()).unwrap_or_default().into(),
            Variable::ClientCert => of(identity::structured),
            Variable::ClientCertSubject => of(identity::subject),
            Variable::ClientCertIssuer => of(identity::issuer),
            Variable::ClientCertSerial => of(identity::serial),
            Variable::ClientCertFingerprint => of(identity::fingerprint),
            Variable::ClientCertNames => of(identity::names),
            Variable::VpcEndpoint => self.peer.vpc_endpoint.as_deref().unwrap_or_default().into(),
        }
    }
}

fn header_text(value: Option<&HeaderValue>) -> Cow<'_, str> {
    value.map_or(Cow::Borrowed(""), |value| String::from_utf8_lossy(value.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::headers::tests::headers, *};
    use crate::route::{HostPattern, Line, Template, tests::route};

    fn line(name: &'static str, value: &str) -> Line {
        Line { name: HeaderName::from_static(name), spelling: name.into(), value: Template::parse(value).unwrap() }
    }

    #[test]
    fn lines_are_removed_set_and_added_in_their_places() {
        let mut map = headers(&[
            ("host", "gate.test"),
            ("x-user", "forged"),
            ("x_user", "forged"),
            ("x-user", "again"),
            ("cookie", "a=b"),
            ("server", "old"),
            ("x-empty", "1"),
            ("x_other", "stays"),
            ("x-old", "forged"),
        ]);
        let edits = Edits {
            remove: vec![HeaderName::from_static("server"), HeaderName::from_static("x_old")],
            set: vec![line("x-user", "{client_address} at {host} by {scheme}"), line("x-empty", "{tls_name}")],
            add: vec![line("cookie", "route={route}"), line("x-id", "{session_id}"), line("x-tls", "{tls_version}")],
            ..Edits::default()
        };
        let (peer, route) = (Peer::new(None, false), route(HostPattern::Any, "/chat"));
        let (host, id) = (HeaderValue::from_static("gate.test:80"), HeaderValue::from_static("7"));
        let client = ClientAddress::Ip("2001:db8::7".parse().unwrap());
        let known = Known { peer: &peer, client, host: Some(&host), id: Some(&id), route: &route };
        edit(&mut map, &edits, &known);
        let lines: Vec<_> = map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(
            lines,
            [
                "host: gate.test",
                "x-user: 2001:db8::7 at gate.test:80 by http",
                "cookie: a=b",
                "cookie: route=Any/chat",
                "x_other: stays",
                "x-id: 7",
            ]
        );
    }
}
