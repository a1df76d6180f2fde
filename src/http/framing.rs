//! Where the bodies of a connection's requests end, by two readings, so that no two ends of a path ever disagree.
use crate::handshake::names::{Names, Record};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much of a header line as is kept: room for its name, and for the digits of a length.
const KEPT: usize = 128;

/// Heads whose names are kept until they are asked for: what comes behind the head of a session is no head.
const KEPT_HEADS: usize = 4;

/// What a request that cannot be framed in one way only is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambiguity {
    /// It has a `Content-Length` and a `Transfer-Encoding` (RFC 9112 section 6.1).
    TwoLengths,
    /// It follows one whose end was not clear.
    Unclear,
}

/// A stream whose requests' heads are watched as hyper reads them, since hyper drops a `Content-Length` beside a
/// `Transfer-Encoding` before anybody else sees it. A request with a `Transfer-Encoding` is the last that is watched: its
/// connection ends with its answer, so that no byte behind it is ever taken for another request.
///
/// Its end is told one turn after it was found: hyper looks for it before it asks for the answer to what it has just read, and then
/// asks no more. Who sends a request and ends with it (`nc -N`) is told what can be told at once; a longer wait ends with the client.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    io: T,
    /// Was read of it before.
    read: Bytes,
    /// Nothing more comes.
    ended: bool,
    reading: Reading,
    told: Rc<Watch>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Heads read so far.
    heads: Cell<u32>,
    ambiguous: Cell<Option<u32>>,
    /// Of heads that were read, and not asked for yet.
    names: RefCell<Vec<(u32, Names)>>,
}

impl Watch {
    /// What is wrong with the request of this number; the first is 1.
    pub(crate) fn ambiguity(&self, request: u32) -> Option<Ambiguity> {
        if self.ambiguous.get() == Some(request) {
            Some(Ambiguity::TwoLengths)
        } else {
            (request > self.heads.get()).then_some(Ambiguity::Unclear)
        }
    }

    /// The header names of the request of this number, once; those of earlier ones are forgotten. None if too many heads came
    /// together.
    pub(crate) fn names(&self, request: u32) -> Option<Names> {
        let mut kept = self.names.borrow_mut();
        kept.retain(|(number, _)| *number >= request);
        let place = kept.iter().position(|(number, _)| *number == request)?;
        Some(kept.swap_remove(place).1)
    }
}

#[derive(Debug)]
enum Reading {
    Head(Head),
    /// So many bytes of a body are still to come.
    Body(u64),
    /// No more heads are expected.
    Rest,
}

/// A head under way.
#[derive(Debug, Default)]
struct Head {
    line: Vec<u8>,
    /// Whether the line of the request is there.
    begun: bool,
    encoded: bool,
    length: Option<Length>,
    /// Of its headers.
    names: Record,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    /// hyper refuses it, or it is spelled oddly.
    Unclear,
}

impl<T> Watched<T> {
    /// `read`: what comes before all that is still to be read.
    pub(crate) fn new(io: T, read: Bytes, told: Rc<Watch>) -> Self {
        Self { io, read, ended: false, reading: Reading::Head(Head::default()), told }
    }

    /// The stream, and what nobody has asked for of what was read before.
    pub(crate) fn into_parts(self) -> (T, Bytes) {
        (self.io, self.read)
    }
}

impl Reading {
    /// Takes what was read.
    fn take(&mut self, mut bytes: &[u8], told: &Watch) {
        while !bytes.is_empty() {
            match self {
                Self::Rest => return,
                Self::Body(left) => {
                    let here = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    *left -= here as u64;
                    bytes = &bytes[here..];
                    if *left == 0 {
                        *self = Self::Head(Head::default());
                    }
                }
                Self::Head(head) => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        head.keep(bytes);
                        return;
                    };
                    head.keep(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    if head.end_line() {
                        *self = head.end(told);
                    }
                }
            }
        }
    }
}

impl Head {
    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Whether the head ends with the line that is kept.
    fn end_line(&mut self) -> bool {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if line.is_empty() {
            // Empty lines before a request count for nothing (RFC 9112 section 2.2).
            self.line.clear();
            return self.begun;
        }
        if self.begun {
            if value(line, b"transfer-encoding").is_some() {
                self.encoded = true;
            } else if let Some(digits) = value(line, b"content-length") {
                let whole = self.line.len() < KEPT;
                self.length = Some(length(digits).filter(|_| whole).map_or(Length::Unclear, Length::Known));
            }
            if let Some(colon) = memchr::memchr(b':', &self.line) {
                self.names.note(&self.line[..colon]);
            }
        }
        self.begun = true;
        self.line.clear();
        false
    }

