//! SIGUSR2: the signal that asks for an upgrade.
use std::{io, thread};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// SIGUSR2 of this process. For `main`: programs that embed a gateway have signals of their own.
#[derive(Debug)]
pub struct Trigger {
    runtime: Runtime,
    signal: Signal,
}

impl Trigger {
    /// From now on the signal does not end the process.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let signal = {
            let _inside = runtime.enter();
            signal(SignalKind::user_defined2())?
        };
        Ok(Self { runtime, signal })
    }

    /// Has each signal try an upgrade, one after the other. The thread lives as long as the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn forward<U: Future>(self, upgrade: impl Fn() -> U + Send + 'static) -> io::Result<()> {
        let Self { runtime, mut signal } = self;
        let forward = move || {
            runtime.block_on(async {
                while signal.recv().await.is_some() {
                    upgrade().await;
                }
            });
        };
        thread::Builder::new().name("upgrades".into()).spawn(forward).map(drop)
    }
}
