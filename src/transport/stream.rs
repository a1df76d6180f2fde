//! Streams during the opening handshake: what hyper and tokio-rustls read and write.
use super::{
    hello::ServerConfigs,
    server_tls::{RecordRoom, ServerTls},
    tls_facts::TlsFacts,
    wire::Wire,
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connected socket, without TLS.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// In memory: the built-in echo, and tests.
    Memory(DuplexStream),
}

impl Socket {
    /// What waits to be read, as far as there is room, and stays where it is; 0 is the end of the stream.
    ///
    /// # Errors
    /// The socket's; `Unsupported` in memory.
    pub async fn peek(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.peek(room).await,
            Self::Unix(stream) => loop {
                stream.readable().await?;
                match stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut *room, RecvFlags::PEEK)?.0)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    peeked => return peeked,
                }
            },
            Self::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address of our end; `None` where there is no TCP.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) | Self::Memory(_) => None,
        }
    }
}

/// A socket with or without TLS: what hyper reads and writes during the opening handshake.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    /// We are the TLS server (client leg).
    ServerTls(ServerTlsStream),
    /// We are the TLS client (`wss` backends).
    ClientTls(Box<tokio_rustls::client::TlsStream<Socket>>),
}

impl Stream {
    /// Gives a socket that was just connected its first bytes, before the runtime has heard that it can take any: how many it
    /// took. With TLS, none.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn begin(&self, bytes: &[u8]) -> io::Result<usize> {
        let sent = match self {
            Self::Plain(Socket::Tcp(tcp)) => send(tcp, bytes, SendFlags::NOSIGNAL),
            Self::Plain(Socket::Unix(unix)) => send(unix, bytes, SendFlags::NOSIGNAL),
            Self::Plain(Socket::Memory(_)) | Self::ServerTls(_) | Self::ClientTls(_) => Ok(0),
        };
        match sent {
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(0),
            sent => Ok(sent?),
        }
    }
}

/// A socket on which we are the TLS server, and the handshake is done.
#[derive(Debug)]
pub struct ServerTlsStream {
    pub(super) wire: Wire,
    pub(super) tls: Box<ServerTls>,
}

impl ServerTlsStream {
    /// The server's side of the TLS handshake.
    ///
    /// # Errors
    /// The socket's; `InvalidData` with rustls' error; `UnexpectedEof`.
    pub async fn accept(configs: &ServerConfigs, room: RecordRoom, socket: Socket) -> io::Result<Self> {
        let mut wire = Wire::from(socket);
        let mut tls = Box::new(ServerTls::new(configs, room).map_err(io::Error::other)?);
        poll_fn(|cx| tls.poll_handshake(&mut wire, cx)).await?;
        Ok(Self { wire, tls })
    }

    /// What its handshake told; the server's name but once.
    pub fn facts(&mut self) -> TlsFacts {
        self.tls.facts()
    }
}

impl AsyncRead for ServerTlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, tls } = self.get_mut();
        // Whoever reads a stream may be another task than the last time: plain requests go on in one of their own.
        wire.forget_waker();
        let length = ready!(tls.poll_read(wire, cx, buf.initialize_unfilled()))?;
        buf.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerTlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { wire, tls } = self.get_mut();
        tls.poll_write(wire, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, tls } = self.get_mut();
        tls.poll_flush(wire, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, tls } = self.get_mut();
        ready!(tls.poll_close(wire, cx))?;
        Pin::new(&mut wire.socket).poll_shutdown(cx)
    }
}

macro_rules! delegate {
    ($type:ty, $($variant:path),+) => {
        impl AsyncRead for $type {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($variant(io) => Pin::new(io).poll_read(cx, buf)),+ }
            }
        }
        impl AsyncWrite for $type {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($variant(io) => Pin::new(io).poll_write(cx, buf)),+ }
            }
            fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $($variant(io) => Pin::new(io).poll_write_vectored(cx, bufs)),+ }
            }
            fn is_write_vectored(&self) -> bool {
                match self { $($variant(io) => io.is_write_vectored()),+ }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($variant(io) => Pin::new(io).poll_flush(cx)),+ }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $($variant(io) => Pin::new(io).poll_shutdown(cx)),+ }
            }
        }
    };
}
delegate!(Socket, Socket::Tcp, Socket::Unix, Socket::Memory);
delegate!(Stream, Stream::Plain, Stream::ServerTls, Stream::ClientTls);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[tokio::test]
    async fn a_fresh_socket_takes_its_first_bytes_before_the_runtime_knows_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        connected.set_nonblocking(true).unwrap();
        let tcp = TcpStream::from_std(connected).unwrap();
        assert_eq!(tcp.try_write(b"unheard").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let stream = Stream::Plain(Socket::Tcp(tcp));
        assert_eq!(stream.begin(b"GET /").unwrap(), 5);
        let (mut far, _) = listener.accept().await.unwrap();
        let mut read = [0; 5];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET /");
        // What is full takes nothing, and what is gone says so.
        while stream.begin(&[0; 65_536]).unwrap() > 0 {}
        drop(far);
        while stream.begin(b"x").is_ok() {}
        let memory = Stream::Plain(Socket::Memory(tokio::io::duplex(8).0));
        assert_eq!(memory.begin(b"later").unwrap(), 0);
    }
}
