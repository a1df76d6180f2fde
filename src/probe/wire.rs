//! A WebSocket as a probe needs it: control frames are read whole, messages are counted and skipped.
//!
//! Frames are read one by one, so that a compressed message or one of any size is no trouble.
use crate::transport::Stream;
use std::io::{self, Cursor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tungstenite::protocol::frame::{
    CloseFrame, Frame, FrameHeader, Utf8Bytes,
    coding::{CloseCode, Control, OpCode},
};

/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_LONGEST: u64 = 125;
const ROOM: usize = 16 * 1024;

/// What came, or how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// A frame of a message, and its bytes.
    Data(u64),
    Ended(Ending),
}

/// How a service ends a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A close frame; 1005 if it had no code.
    Close { code: u16, reason: String },
    /// The end of the stream, without a close frame before it.
    End,
    /// A reset.
    Reset,
    /// Something that is no frame, or an error of the connection.
    Broken(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Close { code, reason } if reason.is_empty() => write!(f, "close frame {code}"),
            Self::Close { code, reason } => write!(f, "close frame {code} \"{}\"", reason.escape_debug()),
            Self::End => f.write_str("end of the stream without a close frame"),
            Self::Reset => f.write_str("reset"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// An open WebSocket; we are the client.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    read: Vec<u8>,
    /// Bytes of a message's frame that are still to be skipped.
    skip: u64,
    /// When bytes last crossed, either way.
    pub(super) moved: Instant,
}

impl Wire {
    pub(super) fn new(stream: Stream, early: Vec<u8>) -> Self {
        Self { stream, read: early, skip: 0, moved: Instant::now() }
    }

    /// The next thing that comes. Dropping the future loses nothing.
    pub(super) async fn arrived(&mut self) -> Arrived {
        loop {
            match self.frame() {
                Ok(Some(arrived)) => return arrived,
                Ok(None) => {}
                Err(what) => return Arrived::Ended(Ending::Broken(what)),
            }
            self.read.reserve(ROOM);
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) => return Arrived::Ended(Ending::End),
                Ok(_) => self.moved = Instant::now(),
                Err(error) => return Arrived::Ended(ending(&error)),
            }
        }
    }

    pub(super) async fn ping(&mut self, payload: &[u8]) -> Result<(), Ending> {
        self.send(Frame::ping(payload.to_vec())).await
    }

    pub(super) async fn pong(&mut self, payload: Vec<u8>) -> Result<(), Ending> {
        self.send(Frame::pong(payload)).await
    }

    /// Says the close frame of a probe: 1000.
    pub(super) async fn close(&mut self) -> Result<(), Ending> {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("probe") };
        self.send(Frame::close(Some(frame))).await
    }

    async fn send(&mut self, mut frame: Frame) -> Result<(), Ending> {
        frame.header_mut().mask = Some(fastrand::u32(..).to_be_bytes());
        let mut bytes = Vec::new();
        frame.format(&mut bytes).map_err(|error| Ending::Broken(error.to_string()))?;
        self.stream.write_all(&bytes).await.map_err(|error| ending(&error))?;
        self.stream.flush().await.map_err(|error| ending(&error))?;
        self.moved = Instant::now();
        Ok(())
    }

    /// The next frame in the buffer. A control frame must be there whole, of a message its header.
    fn frame(&mut self) -> Result<Option<Arrived>, String> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.read.len());
        self.read.drain(..skipped);
        self.skip -= skipped as u64;
        let mut cursor = Cursor::new(&self.read);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|error| format!("what came is no frame: {error}"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let begin = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        if header.mask.is_some() {
            return Err("it masks its frames, which servers must not".to_owned());
        }
        let control = match header.opcode {
            OpCode::Data(_) => {
                self.read.drain(..begin);
                self.skip = length;
                return Ok(Some(Arrived::Data(length)));
            }
            OpCode::Control(control) => control,
        };
        if length > CONTROL_LONGEST {
            return Err(format!("a control frame of {length} bytes came, and {CONTROL_LONGEST} are allowed"));
        }
        let end = begin + usize::try_from(length).unwrap_or(usize::MAX);
        if self.read.len() < end {
            return Ok(None);
        }
        let payload = self.read[begin..end].to_vec();
        self.read.drain(..end);
        Ok(Some(match control {
            Control::Ping => Arrived::Ping(payload),
            Control::Pong => Arrived::Pong(payload),
            Control::Close => Arrived::Ended(closed(&payload)),
            Control::Reserved(code) => return Err(format!("a frame with the reserved opcode {code} came")),
        }))
    }
}

/// A close frame without a code stands for 1005 (RFC 6455 section 7.1.5).
fn closed(payload: &[u8]) -> Ending {
    match payload {
        [high, low, reason @ ..] => Ending::Close {
            code: u16::from_be_bytes([*high, *low]),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        [_] | [] => Ending::Close { code: 1005, reason: String::new() },
    }
}

fn ending(error: &io::Error) -> Ending {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        Ending::Reset
    } else if kind == io::ErrorKind::UnexpectedEof {
        // TLS that ends without close_notify.
        Ending::End
    } else {
        Ending::Broken(format!("the connection broke: {error}"))
    }
}
