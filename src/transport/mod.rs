//! Byte streams: what a handshake reads and writes (`Stream`), and what a session relays over (`Transport`).

mod client_tls;
mod fetch;
mod hello;
mod path;
mod provider;
mod server_tls;
mod stream;
mod tls_facts;
mod tune;
mod wire;

pub(crate) use fetch::fetch;
pub use hello::ServerConfigs;
pub(crate) use path::bind_without_port;
pub(crate) use provider::provider;
pub use server_tls::RecordRoom;
pub use stream::{ServerTlsStream, Socket, Stream};
pub use tune::{Backstop, tune};

use crate::protocol::heartbeat::PathSample;
use client_tls::ClientTls;
use server_tls::ServerTls;
use socket2::SockRef;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
pub use tls_facts::{TlsFacts, note_server_name};
use tokio::io::AsyncWrite;
use wire::Wire;

/// TLS records that are read at once, or sealed.
pub const RECORDS: usize = 256 * 1024;

/// An upgraded stream. It owns no buffer while idle, but for what rustls needs towards a `wss` backend.
#[derive(Debug)]
pub struct Transport {
    wire: Wire,
    security: Security,
}

#[derive(Debug)]
enum Security {
    Plain,
    Server(Box<ServerTls>),
    Client(Box<ClientTls>),
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Plain(socket) => Self { wire: socket.into(), security: Security::Plain },
            Stream::ServerTls(ServerTlsStream { mut wire, tls }) => {
                // A handshake's task is not the session's.
                wire.forget_waker();
                Self { wire, security: Security::Server(tls) }
            }
            Stream::ClientTls(stream) => {
                let (socket, connection) = stream.into_inner();
                Self { wire: socket.into(), security: Security::Client(Box::new(ClientTls::new(connection))) }
            }
        }
    }
}

impl Transport {
    /// Reads into `room`; 0 is the end of the stream. `cipher` is scratch room for the TLS records of a backend.
    ///
    /// # Errors
    /// The socket's, `InvalidData` for broken TLS, `UnexpectedEof` for TLS that ends without close_notify.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8], cipher: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.security {
            Security::Plain => self.wire.poll_read(cx, room),
            Security::Server(tls) => tls.poll_read(&mut self.wire, cx, room),
            Security::Client(tls) => tls.poll_read(&mut self.wire, cx, room, cipher),
        }
    }

    /// Whether nothing is left to be read now, and what comes next wakes the task; asked after a read. A `false` means that another
    /// read finds out.
    #[inline]
    pub fn drained(&mut self, cx: &mut Context<'_>) -> bool {
        match &self.security {
            Security::Plain => self.wire.drained(cx),
            Security::Server(tls) => tls.delivered_all() && self.wire.drained(cx),
            Security::Client(_) => false,
        }
    }

    /// Has what bytes need on their way fetched from memory.
    #[inline]
    pub fn fetch(&self) {
        match &self.security {
            Security::Server(tls) => fetch(&**tls),
            Security::Plain | Security::Client(_) => {}
        }
    }

    /// The task has another waker than before.
    pub fn forget_waker(&mut self) {
        self.wire.forget_waker();
    }

    /// Takes some of `bytes`. With TLS, what was taken may still wait to be flushed.
    ///
    /// # Errors
    /// The socket's.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.security {
            Security::Plain => self.wire.poll_write(cx, bytes),
            Security::Server(tls) => tls.poll_write(&mut self.wire, cx, bytes),
            Security::Client(tls) => tls.poll_write(&mut self.wire, cx, bytes),
        }
    }

    /// What a read into so large a room may give at most: with TLS, about what records that are read at once hold.
    #[inline]
    #[must_use]
    pub fn gives(&self, room: usize) -> usize {
        match self.security {
            Security::Plain => room,
            Security::Server(_) | Security::Client(_) => room.min(RECORDS),
        }
    }

    /// Whether the socket has not taken all that `poll_write` took.
    #[inline]
    #[must_use]
    pub fn holds_back(&self) -> bool {
        match &self.security {
            Security::Plain => false,
            Security::Server(tls) => tls.holds_back(),
            Security::Client(tls) => tls.holds_back(),
        }
    }

    /// Hands the socket what `poll_write` took and it did not.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.security {
            Security::Plain => Poll::Ready(Ok(())),
            Security::Server(tls) => tls.poll_flush(&mut self.wire, cx),
            Security::Client(tls) => tls.poll_flush(&mut self.wire, cx),
        }
    }

    /// Says close_notify and shuts writing down.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_notify(cx))?;
        Pin::new(&mut self.wire.socket).poll_shutdown(cx)
    }

    /// Says close_notify, if there is TLS and room for it, and closes the connection.
    pub fn close(mut self, cx: &mut Context<'_>) {
        // A socket that takes none, or a peer that is gone, gets none.
        let _ = self.poll_notify(cx);
    }

    fn poll_notify(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.security {
            Security::Plain => Poll::Ready(Ok(())),
            Security::Server(tls) => tls.poll_close(&mut self.wire, cx),
            Security::Client(tls) => tls.poll_close(&mut self.wire, cx),
        }
    }

    /// The peer only talks: its messages need not be acknowledged one by one.
    #[cold]
    pub fn acknowledge_later(&self) {
        if let Socket::Tcp(stream) = &self.wire.socket {
            tune::acknowledge_later(stream);
        }
    }

    /// What TCP knows of the path; nothing where there is no TCP.
    #[must_use]
    pub fn sample(&self) -> Option<PathSample> {
        match &self.wire.socket {
            Socket::Tcp(stream) => path::sample(stream),
            Socket::Unix(_) | Socket::Memory(_) => None,
        }
    }

    /// Resets the connection: what the peer has not taken is dropped, and nothing lingers for it.
    pub fn reset(self) {
        if let Socket::Tcp(stream) = &self.wire.socket {
            // Fails on a socket that is reset already: then there is nothing to do.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}
