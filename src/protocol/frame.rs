//! Frame headers (RFC 6455 section 5.2).