    /// What follows this head.
    fn end(&mut self, told: &Watch) -> Reading {
        let number = told.heads.get().saturating_add(1);
        told.heads.set(number);
        let mut names = told.names.borrow_mut();
        if names.len() < KEPT_HEADS {
            names.push((number, mem::take(&mut self.names).names()));
        }
        match (self.encoded, self.length) {
            (true, Some(_)) => {
                told.ambiguous.set(Some(number));
                Reading::Rest
            }
            (true, None) | (false, Some(Length::Unclear)) => Reading::Rest,
            (false, None | Some(Length::Known(0))) => Reading::Head(Head::default()),
            (false, Some(Length::Known(length))) => Reading::Body(length),
        }
    }
}

/// What stands behind a header's name.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

fn length(digits: &[u8]) -> Option<u64> {
    let digits = digits.trim_ascii();
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if all { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, read, ended, reading, told } = self.get_mut();
        let known = buf.filled().len();
        if !read.is_empty() {
            buf.put_slice(&read.split_to(read.len().min(buf.remaining())));
            reading.take(&buf.filled()[known..], told);
            return Poll::Ready(Ok(()));
        }
        if *ended {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(io).poll_read(cx, buf))?;
        if buf.filled().len() == known && buf.remaining() > 0 {
            *ended = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        reading.take(&buf.filled()[known..], told);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads seen, and the one that is ambiguous, whatever the pieces in which the bytes come.
    fn watched(bytes: &str) -> (u32, Option<u32>) {
        let found = |piece: usize| {
            let (mut reading, told) = (Reading::Head(Head::default()), Watch::default());
            bytes.as_bytes().chunks(piece).for_each(|piece| reading.take(piece, &told));
            (told.heads.get(), told.ambiguous.get())
        };
        let whole = found(bytes.len());
        for piece in 1..9 {
            assert_eq!(found(piece), whole, "in pieces of {piece}: {bytes}");
        }
        whole
    }

    #[test]
    fn requests_follow_each_other() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 5\r\n\r\n12\r\n5";
        assert_eq!(watched(&format!("{get}\r\n\r\n{post}{get}{post}{post}")), (5, None));
        assert_eq!(watched("POST / HTTP/1.1\nContent-Length:2\n\nabGET / HTTP/1.1\n\n"), (2, None));
    }

    #[test]
    fn two_lengths_are_found_in_either_order_and_spelling() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for lines in [
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "content-length:0\r\nTRANSFER-ENCODING:\tchunked\r\n",
            "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n",
            "Content-Length: +5\r\nTransfer-Encoding: x\r\n",
        ] {
            assert_eq!(watched(&format!("{get}POST / HTTP/1.1\r\n{lines}\r\n0\r\n\r\n{get}")), (2, Some(2)), "{lines}");
        }
    }

    #[test]
    fn names_are_kept_as_they_came_until_they_are_taken() {
        for piece in [1, 7, usize::MAX] {
            let (mut reading, told) = (Reading::Head(Head::default()), Watch::default());
            let mut take = |bytes: &str| bytes.as_bytes().chunks(piece).for_each(|piece| reading.take(piece, &told));
            take("GET /a:b HTTP/1.1\r\nHOST: a:1\r\nx-Odd:\r\n\r\n");
            take("\u{1}frames\nthat: came\n\nearly");
            let mut expected = Record::default();
            [&b"HOST"[..], b"x-Odd"].into_iter().for_each(|name| expected.note(name));
            assert_eq!(told.names(1), Some(expected.names()));
            assert_eq!(told.names(1), None);
            take("\nX-Two: 1\n\nGET / HTTP/1.1\nX-Three: 1\n\n");
            let mut expected = Record::default();
            expected.note(b"X-Three");
            assert_eq!(told.names(4), Some(expected.names()));
            assert!(told.names.borrow().is_empty(), "those of earlier heads are forgotten");
        }
    }

    #[test]
    fn nothing_behind_an_encoded_body_is_a_request() {
        let bytes = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(watched(bytes), (1, None));
    }

    #[test]
    fn the_words_of_other_headers_and_of_bodies_count_for_nothing() {
        let bytes = "POST / HTTP/1.1\r\nX: content-length: 3\r\nX-Transfer-Encoding: y\r\nContent-Length: 27\r\n\r\n\
                     Transfer-Encoding: chunked\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(watched(bytes), (2, None));
        let long = format!("GET / HTTP/1.1\r\nX: {}\r\nContent-Length: 1\r\n\r\n.", "x".repeat(3 * KEPT));
        assert_eq!(watched(&long), (1, None));
        let odd = format!("GET / HTTP/1.1\r\nContent-Length: {}1\r\n\r\n.GET / HTTP/1.1\r\n\r\n", "0".repeat(KEPT));
        assert_eq!(watched(&odd), (1, None), "what follows is not taken for a request");
    }
}
