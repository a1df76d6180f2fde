//! `builtin:echo`: a backend inside the gateway that sends every message back.
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tungstenite::{
    Error, Message,
    handshake::server::{Request, Response},
    protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
};

/// Bytes held per direction.
const BUFFER: usize = 4 * 1024;
/// The longest message it assembles; equals the default of `limits.client.message`.
const LONGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// Starts an echo backend; it ends when the returned stream is dropped.
pub(super) fn start() -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    tokio::task::spawn_local(serve(theirs));
    ours
}

async fn serve(io: DuplexStream) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE));
    match accept_hdr_async_with_config(io, accept_first_subprotocol, Some(config)).await {
        Ok(socket) => echo(socket).await,
        Err(error) => tracing::debug!(%error, "the built-in echo refused a handshake"),
    }
}

/// Answers with the first subprotocol offered, so that clients that insist on theirs work.
#[expect(clippy::result_large_err, reason = "tungstenite's callback is so")]
#[expect(clippy::unnecessary_wraps, reason = "tungstenite's callback is so")]
fn accept_first_subprotocol(
    request: &Request,
    mut response: Response,
) -> Result<Response, tungstenite::handshake::server::ErrorResponse> {
    const PROTOCOL: http::HeaderName = http::header::SEC_WEBSOCKET_PROTOCOL;
    let first = request
        .headers()
        .get(PROTOCOL)
        .and_then(|offered| offered.to_str().ok()?.split(',').map(str::trim).find(|name| !name.is_empty()))
        .and_then(|name| http::HeaderValue::from_str(name).ok());
    if let Some(first) = first {
        response.headers_mut().insert(PROTOCOL, first);
    }
    Ok(response)
}

/// Echoes until the stream ends; tungstenite answers pings and close frames by itself.
async fn echo(mut socket: WebSocketStream<DuplexStream>) {
    while let Some(received) = socket.next().await {
        let reply = match received {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => message,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => continue,
            Err(Error::Protocol(_)) => farewell(CloseCode::Protocol),
            Err(Error::Utf8(_)) => farewell(CloseCode::Invalid),
            Err(Error::Capacity(_)) => farewell(CloseCode::Size),
            // Closed, or the session is gone.
            Err(_) => return,
        };
        let last = matches!(reply, Message::Close(_));
        if socket.send(reply).await.is_err() || last {
            return;
        }
    }
}

fn farewell(code: CloseCode) -> Message {
    Message::Close(Some(CloseFrame { code, reason: "".into() }))
}
