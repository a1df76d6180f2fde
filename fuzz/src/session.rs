//! Of sessions, what their handshakes name.
#[path = "../../src/session/client.rs"]
mod client;

pub use client::ClientAddress;
