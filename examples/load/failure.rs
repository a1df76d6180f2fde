//! Why a connection could not be opened, or ended before it should.
use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("connecting: {0}")]
    Connect(io::Error),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    #[error("opening handshake: {0}")]
    Handshake(io::Error),
    /// The first line of the answer.
    #[error("refused: {0}")]
    Refused(String),
    #[error("the 101 does not answer the key that was sent")]
    Key,
    #[error("no session within {0} s")]
    TooSlow(f64),
    #[error("lost: {0}")]
    Lost(io::Error),
    #[error("ended without a close frame")]
    Ended,
    /// Its code; 1005 if it had none (RFC 6455 section 7.1.5).
    #[error("closed with {0}")]
    Closed(u16),
    #[error("no answer to a close frame within {0} s")]
    Unanswered(u64),
    #[error("broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("a message came back with another type or size")]
    Changed,
    #[error("the timer of the rate: {0}")]
    Timer(io::Error),
    /// Ours, not the service's: the work is over.
    #[error("stopped")]
    Stopped,
}
