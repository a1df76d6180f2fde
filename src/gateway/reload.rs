//! Reloads: from the file or a configuration to what was changed, one at a time.
use super::{Changes, StartError, standing::Standing, watch::Watch};
use crate::{
    config::{self, Config, ConfigErrors},
    metrics::{Meters, ReloadResult},
    shutdown::{Control, Phase},
    upgrade::Lineage,
};
use std::{
    error::Error,
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::{runtime::Builder, sync::oneshot};

/// How often, and at which distance, a certificate that does not fit its key is looked at again before that is an error.
const TRIES: u32 = 15;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new configuration is wrong: all its mistakes, a line for each.
    #[error("{0}")]
    Configuration(Box<dyn Error + Send + Sync>),
    /// What it asks for cannot be had: a certificate, an address.
    #[error(transparent)]
    Unavailable(#[from] StartError),
    #[error("this gateway was given no file to reload")]
    NoFile,
    #[error("the gateway drains, and takes over nothing new")]
    Draining,
    #[error("an upgrade is under way: the new process reads the file")]
    Upgrading,
    #[error("the gateway has ended")]
    Ended,
    #[error("cannot start the reload: {0}")]
    System(#[from] io::Error),
}

impl ReloadError {
    /// Whether only certificates, keys, authorities or users are wrong, which may be half replaced.
    fn is_of_certificates(&self) -> bool {
        match self {
            Self::Configuration(error) => error.downcast_ref::<ConfigErrors>().is_some_and(of_certificates),
            Self::Unavailable(StartError::Tls(_) | StartError::Upstream(_)) => true,
            Self::Unavailable(
                StartError::Bind(_) | StartError::NoUpstream { .. } | StartError::AccessLog(_) | StartError::Worker(_),
            )
            | Self::NoFile
            | Self::Draining
            | Self::Upgrading
            | Self::Ended
            | Self::System(_) => false,
        }
    }
}

fn of_certificates(errors: &ConfigErrors) -> bool {
    errors.problems.iter().all(|problem| {
        let key = problem.key.as_str();
        [".tls.ca", ".access.forward.ca", ".access.basic.file"].iter().any(|file| key.ends_with(file))
            || (key.starts_with("listener.tls.") || key.starts_with("upstream.") && key.contains(".tls."))
                && [".key", ".certificate", ".ca", ".crl"].iter().any(|file| key.ends_with(file))
    })
}

/// How many reloads there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Those that found the configuration good, changed or not.
    pub good: u64,
    /// Those that changed nothing because something was wrong.
    pub bad: u64,
}

/// Changes what is read before it is used, as arguments do that stand above the file.
pub(super) type Adjust = Box<dyn Fn(&mut Config) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// The file of a gateway.
struct Source {
    file: PathBuf,
    adjust: Adjust,
}

impl Source {
    fn load(&self) -> Result<Config, ReloadError> {
        let mut config = config::load(&self.file).map_err(|errors| ReloadError::Configuration(Box::new(errors)))?;
        (self.adjust)(&mut config).map_err(ReloadError::Configuration)?;
        Ok(config)
    }
}

/// Reloads one gateway.
pub(super) struct Reloader {
    standing: Mutex<Standing>,
    source: Mutex<Option<Source>>,
    watch: Mutex<Option<Watch>>,
    control: Control,
    lineage: Lineage,
    meters: Arc<Meters>,
    good: AtomicU64,
    bad: AtomicU64,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("reloads", &self.reloads()).finish_non_exhaustive()
    }
}

impl Reloader {
    pub(super) fn new(standing: Standing, control: Control, lineage: Lineage) -> Arc<Self> {
        let (source, watch) = (Mutex::default(), Mutex::default());
        let (good, bad) = (AtomicU64::new(0), AtomicU64::new(0));
        let meters = Arc::clone(&standing.meters);
        Arc::new(Self { standing: Mutex::new(standing), source, watch, control, lineage, meters, good, bad })
    }

    pub(super) fn standing(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }

    pub(super) fn reloads(&self) -> Reloads {
        Reloads { good: self.good.load(Relaxed), bad: self.bad.load(Relaxed) }
    }

