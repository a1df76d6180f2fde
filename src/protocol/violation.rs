//! What a peer can do wrong, and the close code that answers it (RFC 6455 section 7.4.1).
use super::close::CloseCode;

/// A peer broke RFC 6455, or a limit of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    ReservedBit,
    ReservedOpcode,
    MaskMissing,
    MaskUnexpected,
    LengthNotMinimal,
    LengthTooLong,
    ControlFragmented,
    ControlTooLong,
    ContinuationWithoutMessage,
    MessageInsideMessage,
    ClosePayload,
    CloseCode,
    CloseReason,
    TextNotUtf8,
    FrameTooBig,
    MessageTooBig,
    TooManyFragments,
    TooManyMessages,
    TooManyBytes,
}

impl Violation {
    /// The code told to the peer that did it.
    #[must_use]
    pub const fn code(self) -> CloseCode {
        match self {
            Self::TextNotUtf8 | Self::CloseReason => CloseCode::INVALID_PAYLOAD,
            Self::FrameTooBig | Self::MessageTooBig | Self::TooManyFragments => CloseCode::TOO_BIG,
            Self::TooManyMessages | Self::TooManyBytes => CloseCode::POLICY,
            Self::ReservedBit
            | Self::ReservedOpcode
            | Self::MaskMissing
            | Self::MaskUnexpected
            | Self::LengthNotMinimal
            | Self::LengthTooLong
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::ContinuationWithoutMessage
            | Self::MessageInsideMessage
            | Self::ClosePayload
            | Self::CloseCode => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// Whether it is too much in a second rather than wrong in itself: the operator's rule, not RFC 6455's.
    #[must_use]
    pub const fn breaks_a_rate(self) -> bool {
        matches!(self, Self::TooManyMessages | Self::TooManyBytes)
    }

    /// What was wrong, for the close reason (at most 123 bytes) and the verdict.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::ReservedBit => "a reserved bit is set without an extension that defines it",
            Self::ReservedOpcode => "reserved opcode",
            Self::MaskMissing => "a frame from a client is not masked",
            Self::MaskUnexpected => "a frame from a server is masked",
            Self::LengthNotMinimal => "payload length not in its shortest form",
            Self::LengthTooLong => "payload length over 63 bits",
            Self::ControlFragmented => "fragmented control frame",
            Self::ControlTooLong => "control frame over 125 bytes",
            Self::ContinuationWithoutMessage => "continuation frame without a message",
            Self::MessageInsideMessage => "new message before the last one ended",
            Self::ClosePayload => "close frame with a payload of one byte",
            Self::CloseCode => "close code that must not be sent",
            Self::CloseReason => "close reason is not UTF-8",
            Self::TextNotUtf8 => "text message is not UTF-8",
            Self::FrameTooBig => "frame over the limit",
            Self::MessageTooBig => "message over the limit",
            Self::TooManyFragments => "message in too many fragments",
            Self::TooManyMessages => "too many messages a second",
            Self::TooManyBytes => "too many bytes a second",
        }
    }
}
