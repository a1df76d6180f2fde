//! What may be asked of a running gateway from any thread: by signals, by the admin listener, by programs that embed one.
use super::{Changes, ReloadError, Reloads, reload::Reloader};
use crate::{config::Config, shutdown::Control, worker::Workers};
use std::{
    io,
    sync::{Arc, Weak},
    thread,
};

/// A hold on a running gateway; cheap to clone. It keeps nothing alive: once the gateway has ended, nobody answers.
#[derive(Clone, Debug)]
pub struct Operator {
    control: Control,
    workers: Workers,
    reloader: Weak<Reloader>,
}

impl Operator {
    pub(super) fn new(control: Control, workers: Workers, reloader: &Arc<Reloader>) -> Self {
        Self { control, workers, reloader: Arc::downgrade(reloader) }
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
