//! Pulsegate: a WebSocket gateway that relays frames and adds its own heartbeat on both legs.
pub mod config;
pub mod descriptors;
pub mod gateway;
pub mod handshake;
pub mod listener;
pub mod log;
pub mod protocol;
pub mod relay;
pub mod route;
pub mod session;
pub mod shutdown;
pub mod transport;
pub mod upstream;
pub mod worker;
