//! Who may come in: `access` of a route and of `[defaults]`, and `[gateway] rates`.
use super::{
    address,
    file::Table,
    keys,
    problem::Wrong,
    value::{self, quoted},
};
use crate::{
    access::{
        AccessConfig, Addresses, Authorization, BasicConfig, ForwardConfig, Networks, Service, Users,
        rates::RatesConfig,
    },
    pem,
};
use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use std::{path::Path, sync::Arc, time::Duration};
use toml::de::DeValue;

/// Headers that the handshake itself writes.
const OURS: [&str; 8] = [
    "host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-real-ip",
    "x-request-id",
];

/// What `base` says, with those keys replaced that `table` has. Files are read, relative ones from `folder` on.
pub(super) fn read(table: &Table<'_>, base: &Arc<AccessConfig>, folder: &Path) -> Arc<AccessConfig> {
    let mut access = (**base).clone();
    let networks = |key: &str| {
        let list = table.list(key, |value| address::network(&value::text(value)?))?;
        Some(Networks::new(&list))
    };
    if let Some(allow) = networks("allow") {
        access.addresses.allow = allow;
    }
    if let Some(deny) = networks("deny") {
        access.addresses.deny = deny;
    }
    let empty = |value: &DeValue<'_>| Ok(value.as_array().is_some_and(|list| list.is_empty()));
    if table.read("allow", empty) == Some(true) {
        let help = "leave it out to let everyone, or list networks such as \"10.0.0.0/8\"";
        table.report("allow", Wrong::new("nobody could come in", help));
    }
    read_basic(&table.child("basic", &keys::BASIC), &mut access.basic, folder);
    read_forward(&table.child("forward", &keys::FORWARD), &mut access.forward, folder);
    one_word(table, &access);
    Arc::new(access)
}

fn read_basic(table: &Table<'_>, basic: &mut Option<BasicConfig>, folder: &Path) {
    let users = |value: &DeValue<'_>| {
        let file = folder.join(value::text(value)?);
        Users::read(&file).map(|users| (file, users)).map_err(|error| Wrong::new(error.message, error.help))
    };
    match table.read("file", value::unless("off", users)) {
        Some(Some((file, users))) => {
            let new = || BasicConfig {
                file: file.clone(),
                users: users.clone(),
                realm: HeaderValue::from_static("restricted"),
                user_header: None,
                authorization: Authorization::Remove,
            };
            *basic = Some(BasicConfig { file: file.clone(), users: users.clone(), ..basic.take().unwrap_or_else(new) });
        }
        Some(None) => *basic = None,
        None => {}
    }
    let (realm, header) = (table.read("realm", realm), table.read("user_header", header));
    let words = &[("remove", Authorization::Remove), ("pass", Authorization::Pass)];
    let authorization = table.read("authorization", value::word(words));
    match basic {
        Some(basic) => {
            basic.realm = realm.unwrap_or_else(|| basic.realm.clone());
            basic.user_header = header.or_else(|| basic.user_header.take());
            basic.authorization = authorization.unwrap_or(basic.authorization);
        }
        None if realm.is_some() || header.is_some() || authorization.is_some() => {
            table.must_have("file", "write file = \"users\", made with htpasswd -B -c users NAME");
        }
        None => {}
    }
}

/// Who a client is, only one of them may say.
fn one_word(table: &Table<'_>, access: &AccessConfig) {
    let (Some(basic), Some(forward)) = (&access.basic, &access.forward) else { return };
    let dashed = |name: &HeaderName| name.as_str().replace('_', "-");
    let Some(header) = &basic.user_header else { return };
    let twice = forward.copy_headers.iter().any(|copied| dashed(copied) == dashed(header));
    let key = ["basic", "forward"].into_iter().find(|key| table.has(key));
    if let (true, Some(key)) = (twice, key) {
        let message = format!("both basic.user_header and forward.copy_headers set {header}");
        table.report(key, Wrong::new(message, "take it out of one of them, or name another header"));
    }
}

