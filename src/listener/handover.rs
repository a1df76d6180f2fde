//! Hands accepted connections to workers that have less to do.
use super::{
    Peer,
    accept::{Connection, Slot},
    spread::{Arrival, Board, Seat},
};
use crate::transport::{ServerConfigs, Socket};
use std::{future::Future, io, net, os::unix, pin::pin, sync::Arc, time::Instant};
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{
        Semaphore,
        mpsc::{Receiver, Sender, channel},
    },
};

/// Connections that may be on their way to one worker. When there are more, they stay where they were accepted.
const QUEUE: usize = 256;

/// One worker's ways to the others.
pub struct Hands {
    seat: Seat,
    ways: Arc<[Sender<Handed>]>,
}

/// Where a worker finds the connections that others hand to it.
pub struct Intake {
    seat: Seat,
    queue: Receiver<Handed>,
}

/// A connection between two runtimes, tied to neither.
struct Handed {
    socket: Detached,
    peer: Peer,
    tls: Option<ServerConfigs>,
}

enum Detached {
    Tcp(net::TcpStream),
    Unix(unix::net::UnixStream),
}

/// Hands and intake of each worker on the board.
#[must_use]
pub fn link(board: &Arc<Board>, workers: usize) -> Vec<(Hands, Intake)> {
    let (ways, queues): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel(QUEUE)).unzip();
    let ways: Arc<[_]> = ways.into();
    let hands = |worker| Hands { seat: Seat::new(board, worker), ways: Arc::clone(&ways) };
    let intake = |worker, queue| Intake { seat: Seat::new(board, worker), queue };
    queues.into_iter().enumerate().map(|(worker, queue)| (hands(worker), intake(worker, queue))).collect()
}

impl Hands {
    /// The worker's place on the board.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Hands a connection that was just accepted to the worker that should have it. Gives it back if that is this one, or
    /// if the other takes no more.
    pub fn pass_on(&self, connection: Connection, tls: Option<&ServerConfigs>, arrival: Arrival) -> Option<Connection> {
        let Some(other) = self.seat.better(arrival, Instant::now()) else { return Some(connection) };
        let Ok(way) = self.ways[other].try_reserve() else { return Some(connection) };
        // Its slot here is given back: the other has its own.
        let Connection { socket, peer, slot } = connection;
        let socket = match socket {
            Socket::Tcp(stream) => stream.into_std().map(Detached::Tcp),
            Socket::Unix(stream) => stream.into_std().map(Detached::Unix),
            Socket::Memory(_) => return Some(Connection { socket, peer, slot }),
        };
        match socket {
            Ok(socket) => {
                self.seat.board().coming(other);
                way.send(Handed { socket, peer, tls: tls.cloned() });
            }
            Err(error) => tracing::warn!(%error, "an accepted connection is lost on its way to another worker"),
        }
        None
    }
}

impl Intake {
    /// Hands each connection that comes from other workers to `each`, under the same terms as
    /// [`accept`](super::accept::accept): a slot for each, and once `stop` is ready, those that wait are taken and no others
    /// come.
    pub async fn run(
        mut self,
        slots: Arc<Semaphore>,
        stop: impl Future<Output = ()>,
        mut each: impl FnMut(Connection, Option<ServerConfigs>),
    ) {
        let mut stop = pin!(stop);
        let mut take = |handed: Handed, slot| {
            let Handed { socket, peer, tls } = handed;
            match socket.attach() {
                Ok(socket) => each(Connection { socket, peer, slot: Slot::from(slot) }, tls),
                Err(error) => tracing::warn!(%error, "a connection from another worker cannot be served"),
            }
            // Only now, so that it is never missing from the board.
            self.seat.came();
        };
        loop {
            let turn = async {
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                (slot, self.queue.recv().await)
            };
            let (slot, handed) = tokio::select! {
                biased;
                () = &mut stop => break,
                turn = turn => turn,
            };
            match handed {
                Some(handed) => take(handed, slot),
                None => return,
            }
        }
        // Who wants to hand over from now on keeps the connection.
        self.queue.close();
        while let Some(handed) = self.queue.recv().await {
            take(handed, Arc::clone(&slots).try_acquire_owned().ok());
        }
    }
}

