//! A connection's first request, if it is for a session and came at once: most are, and nearly all of them end in a 101. Whatever
//! else comes is left to hyper, from its first byte.
use super::{
    head::{self, Head},
    response::SPELLINGS,
    service::Visit,
    stack::{self, StackAnswer, StackBody},
};
use crate::transport::Stream;
use bytes::Bytes;
use http::{
    Response, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body_util::{Either, Empty};
use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

/// Room for a usual head.
const USUAL: usize = 4096;
/// And for that of an answer.
const USUAL_ANSWER: usize = 512;
/// As much as is read of what comes while a backend is asked.
const BEHIND: usize = 1024;

/// What became of it.
pub(super) enum First {
    /// The client was told 101; what came behind its request, copied, as it would keep the whole head alive.
    Told(Vec<u8>),
    /// It is hyper's: what was read of the connection, and the answer to its first request, if there is one already.
    Left { read: Bytes, answer: Option<StackAnswer> },
    /// The client is gone.
    Gone,
}

/// Serves it; `header` bounds its head, in bytes. Dropping the future cancels the dial.
pub(super) async fn serve(visit: &Rc<Visit>, stream: &mut Stream, header: usize) -> First {
    let mut read = Vec::with_capacity(USUAL);
    if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
        return First::Gone;
    }
    let read = Bytes::from(read);
    let Some(Head { request, names, length }) = head::read(&read, header) else {
        return First::Left { read, answer: None };
    };
    visit.begin(&request, Some(names));
    let mut behind = Vec::new();
    let answer = {
        let mut answering = pin!(stack::answer(visit, request.map(|()| Either::Left(Empty::new()))));
        let answer = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if read.len() > length || !behind.is_empty() => Poll::Pending,
            Poll::Pending => poll_listen(stream, &mut behind, cx).map(|()| None),
        });
        let Some(answer) = answer.await else { return First::Gone };
        answer
    };
    let head = answer.as_ref().ok().and_then(written);
    let Some(mut head) = head else {
        return First::Left { read: [&read[..], &behind].concat().into(), answer: Some(answer) };
    };
    visit.speller.spell(&mut head, SPELLINGS);
    if say(stream, &head).await.is_err() {
        return First::Gone;
    }
    First::Told([&read[length..], &behind].concat())
}

/// Listens to a client that waits for its answer, until it says something. Ready: it is gone.
fn poll_listen(stream: &mut Stream, behind: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<()> {
    let mut room = [const { MaybeUninit::uninit() }; BEHIND];
    let mut room = ReadBuf::uninit(&mut room);
    let heard = ready!(Pin::new(stream).poll_read(cx, &mut room));
    if heard.is_err() || room.filled().is_empty() {
        return Poll::Ready(());
    }
    behind.extend_from_slice(room.filled());
    Poll::Pending
}

/// A 101 as it is sent. `None`: it is none, or has what hyper is to write: a reason of its own, or names whose spelling hyper keeps.
fn written(answer: &Response<StackBody>) -> Option<Vec<u8>> {
    let headers = answer.headers();
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS
        || !answer.extensions().is_empty()
        || [CONTENT_LENGTH, TRANSFER_ENCODING].iter().any(|name| headers.contains_key(name))
    {
        return None;
    }
    let mut head = Vec::with_capacity(USUAL_ANSWER);
    head.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    for (name, value) in headers {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
        line.into_iter().for_each(|part| head.extend_from_slice(part));
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

async fn say(stream: &mut Stream, head: &[u8]) -> io::Result<()> {
    stream.write_all(head).await?;
    stream.flush().await
}
