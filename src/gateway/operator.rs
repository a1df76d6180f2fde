//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use crate::{shutdown::Control, worker::Workers};

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    control: Control,
    workers: Workers,
}

impl Operator {
    pub(super) fn new(control: Control, workers: Workers) -> Self {
        Self { control, workers }
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
