//! How a connection ends that did not become a session.
use super::service::Upgrade;
use crate::transport::Stream;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tungstenite::protocol::{CloseFrame, frame::Frame, frame::coding::CloseCode};

/// For a refused client to take its answer and close.
const LINGER: Duration = Duration::from_secs(2);

/// Ends writing, then reads until the client ends too: closing with unread bytes would send a reset, which erases the answer on
/// its way.
pub(super) async fn to_client(mut stream: Stream) {
    let lingering = async {
        stream.shutdown().await?;
        discard(&mut stream).await
    };
    // Whoever does not end in time, or resets, has no more to be told.
    if !matches!(timeout(LINGER, lingering).await, Ok(Ok(()))) {
        tracing::debug!("a refused connection was not closed by its client");
    }
}

/// Tells a backend that its client was lost before the session began: 1001, then the backend's close is awaited (as the server, it ends
/// TCP first), at most `timeouts.close`.
pub(super) async fn to_backend(upgrade: Upgrade) {
    let Upgrade { upstream, facts, .. } = upgrade;
    let mut stream = upstream.stream;
    let closing = async {
        stream.write_all(&going_away(fastrand::u32(..).to_be_bytes())?).await?;
        stream.flush().await?;
        discard(&mut stream).await
    };
    if !matches!(timeout(facts.route.options.relay.timeouts.close, closing).await, Ok(Ok(()))) {
        tracing::debug!(id = %facts.id, "the backend did not answer our close frame");
    }
}

fn going_away(mask: [u8; 4]) -> io::Result<Vec<u8>> {
    let close = CloseFrame { code: CloseCode::Away, reason: "client connection lost".into() };
    let mut frame = Frame::close(Some(close));
    frame.header_mut().mask = Some(mask);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

async fn discard(stream: &mut Stream) -> io::Result<()> {
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_close_frame_is_masked_as_a_clients() {
        let bytes = going_away([1, 2, 3, 4]).unwrap();
        assert_eq!(bytes[..6], [0x88, 0x80 | 24, 1, 2, 3, 4]);
        let payload: Vec<u8> =
            bytes[6..].iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(payload, b"\x03\xe9client connection lost");
    }
}
