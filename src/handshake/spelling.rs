//! Header names as RFC 6455 spells them, on a stream that hyper writes.
use super::names::{Names, Record};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Handshake names that are always ours to write (RFC 6455 sections 4.1 and 4.2.2).
const HANDSHAKE: [&str; 5] =
    ["Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Accept"];

/// A stream whose written heads get header names respelled, when asked to.
///
/// hyper writes a name that it did not receive in lower case, and old backends and devices compare bytes. Only
/// names in the lists are touched, and only their case: the length of a head does not change. A name of the
/// handshake itself is always respelled; any other one only if it stands wholly in lower case, since with
/// capitals it is a name that hyper received. Names of an answer that hyper did not read are among those to be spelled.
#[derive(Debug)]
pub struct Spelled<T> {
    io: T,
    names: &'static [&'static str],
    order: Arc<Order>,
    head: Vec<u8>,
    /// How much of `head` the stream has taken.
    written: usize,
}

/// Tells a [`Spelled`] that the next bytes written are a head.
#[derive(Clone, Debug, Default)]
pub struct Speller {
    order: Arc<Order>,
}

#[derive(Debug, Default)]
struct Order {
    armed: AtomicBool,
    more: Mutex<More>,
}

/// Names besides those that are always known.
#[derive(Clone, Debug, Default)]
struct More {
    /// As the peer spelled them from whom they come, line by line.
    came: Names,
    set: Arc<[Box<str>]>,
}

/// The names of an answer's head as they came, if hyper would write any of them otherwise.
pub(crate) fn odd<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Names> {
    let ours = |name: &str| HANDSHAKE.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let mut others = names.clone().filter(|name| !ours(name));
    if !others.any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return None;
    }
    let mut record = Record::default();
    names.for_each(|name| record.note(name.as_bytes()));
    Some(record.names())
}

impl Speller {
    /// Has the header names of the next head respelled, up to its blank line.
    pub fn arm(&self) {
        self.order.armed.store(true, Ordering::Relaxed);
    }