impl Detached {
    /// Ties it to the runtime of this thread.
    fn attach(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Socket::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{cell::RefCell, io::Write, rc::Rc};
    use tokio::{io::AsyncReadExt, sync::Notify};

    /// The hands of the first of two workers, and the intake of the second, which has less to do.
    fn pair() -> (Arc<Board>, Hands, Intake) {
        let board = Arc::new(Board::new(2, Instant::now()));
        let mut parts = link(&board, 2);
        let (_, intake) = parts.remove(1);
        let (hands, _) = parts.remove(0);
        hands.seat().show_sessions(100);
        (board, hands, intake)
    }

    fn coming(board: &Board) -> usize {
        board.loads(Instant::now()).nth(1).unwrap().handshakes
    }

    /// A connection that holds a slot of `slots`, and its client.
    async fn connection(slots: &Arc<Semaphore>) -> (Connection, net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let slot = Slot::from(Arc::clone(slots).try_acquire_owned().ok());
        (Connection { socket: Socket::Tcp(stream), peer: Peer::new(Some(address), false), slot }, client)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_crosses_with_its_bytes_under_a_slot_of_the_other() {
        let (board, hands, intake) = pair();
        let (ours, theirs) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        let (given, mut client) = connection(&ours).await;
        let peer = given.peer.address;
        client.write_all(b"early").unwrap();
        assert!(hands.pass_on(given, None, Arrival::Hashed).is_none());
        assert_eq!((ours.available_permits(), coming(&board)), (1, 1));
        let (come, seen) = (RefCell::new(None), Notify::new());
        let taking = intake.run(Arc::clone(&theirs), std::future::pending(), |connection, _| {
            *come.borrow_mut() = Some(connection);
            seen.notify_one();
        });
        tokio::select! {
            () = taking => {}
            () = seen.notified() => {}
        }
        assert_eq!((theirs.available_permits(), coming(&board)), (0, 0));
        let mut come = come.take().unwrap();
        assert_eq!(come.peer.address, peer);
        let (Socket::Tcp(stream), mut bytes) = (&mut come.socket, [0; 5]) else { panic!("TCP stays TCP") };
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_waits_at_the_stop_is_taken_and_what_comes_later_stays() {
        let (_, hands, intake) = pair();
        let slots = Arc::new(Semaphore::new(9));
        let mut clients = Vec::new();
        for _ in 0..3 {
            let (given, client) = connection(&slots).await;
            assert!(hands.pass_on(given, None, Arrival::Hashed).is_none());
            clients.push(client);
        }
        let none = Arc::new(Semaphore::new(0));
        let mut taken = Vec::new();
        intake.run(none, async {}, |connection, _| taken.push(connection.peer.address)).await;
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().ok()).collect();
        assert_eq!(taken, expected);
        let (late, _client) = connection(&slots).await;
        assert!(hands.pass_on(late, None, Arrival::Hashed).is_some());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_full_queue_keeps_connections_where_they_are() {
        let (board, hands, _intake) = pair();
        hands.seat().show_sessions(10 * QUEUE);
        let slots = Arc::new(Semaphore::new(QUEUE + 1));
        let mut clients = Vec::new();
        for _ in 0..QUEUE {
            let (given, client) = connection(&slots).await;
            assert!(hands.pass_on(given, None, Arrival::Hashed).is_none());
            clients.push(client);
        }
        let (given, _client) = connection(&slots).await;
        let kept = hands.pass_on(given, None, Arrival::Hashed).unwrap();
        assert_eq!((slots.available_permits(), coming(&board)), (QUEUE, QUEUE));
        drop(kept);
        assert_eq!(slots.available_permits(), QUEUE + 1);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn without_a_free_slot_connections_wait_in_the_queue() {
        let (_, hands, intake) = pair();
        let (ours, theirs) = (Arc::new(Semaphore::new(9)), Arc::new(Semaphore::new(1)));
        let mut clients = Vec::new();
        for _ in 0..2 {
            let (given, client) = connection(&ours).await;
            assert!(hands.pass_on(given, None, Arrival::Hashed).is_none());
            clients.push(client);
        }
        let (come, seen, stop) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Notify::new()), Notify::new());
        let taking = intake.run(Arc::clone(&theirs), stop.notified(), |connection, _| {
            come.borrow_mut().push(connection);
            seen.notify_one();
        });
        let watching = async {
            seen.notified().await;
            assert_eq!(come.borrow().len(), 1);
            come.borrow_mut().clear();
            seen.notified().await;
            assert_eq!(come.borrow().len(), 1);
            stop.notify_one();
        };
        tokio::join!(taking, watching);
    }
}
