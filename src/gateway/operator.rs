//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use crate::{
    metrics::{Meters, text::Format},
    shutdown::{Control, Phase},
    worker::Workers,
};
use std::sync::Arc;

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    control: Control,
    workers: Workers,
    meters: Arc<Meters>,
}

impl Operator {
    pub(super) fn new(control: Control, workers: Workers, meters: Arc<Meters>) -> Self {
        Self { control, workers, meters }
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
}
