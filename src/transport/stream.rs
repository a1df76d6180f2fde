//! Streams during the opening handshake: what hyper and tokio-rustls read and write.
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
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

/// A socket with or without TLS: what hyper reads and writes during the opening handshake.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    /// We are the TLS server (client leg).
    ServerTls(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// We are the TLS client (`wss` backends).
    ClientTls(Box<tokio_rustls::client::TlsStream<Socket>>),
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
