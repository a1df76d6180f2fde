//! One worker's listening sockets: opened, closed and given new certificates while it runs.
use super::{
    Worker,
    succession::{Stop, stopped},
};
use crate::{
    listener::{
        Health, ListenAddress,
        accept::{Connection, Listener, Waiting, accept},
        bind::{ListenSocket, SocketFile},
        proxy_protocol::ProxyProtocol,
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
    pub(crate) health: Option<Arc<Health>>,
    pub(crate) proxy_protocol: ProxyProtocol,
    pub(crate) arrival: Arrival,
}

/// How new connections of a listener begin.
pub(crate) struct Greeting {
    pub(crate) id: ListenerId,
    /// `None`: plain.
    pub(crate) tls: Option<ServerConfigs>,
    pub(crate) health: Option<Arc<Health>>,
    pub(crate) proxy_protocol: ProxyProtocol,
}

/// The sockets on which a worker accepts.
#[derive(Default)]
pub(super) struct Listeners {
    open: RefCell<Vec<Open>>,
}

/// A socket on which the worker accepts, as long as it does.
pub(super) struct Open {
    pub(super) listener: Weak<Listener>,
    pub(super) asked: ListenAddress,
    pub(super) address: ListenAddress,
    pub(super) file: Option<Arc<SocketFile>>,
    greeting: Rc<RefCell<Greeting>>,
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
        let Listening { id, socket, asked, address, file, tls, health, proxy_protocol, arrival } = listening;
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
        let greeting = Rc::new(RefCell::new(Greeting { id, tls, health, proxy_protocol }));
        let (close, closed) = watch::channel(false);
        let stopped = stopped(self.stop.subscribe(), address.clone());
        let stop = async move {
            tokio::select! {
                waiting = stopped => waiting,
                () = until(closed) => Waiting::Accepted,
            }
        };
        let open =
            Open { listener: Rc::downgrade(&listener), asked, address, file, greeting: Rc::clone(&greeting), close };
        self.listeners.open.borrow_mut().push(open);
        let accepting = async move {
            let secure = || greeting.borrow().tls.is_some();
            let each = |mut connection: Connection| {
                let tls = {
                    let greeting = greeting.borrow();
                    connection.peer.health.clone_from(&greeting.health);
                    connection.peer.proxy_protocol = greeting.proxy_protocol;
                    greeting.tls.clone()
                };
                if let Some(connection) = worker.hands.pass_on(connection, tls.as_ref(), arrival) {
                    worker.greet(connection, tls);
                }
            };
            accept(listener, secure, slots, stop, each).await;
        };
        self.acceptors.spawn(accepting, |message| tracing::error!("accepting connections panicked: {message}"));
    }

    /// New connections of a listener begin like this.
    pub(super) fn greet_by(&self, new: &Greeting) {
        for open in self.listeners.open.borrow().iter() {
            let mut greeting = open.greeting.borrow_mut();
            if greeting.id == new.id {
                greeting.tls.clone_from(&new.tls);
                greeting.health.clone_from(&new.health);
                greeting.proxy_protocol = new.proxy_protocol;
            }
        }
    }

    /// Accepts what waits for these listeners, closes their sockets, and waits until that is done.
    pub(super) async fn close(&self, ids: &[ListenerId]) {
        let closing: Vec<Open> = {
            let mut open = self.listeners.open.borrow_mut();
            open.extract_if(.., |open| ids.contains(&open.greeting.borrow().id)).collect()
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
