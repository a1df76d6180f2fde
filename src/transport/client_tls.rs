//! TLS towards `wss` backends: rustls fed from the worker's scratch room, which keeps 4 KiB of its own.

use super::wire::Wire;
use rustls::ClientConnection;
use std::{
    io::{self, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;

/// A TLS session whose handshake is done.
#[derive(Debug)]
pub(super) struct ClientTls {
    connection: ClientConnection,
    /// Its records no longer make sense; what was decrypted before has been delivered.
    broken: bool,
    close_notify_said: bool,
}

impl ClientTls {
    pub(super) fn new(connection: ClientConnection) -> Self {
        Self { connection, broken: false, close_notify_said: false }
    }

    pub(super) fn holds_back(&self) -> bool {
        self.connection.wants_write()
    }

    pub(super) fn poll_read(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        room: &mut [u8],
        cipher: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.connection.reader().read(room) {
                Ok(length) => return Poll::Ready(Ok(length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            // Plaintext is shorter than its records, so all of it has room.
            let most = cipher.len().min(room.len());
            let length = ready!(wire.poll_read(cx, &mut cipher[..most]))?;
            if length == 0 {
                // Tells rustls of the end; its reader then says whether close_notify came before.
                self.connection.read_tls(&mut io::empty())?;
                continue;
            }
            let filled = self.decrypt(&cipher[..length], room)?;
            if self.connection.wants_write() {
                // An alert, or the answer to a key update. What the socket does not take goes with the next write, which
                // also finds an error: it must not cost what was decrypted.
                let _ = self.poll_flush(wire, cx);
            }
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
    }

    /// Decrypts whole records into `room`; how many bytes they came to.
    fn decrypt(&mut self, mut records: &[u8], room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while !records.is_empty() {
            if self.connection.read_tls(&mut records)? == 0 {
                break;
            }
            let Ok(state) = self.connection.process_new_packets() else {
                self.broken = true;
                break;
            };
            if state.plaintext_bytes_to_read() > 0 {
                filled += self.connection.reader().read(&mut room[filled..])?;
            }
        }
        Ok(filled)
    }

    pub(super) fn poll_write(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One batch at a time, so that little is ever held back here.
        ready!(self.poll_flush(wire, cx))?;
        let taken = self.connection.writer().write(bytes)?;
        let _ = self.poll_flush(wire, cx)?;
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_flush(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Sink { wire, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says close_notify, once, and flushes.
    pub(super) fn poll_close(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.close_notify_said, true) {
            self.connection.send_close_notify();
        }
        self.poll_flush(wire, cx)
    }
}

/// Lets rustls write to a socket that may not be ready.
struct Sink<'a, 'b, 'c> {
    wire: &'a mut Wire,
    cx: &'b mut Context<'c>,
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl Write for Sink<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(self.wire.poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut self.wire.socket).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
