//! `[admin]`: where operators reach the gateway, and the token of those who may change something.
use super::{AdminConfig, address, file::Table, keys, problem::Wrong, value};
use crate::listener::ListenerConfig;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};
use toml::de::DeValue;

/// A shorter token could be guessed.
const SHORTEST_TOKEN: usize = 16;
/// A longer one is not what was meant.
const LONGEST_TOKEN: usize = 1024;

pub(super) fn read(root: &Table<'_>, base: &Path, listeners: &[ListenerConfig]) -> Option<AdminConfig> {
    if !root.has("admin") {
        return None;
    }
    let table = root.child("admin", &keys::ADMIN);
    let address = table.require("address", "write address = \"127.0.0.1:9464\"", |value| {
        address::listen_address(&value::text(value)?, base)
    });
    let token_file = table.read("token_file", |value: &DeValue<'_>| {
        let path = base.join(value::text(value)?);
        read_token(&path).map(|_| path).map_err(Wrong::from)
    });
    let hosts = table.list("hosts", |value| address::admin_host(&value::text(value)?)).unwrap_or_default();
    let admin = AdminConfig { address: address?, token_file, hosts };
    let any_port = admin.address.is_any_port();
    if !any_port && listeners.iter().any(|listener| listener.address == admin.address) {
        let help = "give [admin] an address of its own, which clients need not reach";
        table.report("address", Wrong::new("a [[listener]] has the same address", help));
    }
    if !admin.is_local() && !table.has("token_file") {
        let message = format!("{} can be reached from other machines, and there is no token_file", admin.address);
        let help = "write token_file = \"admin.token\" (the file may be made with `openssl rand -hex 32 > admin.token`), or an \
                    address of this machine alone: \"127.0.0.1:9464\", \"unix:run/admin.sock\"";
        table.report("address", Wrong::new(message, help));
    }
    Some(admin)
}

/// Why a file holds no token.
#[derive(Debug)]
pub struct TokenError {
    file: PathBuf,
    wrong: WrongToken,
}

#[derive(Debug)]
enum WrongToken {
    Unreadable(io::Error),
    Length(usize),
    Letters,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.wrong {
            WrongToken::Unreadable(error) => write!(f, "{file} cannot be read: {error}"),
            WrongToken::Length(length) => write!(f, "{file} holds a token of {length} bytes"),
            WrongToken::Letters => write!(f, "{file} holds more than a token of visible ASCII characters"),
        }
    }
}

impl std::error::Error for TokenError {}

impl From<TokenError> for Wrong {
    fn from(error: TokenError) -> Self {
        let help = format!(
            "put a token of {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters into it, alone on one line: openssl rand -hex 32"
        );
        Self::new(error.to_string(), help)
    }
}

/// The token in a file, without the white space around it.
///
/// # Errors
/// When the file cannot be read, or holds no token.
pub fn read_token(file: &Path) -> Result<String, TokenError> {
    let wrong = |wrong| TokenError { file: file.to_owned(), wrong };
    let text = fs::read_to_string(file).map_err(|error| wrong(WrongToken::Unreadable(error)))?;
    let token = text.trim();
    if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&token.len()) {
        return Err(wrong(WrongToken::Length(token.len())));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(WrongToken::Letters));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{
        config::{Config, ConfigErrors, parse},
        listener::ListenAddress,
    };
    use std::{fs, path::Path};

    fn read(admin: &str, folder: &Path) -> Result<Config, ConfigErrors> {
        let text = format!(
            "{admin}\n[[listener]]\naddress = \"127.0.0.1:8080\"\nhealth = \"/-/ready\"\n[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nservers = [\"builtin:echo\"]\n"
        );
        parse("g", &text, folder)
    }

    #[test]
    fn there_is_none_unless_it_is_set() {
        let config = read("", Path::new("")).unwrap();
        assert_eq!(config.admin, None);
        assert_eq!(config.listeners[0].health.as_deref(), Some("/-/ready"));
    }

    #[test]
    fn loopback_and_unix_sockets_need_no_token() {
        for (address, local) in [("127.0.0.1:9464", true), ("[::1]:9464", true), ("unix:run/admin.sock", true)] {
            let admin = read(&format!("admin.address = \"{address}\""), Path::new("conf")).unwrap().admin.unwrap();
            assert_eq!((admin.is_local(), admin.token_file), (local, None), "{address}");
        }
        let hosts = "admin = { address = \"127.0.0.1:0\", hosts = [\"Ops.example\", \"10.0.0.7\"] }";
        assert_eq!(read(hosts, Path::new("")).unwrap().admin.unwrap().hosts, ["ops.example", "10.0.0.7"]);
    }

    #[test]
    fn other_addresses_need_a_token_and_are_told_how_to_make_one() {
        let told = read("admin.address = \"0.0.0.0:9464\"", Path::new("")).unwrap_err().to_string();
        assert!(
            told.starts_with("g:1:") && told.contains("admin.address: ") && told.contains("openssl rand"),
            "{told}"
        );
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("good"), "0123456789abcdef0123456789abcdef\n").unwrap();
        fs::write(folder.path().join("short"), "secret\n").unwrap();
        fs::write(folder.path().join("two"), "0123456789abcdef 0123456789abcdef\n").unwrap();
        let with = |file: &str| {
            read(&format!("admin = {{ address = \"0.0.0.0:9464\", token_file = \"{file}\" }}"), folder.path())
        };
        let admin = with("good").unwrap().admin.unwrap();
        assert_eq!(admin.address, ListenAddress::Tcp("0.0.0.0:9464".parse().unwrap()));
        for (file, what) in [("short", "6 bytes"), ("two", "more than a token"), ("none", "cannot be read")] {
            let told = with(file).unwrap_err().to_string();
            assert!(told.contains("admin.token_file: ") && told.contains(what), "{told}");
            assert!(!told.contains("no token_file"), "one mistake, told once: {told}");
        }
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        for (admin, help) in [
            ("admin = {}", "127.0.0.1:9464"),
            ("admin.address = \"9464\"", "0.0.0.0:9464"),
            ("admin.address = \"127.0.0.1:8080\"", "an address of its own"),
            ("admin = { address = \"127.0.0.1:0\", hosts = [\"*.example.com\"] }", "whole name"),
            ("admin = { address = \"127.0.0.1:0\", token = \"x\" }", "token_file"),
        ] {
            let told = read(admin, Path::new("")).unwrap_err().to_string();
            assert!(told.contains(help), "{told}");
        }
    }
}
