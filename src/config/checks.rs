//! `[upstream.NAME.check]`: how backends are asked whether they are well.
use super::{file::Table, keys, problem::Wrong, value};
use crate::upstream::{CheckConfig, CheckKind};
use http::HeaderValue;
use toml::de::DeValue;

/// The outer `None`: it has mistakes.
pub(super) fn read(table: &Table<'_>) -> Option<Option<CheckConfig>> {
    if !table.has("check") {
        return Some(None);
    }
    let table = table.child("check", &keys::CHECK);
    let words = &[("tcp", CheckKind::Tcp), ("http", CheckKind::Http), ("websocket", CheckKind::WebSocket)];
    let kind = table.require("kind", "write kind = \"tcp\", \"http\" or \"websocket\"", value::word(words));
    let mut check = CheckConfig::new(kind?);
    table.set("interval", &mut check.interval, value::duration);
    table.set("timeout", &mut check.timeout, value::duration);
    table.set("path", &mut check.path, path);
    table.set("host", &mut check.host, |value| host(value).map(Some));
    let number = |value: &DeValue<'_>| value::count(value, 1, 100).map(|count| u32::try_from(count).unwrap_or(1));
    table.set("rise", &mut check.rise, number);
    table.set("fall", &mut check.fall, number);
    for key in ["path", "host"] {
        if check.kind == CheckKind::Tcp && table.has(key) {
            let help = format!("write kind = \"http\" or \"websocket\", or remove {key}");
            table.report(key, Wrong::new("a check of TCP asks for nothing", help));
        }
    }
    Some(Some(check))
}

fn path(value: &DeValue<'_>) -> Result<String, Wrong> {
    let path = value::text(value)?;
    let right = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok() && !path.contains('#');
    let wrong = || Wrong::new(format!("{} is no path", value::quoted(&path)), "write a path such as \"/healthz\"");
    if right { Ok(path) } else { Err(wrong()) }
}

fn host(value: &DeValue<'_>) -> Result<HeaderValue, Wrong> {
    let host = value::text(value)?;
    let authority = host.parse::<http::uri::Authority>().ok().filter(|_| !host.contains('@'));
    let header = authority.and_then(|_| HeaderValue::from_str(&host).ok());
    header.ok_or_else(|| {
        Wrong::new(format!("{} is no host", value::quoted(&host)), "write a name such as \"chat.internal\"")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::parse;
    use std::{path::Path, time::Duration};

    fn one(check: &str) -> Result<Option<CheckConfig>, String> {
        let text = format!(
            "listener = [{{ address = \"127.0.0.1:1\" }}]\nroute = [{{ upstream = \"u\" }}]\n\
             [upstream.u]\nservers = [\"ws://h:1\"]\n{check}"
        );
        let config = parse("g", &text, Path::new("")).map_err(|errors| errors.to_string())?;
        Ok(config.upstreams[0].check.clone())
    }

    #[test]
    fn there_is_none_unless_it_is_set() {
        assert_eq!(one("").unwrap(), None);
        assert_eq!(one("check = { kind = \"tcp\" }").unwrap(), Some(CheckConfig::new(CheckKind::Tcp)));
        let all = "[upstream.u.check]\nkind = \"http\"\ninterval = \"2s\"\ntimeout = \"1s\"\npath = \"/up?x=1\"\n\
                   host = \"chat.internal:81\"\nrise = 1\nfall = 5";
        let check = one(all).unwrap().unwrap();
        let secs = Duration::from_secs;
        assert_eq!((check.kind, check.interval, check.timeout), (CheckKind::Http, secs(2), secs(1)));
        assert_eq!((check.path.as_str(), check.rise, check.fall), ("/up?x=1", 1, 5));
        assert_eq!(check.host.unwrap(), "chat.internal:81");
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (check, told) in [
            ("check = {}", "check.kind: this key is missing; write kind = "),
            ("check.kind = \"ping\"", "write \"tcp\", \"http\" or \"websocket\""),
            ("check = { kind = \"tcp\", path = \"/\" }", "remove path"),
            ("check = { kind = \"http\", path = \"up\" }", "write a path such as"),
            ("check = { kind = \"http\", host = \"a b\" }", "is no host"),
            ("check = { kind = \"http\", fall = 0 }", "from 1 to 100"),
            ("check = { kind = \"http\", inter = \"1s\" }", "inter"),
        ] {
            let errors = one(check).unwrap_err();
            assert!(errors.contains(told) && errors.lines().count() == 1, "{errors}");
        }
    }
}