    /// From now on this is its file, watched if it says so.
    pub(super) fn follow(self: &Arc<Self>, file: PathBuf, adjust: Adjust) {
        *lock(&self.source) = Some(Source { file, adjust });
        self.watch_files();
    }

    /// Reloads on a thread of its own, so that whoever asks waits for no file.
    pub(super) async fn reload(self: Arc<Self>, new: Option<Config>) -> Result<Changes, ReloadError> {
        let (answer, answered) = oneshot::channel();
        let reload = move || {
            let result = self.attempt(new);
            self.tell(&result);
            // Whoever asked may have gone.
            let _ = answer.send(result);
        };
        thread::Builder::new().name("reload".into()).spawn(reload)?;
        answered.await.unwrap_or(Err(ReloadError::Ended))
    }

    /// Reloads the file, and once more for a while if a certificate does not fit its key: it may be half replaced.
    pub(super) fn insist(reloader: &Weak<Self>) {
        for tries in 1..=TRIES {
            let Some(this) = reloader.upgrade() else { return };
            let result = this.attempt(None);
            match &result {
                Err(error) if error.is_of_certificates() && tries < TRIES => {
                    if tries == 1 {
                        tracing::warn!("files are being replaced, it seems, and read again soon: {error}");
                    }
                }
                Ok(_) | Err(_) => return this.tell(&result),
            }
            drop(this);
            thread::sleep(BETWEEN_TRIES);
        }
    }

    fn attempt(self: &Arc<Self>, new: Option<Config>) -> Result<Changes, ReloadError> {
        // One at a time, from the file to the last worker.
        let mut standing = self.standing();
        if self.control.phase() != Phase::Serving {
            return Err(ReloadError::Draining);
        }
        if self.lineage.under_way() {
            return Err(ReloadError::Upgrading);
        }
        let supervisor = self.lineage.supervisor();
        supervisor.reloading();
        let changes = self.change(&mut standing, new);
        supervisor.ready("serving");
        let changes = changes?;
        drop(standing);
        self.watch_files();
        Ok(changes)
    }

    fn change(&self, standing: &mut Standing, new: Option<Config>) -> Result<Changes, ReloadError> {
        let new = match new {
            Some(config) => config,
            None => lock(&self.source).as_ref().ok_or(ReloadError::NoFile)?.load()?,
        };
        Ok(Builder::new_current_thread().build()?.block_on(Box::pin(standing.change(new)))?)
    }

    fn tell(&self, result: &Result<Changes, ReloadError>) {
        let count = if result.is_ok() { &self.good } else { &self.bad };
        count.fetch_add(1, Relaxed);
        self.meters.reloaded(match result {
            Ok(changes) if changes.is_empty() => ReloadResult::Unchanged,
            Ok(_) => ReloadResult::Applied,
            Err(_) => ReloadResult::Refused,
        });
        match result {
            Ok(changes) => tracing::info!("reloaded: {changes}"),
            Err(ReloadError::Configuration(errors)) => {
                for mistake in errors.to_string().lines() {
                    tracing::error!("not reloaded, nothing is changed: {mistake}");
                }
            }
            Err(error) => tracing::error!("not reloaded, nothing is changed: {error}"),
        }
    }

    /// Watches what the configuration names now, or nothing if it is not to.
    fn watch_files(self: &Arc<Self>) {
        let (wanted, mut files) = {
            let standing = self.standing();
            (standing.config.gateway.watch, standing.files())
        };
        let mut watch = lock(&self.watch);
        let Some(file) = lock(&self.source).as_ref().map(|source| source.file.clone()).filter(|_| wanted) else {
            *watch = None;
            return;
        };
        files.insert(0, file);
        if let Some(watch) = &*watch {
            watch.files(files);
            return;
        }
        let reloader = Arc::downgrade(self);
        match Watch::start(files, move || Self::insist(&reloader)) {
            Ok(started) => *watch = Some(started),
            Err(error) => tracing::error!(%error, "gateway.watch: files cannot be watched; reload by SIGHUP instead"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
