//! Byte streams: what a handshake reads and writes (`Stream`), and what a session relays over (`Transport`).

mod path;
mod stream;
mod tls;
mod tune;

pub use stream::{Socket, Stream};
pub use tune::{Backstop, tune};

use crate::protocol::heartbeat::PathSample;
use socket2::SockRef;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tls::Tls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An upgraded stream. It owns no buffer while idle, but for what rustls needs.
#[derive(Debug)]
pub struct Transport {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Plain(socket) => Self { socket, tls: None },
            Stream::ServerTls(stream) => {
                let (socket, connection) = stream.into_inner();
                Self { socket, tls: Some(Box::new(Tls::new(connection.into()))) }
            }
            Stream::ClientTls(stream) => {
                let (socket, connection) = stream.into_inner();
                Self { socket, tls: Some(Box::new(Tls::new(connection.into()))) }
            }
        }
    }
}

impl Transport {
    /// Reads into `room`; 0 is the end of the stream. `cipher` is scratch room for TLS records.
    ///
    /// # Errors
    /// The socket's, `InvalidData` for broken TLS, `UnexpectedEof` for TLS that ends without close_notify.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8], cipher: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => read(&mut self.socket, cx, room),
            Some(tls) => tls.poll_read(&mut self.socket, cx, room, cipher),
        }
    }

    /// Takes some of `bytes`. With TLS, what was taken may still wait to be flushed.
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => Pin::new(&mut self.socket).poll_write(cx, bytes),
            Some(tls) => tls.poll_write(&mut self.socket, cx, bytes),
        }
    }

    /// Whether the socket has not taken all that `poll_write` took.
    #[inline]
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.holds_back())
    }

    /// Hands the socket what `poll_write` took and it did not.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.poll_flush(&mut self.socket, cx),
        }
    }

    /// Says close_notify and shuts writing down.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &mut self.tls {
            ready!(tls.poll_close(&mut self.socket, cx))?;
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Says close_notify, if there is TLS and room for it, and closes the connection.
    pub fn close(mut self, cx: &mut Context<'_>) {
        if let Some(tls) = &mut self.tls {
            // A socket that takes none, or a peer that is gone, gets none.
            let _ = tls.poll_close(&mut self.socket, cx);
        }
    }

    /// What TCP knows of the path; nothing where there is no TCP.
    #[must_use]
    pub fn sample(&self) -> Option<PathSample> {
        match &self.socket {
            Socket::Tcp(stream) => path::sample(stream),
            Socket::Unix(_) | Socket::Memory(_) => None,
        }
    }

    /// Resets the connection: what the peer has not taken is dropped, and nothing lingers for it.
    pub fn reset(self) {
        if let Socket::Tcp(stream) = &self.socket {
            // Fails on a socket that is reset already: then there is nothing to do.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Reads straight from a socket.
#[inline]
fn read(socket: &mut Socket, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(room);
    ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}
