//! Echo client: says one thing, then prints what arrives, pings too.
//!
//! `cargo run --example client -- ws://127.0.0.1:8080 [TEXT]`
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]
use std::{env, time::Instant};
use tungstenite::{Error, Message};

fn main() -> Result<(), Error> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "ws://127.0.0.1:8080".to_owned());
    let text = arguments.next().unwrap_or_else(|| "hello".to_owned());
    let (mut socket, response) = tungstenite::connect(&url)?;
    let opened = Instant::now();
    println!("{url} answers {}; leave this running to see the gateway's pings", response.status());
    socket.send(Message::text(text))?;
    loop {
        // The pong that RFC 6455 section 5.5.3 asks for goes out with the next read.
        let line = match socket.read() {
            Ok(Message::Text(text)) => format!("text {:?}", text.as_str()),
            Ok(Message::Binary(data)) => format!("binary, {} bytes", data.len()),
            Ok(Message::Ping(payload)) => format!("ping, {} bytes, answered", payload.len()),
            Ok(Message::Pong(payload)) => format!("pong, {} bytes", payload.len()),
            Ok(Message::Close(Some(close))) => format!("close {} {:?}", u16::from(close.code), close.reason.as_str()),
            Ok(Message::Close(None)) => "close without a code".to_owned(),
            Ok(Message::Frame(_)) => continue,
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error),
        };
        println!("{:7.3} s  {line}", opened.elapsed().as_secs_f64());
    }
}
