//! Header names as RFC 6455 spells them, on a stream that hyper writes.
