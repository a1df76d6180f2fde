//! A backend that never answers a ping, as some old ones do; it echoes everything else.
//!
//! `cargo run --example silent_backend -- 127.0.0.1:8000`, then `pulsegate try ws://127.0.0.1:8000`: the gateway keeps its
//! sessions, because their TCP is alive, and warns once.
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]
use std::{
    env,
    error::Error,
    net::{TcpListener, TcpStream},
    thread,
};
use tungstenite::protocol::frame::{
    Frame, FrameHeader, FrameSocket,
    coding::{Control, OpCode},
};

/// Larger frames end the session.
const LARGEST_FRAME: usize = 16 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("listening on ws://{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || match serve(stream) {
            Ok(()) => println!("closed"),
            Err(error) => println!("ended: {error}"),
        });
    }
    Ok(())
}

fn serve(stream: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    let peer = stream.peer_addr()?;
    // Only the handshake is tungstenite's own: its `WebSocket` would answer pings, and cannot be told not to.
    let stream = tungstenite::accept(stream).map_err(|error| error.to_string())?.into_inner();
    println!("{peer} opened a session");
    let mut frames = FrameSocket::new(stream);
    while let Some(frame) = frames.read(Some(LARGEST_FRAME))? {
        let header = FrameHeader { mask: None, ..frame.header().clone() };
        let key = frame.header().mask.unwrap_or_default();
        let mut payload = frame.into_payload().to_vec();
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        match header.opcode {
            OpCode::Data(_) => frames.send(Frame::from_payload(header, payload.into()))?,
            OpCode::Control(Control::Ping) => println!("{peer} pings, and gets no pong"),
            OpCode::Control(Control::Close) => return Ok(frames.send(Frame::from_payload(header, payload.into()))?),
            OpCode::Control(Control::Pong | Control::Reserved(_)) => {}
        }
    }
    Ok(())
}
