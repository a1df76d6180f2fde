//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use super::{Changes, ReloadError, Reloads, reload::Reloader};
use crate::{
    config::Config,
    handshake::admission::Admission,
    log::access::AccessLog,
    metrics::{Meters, text::Format},
    shutdown::{Control, DrainProgress, Phase, Tally},
    upgrade::{self, Lineage, Part, Successor, UpgradeError},
    worker::Workers,
};
use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    pub(super) control: Control,
    pub(super) workers: Workers,
    pub(super) meters: Arc<Meters>,
    pub(super) access: Option<Arc<AccessLog>>,
    pub(super) admission: Arc<Admission>,
    pub(super) tally: Arc<Tally>,
    pub(super) lineage: Lineage,
    pub(super) upgrade_timeout: Duration,
    pub(super) reloader: Weak<Reloader>,
}

impl Operator {
    /// How the drain goes; `None` before it has begun.
    #[must_use]
    pub fn drain_progress(&self) -> Option<DrainProgress> {
        self.tally.progress(self.admission.sessions(), Instant::now())
    }

    /// Which generation of a row of upgrades this process is, and which earlier ones still drain.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Starts this program anew, as its file is now, hands the listening sockets to the new process, and drains this one once that
    /// is ready. Answers when it is decided.
    ///
    /// # Errors
    /// When the new process does not come to serve; this one serves as before then.
    pub async fn upgrade(&self) -> Result<Successor, UpgradeError> {
        let (lineage, control, workers) = (self.lineage.clone(), self.control.clone(), self.workers.clone());
        upgrade::upgrade(Part { lineage, control, workers, within: self.upgrade_timeout }).await
    }

    /// Sessions that are open now, on all workers.
    pub async fn open_sessions(&self) -> usize {
        self.workers.ask(|worker| async move { worker.open_sessions() }).await.iter().sum()
    }

    /// All figures as they are now, as `docs/metrics.md` lists them. No worker is asked or held up.
    #[must_use]
    pub fn metrics(&self, format: Format) -> String {
        self.meters.text(format, self.control.phase() != Phase::Serving)
    }

    /// The counters behind them, for what changes a running gateway: it shows there what is configured now, and how that went.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// To drain the gateway, or to cut it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Opens the access log anew, after its file has been moved away. Answers whether there is one.
    pub fn reopen_logs(&self) -> bool {
        if let Some(access) = &self.access {
            access.reopen();
        }
        self.access.is_some()
    }

    /// Records that the access log lost, since its disk was too slow or full.
    #[must_use]
    pub fn access_log_lost(&self) -> u64 {
        self.access.as_ref().map_or(0, |access| access.lost())
    }

    /// Reads the file of [`Gateway::follow`](super::Gateway::follow) again, whole, and has every worker do what has changed
    /// in it. What was changed is logged, and so is every mistake.
    ///
    /// # Errors
    /// The file has mistakes, or asks for what cannot be had. Nothing is changed then.
    pub async fn reload(&self) -> Result<Changes, ReloadError> {
        self.reloader.upgrade().ok_or(ReloadError::Ended)?.reload(None).await
    }

    /// The same with a configuration instead of the file.
    ///
    /// # Errors
    /// It asks for what cannot be had. Nothing is changed then.
    pub async fn reload_to(&self, config: Config) -> Result<Changes, ReloadError> {
        self.reloader.upgrade().ok_or(ReloadError::Ended)?.reload(Some(config)).await
    }

    /// Reloads the file and waits for nothing. A certificate that does not fit its key is read again for a while, since it
    /// may be half replaced. For signals.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn reload_soon(&self) -> io::Result<()> {
        let reloader = Weak::clone(&self.reloader);
        thread::Builder::new().name("reload".into()).spawn(move || Reloader::insist(&reloader)).map(drop)
    }

    /// The reloads so far.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.reloader.upgrade().map(|reloader| reloader.reloads()).unwrap_or_default()
    }
}
