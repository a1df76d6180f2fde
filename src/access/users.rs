//! Names and hashed passwords, from a file as `htpasswd` writes it.
use argon2::Argon2;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use std::{collections::HashMap, fmt, io::Read, path::Path, str::FromStr, sync::Arc};

/// The largest file that is read.
const LARGEST: u64 = 4 << 20;

/// Who may come in by name. Two with the same names and hashes are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Users {
    hashes: Arc<HashMap<String, Hash>>,
    /// The one that takes longest to check.
    dearest: Hash,
}

/// A password as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    kind: Kind,
    text: Box<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bcrypt,
    Argon2,
    ShaCrypt,
}

/// What is wrong with a file of users, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct UsersError {
    pub message: String,
    pub help: &'static str,
}

impl Users {
    /// Lines `NAME:HASH`, with empty ones and comments (`#`) between them.
    ///
    /// # Errors
    /// The first line that is wrong; what it holds is not told.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        let shown = path.display();
        let unreadable = |error: std::io::Error| UsersError {
            message: format!("{shown} cannot be read: {error}"),
            help: "name a readable file; relative paths start at the folder of the configuration file",
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > LARGEST {
            let message = format!("{shown} is larger than 4 MiB");
            return Err(UsersError { message, help: "so many users are better asked for by access.forward" });
        }
        Self::parse(&text)
            .map_err(|UsersError { message, help }| UsersError { message: format!("{shown}{message}"), help })
    }

    fn parse(text: &str) -> Result<Self, UsersError> {
        let mut hashes: HashMap<String, Hash> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str, help| UsersError { message: format!(", line {}: {what}", index + 1), help };
            let (name, hash) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| wrong("this is not NAME:HASH", "make the file with htpasswd -B -c FILE NAME"))?;
            let hash = Hash::read(hash).map_err(|what| wrong(what, "make it anew with htpasswd -B FILE NAME"))?;
            if hashes.insert(name.to_owned(), hash).is_some() {
                return Err(wrong("this name comes twice", "keep one line for each name"));
            }
        }
        let Some(dearest) = hashes.values().max_by_key(|hash| hash.price()).cloned() else {
            let message = " names no user".to_owned();
            return Err(UsersError { message, help: "add one with htpasswd -B FILE NAME" });
        };
        Ok(Self { hashes: Arc::new(hashes), dearest })
    }

    /// The hash to check a password against: of this user, or the dearest, so that a wrong name takes as long as a wrong
    /// password; and whether it is this user's.
    pub(super) fn hash(&self, name: &str) -> (&Hash, bool) {
        self.hashes.get(name).map_or((&self.dearest, false), |hash| (hash, true))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.hashes.len()
    }
}

