//! `balance`, `hash` and `sticky` of an `[upstream.NAME]`: which backend a client goes to.
use super::{admin::read_token, file::Table, keys, problem::Wrong, value};
use crate::upstream::{BalanceKind, HashKey, SameSite, Secret, StickyConfig};
use std::path::Path;
use toml::de::DeValue;

const KEYS: &str = "write hash = \"address\", \"header:NAME\", \"cookie:NAME\", \"query:NAME\" or \"path:1\"";

/// The words of `balance`.
#[derive(Clone, Copy)]
enum Word {
    RoundRobin,
    LeastSessions,
    Random,
    Hash,
}

/// `None`: it has mistakes.
pub(super) fn read(table: &Table<'_>) -> Option<BalanceKind> {
    let words = &[
        ("least_sessions", Word::LeastSessions),
        ("round_robin", Word::RoundRobin),
        ("random", Word::Random),
        ("hash", Word::Hash),
    ];
    let key = table.read("hash", hash_key);
    let word = if table.has("balance") { table.read("balance", value::word(words))? } else { Word::LeastSessions };
    let kind = match word {
        Word::RoundRobin => BalanceKind::RoundRobin,
        Word::LeastSessions => BalanceKind::LeastSessions,
        Word::Random => BalanceKind::Random,
        Word::Hash => {
            table.must_have("hash", KEYS);
            return key.map(BalanceKind::Hash);
        }
    };
    if table.has("hash") {
        let help = "write balance = \"hash\", or remove hash";
        table.report("hash", Wrong::new("nothing goes by a hash here", help));
    }
    Some(kind)
}

fn hash_key(value: &DeValue<'_>) -> Result<HashKey, Wrong> {
    let text = value::text(value)?;
    let wrong = |what: String| Wrong::new(format!("{} {what}", value::quoted(&text)), KEYS);
    if text == "address" {
        return Ok(HashKey::Address);
    }
    let Some((kind, name)) = text.split_once(':') else {
        return Err(wrong("says not what to hash".into()));
    };
    match kind {
        "header" => name.parse().map(HashKey::Header).map_err(|_| wrong("names no header".into())),
        "cookie" if is_token(name) => Ok(HashKey::Cookie(name.to_owned())),
        "cookie" => Err(wrong("names no cookie".into())),
        "query" if name.is_empty() => Err(wrong("names no parameter".into())),
        "query" => Ok(HashKey::Query(name.to_owned())),
        "path" => {
            let number = name.parse().ok().filter(|number| (1..=100).contains(number));
            number
                .map(HashKey::Path)
                .ok_or_else(|| wrong("names no segment of the path, which are counted from 1".into()))
        }
        _ => Err(wrong("is nothing to hash by".into())),
    }
}

