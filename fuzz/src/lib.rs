//! The gateway as its fuzz targets see it, and what the targets share.
//!
//! Modules are compiled from their sources rather than linked, for two reasons: the crate's TLS library cannot be built
//! with a sanitizer without further tools, and the parsers of handshakes are private to their module.
#![allow(dead_code, unused_imports, unexpected_cfgs)]

#[path = "../../src/access/mod.rs"]
pub mod access;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/descriptors.rs"]
pub mod descriptors;
#[path = "../../src/listener/mod.rs"]
pub mod listener;
#[path = "../../src/metrics/mod.rs"]
pub mod metrics;
#[path = "../../src/otel/mod.rs"]
pub mod otel;
#[path = "../../src/pacing.rs"]
pub mod pacing;
#[path = "../../src/pem.rs"]
pub mod pem;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/relay/mod.rs"]
pub mod relay;
#[path = "../../src/route.rs"]
pub mod route;
#[path = "../../src/transport/mod.rs"]
pub mod transport;
#[path = "../../src/upstream/mod.rs"]
pub mod upstream;

pub mod handshake;
pub mod input;
pub mod leniencies;
pub mod session;
pub mod settings;
pub mod shell;
pub mod wire;
