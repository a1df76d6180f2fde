//! The accept loop of one worker on one listener.
use super::{Peer, bind::ListenSocket};
use crate::transport::Socket;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

/// The first and the longest pause after an accept error.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Accept errors are told at most this often.
const QUIET: Duration = Duration::from_secs(10);

/// An accepted connection, before its opening handshake.
#[derive(Debug)]
pub struct Connection {
    pub socket: Socket,
    pub peer: Peer,
    /// Held until the opening handshake is over.
    pub slot: Slot,
}

/// A place among the connections that are in their opening handshake; given back on drop.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl From<Option<OwnedSemaphorePermit>> for Slot {
    /// `None`: a connection that is taken beyond the bound, at the end.
    fn from(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self(permit)
    }
}

/// What becomes of connections that wait in the kernel when a listener stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// They are accepted, for the socket is gone after us.
    Accepted,
    /// They are left to another process that has the same socket.
    Left,
}

/// Accepts connections and hands each to `each`, which must not block (it spawns the connection's task).
///
/// `tls`: whether the listener speaks TLS now. A connection is accepted only when `slots` has a place for its opening handshake; until then it waits in the kernel.
/// Errors such as a full descriptor table pause accepting, 10 ms at first, up to 1 s, and end nothing. Once `stop` is
/// ready, the connections that wait in the kernel are accepted or left, then our hold on the listening socket is given up.
pub async fn accept(
    listener: Rc<Listener>,
    tls: impl Fn() -> bool,
    slots: Arc<Semaphore>,
    stop: impl Future<Output = Waiting>,
    mut each: impl FnMut(Connection),
) {
    let mut stop = pin!(stop);
    let mut trouble = Trouble::default();
    let waiting = loop {
        let turn = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            waiting = &mut stop => break waiting,
            turn = turn => turn,
        };
        match accepted {
            Ok(incoming) => {
                trouble.over();
                deliver(incoming, tls(), slot, &mut each);
            }
            Err(error) => {
                drop(slot);
                let pause = trouble.pause(&error, Instant::now());
                tokio::select! {
                    waiting = &mut stop => break waiting,
                    () = sleep(pause) => {}
                }
            }
        }
    };
    match waiting {
        Waiting::Accepted => {
            listener.empty(|incoming| deliver(incoming, tls(), Arc::clone(&slots).try_acquire_owned().ok(), &mut each));
        }
        Waiting::Left => {}
    }
}

/// Accept errors in a row.
#[derive(Default)]
struct Trouble {
    last_pause: Option<Duration>,
    last_told: Option<Instant>,
}

impl Trouble {
    /// How long to wait before the next try. Logs the error, but not again within ten seconds.
    fn pause(&mut self, error: &io::Error, now: Instant) -> Duration {
        if self.last_told.is_none_or(|told| now >= told + QUIET) {
            tracing::warn!(%error, "accepting connections pauses; {}", advice(error));
            self.last_told = Some(now);
        }
        let pause = self.last_pause.map_or(PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.last_pause = Some(pause);
        pause
    }

    fn over(&mut self) {
        self.last_pause = None;
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => "every descriptor of this process is in use: raise its limit (ulimit -n, LimitNOFILE=)",
        Some(libc::ENFILE) => "every descriptor of this machine is in use: raise fs.file-max",
        Some(libc::ENOBUFS | libc::ENOMEM) => "the kernel is out of memory for sockets",
        Some(_) | None => "it is tried again",
    }
}

fn deliver(incoming: Incoming, tls: bool, slot: Option<OwnedSemaphorePermit>, each: &mut impl FnMut(Connection)) {
    let (socket, address) = match incoming {
        Incoming::Tcp(stream, address) => {
            (Socket::Tcp(stream), Some(SocketAddr::new(address.ip().to_canonical(), address.port())))
        }
        Incoming::Unix(stream) => (Socket::Unix(stream), None),
    };
    each(Connection { socket, peer: Peer::new(address, tls), slot: Slot(slot) });
}

/// A listening socket that is tied to the runtime of this thread.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

enum Incoming {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// # Errors
    /// If the socket cannot be registered with the runtime.
    pub fn new(socket: ListenSocket) -> io::Result<Self> {
        Ok(match socket {
            ListenSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ListenSocket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<Incoming> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| Incoming::Tcp(stream, address)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Incoming::Unix(stream)),
        }
    }

