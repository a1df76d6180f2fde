//! One worker's listening sockets: opened, closed and given new certificates while it runs.
use super::{
    Worker,
    succession::{Stop, stopped},
};
use crate::{
    listener::{
        ListenAddress,
        accept::{Listener, Waiting, accept},
        bind::{ListenSocket, SocketFile},
        spread::Arrival,
    },
    transport::ServerConfigs,
};
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
};
use tokio::sync::watch;

/// A listener of the gateway. Numbers are not given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId(pub(crate) u64);

/// One worker's part of a listener.
pub(crate) struct Listening {
    pub(crate) id: ListenerId,
    pub(crate) socket: ListenSocket,
    /// As it was configured.
    pub(crate) asked: ListenAddress,
    /// As it is.
    pub(crate) address: ListenAddress,
    pub(crate) file: Option<Arc<SocketFile>>,
    pub(crate) tls: Option<ServerConfigs>,
    pub(crate) arrival: Arrival,
}

/// The sockets on which a worker accepts.
#[derive(Default)]
pub(super) struct Listeners {
    open: RefCell<Vec<Open>>,
}

/// A socket on which the worker accepts, as long as it does.
pub(super) struct Open {
    id: ListenerId,
    pub(super) listener: Weak<Listener>,
    pub(super) asked: ListenAddress,
    pub(super) address: ListenAddress,
    pub(super) file: Option<Arc<SocketFile>>,
    tls: Rc<RefCell<Option<ServerConfigs>>>,
    /// Its accept loop hears this, and lets go of it at its end.
    close: watch::Sender<bool>,
}

impl Listeners {
    /// Calls `each` for every one.
    pub(super) fn for_each(&self, each: impl FnMut(&Open)) {
        self.open.borrow().iter().for_each(each);
    }
}

impl Worker {
    /// Accepts on one socket until told to stop.
    pub(super) fn listen(self: &Rc<Self>, listening: Listening) {
        let Listening { id, socket, asked, address, file, tls, arrival } = listening;
        if *self.stop.borrow() != Stop::Serving {
            return;
        }
        let listener = match Listener::new(socket) {
            Ok(listener) => Rc::new(listener),
            Err(error) => {
                tracing::error!(%error, "a listening socket cannot be served; its worker serves the others");
                return;
            }
        };
        let (worker, slots) = (Rc::clone(self), Arc::clone(&self.slots));
        let tls = Rc::new(RefCell::new(tls));
        let (close, closed) = watch::channel(false);
        let stopped = stopped(self.stop.subscribe(), address.clone());
        let stop = async move {
            tokio::select! {
                waiting = stopped => waiting,
                () = until(closed) => Waiting::Accepted,
            }
        };
        let open = Open { id, listener: Rc::downgrade(&listener), asked, address, file, tls: Rc::clone(&tls), close };
        self.listeners.open.borrow_mut().push(open);
        let accepting = async move {
            let secure = || tls.borrow().is_some();
            let each = |connection| {
                let tls = tls.borrow().clone();
                if let Some(connection) = worker.hands.pass_on(connection, tls.as_ref(), arrival) {
                    worker.greet(connection, tls);
                }
            };
            accept(listener, secure, slots, stop, each).await;
        };
        self.acceptors.spawn(accepting, |message| tracing::error!("accepting connections panicked: {message}"));
    }

    /// New connections of a listener begin with this; `None`: plain.
    pub(super) fn secure(&self, id: ListenerId, tls: Option<&ServerConfigs>) {
        for open in self.listeners.open.borrow().iter().filter(|open| open.id == id) {
            *open.tls.borrow_mut() = tls.cloned();
        }
    }

    /// Accepts what waits for these listeners, closes their sockets, and waits until that is done.
    pub(super) async fn close(&self, ids: &[ListenerId]) {
        let closing: Vec<Open> = {
            let mut open = self.listeners.open.borrow_mut();
            open.extract_if(.., |open| ids.contains(&open.id)).collect()
        };
        for open in closing {
            open.close.send_replace(true);
            open.close.closed().await;
        }
    }
}

/// Until it is told so, or nobody is left who could.
async fn until(mut close: watch::Receiver<bool>) {
    let _ = close.wait_for(|close| *close).await;
}
