//! A worker gives its listening sockets to another process: copies of their descriptors first, and then the accepting.
use super::Worker;
use crate::listener::{ListenAddress, accept::Waiting};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};
use tokio::{sync::watch, time::Instant};

/// Whether a worker accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Serving,
    /// No longer, and what waits in the kernel is accepted first: nobody else would.
    Emptying,
    /// No longer: another process serves these addresses, on the same sockets. What waits at others is accepted first.
    Relieved {
        at: Instant,
        kept: Arc<[ListenAddress]>,
    },
}

/// A listening socket that another process may have, too.
#[derive(Debug)]
pub(crate) struct Offer {
    /// As it was configured.
    pub(crate) asked: ListenAddress,
    pub(crate) socket: OwnedFd,
    /// Whether the file of a Unix socket comes with it, to be removed at the end.
    pub(crate) owns_file: bool,
}

impl Offer {
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let Self { asked, socket, owns_file } = self;
        Ok(Self { asked: asked.clone(), socket: socket.try_clone()?, owns_file: *owns_file })
    }
}

impl Worker {
    /// Copies of the sockets on which it accepts.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn offers(&self) -> io::Result<Vec<Offer>> {
        let mut offers = Vec::new();
        self.listeners.for_each(|open| {
            if let Some(listener) = open.listener.upgrade() {
                let socket = listener.as_fd().try_clone_to_owned();
                let (asked, owns_file) = (open.asked.clone(), open.file.is_some());
                offers.push(socket.map(|socket| Offer { asked, socket, owns_file }));
            }
        });
        offers.into_iter().collect()
    }

    /// Accepts no more, since another process serves the `kept` addresses, and has the worker drain without a delay.
    pub(crate) fn relieve(&self, kept: Arc<[ListenAddress]>) {
        self.listeners.for_each(|open| {
            if let (true, Some(file)) = (kept.contains(&open.address), &open.file) {
                file.leave();
            }
        });
        self.stop.send_if_modified(|stop| match stop {
            Stop::Serving => {
                *stop = Stop::Relieved { at: Instant::now(), kept };
                true
            }
            Stop::Emptying | Stop::Relieved { .. } => false,
        });
    }

    /// When [`Worker::relieve`] was called; until then it waits.
    pub(super) async fn relieved(&self) -> Instant {
        let mut stop = self.stop.subscribe();
        loop {
            if let Stop::Relieved { at, .. } = &*stop.borrow_and_update() {
                return *at;
            }
            if stop.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Waits until the worker accepts no more at `address`, and answers what becomes of the connections that wait there.
pub(super) async fn stopped(mut stop: watch::Receiver<Stop>, address: ListenAddress) -> Waiting {
    match stop.wait_for(|stop| *stop != Stop::Serving).await.as_deref() {
        Ok(Stop::Relieved { kept, .. }) if kept.contains(&address) => Waiting::Left,
        // A gateway that is gone wants no more connections either.
        Ok(Stop::Serving | Stop::Emptying | Stop::Relieved { .. }) | Err(_) => Waiting::Accepted,
    }
}
