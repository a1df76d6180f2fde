//! One open connection: sends whole frames, counts what arrives, answers pings. It keeps no payload.
use crate::{
    failure::Failure,
    options::Message,
    stream::Stream,
    tally::Tally,
    wire::{self, CLOSE, CONTROL_MAX, PING, Part, Scanner},
};
use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

/// How long a service may take to answer a close frame, and how long we wait for what comes after that.
const CLOSING: Duration = Duration::from_secs(10);
const LINGERING: Duration = Duration::from_secs(2);
/// Bytes that are sent and still kept.
const SENT_MAX: usize = 1 << 20;
/// The code of an ordinary close frame (RFC 6455 section 7.4.1).
const NORMAL: u16 = 1000;

/// What one read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Messages that are whole with it.
    pub(crate) messages: u64,
    /// Payload bytes of data frames.
    pub(crate) bytes: u64,
    pub(crate) pings: u64,
}

pub(crate) struct Connection {
    stream: Stream,
    scanner: Scanner,
    /// What came with the 101.
    early: Vec<u8>,
    /// Type of the message that is arriving, and its payload bytes so far.
    message: (u8, u64),
    /// Opcode and fin of the frame that is arriving.
    frame: (u8, bool),
    /// Payload of the control frame that is arriving.
    control: [u8; CONTROL_MAX],
    /// Whole frames that are to be sent, and how much of them is.
    outgoing: Vec<u8>,
    sent: usize,
    unflushed: bool,
    /// Our close frame is on its way: nothing may follow it (section 5.5.1).
    closing: bool,
    /// What every message must be: its type and size.
    expected: Option<(u8, u64)>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, early: Vec<u8>) -> Self {
        Self {
            stream,
            scanner: Scanner::default(),
            early,
            message: (0, 0),
            frame: (0, false),
            control: [0; CONTROL_MAX],
            outgoing: Vec::new(),
            sent: 0,
            unflushed: false,
            closing: false,
            expected: None,
        }
    }

    /// From now on a message of another type or size is a failure, if it is to be an echo.
    pub(crate) fn expect(&mut self, message: &Message) {
        let opcode = if message.text { wire::TEXT } else { wire::BINARY };
        self.expected = (!message.any).then_some((opcode, message.size as u64));
    }

    /// Appends whole frames to what is to be sent.
    pub(crate) fn queue(&mut self, frames: &[u8]) {
        // A queue that never runs dry would keep all that it ever sent.
        if self.sent >= SENT_MAX {
            self.outgoing.drain(..self.sent);
            self.sent = 0;
        }
        self.outgoing.extend_from_slice(frames);
    }

    /// Bytes that are queued and not sent.
    pub(crate) fn queued(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Sends what it can of `unsent`, whole frames, and of what is queued; waits for something to arrive.
    pub(crate) async fn turn(&mut self, unsent: &mut &[u8], tally: &Tally) -> Result<Received, Failure> {
        poll_fn(|cx| self.poll_turn(cx, unsent, tally)).await
    }

    /// The same, but ready as soon as all of `unsent` is sent, too.
    pub(crate) async fn push(&mut self, unsent: &mut &[u8], tally: &Tally) -> Result<Received, Failure> {
        poll_fn(|cx| match self.poll_turn(cx, unsent, tally) {
            Poll::Pending if unsent.is_empty() => Poll::Ready(Ok(Received::default())),
            turn @ (Poll::Pending | Poll::Ready(_)) => turn,
        })
        .await
    }

    /// The same as `turn`, to be polled.
    pub(crate) fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        unsent: &mut &[u8],
        tally: &Tally,
    ) -> Poll<Result<Received, Failure>> {
        if tally.is_stopping() {
            return Poll::Ready(Err(Failure::Stopped));
        }
        // It may stay unfinished: then it wakes us, and we read meanwhile.
        if let Poll::Ready(Err(error)) = self.poll_send(cx, unsent) {
            return Poll::Ready(Err(Failure::Lost(error)));
        }
        let received = if self.early.is_empty() {
            let mut scratch = tally.scratch();
            let mut into = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into)).map_err(Failure::Lost)?;
            if into.filled().is_empty() {
                return Poll::Ready(Err(Failure::Ended));
            }
            self.scan(into.filled())
        } else {
            let early = mem::take(&mut self.early);
            self.scan(&early)
        };
        if self.queued() > 0
            && let Poll::Ready(Err(error)) = self.poll_send(cx, unsent)
        {
            return Poll::Ready(Err(Failure::Lost(error)));
        }
        Poll::Ready(received)
    }

    /// Ready once all is sent. What is queued waits for `unsent`, of which part of a frame may be out.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, unsent: &mut &[u8]) -> Poll<std::io::Result<()>> {
        while !unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, unsent))?;
            *unsent = &unsent[sent..];
            self.unflushed = true;
        }
        while self.queued() > 0 {
            self.sent += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing[self.sent..]))?;
            self.unflushed = true;
        }
        self.outgoing.clear();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn scan(&mut self, mut input: &[u8]) -> Result<Received, Failure> {
        let mut received = Received::default();
        while let Some(part) = self.scanner.next(&mut input).map_err(Failure::Protocol)? {
            match part {
                Part::Head(header) => {
                    if header.key.is_some() {
                        return Err(Failure::Protocol("a masked frame"));
                    }
                    if !header.is_control() {
                        match (header.opcode, self.message.0) {
                            (0, 0) => return Err(Failure::Protocol("a continuation of nothing")),
                            (0, _) => {}
                            (opcode, 0) => self.message = (opcode, 0),
                            (_, _) => return Err(Failure::Protocol("a message within a message")),
                        }
                    }
                    self.frame = (header.opcode, header.fin);
                }
                Part::Payload { bytes, at, last } if self.frame.0 >= CLOSE => {
                    // At most 125 in all, as the scanner has checked.
                    self.control[at as usize..][..bytes.len()].copy_from_slice(bytes);
                    if last {
                        self.controlled(at as usize + bytes.len(), &mut received)?;
                    }
                }
                Part::Payload { bytes, last, .. } => {
                    received.bytes += bytes.len() as u64;
                    self.message.1 += bytes.len() as u64;
                    if last && self.frame.1 {
                        let message = mem::take(&mut self.message);
                        if self.expected.is_some_and(|expected| expected != message) {
                            return Err(Failure::Changed);
                        }
                        received.messages += 1;
                    }
                }
            }
        }
        Ok(received)
    }

    /// A control frame is whole, with `length` bytes of payload.
    fn controlled(&mut self, length: usize, received: &mut Received) -> Result<(), Failure> {
        let payload = &self.control[..length];
        let key = Some(fastrand::u32(..).to_be_bytes());
        match self.frame.0 {
            PING if !self.closing => {
                wire::put_frame(&mut self.outgoing, wire::PONG, payload, key);
                received.pings += 1;
            }
            CLOSE => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                if !self.closing {
                    wire::put_frame(&mut self.outgoing, CLOSE, &payload[..length.min(2)], key);
                    self.closing = true;
                }
                return Err(Failure::Closed(code));
            }
            // Unsolicited pongs are allowed (section 5.5.3).
            _ => {}
        }
        Ok(())
    }

    fn queue_close(&mut self) {
        wire::put_frame(&mut self.outgoing, CLOSE, &NORMAL.to_be_bytes(), Some(fastrand::u32(..).to_be_bytes()));
        self.closing = true;
    }

    /// The closing handshake, and the end of TCP, which is the server's to begin (section 7.1.1).
    ///
    /// # Errors
    /// When the service does not answer with a close frame. That it does not end TCP after it is none.
    pub(crate) async fn close(mut self, tally: &Tally) -> Result<(), Failure> {
        self.queue_close();
        let answered = async {
            loop {
                match self.turn(&mut &[][..], tally).await {
                    Ok(_) => {}
                    Err(Failure::Closed(_)) => break Ok(()),
                    Err(failure) => break Err(failure),
                }
            }
        };
        timeout(CLOSING, answered).await.map_err(|_| Failure::Unanswered(CLOSING.as_secs()))??;
        let _ = timeout(LINGERING, async { while self.turn(&mut &[][..], tally).await.is_ok() {} }).await;
        Ok(())
    }

    /// Says goodbye after the work: with a close frame, if what was sent so far ends with a frame.
    pub(crate) async fn leave(mut self, between_frames: bool) {
        if between_frames {
            self.queue_close();
        } else {
            self.outgoing.clear();
            self.sent = 0;
        }
        let leaving = poll_fn(|cx| {
            let _ = ready!(self.poll_send(cx, &mut &[][..]));
            Pin::new(&mut self.stream).poll_shutdown(cx)
        });
        // Nothing is measured any more, and the connection is ours to drop.
        let _ = timeout(LINGERING, leaving).await;
    }
}
