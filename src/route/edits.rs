//! What a route changes in the headers that cross: some are removed, set or added, with variables in their values.
use http::{HeaderName, HeaderValue};
use std::{borrow::Cow, sync::Arc};

/// Both directions of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// What the backend is asked.
    pub request: Edits,
    /// What the client is answered.
    pub response: Edits,
}

/// Removed is first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    pub remove: Vec<HeaderName>,
    /// In the place of all lines of that name; of none, if the value comes out empty.
    pub set: Vec<Line>,
    /// Beside the lines of that name.
    pub add: Vec<Line>,
    /// The names of all lines as `gateway.toml` spells them.
    pub spellings: Arc<[Box<str>]>,
}

impl Edits {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// A header line to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: HeaderName,
    pub spelling: Box<str>,
    pub value: Template,
}

/// A text with variables in it, such as `for={client_address}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What a template can tell. Where nothing is known, it is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    ClientAddress,
    /// As the client named us, port included.
    Host,
    Scheme,
    Route,
    SessionId,
    TlsVersion,
    TlsCipher,
    /// The server's name that the client asked for (SNI).
    TlsName,
    /// The client's certificate, as RFC 9440 writes it.
    ClientCert,
    ClientCertSubject,
    ClientCertIssuer,
    ClientCertSerial,
    /// SHA-256 in hex.
    ClientCertFingerprint,
    /// Its alternative names that are DNS names, addresses of mail, or URIs.
    ClientCertNames,
    VpcEndpoint,
}

impl Variable {
    pub const ALL: [Self; 15] = [
        Self::ClientAddress,
        Self::Host,
        Self::Scheme,
        Self::Route,
        Self::SessionId,
        Self::TlsVersion,
        Self::TlsCipher,
        Self::TlsName,
        Self::ClientCert,
        Self::ClientCertSubject,
        Self::ClientCertIssuer,
        Self::ClientCertSerial,
        Self::ClientCertFingerprint,
        Self::ClientCertNames,
        Self::VpcEndpoint,
    ];

    /// As it is written between braces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientAddress => "client_address",
            Self::Host => "host",
            Self::Scheme => "scheme",
            Self::Route => "route",
            Self::SessionId => "session_id",
            Self::TlsVersion => "tls_version",
            Self::TlsCipher => "tls_cipher",
            Self::TlsName => "tls_name",
            Self::ClientCert => "client_cert",
            Self::ClientCertSubject => "client_cert_subject",
            Self::ClientCertIssuer => "client_cert_issuer",
            Self::ClientCertSerial => "client_cert_serial",
            Self::ClientCertFingerprint => "client_cert_fingerprint",
            Self::ClientCertNames => "client_cert_names",
            Self::VpcEndpoint => "vpc_endpoint",
        }
    }
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// There is no variable of that name.
    Unknown(String),
    /// A brace without its other one.
    Unpaired,
}

impl Template {
    /// `{name}` is a variable, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// A variable is unknown, or a brace alone.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, behind) = rest[at..].split_at(1);
            if let Some(behind) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let (name, behind) = behind.split_once('}').filter(|_| brace == "{").ok_or(TemplateError::Unpaired)?;
            let known = Variable::ALL.into_iter().find(|variable| variable.name() == name);
            let variable = known.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Variable(variable));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self(parts))
    }

    /// The value, each variable as `tell` has it. What may not stand in a header becomes a question mark. `None`: it is empty.
    pub fn value<'a>(&self, tell: impl Fn(Variable) -> Cow<'a, str>) -> Option<HeaderValue> {
        let mut value = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => value.push_str(text),
                Part::Variable(variable) => value.push_str(&tell(*variable)),
            }
        }
        let value: String = value.chars().map(|one| if one.is_control() { '?' } else { one }).collect();
        HeaderValue::from_bytes(value.trim().as_bytes()).ok().filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value(template: &str, told: &'static str) -> Option<String> {
        let value = Template::parse(template).unwrap().value(|_| Cow::Borrowed(told))?;
        Some(String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn variables_stand_between_braces() {
        assert_eq!(value("for={client_address};by=me", "::1").as_deref(), Some("for=::1;by=me"));
        assert_eq!(value("{host}{host}", "a").as_deref(), Some("aa"));
        assert_eq!(value("{{host}} {{}}", "a").as_deref(), Some("{host} {}"));
        assert_eq!(value("{{{host}}}", "a").as_deref(), Some("{a}"));
        assert_eq!(value("plain", "a").as_deref(), Some("plain"));
        assert_eq!(value("{tls_name}", ""), None);
        assert_eq!(value("{client_cert_subject}", "CN=é\r\nX: y").as_deref(), Some("CN=é??X: y"));
    }

    #[test]
    fn what_is_no_template_is_called_so() {
        assert_eq!(Template::parse("{remote_addr}"), Err(TemplateError::Unknown("remote_addr".into())));
        assert_eq!(Template::parse("{}"), Err(TemplateError::Unknown(String::new())));
        for unpaired in ["{host", "a}", "{", "}", "{host}}"] {
            assert_eq!(Template::parse(unpaired), Err(TemplateError::Unpaired), "{unpaired}");
        }
    }
}
