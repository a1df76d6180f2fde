//! The opening handshake with a backend: we are the client (RFC 6455 section 4.1).
use super::{
    asking::Asking,
    switching::{Answer, read},
    verify::verify,
};
use crate::transport::Stream;
use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The least that hyper takes as its largest buffer.
pub(crate) const LEAST_BUFFER: usize = 8 * 1024;
/// Room for a usual answer, and by how much it grows.
const USUAL: usize = 1024;

/// Why a handshake came to no answer that could pass.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The connection ended, or what came was no HTTP.
    #[error("{}", told(source))]
    Http { source: hyper::Error },
    #[error("the connection broke: {source}")]
    Io { source: io::Error },
    /// The answer must not pass (RFC 6455 section 4.1, or a 2xx).
    #[error("bad handshake: {cause}")]
    Bad { cause: String },
    #[error("the path cannot be asked for: {source}")]
    Request { source: http::uri::InvalidUri },
}

/// What a backend answered.
pub(crate) enum Shaken {
    Accepted { stream: Stream, early: Vec<u8>, head: http::response::Parts },
    Refused(Response<Incoming>),
}

/// Asks over a fresh stream. `header` bounds the head of the answer, in bytes. Dropping the future closes the stream.
///
/// A 101 is all that most backends ever say: its head is read here, with the parser that hyper has too, and whatever else
/// comes is left to hyper.
pub(crate) async fn shake(mut stream: Stream, asking: Asking, header: usize) -> Result<Shaken, HandshakeError> {
    let failed = |source| HandshakeError::Io { source };
    let request = asking.written();
    let (mut saying, mut answer) = (Saying::begun(&request, &stream), Vec::new());
    loop {
        let known = answer.len();
        answer.reserve(USUAL);
        // One that does not take the whole of a large request may have answered all the same.
        let read_some = poll_fn(|cx| {
            saying.go_on(&mut stream, cx);
            pin!(stream.read_buf(&mut answer)).poll(cx)
        });
        let ended = read_some.await.map_err(failed)? == 0;
        if ended && let Saying::Failed(error) = saying {
            return Err(failed(error));
        }
        answer = match read(answer, known, header) {
            Answer::Incomplete(answer) if !ended => answer,
            Answer::Incomplete(answer) => {
                return Box::pin(shake_by_hyper(stream, answer.into(), &asking, header)).await;
            }
            Answer::Other(answer) => return Box::pin(shake_by_hyper(stream, answer, &asking, header)).await,
            Answer::Switching { head, early } => {
                if !matches!(saying, Saying::Done) {
                    let cause = "it answered 101 before it had the whole request".to_owned();
                    return Err(HandshakeError::Bad { cause });
                }
                verified(&head.headers, &asking)?;
                return Ok(Shaken::Accepted { stream, early: early.to_vec(), head });
            }
        }
    }
}

/// A request on its way.
enum Saying<'a> {
    Now(&'a [u8]),
    Done,
    /// Nothing more can be written; an answer may have come before.
    Failed(io::Error),
}

impl<'a> Saying<'a> {
    fn begun(request: &'a [u8], stream: &Stream) -> Self {
        match stream.begin(request) {
            Ok(length) => Self::Now(&request[length..]),
            Err(error) => Self::Failed(error),
        }
    }

    /// Says what the stream takes.
    fn go_on(&mut self, stream: &mut Stream, cx: &mut Context<'_>) {
        while let Self::Now(rest) = self {
            let said = if rest.is_empty() {
                Pin::new(&mut *stream).poll_flush(cx).map_ok(|()| None)
            } else {
                Pin::new(&mut *stream).poll_write(cx, rest).map_ok(Some)
            };
            match said {
                Poll::Pending => return,
                Poll::Ready(Ok(Some(0))) => *self = Self::Failed(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(Some(length))) => *rest = &rest[length..],
                Poll::Ready(Ok(None)) => *self = Self::Done,
                Poll::Ready(Err(error)) => *self = Self::Failed(error),
            }
        }
    }
}

fn verified(answer: &HeaderMap, asking: &Asking) -> Result<(), HandshakeError> {
    verify(answer, &asking.key, &asking.offered).map_err(|cause| HandshakeError::Bad { cause })
}

/// What hyper makes of an answer, of which something was `read` already. The request was sent.
pub(super) async fn shake_by_hyper(
    stream: Stream,
    read: Bytes,
    asking: &Asking,
    header: usize,
) -> Result<Shaken, HandshakeError> {
    let failed = |source| HandshakeError::Http { source };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = asking.target.clone();
    let (mut sender, mut connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_header_size(header)
        .max_buf_size(header.max(LEAST_BUFFER))
        .handshake(TokioIo::new(Asked { stream, read, again: Again::NotYet(None) }))
        .await
        .map_err(failed)?;
    let mut response = pin!(sender.send_request(request));
    let (response, done) = tokio::select! {
        biased;
        response = &mut response => (response, None),
        // It is done only after it has handed over a response or an error.
        done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => (response.await, Some(done)),
    };
    let response = response.map_err(failed)?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return refused(response, done.is_none().then_some(connection));
    }
    match done {
        Some(done) => done,
        None => poll_fn(|cx| connection.poll_without_shutdown(cx)).await,
    }
    .map_err(failed)?;
    verified(response.headers(), asking)?;
    let parts = connection.into_parts();
    let Asked { stream, read, .. } = parts.io.into_inner();
    Ok(Shaken::Accepted { stream, early: [parts.read_buf, read].concat(), head: response.into_parts().0 })
}

/// A stream on which a request was sent, and some of its answer read, for a client that asks the same once more: what it writes,
/// which is nothing but that request, is dropped, and only then it gets the answer.
struct Asked {
    stream: Stream,
    read: Bytes,
    again: Again,
}

/// Whether the request was written once more.
enum Again {
    NotYet(Option<Waker>),
    Written,
}

impl AsyncRead for Asked {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, read, again } = self.get_mut();
        if let Again::NotYet(waker) = again {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if read.is_empty() {
            return Pin::new(stream).poll_read(cx, buf);
        }
        let length = read.len().min(buf.remaining());
        buf.put_slice(&read[..length]);
        read.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Asked {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Again::NotYet(Some(waker)) = mem::replace(&mut self.get_mut().again, Again::Written) {
            waker.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

type Connection = http1::Connection<TokioIo<Asked>, Empty<Bytes>>;

/// Passes a refusal on; its body streams in a task that ends with the response.
fn refused(response: Response<Incoming>, connection: Option<Connection>) -> Result<Shaken, HandshakeError> {
    let status = response.status();
    if status.is_success() {
        let cause = format!("it answered {status} where a WebSocket server answers 101 Switching Protocols");
        return Err(HandshakeError::Bad { cause });
    }
    if let Some(connection) = connection {
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a backend's refusal ended early");
            }
        });
    }
    Ok(Shaken::Refused(response))
}

/// hyper's errors in an operator's words.
pub(crate) fn told(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "it closed the connection before its answer was complete".to_owned();
    }
    if error.is_parse_too_large() {
        return "the head of its answer is larger than limits.header".to_owned();
    }
    if error.is_parse() {
        return format!("its answer is not HTTP/1.1: {error}");
    }
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("the connection broke: {source}"))
}
