//! One worker's listening sockets: opened, closed and given new certificates while it runs.
use super::Worker;
use crate::{
    listener::{accept::accept, bind::ListenSocket, spread::Arrival},
    transport::ServerConfigs,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
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
    pub(crate) tls: Option<ServerConfigs>,
    pub(crate) arrival: Arrival,
}

/// The sockets on which a worker accepts.
#[derive(Default)]
pub(super) struct Listeners {
    open: RefCell<Vec<Open>>,
    /// None is opened any more.
    over: Cell<bool>,
}

struct Open {
    id: ListenerId,
    tls: Rc<RefCell<Option<ServerConfigs>>>,
    /// Its accept loop hears this, and lets go of it at its end.
    stop: watch::Sender<bool>,
}

impl Worker {
    /// Accepts on one socket until told to stop.
    pub(super) fn listen(self: &Rc<Self>, listening: Listening) {
        let Listening { id, socket, tls, arrival } = listening;
        if self.listeners.over.get() {
            return;
        }
        let (worker, slots) = (Rc::clone(self), Arc::clone(&self.slots));
        let tls = Rc::new(RefCell::new(tls));
        let (stop, stopped) = watch::channel(false);
        self.listeners.open.borrow_mut().push(Open { id, tls: Rc::clone(&tls), stop });
        let accepting = async move {
            let secure = || tls.borrow().is_some();
            let each = |connection| {
                let tls = tls.borrow().clone();
                if let Some(connection) = worker.hands.pass_on(connection, tls.as_ref(), arrival) {
                    worker.greet(connection, tls);
                }
            };
            if let Err(error) = accept(socket, secure, slots, until(stopped), each).await {
                tracing::error!(%error, "a listening socket cannot be served; its worker serves the others");
            }
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
            open.stop.send_replace(true);
            open.stop.closed().await;
        }
    }

    /// The same for all of them, without waiting; none is opened any more.
    pub(super) fn close_all(&self) {
        self.listeners.over.set(true);
        for open in self.listeners.open.borrow().iter() {
            open.stop.send_replace(true);
        }
    }
}

/// Until it is told so, or nobody is left who could.
pub(super) async fn until(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