fn read_forward(table: &Table<'_>, forward: &mut Option<ForwardConfig>, folder: &Path) {
    match table.read("url", value::unless("off", service)) {
        Some(Some(mut service)) => {
            let base = forward.take();
            // Whose certificates are believed is not a matter of the URL.
            let ca = base.as_ref().and_then(|base| base.service.ca.clone());
            service.ca = ca.filter(|_| service.tls);
            *forward = Some(match base {
                Some(base) => ForwardConfig { service, ..base },
                None => ForwardConfig { service, timeout: Duration::from_secs(5), copy_headers: Vec::new() },
            });
        }
        Some(None) => *forward = None,
        None => {}
    }
    let timeout = table.read("timeout", value::duration);
    let headers = table.list("copy_headers", header);
    let ca = table.read("ca", |value| {
        let path = folder.join(value::text(value)?);
        let read = pem::read_authorities(&path).and_then(|_| pem::read_chain(&path));
        read.map(|chain| (path, chain)).map_err(Wrong::from)
    });
    match forward {
        Some(forward) => {
            forward.timeout = timeout.unwrap_or(forward.timeout);
            forward.copy_headers = headers.unwrap_or_else(|| std::mem::take(&mut forward.copy_headers));
            if ca.is_some() && !forward.service.tls {
                let help = "write https:// for a service that speaks TLS, or remove ca";
                table.report("ca", Wrong::new("the service is asked without TLS", help));
            }
            forward.service.ca = ca.or_else(|| forward.service.ca.take());
        }
        None if timeout.is_some() || headers.is_some() || ca.is_some() => {
            table.must_have("url", "write url = \"http://HOST:PORT/PATH\"");
        }
        None => {}
    }
}

/// What browsers show, inside quotes.
fn realm(value: &DeValue<'_>) -> Result<HeaderValue, Wrong> {
    let text = value::text(value)?;
    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte));
    let wrong =
        || Wrong::new(format!("{} cannot stand in a header", quoted(&text)), "write plain letters without quotes");
    HeaderValue::from_str(&text).ok().filter(|_| plain).ok_or_else(wrong)
}

fn header(value: &DeValue<'_>) -> Result<HeaderName, Wrong> {
    let text = value::text(value)?;
    let Ok(name) = text.parse::<HeaderName>() else {
        return Err(Wrong::new(
            format!("{} is not the name of a header", quoted(&text)),
            "write one such as \"X-User\"",
        ));
    };
    if OURS.contains(&name.as_str()) || name.as_str().starts_with("sec-websocket-") {
        let message = format!("{} is written by the gateway itself", quoted(&text));
        return Err(Wrong::new(message, "choose another header, such as \"X-User\""));
    }
    Ok(name)
}

fn service(value: &DeValue<'_>) -> Result<Service, Wrong> {
    const FORM: &str = "write http://HOST:PORT/PATH or https://HOST:PORT/PATH";
    let text = value::text(value)?;
    let wrong = |what: &str| Wrong::new(format!("{} {what}", quoted(&text)), FORM);
    let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => return Err(wrong("is not the URL of an HTTP service")),
    };
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?.clone();
    if authority.as_str().contains('@') || text.contains('#') {
        return Err(wrong("has a user, a password or a fragment, which are not sent"));
    }
    let target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Ok(Service { tls, authority, target, ca: None })
}

pub(super) fn read_rates(gateway: &Table<'_>) -> RatesConfig {
    let table = gateway.child("rates", &keys::RATES);
    let mut rates = RatesConfig::default();
    let rate = || value::unless("off", value::rate);
    table.set("handshakes", &mut rates.handshakes, rate());
    table.set("handshakes_per_address", &mut rates.handshakes_per_address, rate());
    table.set("sessions", &mut rates.sessions, rate());
    table.set("sessions_per_address", &mut rates.sessions_per_address, rate());
    rates
}

