//! Basic authentication (RFC 7617), without holding up a worker.
use super::{
    Granted,
    users::{Hash, Users},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::sync::Semaphore;

/// Passwords that may wait to be checked, of all routes. Each takes a quarter of a second or so, on another thread.
const WAITING: usize = 64;
/// How long one may take then: all that wait before it are hashed on one thread.
pub(super) const PATIENCE: Duration = Duration::from_secs(16);
/// Bytes of the longest password. Hashes of longer ones take time that grows faster than they do.
const LONGEST: usize = 1024;

/// `access.basic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicConfig {
    pub file: PathBuf,
    pub users: Users,
    /// What browsers name when they ask for the password.
    pub realm: HeaderValue,
    /// Tells the backend who it is.
    pub user_header: Option<HeaderName>,
    pub authorization: Authorization,
}

/// Whether the backend sees name and password too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    Remove,
    Pass,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotIn {
    /// No name and password, or wrong ones.
    Wrong,
    /// Too many wait to be checked.
    Busy,
}

impl BasicConfig {
    /// What a 401 asks for.
    #[must_use]
    pub fn challenge(&self) -> (HeaderName, HeaderValue) {
        let realm = self.realm.to_str().unwrap_or_default();
        let challenge = HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
        (WWW_AUTHENTICATE, challenge.unwrap_or_else(|_| HeaderValue::from_static("Basic")))
    }
}

/// Bounds how many passwords are hashed at a time, and how many wait for that.
#[derive(Debug)]
pub(super) struct Hashing {
    threads: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Hashing {
    fn new() -> Arc<Self> {
        let threads = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Arc::new(Self { threads: Arc::new(Semaphore::new(threads)), waiting: AtomicUsize::new(0) })
    }

    /// The one of this process: routes, and gateways, have its cores together.
    pub(super) fn of_the_process() -> Arc<Self> {
        static HASHING: LazyLock<Arc<Hashing>> = LazyLock::new(Hashing::new);
        Arc::clone(&HASHING)
    }
}

/// Checks passwords, a few at a time, and remembers which were right: clients come back with the same.
pub(super) struct Basic {
    config: BasicConfig,
    hashing: Arc<Hashing>,
    /// Digests of names and passwords that were right, at most one for each user; they die with the process.
    right: Mutex<HashMap<String, Digest>>,
    keys: [RandomState; 2],
}

type Digest = [u64; 2];

impl Basic {
    pub(super) fn new(config: BasicConfig, hashing: Arc<Hashing>) -> Self {
        let keys = [RandomState::new(), RandomState::new()];
        Self { config, hashing, right: Mutex::default(), keys }
    }

    pub(super) fn config(&self) -> &BasicConfig {
        &self.config
    }

