//! Traces of opening handshakes for OpenTelemetry, with the cargo feature `otel`. Without it these calls are empty, and W3C
//! trace headers cross to the backend like any others.
#[cfg(not(feature = "otel"))]
mod absent;
#[cfg(feature = "otel")]
mod context;
#[cfg(feature = "otel")]
mod export;
#[cfg(feature = "otel")]
mod span;

#[cfg(not(feature = "otel"))]
pub use absent::{Arrival, Attempt, Handshake};
#[cfg(feature = "otel")]
pub use {
    export::{Exporter, OtelError, start},
    span::{Arrival, Attempt, Handshake},
};