/// What `check` tells of it; `None` if everyone may come in.
pub(super) fn told(access: &AccessConfig) -> Option<String> {
    let Addresses { allow, deny } = &access.addresses;
    let mut parts = Vec::new();
    match (access.addresses.admit_everyone(), deny.is_empty()) {
        (true, _) => {}
        (false, true) => parts.push(format!("from {allow}")),
        (false, false) => parts.push(format!("from {allow}, but not from {deny}")),
    }
    if let Some(basic) = &access.basic {
        let users = match basic.users.count() {
            1 => "1 user".to_owned(),
            users => format!("{users} users"),
        };
        parts.push(format!("with a password ({users} in {})", basic.file.display()));
    }
    if let Some(forward) = &access.forward {
        parts.push(format!("if {} says so", forward.service.url()));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, parse};
    use std::path::Path;

    const REST: &str = "listener = [{ address = \"127.0.0.1:1\" }]\nupstream.u.servers = [\"builtin:echo\"]\n";

    fn read(routes: &str) -> Result<Config, String> {
        parse("g", &format!("{REST}{routes}"), Path::new("")).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_route_replaces_the_lists_of_the_defaults_one_by_one() {
        let config = read(
            "[defaults]\naccess = { allow = [\"10.0.0.0/8\"], deny = [\"10.6.0.0/16\", \"10.7.0.1\"] }\n\
             [[route]]\nupstream = \"u\"\n[[route]]\npath = \"/b\"\nupstream = \"u\"\naccess.deny = []\n",
        )
        .unwrap();
        let told = |index: usize| super::told(&config.routes[index].options.access).unwrap();
        assert_eq!(told(0), "from 10.0.0.0/8, but not from 10.6.0.0/16, 10.7.0.1");
        assert_eq!(told(1), "from 10.0.0.0/8");
    }

    #[test]
    fn everyone_is_told_of_by_nothing() {
        let config = read("route = [{ upstream = \"u\", access.allow = [\"0.0.0.0/0\", \"::/0\"] }]").unwrap();
        assert_eq!(super::told(&config.routes[0].options.access), None);
        assert_eq!(*config.routes[0].options.access, *config.defaults.access);
    }

    #[test]
    fn lists_that_cannot_be_meant_are_mistakes() {
        for (access, expected) in [
            ("allow = []", "g:3:43: route.access.allow: nobody could come in; leave it out to let everyone"),
            ("allow = [\"10.0.0.300\"]", "route.access.allow: \"10.0.0.300\""),
            ("deny = \"10.0.0.1\"", "write [\"10.0.0.1\"]"),
            ("block = []", "known here: allow, deny, basic, forward"),
            ("basic.realm = \"chat\"", "route.access.basic.file: this key is missing"),
            ("basic.file = \"there/is/none\"", "there/is/none cannot be read"),
            ("forward.timeout = \"1s\"", "route.access.forward.url: this key is missing"),
            ("forward.url = \"auth:9000\"", "is not the URL of an HTTP service"),
            ("forward.url = \"http://a@auth/\"", "has a user"),
            ("forward = { url = \"http://auth/\", copy_headers = [\"Host\"] }", "is written by the gateway itself"),
            ("forward = { url = \"http://auth/\", copy_headers = [\"X User\"] }", "is not the name of a header"),
        ] {
            let mistakes = read(&format!("route = [{{ upstream = \"u\", access.{access} }}]")).unwrap_err();
            assert!(mistakes.contains(expected), "{access}: {mistakes}");
        }
    }

    #[test]
    fn passwords_and_services_merge_key_by_key_and_are_switched_off_by_a_route() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
        std::fs::write(folder.path().join("users"), format!("ann:{hash}\nbob:{hash}\n")).unwrap();
        let text = format!(
            "{REST}[defaults.access]\nbasic = {{ file = \"users\", user_header = \"X-User\" }}\n\
             forward = {{ url = \"http://127.0.0.1:9000/auth?a=b\", copy_headers = [\"X-Role\"] }}\n\
             [[route]]\nupstream = \"u\"\naccess = {{ basic.realm = \"chat\", forward.timeout = \"1s\" }}\n\
             [[route]]\npath = \"/b\"\nupstream = \"u\"\naccess = {{ basic.file = \"off\", forward.url = \"off\" }}\n"
        );
        let config = parse("g", &text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
        let access = &config.routes[0].options.access;
        let told = super::told(access).unwrap();
        let expected = format!("with a password (2 users in {}/users)", folder.path().display());
        assert_eq!(told, format!("{expected}; if http://127.0.0.1:9000/auth says so"), "a query may hold a secret");
        let (basic, forward) = (access.basic.as_ref().unwrap(), access.forward.as_ref().unwrap());
        assert_eq!((basic.realm.to_str().unwrap(), basic.user_header.as_ref().unwrap().as_str()), ("chat", "x-user"));
        assert_eq!((forward.timeout.as_secs(), forward.copy_headers[0].as_str()), (1, "x-role"));
        assert_eq!(*config.routes[1].options.access, Default::default());
        assert_eq!(access.files(), [folder.path().join("users")]);
    }

    #[test]
    fn only_one_of_them_says_who_a_client_is() {
        let folder = tempfile::tempdir().unwrap();
        let hash = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
        std::fs::write(folder.path().join("users"), format!("ann:{hash}\n")).unwrap();
        let told = |copied: &str| {
            let text = format!(
                "{REST}defaults.access.basic = {{ file = \"users\", user_header = \"X-User\" }}\n\
                 [[route]]\nupstream = \"u\"\n[[route]]\npath = \"/b\"\nupstream = \"u\"\n\
                 access.forward = {{ url = \"http://a/\", copy_headers = [\"{copied}\"] }}\n"
            );
            parse("g", &text, folder.path()).map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        assert_eq!(told("X-Role"), "");
        for copied in ["x-user", "X_User"] {
            let told = told(copied);
            assert!(told.starts_with("g:9:") && told.contains("set x-user; take it out of one"), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }

    #[test]
    fn a_route_with_another_service_keeps_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
        let text = format!(
            "{REST}defaults.access.forward = {{ url = \"https://a.test/\", ca = \"ca.pem\", timeout = \"1s\" }}\n\
             [[route]]\nupstream = \"u\"\naccess.forward.url = \"https://b.test/\"\n\
             [[route]]\npath = \"/plain\"\nupstream = \"u\"\naccess.forward.url = \"http://b.test/\"\n"
        );
        let config = parse("g", &text, folder.path()).unwrap_or_else(|errors| panic!("{errors}"));
        let forward = |index: usize| config.routes[index].options.access.forward.as_ref().unwrap();
        assert_eq!(forward(0).service.ca.as_ref().unwrap().0, folder.path().join("ca.pem"));
        assert_eq!((forward(0).service.authority.as_str(), forward(0).timeout.as_secs()), ("b.test", 1));
        assert_eq!(forward(1).service.ca, None);
    }

    #[test]
    fn rates_are_so_many_a_time_or_off() {
        let config = read(
            "gateway.rates = { handshakes = \"100/s\", sessions_per_address = \"30/m\", sessions = \"off\" }\n\
             route = [{ upstream = \"u\" }]",
        )
        .unwrap();
        let rates = config.gateway.rates;
        let text = |rate: Option<crate::pacing::Rate>| rate.map(|rate| rate.to_string());
        assert_eq!(text(rates.handshakes).as_deref(), Some("100/s"));
        assert_eq!(text(rates.sessions_per_address).as_deref(), Some("30/m"));
        assert_eq!((rates.sessions, rates.handshakes_per_address), (None, None));
        let mistakes = read("gateway.rates.handshakes = 100\nroute = [{ upstream = \"u\" }]").unwrap_err();
        assert!(mistakes.contains("gateway.rates.handshakes: 100 has no unit; write \"100/s\""), "{mistakes}");
    }
}
