//! The head of a 101, read from bytes.
use crate::handshake::{
    head::{MOST_HEADERS, headers},
    spelling::odd,
};
use bytes::Bytes;
use http::{Response, StatusCode, response::Parts};
use httparse::{ParserConfig, Status};
use hyper::ext::ReasonPhrase;
use memchr::memmem;
use std::mem::MaybeUninit;

/// How the answer begins that is looked for.
const BEGINNING: &[u8] = b"HTTP/1.1 101";

/// What was read of an answer.
pub(crate) enum Answer {
    /// It may become a 101.
    Incomplete(Vec<u8>),
    /// It is none, or not one that can be read here.
    Other(Bytes),
    Switching {
        head: Parts,
        /// What stands behind it.
        early: Bytes,
    },
}

/// Reads an answer, of which the first `known` bytes were looked at before. Its head may have `most` bytes.
pub(crate) fn read(answer: Vec<u8>, known: usize, most: usize) -> Answer {
    let begins = answer.len().min(BEGINNING.len());
    if answer[..begins] != BEGINNING[..begins] {
        return Answer::Other(answer.into());
    }
    // An end that did not come whole before.
    let news = &answer[known.saturating_sub(2)..];
    if memmem::find(news, b"\n\r\n").is_none() && memmem::find(news, b"\n\n").is_none() {
        return if answer.len() >= most { Answer::Other(answer.into()) } else { Answer::Incomplete(answer) };
    }
    let answer = Bytes::from(answer);
    match switching(&answer, most) {
        Some((head, length)) => Answer::Switching { head, early: answer.slice(length..) },
        None => Answer::Other(answer),
    }
}

/// The head of a 101, and how long it is.
fn switching(answer: &Bytes, most: usize) -> Option<(Parts, usize)> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let read = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, answer, &mut room);
    let Ok(Status::Complete(length)) = read else { return None };
    if parsed.code != Some(101) || parsed.version != Some(1) || length > most {
        return None;
    }
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers = headers(answer, parsed.headers)?;
    // As hyper keeps it: nobody is to care.
    let reason = parsed.reason.unwrap_or_default();
    if Some(reason) != head.status.canonical_reason() {
        head.extensions.insert(ReasonPhrase::try_from(reason.as_bytes()).ok()?);
    }
    if let Some(names) = odd(parsed.headers.iter().map(|header| header.name)) {
        head.extensions.insert(names);
    }
    Some((head, length))
}
