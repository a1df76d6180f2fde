//! TLS on client legs: rustls' unbuffered interface over the worker's room for records, so that an idle leg owns no buffer.

use super::{
    hello::{ServerConfigs, prefers_chacha},
    tls_facts::{TlsFacts, noted_server_name},
    wire::Wire,
};
use rustls::{
    Error, ProtocolVersion, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};
use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Plaintext in a record, at most (RFC 8446 section 5.1).
const LARGEST_PLAIN: usize = 16 * 1024;
/// A record with its header and all that a cipher may add to it (RFC 5246 section 6.2.3).
const LARGEST_RECORD: usize = 5 + LARGEST_PLAIN + 2048;
/// What our own ciphers add to a record, at most, header included.
const SEALING: usize = 64;
/// A handshake message that came in part, or its records: more is no handshake.
const MOST_PARTIAL: usize = 64 * 1024;
/// Plaintext that is sealed at once for a socket that did not take all of the last batch: what it does not take of it waits
/// as records, unseen by those who watch the outbox.
const SLOW_BATCH: usize = LARGEST_PLAIN;
/// The same for a socket that did: a message of 64 KiB with its header.
const FAST_BATCH: usize = 5 * LARGEST_PLAIN;

/// One worker's room for TLS records, read or to be sent; borrowed within one poll.
#[derive(Clone, Debug)]
pub struct RecordRoom(Rc<RefCell<Box<[u8]>>>);

impl Default for RecordRoom {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; super::RECORDS].into_boxed_slice())))
    }
}

