//! The opening handshake (RFC 6455 section 4), as much of it as it takes to load a service and to stand behind a proxy.
use crate::failure::Failure;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::handshake::{client::generate_key, derive_accept_key};

/// Longer heads are refused.
const HEAD_MAX: usize = 64 << 10;

/// The head of a request or response, and what came after it.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            let what = format!("the connection ended after {} bytes of the head", bytes.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > HEAD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head has no end"));
        }
    }
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Asks for a session with `request`, a head that lacks only its key and its end; answers what came after the 101.
pub(crate) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, request: &str) -> Result<Vec<u8>, Failure> {
    let key = generate_key();
    let request = format!("{request}Sec-WebSocket-Key: {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(Failure::Handshake)?;
    stream.flush().await.map_err(Failure::Handshake)?;
    let (answer, rest) = head(stream).await.map_err(Failure::Handshake)?;
    let status = answer.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Err(Failure::Refused(status.to_owned()));
    }
    if value(&answer, "sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(Failure::Key);
    }
    Ok(rest)
}

/// Accepts a session: its path, and what came after the request. A request for anything else gets a short 200, which
/// is what the health check of a proxy wants, and `None`.
pub(crate) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Option<(String, Vec<u8>)>> {
    let (request, rest) = head(stream).await?;
    let Some(key) = value(&request, "sec-websocket-key") else {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n").await?;
        return Ok(None);
    };
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    Ok(Some((path, rest)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn both_sides_agree_and_keep_what_came_early() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let request = "GET /source/64/0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n";
        let serving = async {
            let accepted = answer(&mut server).await.unwrap();
            server.write_all(b"early").await.unwrap();
            accepted
        };
        let (asked, accepted) = tokio::join!(ask(&mut client, request), serving);
        assert_eq!(accepted, Some(("/source/64/0".to_owned(), Vec::new())));
        let mut early = asked.unwrap();
        while early.len() < 5 {
            client.read_buf(&mut early).await.unwrap();
        }
        assert_eq!(early, b"early");
    }

    #[tokio::test]
    async fn a_refusal_is_told_by_its_first_line() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let refusing = async {
            head(&mut server).await.unwrap();
            server.write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n").await.unwrap();
        };
        let (asked, ()) = tokio::join!(ask(&mut client, "GET / HTTP/1.1\r\n"), refusing);
        assert_eq!(asked.unwrap_err().to_string(), "refused: HTTP/1.1 503 Service Unavailable");
    }
}
