//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use crate::{
    shutdown::Control,
    upgrade::{self, Lineage, Part, Successor, UpgradeError},
    worker::Workers,
};
use std::time::Duration;

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    control: Control,
    workers: Workers,
    lineage: Lineage,
    upgrade_timeout: Duration,
}

impl Operator {
    pub(super) fn new(control: Control, workers: Workers, lineage: Lineage, upgrade_timeout: Duration) -> Self {
        Self { control, workers, lineage, upgrade_timeout }
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

    /// To drain the gateway, or to cut it.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}