/// The outer `None`: it has mistakes.
pub(super) fn read_sticky(table: &Table<'_>, base: &Path) -> Option<Option<StickyConfig>> {
    if !table.has("sticky") {
        return Some(None);
    }
    let table = table.child("sticky", &keys::STICKY);
    let cookie = table.require("cookie", "write sticky = { cookie = \"pulsegate\" }", |value| {
        let name = value::text(value)?;
        let wrong =
            || Wrong::new(format!("{} is no name of a cookie", value::quoted(&name)), "write letters, digits, - and _");
        if is_token(&name) { Ok(name) } else { Err(wrong()) }
    });
    let mut path = "/".to_owned();
    table.set("path", &mut path, |value| {
        let path = value::text(value)?;
        let right = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        let wrong = || Wrong::new(format!("{} is no path", value::quoted(&path)), "write a path such as \"/chat\"");
        if right { Ok(path) } else { Err(wrong()) }
    });
    let mut max_age = None;
    table.set("max_age", &mut max_age, value::unless("off", value::duration));
    let mut same_site = SameSite::Lax;
    let words = &[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
    table.set("same_site", &mut same_site, value::word(words));
    let secret = table.read("secret_file", |value| {
        let file = base.join(value::text(value)?);
        let help = "write the name of a file with 16 characters or more, made by: openssl rand -hex 32";
        read_token(&file).map(Secret).map_err(|error| Wrong::new(error.to_string(), help))
    });
    if table.has("secret_file") && secret.is_none() {
        return None;
    }
    Some(Some(StickyConfig { cookie: cookie?, path, max_age, same_site, secret }))
}

/// RFC 9110 section 5.6.2, which RFC 6265 section 4.1.1 asks of a cookie's name.
fn is_token(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(letter)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        config::parse,
        upstream::{BackendAddress, Share, UpstreamConfig},
    };
    use std::{fs, time::Duration};

    fn read_in(folder: &Path, upstream: &str) -> Result<UpstreamConfig, String> {
        let text = format!(
            "listener = [{{ address = \"127.0.0.1:1\" }}]\nroute = [{{ upstream = \"u\" }}]\n[upstream.u]\n{upstream}"
        );
        parse("g", &text, folder).map(|mut config| config.upstreams.remove(0)).map_err(|errors| errors.to_string())
    }

    fn one(keys: &str) -> Result<UpstreamConfig, String> {
        read_in(Path::new(""), &format!("servers = [\"ws://h:1\"]\n{keys}"))
    }

    #[test]
    fn a_server_is_a_text_or_a_table() {
        let upstream = read_in(
            Path::new(""),
            "servers = [\"ws://h:1\", { url = \"ws://h:2\", weight = 3, max_sessions = 10 }, { url = \"ws://h:3\", backup = true, max_sessions = \"off\" }]",
        )
        .unwrap();
        let shares: Vec<Share> = upstream.servers.iter().map(|server| server.share).collect();
        let usual = Share::default();
        assert_eq!(
            shares,
            [usual, Share { weight: 3, max_sessions: Some(10), ..usual }, Share { backup: true, ..usual }]
        );
        assert!(matches!(&upstream.servers[2].address, BackendAddress::Tcp { port: 3, .. }));
    }

    #[test]
    fn every_key_of_a_hash_is_known() {
        for (key, kind) in [
            ("address", HashKey::Address),
            ("header:X-User", HashKey::Header("x-user".parse().unwrap())),
            ("cookie:sid", HashKey::Cookie("sid".into())),
            ("query:room", HashKey::Query("room".into())),
            ("path:2", HashKey::Path(2)),
        ] {
            let balance = one(&format!("balance = \"hash\"\nhash = \"{key}\"")).unwrap().balance;
            assert_eq!(balance, BalanceKind::Hash(kind));
        }
    }

    #[test]
    fn a_sticky_cookie_has_sound_defaults() {
        let sticky = one("sticky = { cookie = \"gate\" }").unwrap().sticky.unwrap();
        assert_eq!((sticky.path.as_str(), sticky.max_age, sticky.same_site), ("/", None, SameSite::Lax));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("key"), "0123456789abcdef\n").unwrap();
        let text = "servers = [\"ws://h:1\"]\nsticky = { cookie = \"gate\", path = \"/app\", max_age = \"1h\", same_site = \"none\", secret_file = \"key\" }";
        let sticky = read_in(folder.path(), text).unwrap().sticky.unwrap();
        assert_eq!(sticky.max_age, Some(Duration::from_secs(3600)));
        assert_eq!(sticky.secret, Some(Secret("0123456789abcdef".into())));
        assert_eq!(one("").unwrap().sticky, None);
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (keys, told) in [
            ("balance = \"hash\"", "g:3:1: upstream.u.hash: this key is missing; write hash = \"address\""),
            ("hash = \"address\"", "write balance = \"hash\", or remove hash"),
            ("balance = \"hash\"\nhash = \"ip\"", "\"ip\" says not what to hash; write hash = \"address\""),
            ("balance = \"hash\"\nhash = \"path:0\"", "counted from 1"),
            ("balance = \"hash\"\nhash = \"header:a b\"", "names no header"),
            ("balance = \"hash\"\nhash = \"body:1\"", "is nothing to hash by"),
            ("balance = \"ring\"", "\"random\" or \"hash\""),
            ("sticky = {}", "sticky.cookie: this key is missing"),
            ("sticky = { cookie = \"a b\" }", "is no name of a cookie"),
            ("sticky = { cookie = \"a\", path = \"x\" }", "write a path"),
            ("sticky = { cookie = \"a\", secret_file = \"none\" }", "openssl rand"),
        ] {
            let errors = one(keys).unwrap_err();
            assert!(errors.contains(told), "{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
        for (servers, told) in [
            ("[{ weight = 2 }]", "g:4:12: upstream.u.servers.url: this key is missing; write url"),
            ("[{ url = \"ws://h:1\", weight = 0 }]", "whole number from 1 to 1000"),
            ("[{ url = \"ws://h:1\", weigth = 1 }]", "did you mean weight?"),
            ("[{ url = \"ws://h:1\", backup = true }]", "every server is a backup"),
            ("[\"ws://h:1\", { url = \"ws://h:1\" }]", "listed twice"),
            ("\"ws://h:1\"", "write [\"ws://h:1\"]"),
        ] {
            let errors = read_in(Path::new(""), &format!("servers = {servers}")).unwrap_err();
            assert!(errors.contains(told), "{errors}");
        }
    }
}