    /// Whether the request names a user with the right password, and what the backend is told then.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Result<Granted, NotIn> {
        let (name, password) = credentials(headers).ok_or(NotIn::Wrong)?;
        let digest = self.digest(&name, &password);
        if !self.is_right(&name, &digest) {
            let (hash, known) = self.config.users.hash(&name);
            if !(self.fits(hash.clone(), password).await? && known) {
                return Err(NotIn::Wrong);
            }
            self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), digest);
        }
        let mut granted = Granted::default();
        if let Some(header) = &self.config.user_header {
            granted.set(header.clone(), HeaderValue::from_bytes(name.as_bytes()).ok());
        }
        match self.config.authorization {
            Authorization::Remove => granted.set(AUTHORIZATION, None),
            Authorization::Pass => {}
        }
        Ok(granted)
    }

    /// Whether the request names a user with a password that was right before.
    pub(super) fn remembers(&self, headers: &HeaderMap) -> bool {
        credentials(headers).is_some_and(|(name, password)| self.is_right(&name, &self.digest(&name, &password)))
    }

    /// Two keyed hashes: nobody outside can find another password with the same.
    fn digest(&self, name: &str, password: &[u8]) -> Digest {
        [self.keys[0].hash_one((name, password)), self.keys[1].hash_one((name, password))]
    }

    fn is_right(&self, name: &str, digest: &Digest) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(name) == Some(digest)
    }

    /// Hashes on another thread. One that has begun goes on there if the client leaves, and keeps its place meanwhile.
    async fn fits(&self, hash: Hash, password: Vec<u8>) -> Result<bool, NotIn> {
        let waiting = Waiting::enter(&self.hashing.waiting).ok_or(NotIn::Busy)?;
        let place = Arc::clone(&self.hashing.threads).acquire_owned().await.map_err(|_| NotIn::Busy)?;
        drop(waiting);
        let checked = tokio::task::spawn_blocking(move || {
            let fits = hash.fits(&password);
            drop(place);
            fits
        });
        checked.await.map_err(|_| NotIn::Busy)
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A place among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let before = waiting.fetch_add(1, Relaxed);
        let entered = Self(waiting);
        (before < WAITING).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Name and password of the one `Authorization` header.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (line, None) = (lines.next()?.to_str().ok()?, lines.next()) else { return None };
    let (scheme, coded) = line.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(coded.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    let password = &decoded[colon + 1..];
    (!name.chars().any(char::is_control) && password.len() <= LONGEST).then(|| (name, password.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::users::tests::BCRYPT, *};
    use std::io::Write;

    fn users() -> Users {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "ann:{BCRYPT}").unwrap();
        Users::read(file.path()).unwrap()
    }

    fn basic() -> Basic {
        sharing(&Hashing::new())
    }

    fn sharing(hashing: &Arc<Hashing>) -> Basic {
        let config = BasicConfig {
            file: "users".into(),
            users: users(),
            realm: HeaderValue::from_static("chat"),
            user_header: Some(HeaderName::from_static("x-user")),
            authorization: Authorization::Remove,
        };
        Basic::new(config, Arc::clone(hashing))
    }

    fn with(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, line.parse().unwrap());
        }
        headers
    }

    fn coded(text: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(text))
    }

    #[tokio::test]
    async fn the_right_password_lets_in_and_the_backend_learns_who_it_is() {
        let basic = basic();
        let mut headers = with(&[&coded("ann:secret")]);
        headers.insert("x-user", HeaderValue::from_static("root"));
        headers.insert("x_user", HeaderValue::from_static("root"));
        for _ in 0..2 {
            let mut told = headers.clone();
            basic.check(&headers).await.unwrap().apply(&mut told);
            assert_eq!(told.len(), 1);
            assert_eq!(told["x-user"], "ann");
        }
        assert_eq!(basic.right.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn anything_else_does_not() {
        let basic = basic();
        assert!(basic.check(&with(&[&coded("ann:secret")])).await.is_ok());
        let good = coded("ann:secret");
        for lines in [
            &[][..],
            &[&*coded("ann:Secret")],
            &[&*coded("ann:")],
            &[&*coded("bob:secret")],
            &[&*coded("annsecret")],
            &["Bearer secret"],
            &["Basic ann:secret"],
            &[&*good, &*good],
        ] {
            assert_eq!(basic.check(&with(lines)).await.err(), Some(NotIn::Wrong), "{lines:?}");
        }
    }

    #[tokio::test]
    async fn who_was_right_is_not_held_up_by_guesses() {
        let basic = basic();
        assert!(basic.check(&with(&[&coded("ann:secret")])).await.is_ok());
        basic.hashing.waiting.store(WAITING, Relaxed);
        assert_eq!(basic.check(&with(&[&coded("ann:guess")])).await.err(), Some(NotIn::Busy));
        assert!(basic.check(&with(&[&coded("ann:secret")])).await.is_ok());
        assert_eq!(basic.hashing.waiting.load(Relaxed), WAITING);
        assert!(basic.remembers(&with(&[&coded("ann:secret")])) && !basic.remembers(&with(&[&coded("ann:guess")])));
    }

    #[tokio::test]
    async fn routes_wait_for_the_same_threads() {
        let hashing = Hashing::new();
        let (one, other) = (sharing(&hashing), sharing(&hashing));
        one.hashing.waiting.store(WAITING, Relaxed);
        assert_eq!(other.check(&with(&[&coded("ann:secret")])).await.err(), Some(NotIn::Busy));
        assert!(Arc::ptr_eq(&Hashing::of_the_process(), &Hashing::of_the_process()));
    }

    #[tokio::test]
    async fn no_password_is_longer_than_a_kibibyte() {
        let basic = basic();
        let all: Vec<_> = (0..basic.hashing.threads.available_permits())
            .map(|_| Arc::clone(&basic.hashing.threads).try_acquire_owned().unwrap())
            .collect();
        let long = format!("ann:{}", "x".repeat(LONGEST + 1));
        // At once, though nothing can be hashed.
        assert_eq!(basic.check(&with(&[&coded(&long)])).await.err(), Some(NotIn::Wrong));
        drop(all);
        assert_eq!(basic.check(&with(&[&coded(&long[..long.len() - 1])])).await.err(), Some(NotIn::Wrong));
    }

    #[test]
    fn the_challenge_names_the_realm() {
        assert_eq!(basic().config().challenge().1, "Basic realm=\"chat\", charset=\"UTF-8\"");
    }
}