    /// Accepts what waits in the kernel. Asks the kernel itself, since the runtime may not have heard yet.
    fn empty(&self, mut each: impl FnMut(Incoming)) {
        loop {
            let incoming = match self {
                Self::Tcp(listener) => socket2::SockRef::from(listener).accept().and_then(|(socket, address)| {
                    socket.set_nonblocking(true)?;
                    let address = address.as_socket().ok_or(io::ErrorKind::InvalidData)?;
                    Ok(Incoming::Tcp(TcpStream::from_std(socket.into())?, address))
                }),
                Self::Unix(listener) => socket2::SockRef::from(listener).accept().and_then(|(socket, _)| {
                    socket.set_nonblocking(true)?;
                    Ok(Incoming::Unix(UnixStream::from_std(socket.into())?))
                }),
            };
            match incoming {
                Ok(incoming) => each(incoming),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) => {}
                Err(error) => {
                    tracing::warn!(%error, "connections that waited at the end may be lost; {}", advice(&error));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::listener::{ListenAddress, ListenerConfig, bind::bind};
    use std::cell::RefCell;
    use tokio::sync::Notify;

    fn listening(address: ListenAddress) -> (crate::listener::bind::Bound, Rc<Listener>) {
        let mut bound = bind(&[ListenerConfig::plain(address)], 1).unwrap().remove(0);
        let socket = bound.sockets.remove(0);
        (bound, Rc::new(Listener::new(socket).unwrap()))
    }

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew_after_a_success() {
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        let mut trouble = Trouble::default();
        let pauses: Vec<_> = (0..9).map(|_| trouble.pause(&error, Instant::now()).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        trouble.over();
        assert_eq!(trouble.pause(&error, Instant::now()), PAUSE);
        assert!(advice(&error).contains("LimitNOFILE"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn connections_that_wait_at_the_stop_are_still_accepted() {
        let (bound, socket) = listening(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
        let ListenAddress::Tcp(address) = bound.address else { panic!("a TCP listener") };
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let mut peers = Vec::new();
        let slots = Arc::new(Semaphore::new(1));
        let each = |connection: Connection| peers.push((connection.peer.address, connection.peer.tls));
        accept(socket, || true, slots, async { Waiting::Accepted }, each).await;
        let expected: Vec<_> = clients.iter().map(|client| (client.local_addr().ok(), true)).collect();
        assert_eq!(peers, expected);
        assert!(std::net::TcpStream::connect(address).is_err(), "the listener is closed");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_waits_for_a_slot_and_the_stop_is_heard_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.sock");
        let (_bound, socket) = listening(ListenAddress::Unix(path.clone()));
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let _second = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let connections = Rc::new(RefCell::new(Vec::new()));
        let (seen, stop) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let slots = Arc::new(Semaphore::new(1));
        let stopped = async {
            stop.notified().await;
            Waiting::Accepted
        };
        let accepting = accept(
            socket,
            || false,
            Arc::clone(&slots),
            stopped,
            |connection| {
                connections.borrow_mut().push(connection);
                seen.notify_one();
            },
        );
        let watching = async {
            seen.notified().await;
            assert_eq!(slots.available_permits(), 0);
            assert_eq!(connections.borrow().len(), 1);
            connections.borrow_mut().clear();
            seen.notified().await;
            let peer = &connections.borrow()[0].peer;
            assert_eq!((peer.address, peer.tls), (None, false));
            stop.notify_one();
        };
        tokio::join!(accepting, watching);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn connections_that_are_left_wait_for_whoever_has_the_socket_too() {
        let (bound, socket) = listening(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()));
        let ListenAddress::Tcp(address) = bound.address else { panic!("a TCP listener") };
        let heir = std::net::TcpListener::from(socket.as_fd().try_clone_to_owned().unwrap());
        let client = std::net::TcpStream::connect(address).unwrap();
        let slots = Arc::new(Semaphore::new(1));
        accept(socket, || false, slots, async { Waiting::Left }, |_| panic!("it was to be left")).await;
        assert_eq!(heir.accept().unwrap().1, client.local_addr().unwrap());
    }
}
