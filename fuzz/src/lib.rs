//! The pure modules of the gateway as its fuzz targets see them, and what the targets share.
//!
//! The modules are compiled from their sources rather than linked, because the crate's TLS library cannot be built with
//! a sanitizer without further tools.
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/relay/mod.rs"]
pub mod relay;

pub mod input;
pub mod leniencies;
pub mod settings;
pub mod shell;
pub mod wire;
