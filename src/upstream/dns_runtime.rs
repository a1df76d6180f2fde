//! Our runtime as the resolver of names uses it. Its own way would have tokio made with the scheduler of many threads, which makes
//! each socket and timer larger.
use futures_io::{AsyncRead, AsyncWrite};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a connection to a server of names may take.
const CONNECT: Duration = Duration::from_secs(5);

type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sockets, timers and tasks of the runtime at hand. Its tasks end with the last of its clones.
#[derive(Clone, Default)]
pub(super) struct Runtime(Tasks);

#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Spawn for Tasks {
    fn spawn_bg(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(future);
        while tasks.try_join_next().is_some() {}
    }
}

impl RuntimeProvider for Runtime {
    type Handle = Tasks;
    type Timer = Clock;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> Tasks {
        self.0.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        from: Option<SocketAddr>,
        within: Option<Duration>,
    ) -> Doing<'static, io::Result<Tcp>> {
        Box::pin(async move {
            let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if let Some(from) = from {
                socket.bind(from)?;
            }
            let connecting = timeout(within.unwrap_or(CONNECT), socket.connect(server));
            let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            stream.set_nodelay(true)?;
            Ok(Tcp(stream))
        })
    }

    fn bind_udp(&self, from: SocketAddr, _server: SocketAddr) -> Doing<'static, io::Result<Udp>> {
        Box::pin(async move { tokio::net::UdpSocket::bind(from).await.map(Udp) })
    }
}

pub(super) struct Udp(tokio::net::UdpSocket);

impl DnsUdpSocket for Udp {
    type Time = Clock;

    fn poll_recv_from(&self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut room = ReadBuf::new(room);
        self.0.poll_recv_from(cx, &mut room).map_ok(|from| (room.filled().len(), from))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, bytes: &[u8], to: SocketAddr) -> Poll<io::Result<usize>> {
        self.0.poll_send_to(cx, bytes, to)
    }
}

pub(super) struct Tcp(TcpStream);

impl DnsTcpStream for Tcp {
    type Time = Clock;
}

impl AsyncRead for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        Pin::new(&mut self.0).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

pub(super) struct Clock;

// As `async_trait` spells it, of which this is the only use.
impl Time for Clock {
    fn delay_for<'a>(duration: Duration) -> Doing<'a, ()> {
        Box::pin(sleep(duration))
    }

    fn timeout<'a, F>(duration: Duration, future: F) -> Doing<'a, io::Result<F::Output>>
    where
        F: Future + Send + 'static + 'a,
    {
        Box::pin(async move { timeout(duration, future).await.map_err(|_| io::ErrorKind::TimedOut.into()) })
    }
}