/// Names and hashes are nobody's business.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Hash {
    fn read(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        let valid = |valid: bool| valid.then_some(()).ok_or("this hash is not whole");
        let kind = if ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| text.starts_with(prefix)) {
            valid(bcrypt::HashParts::from_str(text).is_ok()).map(|()| Kind::Bcrypt)
        } else if text.starts_with("$argon2") {
            valid(argon2::PasswordHash::new(text).is_ok()).map(|()| Kind::Argon2)
        } else if text.starts_with("$5$") || text.starts_with("$6$") {
            valid(sha_crypt::PasswordHash::new(text).is_ok()).map(|()| Kind::ShaCrypt)
        } else if text.starts_with("$apr1$") || text.starts_with("$1$") {
            Err("this is an MD5 hash, which is guessed too fast to be taken")
        } else if text.starts_with("{SHA}") || text.starts_with("{SSHA}") {
            Err("this is a SHA-1 hash, which is guessed too fast to be taken")
        } else {
            Err("this is no hash known here (bcrypt, argon2, sha256-crypt, sha512-crypt)")
        };
        kind.map(|kind| Self { kind, text: text.into() })
    }

    /// About how many microseconds it takes to check, on a machine of our days: enough to tell kinds and costs apart.
    fn price(&self) -> u64 {
        let number =
            |name: &str| self.text.split(['$', ',']).find_map(|part| part.strip_prefix(name)?.parse::<u64>().ok());
        match self.kind {
            Kind::Bcrypt => {
                50 << self.text.split('$').nth(2).and_then(|cost| cost.parse::<u32>().ok()).unwrap_or(0).min(31)
            }
            Kind::Argon2 => number("m=").unwrap_or(0).saturating_mul(number("t=").unwrap_or(1)),
            Kind::ShaCrypt => number("rounds=").unwrap_or(5000),
        }
    }

    /// Takes its time, as hashes of passwords do: not for a worker's thread.
    pub(super) fn fits(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2 => Argon2::default().verify_password(password, &*self.text).is_ok(),
            Kind::ShaCrypt => ShaCrypt::default().verify_password(password, &*self.text).is_ok(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// `secret`, as each program makes it.
    pub(in crate::access) const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    const SHA512: &str =
        "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.";
    const SHA256: &str = "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.";

    #[test]
    fn hashes_of_every_kind_are_checked() {
        let argon2 = sha_crypt::CustomizedPasswordHasher::hash_password_with_params(
            &Argon2::default(),
            b"secret",
            b"0123456789abcdef",
            argon2::Params::new(64, 1, 1, None).unwrap(),
        );
        let argon2: argon2::PasswordHash = argon2.unwrap();
        for text in [BCRYPT, SHA512, SHA256, &argon2.to_string(), &BCRYPT.replace("$2b$", "$2y$")] {
            let users = Users::parse(&format!("# users\n\nann:{text}\n")).unwrap();
            let (hash, known) = users.hash("ann");
            assert!(known && hash.fits(b"secret") && !hash.fits(b"Secret") && !hash.fits(b""), "{text}");
            assert!(!users.hash("bob").1);
        }
    }

    #[test]
    fn an_unknown_name_takes_as_long_as_the_dearest_hash() {
        let bcrypt = |cost: &str| BCRYPT.replace("$04$", &format!("${cost}$"));
        let argon2 = |params: &str| format!("$argon2id$v=19${params}$MDEyMzQ1Njc4OWFiY2RlZg$AAAAAAAAAAAAAAAAAAAAAA");
        let sha = |rounds: &str| SHA256.replace("$5$", &format!("$5${rounds}"));
        let ascending = [
            bcrypt("04"),
            sha("rounds=1000$"),
            SHA512.to_owned(),
            bcrypt("10"),
            argon2("m=19456,t=4,p=1"),
            argon2("m=65536,t=3,p=4"),
            bcrypt("12"),
            sha("rounds=900000$"),
        ];
        for many in 1..=ascending.len() {
            let lines: String =
                ascending[..many].iter().enumerate().map(|(i, hash)| format!("u{i}:{hash}\n")).collect();
            let users = Users::parse(&lines).unwrap();
            assert!(users.hash("nobody").0 == users.hash(&format!("u{}", many - 1)).0, "{lines}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_without_what_it_holds() {
        for (text, expected) in [
            ("\nann\n", ", line 2: this is not NAME:HASH"),
            (":x", ", line 1: this is not NAME:HASH"),
            ("ann:secret", ", line 1: this is no hash known here"),
            ("ann:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/", ", line 1: this is an MD5 hash"),
            ("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", ", line 1: this is a SHA-1 hash"),
            ("ann:$2y$05$tooshort", ", line 1: this hash is not whole"),
            (&format!("ann:{BCRYPT}\nann:{BCRYPT}"), ", line 2: this name comes twice"),
            ("# nobody", " names no user"),
        ] {
            let error = Users::parse(text).unwrap_err();
            assert!(error.message.starts_with(expected), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn neither_names_nor_hashes_are_shown() {
        let users = Users::parse(&format!("ann:{BCRYPT}")).unwrap();
        assert_eq!(format!("{users:?}"), "Users { count: 1, .. }");
    }
}