    /// Spells the names of a whole head itself, if it was told of one.
    pub(super) fn spell(&self, head: &mut [u8], names: &[&str]) {
        if self.order.armed.swap(false, Ordering::Relaxed) {
            // A head that is whole has an end.
            respell(head, names, &self.order.more.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The same, with these names, too, in this head and those that follow.
    pub fn arm_with(&self, names: Arc<[Box<str>]>) {
        self.order.more.lock().unwrap_or_else(PoisonError::into_inner).set = names;
        self.arm();
    }

    /// The same with names that are passed on; they come first.
    pub(crate) fn arm_as(&self, came: Names) {
        self.order.more.lock().unwrap_or_else(PoisonError::into_inner).came = came;
        self.arm();
    }
}

impl<T> Spelled<T> {
    /// Wraps a stream; `names` are spelled as they shall be written, once `speller` says so.
    pub fn new(io: T, names: &'static [&'static str], speller: &Speller) -> Self {
        Self { io, names, order: Arc::clone(&speller.order), head: Vec::new(), written: 0 }
    }

    /// The stream itself. A head that was written whole and flushed has left.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Keeps the bytes that belong to the head and says how many those are.
    fn collect(&mut self, bytes: &[u8]) -> usize {
        let known = self.head.len();
        self.head.extend_from_slice(bytes);
        let more = self.order.more.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(length) = respell(&mut self.head, self.names, &more) else { return bytes.len() };
        self.head.truncate(length);
        self.order.armed.store(false, Ordering::Relaxed);
        length - known
    }
}

impl<T: AsyncWrite + Unpin> Spelled<T> {
    /// Writes a complete head out; an incomplete one waits for its rest.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() || self.order.armed.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        while self.written < self.head.len() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.head[self.written..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        self.head = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Spelled<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Spelled<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.order.armed.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(this.collect(buf)));
        }
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.order.armed.load(Ordering::Relaxed) {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return Poll::Ready(Ok(this.collect(first)));
        }
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_head(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Respells the names of a head in place, up to its blank line; its first line has no name. How long the head is; `None` if
/// its blank line has not come yet: then what is there may be given again.
fn respell(head: &mut [u8], names: &[&str], more: &More) -> Option<usize> {
    let mut at = line_end(head)?;
    let mut came = more.came.search();
    loop {
        let line = &mut head[at..];
        let length = line_end(line)?;
        let line = &mut line[..length];
        at += length;
        if line == b"\r\n" {
            return Some(at);
        }
        if let Some(colon) = memchr::memchr(b':', line) {
            let name = &mut line[..colon];
            let came = came.find(name);
            respell_name(name, came, &more.set, names);
        }
    }
}

/// The length of the first line, its line break included.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

fn respell_name(name: &mut [u8], came: Option<&[u8]>, set: &[Box<str>], names: &[&str]) {
    let as_it_came = came.filter(|came| came.iter().any(u8::is_ascii_uppercase));
    let mut ours = set.iter().map(|name| &**name).chain(names.iter().copied()).map(str::as_bytes);
    let Some(ours) = ours.find(|ours| ours.eq_ignore_ascii_case(name)) else {
        as_it_came.into_iter().for_each(|came| name.copy_from_slice(came));
        return;
    };
    if HANDSHAKE.iter().any(|handshake| handshake.as_bytes() == ours) {
        name.copy_from_slice(ours);
    } else if !name.iter().any(u8::is_ascii_uppercase) {
        name.copy_from_slice(as_it_came.unwrap_or(ours));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const NAMES: &[&str] = &["Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "X-Request-Id"];
    const HEAD: &[u8] = b"GET /host:x HTTP/1.1\r\nhost: connection: a\r\nconnection: Upgrade\r\nUPGRADE: websocket\r\n\
        sec-websocket-key: abc\r\nsec-websocket-keys: host: upgrade\r\nX-Request-ID: 1\r\n\r\n";
    const SPELLED: &[u8] =
        b"GET /host:x HTTP/1.1\r\nHost: connection: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: abc\r\nsec-websocket-keys: host: upgrade\r\nX-Request-ID: 1\r\n\r\n";

    /// Takes at most the given number of bytes a write, and is not ready every other time.
    struct Grudging {
        taken: Vec<u8>,
        sizes: Vec<usize>,
        turn: usize,
    }

    impl AsyncWrite for Grudging {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.turn += 1;
            if self.turn.is_multiple_of(2) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let n = buf.len().min(self.sizes[self.turn % self.sizes.len()]);
            self.taken.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn one_head_is_respelled_however_it_is_written(
            chunk in 1usize..60, sizes in prop::collection::vec(1usize..40, 1..5), vectored: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = b"host: stays\r\n\r\nconnection: stays";
            let taken = runtime.block_on(async {
                let speller = Speller::default();
                let mut io = Spelled::new(Grudging { taken: Vec::new(), sizes, turn: 0 }, NAMES, &speller);
                speller.arm();
                let all = [HEAD, body].concat();
                for piece in all.chunks(chunk) {
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let (one, two) = rest.split_at(rest.len() / 2);
                        let n = if vectored {
                            io.write_vectored(&[io::IoSlice::new(one), io::IoSlice::new(two)]).await.unwrap()
                        } else {
                            io.write(rest).await.unwrap()
                        };
                        rest = &rest[n..];
                    }
                    io.flush().await.unwrap();
                }
                io.into_inner().taken
            });
            prop_assert_eq!(taken, [SPELLED, body].concat());
        }
    }

    #[tokio::test]
    async fn each_head_is_armed_by_itself() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let speller = Speller::default();
        let mut io = Spelled::new(ours, NAMES, &speller);
        for armed in [true, false, true] {
            if armed {
                speller.arm();
            }
            io.write_all(HEAD).await.unwrap();
            io.flush().await.unwrap();
            let mut got = vec![0; HEAD.len()];
            theirs.read_exact(&mut got).await.unwrap();
            assert_eq!(got, if armed { SPELLED } else { HEAD });
        }
    }
}