/// The server's side of a TLS connection, from its first byte on.
pub(super) struct ServerTls {
    connection: UnbufferedServerConnection,
    /// What the connection starts anew with if the client's first words ask for it.
    theirs: Option<Arc<ServerConfig>>,
    room: RecordRoom,
    /// The beginning of a record, or of a handshake message, whose rest has not come.
    partial: Vec<u8>,
    /// Plaintext that found no room where it was to be read into.
    ahead: Vec<u8>,
    /// Records that the socket has not taken, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// `unsent` is a session ticket alone, which may go with what is written next.
    unhurried: bool,
    /// How much plaintext is sealed at once.
    batch: usize,
    /// The peer said close_notify.
    ended: bool,
    /// The peer's records no longer make sense; what was decrypted before has been delivered, an alert has been said.
    broken: bool,
    close_notify_said: bool,
    /// What the client asked for, until somebody wants to know.
    name: Option<Box<str>>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServerTls")
            .field("ended", &self.ended)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

/// What a read brought.
struct TakenIn {
    /// Plaintext bytes in the place for them.
    filled: usize,
    /// What made the connection unusable.
    error: Option<Error>,
}

impl ServerTls {
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(configs: &ServerConfigs, room: RecordRoom) -> Result<Self, Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(&configs.ours))?,
            theirs: Some(Arc::clone(&configs.theirs)),
            room,
            partial: Vec::new(),
            ahead: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            unhurried: false,
            batch: SLOW_BATCH,
            ended: false,
            broken: false,
            close_notify_said: false,
            name: None,
        })
    }

    /// The opening handshake, each flight one write. A session ticket waits for what is written first after it.
    ///
    /// # Errors
    /// The socket's, `InvalidData` with rustls' error, `UnexpectedEof`.
    pub(super) fn poll_handshake(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.is_handshaking() {
            // A client may say something before it listens to all that we say.
            let _ = self.poll_flush(wire, cx)?;
            let taken = ready!(self.poll_take_in(wire, cx, &mut []))?;
            match taken {
                Some(TakenIn { error: Some(error), .. }) => {
                    // Why it failed is worth more than why the alert could not be said.
                    let _ = self.poll_flush(wire, cx);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                Some(TakenIn { error: None, .. }) => {}
                None => return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"))),
            }
        }
        self.poll_flush(wire, cx)
    }

    /// What the handshake told, once it is over; the name but once.
    pub(super) fn facts(&mut self) -> TlsFacts {
        TlsFacts::of(&self.connection, self.name.take())
    }

    /// Whether another read finds only what comes from the socket.
    #[inline]
    pub(super) fn delivered_all(&self) -> bool {
        self.ahead.is_empty() && !self.ended && !self.broken
    }

    pub(super) fn holds_back(&self) -> bool {
        !self.unsent.is_empty() && !self.unhurried
    }

    pub(super) fn poll_read(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let length = self.ahead.len().min(into.len());
            into[..length].copy_from_slice(&self.ahead[..length]);
            self.ahead = self.ahead[length..].to_vec();
            return Poll::Ready(Ok(length));
        }
        loop {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            let Some(taken) = ready!(self.poll_take_in(wire, cx, into))? else {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            };
            if self.holds_back() {
                // An alert, or an answer. What the socket does not take goes with the next write, which also finds an
                // error: it must not cost what was decrypted.
                let _ = self.poll_flush(wire, cx);
            }
            if taken.filled > 0 || into.is_empty() {
                return Poll::Ready(Ok(taken.filled));
            }
        }
    }

    /// Reads the socket once and takes in what came: `None` is the end of the stream.
    fn poll_take_in(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<TakenIn>>> {
        let room = self.room.clone();
        let mut room = room.0.borrow_mut();
        let begun = self.partial.len();
        // Plaintext is shorter than its records.
        let most = into.len().max(begun + LARGEST_RECORD).min(room.len());
        let length = ready!(wire.poll_read(cx, &mut room[begun..most]))?;
        if length == 0 {
            return Poll::Ready(Ok(None));
        }
        room[..begun].copy_from_slice(&self.partial);
        if let Some(theirs) = self.theirs.take()
            && prefers_chacha(&room[..length])
        {
            self.connection = UnbufferedServerConnection::new(theirs).map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(Some(self.take_in(&mut room[..begun + length], into))))
    }

    /// Decrypts `records` in place.
    fn take_in(&mut self, records: &mut [u8], into: &mut [u8]) -> TakenIn {
        let (mut at, mut filled) = (0, 0);
        let shaken = !self.connection.is_handshaking();
        let error = loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut records[at..]);
            let mut more = true;
            let mut delivered = false;
            let failed = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut failed = None;
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                let fits = record.payload.len().min(into.len() - filled);
                                into[filled..filled + fits].copy_from_slice(&record.payload[..fits]);
                                filled += fits;
                                self.ahead.extend_from_slice(&record.payload[fits..]);
                            }
                            Err(error) => failed = Some(error),
                        }
                    }
                    delivered = true;
                    failed
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    // It may be an alert.
                    self.unhurried = false;
                    encode(&mut data, &mut self.unsent);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => {
                    more = false;
                    None
                }
                // Early data is not accepted.
                Ok(ConnectionState::ReadEarlyData(_)) => Some(Error::General("early data".into())),
                Ok(_) => Some(Error::General("a state that is not known here".into())),
                Err(error) => Some(error),
            };
            at += discard;
            // The common read is of whole records, after which there is nothing to ask for.
            more &= !delivered || at < records.len() || self.connection.wants_write();
            if failed.is_some() || !more {
                break failed;
            }
        };
        let error = error.or_else(|| {
            let full = !self.ended && records.len() - at >= MOST_PARTIAL;
            full.then(|| Error::General("message buffer full".into()))
        });
        if !shaken {
            self.name = noted_server_name().or_else(|| self.name.take());
        }
        if !shaken && !self.connection.is_handshaking() && self.sent == 0 {
            // In TLS 1.3 the client has had all that it waits for: what is left is a ticket.
            self.unhurried = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        }
        self.broken = error.is_some();
        self.partial = if self.broken || self.ended { Vec::new() } else { records[at..].to_vec() };
        if self.broken {
            self.fetch_alert();
        }
        TakenIn { filled, error }
    }

    /// Takes what rustls has to say of an error.
    fn fetch_alert(&mut self) {
        self.unhurried = false;
        while self.connection.wants_write() {
            let state = self.connection.process_tls_records(&mut []).state;
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
            encode(&mut data, &mut self.unsent);
        }
    }

    pub(super) fn poll_write(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // One batch at a time, so that little is ever held back here.
        ready!(self.poll_flush(wire, cx))?;
        let room = self.room.clone();
        let mut room = room.0.borrow_mut();
        self.unhurried = false;
        let ticket = std::mem::take(&mut self.unsent);
        let (before, behind) = room.split_at_mut(ticket.len());
        before.copy_from_slice(&ticket);
        let fits = behind.len() / (LARGEST_PLAIN + SEALING) * LARGEST_PLAIN;
        let taken = bytes.len().min(self.batch).min(fits);
        let sealed = self.with_writer(behind, |writer, out| writer.encrypt(&bytes[..taken], out))?;
        self.hand_over(wire, cx, &room[..ticket.len() + sealed])?;
        Poll::Ready(Ok(taken))
    }

    /// Brings rustls to where it can seal, and seals; how many bytes of `out` that came to.
    fn with_writer(
        &mut self,
        out: &mut [u8],
        seal: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        if self.broken {
            // Nothing follows an alert (RFC 8446 section 6.2).
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut length = 0;
        loop {
            // Nothing in `partial` can be decrypted, but rustls may refer to a handshake message in it.
            match self.connection.process_tls_records(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut writer)) => {
                    return Ok(length + seal(&mut writer, &mut out[length..]).map_err(io::Error::other)?);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    length += data.encode(&mut out[length..]).map_err(io::Error::other)?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                // Before the handshake is done, after both sides said close_notify, or while something was not taken.
                Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// Gives the socket `records`, as far as it takes them; the rest waits, and the socket will wake us.
    fn hand_over(&mut self, wire: &mut Wire, cx: &mut Context<'_>, mut records: &[u8]) -> io::Result<()> {
        while !records.is_empty() {
            match wire.poll_write(cx, records) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(length)) => records = &records[length..],
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.unsent = records.to_vec();
                    self.batch = SLOW_BATCH;
                    return Ok(());
                }
            }
        }
        self.batch = FAST_BATCH;
        Ok(())
    }

    pub(super) fn poll_flush(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.holds_back() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.unsent.len() {
            match ready!(wire.poll_write(cx, &self.unsent[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.sent += length,
            }
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Says close_notify, once, and flushes.
    pub(super) fn poll_close(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unhurried = false;
        if !std::mem::replace(&mut self.close_notify_said, true) && !self.broken {
            let mut notify = [0; 256];
            let length = self.with_writer(&mut notify, |writer, out| writer.queue_close_notify(out))?;
            self.unsent.extend_from_slice(&notify[..length]);
        }
        self.poll_flush(wire, cx)
    }
}

/// Takes a record that rustls has ready; its error tells the size.
fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, to: &mut Vec<u8>) {
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        let begin = to.len();
        to.resize(begin + size.required_size, 0);
        let encoded = data.encode(&mut to[begin..]);
        debug_assert!(encoded.is_ok(), "{encoded:?}");
    }
}

#[cfg(test)]
mod tests;
