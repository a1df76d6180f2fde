//! Where a configuration comes from: a file, or the arguments of `pulsegate try`.
use super::{
    Config, parse,
    problem::{ConfigErrors, Wrong},
};
use std::{
    io::{ErrorKind, Read},
    path::Path,
};

/// Reads a configuration file. Relative paths in it start at its folder.
///
/// # Errors
/// All mistakes in the file, or the one that it cannot be read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let text = read(path).map_err(|wrong| ConfigErrors::of_file(&name, wrong))?;
    parse(&name, &text, path.parent().unwrap_or(Path::new("")))
}

fn read(path: &Path) -> Result<String, Wrong> {
    const LARGEST: u64 = 16 << 20;
    let unreadable = |error: std::io::Error| {
        let help = if error.kind() == ErrorKind::NotFound {
            "name the file with --config FILE, or try without one: pulsegate try ws://127.0.0.1:8000"
        } else {
            "name a readable file with --config FILE"
        };
        Wrong::new(format!("the configuration cannot be read: {error}"), help)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Wrong::new("the configuration is larger than 16 MiB", "name a TOML file with --config FILE"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Wrong::new(format!("line {line} is not UTF-8"), "save the file as UTF-8")
    })
}

/// The six lines of `gateway.toml` that `pulsegate try URL --listen ADDRESS` stands for.
#[must_use]
pub fn try_text(url: &str, listen: &str) -> String {
    let (url, listen) = (escaped(url), escaped(listen));
    format!(
        r#"defaults.heartbeat.client = {{ ping_interval = "2s", ping_timeout = "2s" }}
defaults.heartbeat.upstream = {{ ping_interval = "2s", ping_timeout = "2s" }}
listener = [{{ address = "{listen}" }}]
route = [{{ name = "try", upstream = "try" }}]
[upstream.try]
servers = ["{url}"]
"#
    )
}

/// As it stands between the quotes of a basic string (TOML 1.0, "String").
fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |text, letter| match letter {
        '"' | '\\' => text + "\\" + letter.encode_utf8(&mut [0; 4]),
        control if control.is_control() => text + &format!("\\U{:08x}", u32::from(control)),
        letter => text + letter.encode_utf8(&mut [0; 4]),
    })
}

impl Config {
    /// The configuration of `pulsegate try`: one listener, one backend, 2 s pings and deadlines on both legs.
    ///
    /// # Errors
    /// If `url` is not the address of a backend, or `listen` not one to listen on.
    pub fn for_try(url: &str, listen: &str) -> Result<Self, ConfigErrors> {
        parse("pulsegate try", &try_text(url, listen), Path::new(""))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{listener::ListenAddress, upstream::BackendAddress};
    use std::time::Duration;

    #[test]
    fn a_missing_file_names_the_ways_out() {
        let told = load(Path::new("no/gateway.toml")).unwrap_err().to_string();
        assert!(told.starts_with("no/gateway.toml: the configuration cannot be read: "), "{told}");
        assert!(told.contains("--config") && told.contains("pulsegate try"), "{told}");
    }

    #[test]
    fn bytes_that_are_not_text_are_told_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, b"[log]\nlevel = \"\xff\"\n").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("line 2 is not UTF-8"));
    }

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, try_text("unix:b.sock", "unix:l.sock")).unwrap();
        let config = load(&path).unwrap();
        assert_eq!(config.listeners[0].address, ListenAddress::Unix(folder.path().join("l.sock")));
        assert_eq!(config.upstreams[0].servers, [BackendAddress::Unix(folder.path().join("b.sock")).into()]);
    }

    #[test]
    fn a_trial_is_six_lines_with_pings_every_two_seconds() {
        assert_eq!(try_text("ws://127.0.0.1:8000", "127.0.0.1:8080").lines().count(), 6);
        let config = Config::for_try("ws://127.0.0.1:8000", "127.0.0.1:8080").unwrap();
        let heartbeat = &config.routes[0].options.relay.heartbeat;
        for leg in [&heartbeat.downstream, &heartbeat.upstream] {
            assert_eq!(leg.ping_interval, Some(Duration::from_secs(2)));
            assert_eq!(leg.ping_timeout, Some(Duration::from_secs(2)));
        }
    }

    #[test]
    fn arguments_of_a_trial_cannot_break_its_text() {
        for odd in ["\"", "\\", "\n", "\"]\n[admin]", "\u{7f}\u{1}é"] {
            let errors = Config::for_try(odd, odd).unwrap_err();
            let keys: Vec<&str> = errors.problems.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(keys, ["listener.address", "upstream.try.servers"], "{errors}");
        }
    }
}
