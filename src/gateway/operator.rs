//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use super::Gateway;
use crate::{
    handshake::admission::Admission,
    log::access::AccessLog,
    shutdown::{Control, DrainProgress, Tally},
    worker::Workers,
};
use std::sync::Arc;
use tokio::time::Instant;

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    control: Control,
    workers: Workers,
    access: Option<Arc<AccessLog>>,
    admission: Arc<Admission>,
    tally: Arc<Tally>,
}

impl Operator {
    pub(super) fn new(gateway: &Gateway) -> Self {
        Self {
            control: gateway.control.clone(),
            workers: gateway.reach.clone(),
            access: gateway.access.clone(),
            admission: Arc::clone(&gateway.admission),
            tally: Arc::clone(&gateway.tally),
        }
    }

    /// How the drain goes; `None` before it has begun.
    #[must_use]
    pub fn drain_progress(&self) -> Option<DrainProgress> {
        self.tally.progress(self.admission.sessions(), Instant::now())
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
}
