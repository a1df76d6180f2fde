//! One WebSocket connection as the gateway sees it.

use super::{
    Role,
    close::{NO_CODE, SpokenFrame},
    frame::{ControlFrame, Opcode, Snippet},
    heartbeat::{Heartbeat, HeartbeatConfig, HeartbeatKind, PING_PAYLOAD, PathSample, Seed},
    moment::Moment,
    outbox::Outbox,
    pace::Meter,
    scanner::Scanner,
};

/// What still comes from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Open,
    /// Its close frame came; what follows is read and discarded (RFC 6455 section 5.5.1).
    Closed {
        eof: bool,
    },
    /// It broke the protocol or was given up; what follows is read and discarded.
    Deaf,
    /// Its stream ended.
    Ended,
}

/// What the peer has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Open,
    /// A close frame of ours waits for a frame border, at most until `by`.
    Due {
        frame: Box<SpokenFrame>,
        by: Moment,
    },
    /// A close frame, ours or the other peer's, stands in the stream up to `end`.
    Queued {
        code: u16,
        end: u64,
        since: Moment,
    },
    /// The transport took it.
    Sent {
        code: u16,
        at: Moment,
    },
    /// No close frame could be said.
    Cut,
    /// Nobody is there to be told.
    Gone,
}

/// How far the end of the transport is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Open,
    /// Writing is to be shut down, at most until then: close_notify may find no room.
    ShutDown {
        until: Moment,
    },
    /// The peer's end of stream is awaited.
    Linger {
        until: Moment,
    },
    /// To be closed.
    Drop,
    /// To be reset, so that nothing lingers for a peer that is not there.
    Reset,
    Done,
}

/// One leg: what arrives, what leaves, and how it ends.
#[derive(Debug)]
pub struct Leg {
    pub role: Role,
    pub scanner: Scanner,
    pub heartbeat: Heartbeat,
    pub outbox: Outbox,
    pub input: Input,
    pub output: Output,
    pub finish: Finish,
    /// Reset it once the close frame is taken: nobody is expected to answer.
    pub reset_after_close: bool,
    /// Runs while the outbox holds bytes.
    pub receiver: Meter,
    /// Runs while a frame from the peer is unfinished and we read.
    pub sender: Meter,
    /// The code of the peer's close frame, 1005 for none.
    pub close_received: Option<u16>,
    /// Bytes that arrived.
    pub received: u64,
    /// The newest ping to be answered by ourselves.
    pong: Option<Box<Snippet>>,
}

impl Leg {
    #[must_use]
    pub fn new(role: Role, heartbeat: &HeartbeatConfig, seed: Seed, now: Moment) -> Self {
        Self {
            role,
            scanner: Scanner::default(),
            heartbeat: Heartbeat::new(heartbeat, seed, now),
            outbox: Outbox::default(),
            input: Input::Open,
            output: Output::Open,
            finish: Finish::Open,
            reset_after_close: false,
            receiver: Meter::default(),
            sender: Meter::default(),
            close_received: None,
            received: 0,
            pong: None,
        }
    }

    /// Whether neither side has begun to close it.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.input == Input::Open && self.output == Output::Open
    }

    /// Whether it is neither closing nor waited for, so that only its heartbeat has a deadline.
    #[inline]
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let open = self.output == Output::Open && self.finish == Finish::Open;
        open && !self.receiver.runs() && !self.sender.runs()
    }

    /// Whether data may still be put into the outgoing stream.
    #[inline]
    #[must_use]
    pub fn accepts_data(&self) -> bool {
        matches!(self.output, Output::Open | Output::Due { .. })
    }

    /// The code it was told, 1005 for a close frame without one.
    #[must_use]
    pub fn close_sent(&self) -> Option<u16> {
        match self.output {
            Output::Sent { code, .. } => Some(code),
            Output::Open | Output::Due { .. } | Output::Queued { .. } | Output::Cut | Output::Gone => None,
        }
    }

    /// Answers a ping at the next frame border; a newer one replaces it (RFC 6455 section 5.5.3).
    pub fn answer(&mut self, payload: &[u8]) {
        if self.output == Output::Open {
            self.pong = Some(Box::new(Snippet::new(payload)));
        }
    }

    /// Whether there is a control frame of ours at all; `control_due` says whether its time has come.
    #[inline]
    #[must_use]
    pub fn control_waits(&self) -> bool {
        self.pong.is_some() || self.heartbeat.waits_to_leave() || matches!(self.output, Output::Due { .. })
    }

    /// Whether a control frame of ours should go out at the next frame border. Pings and pongs do not queue up
    /// behind bytes that the peer does not take.
    #[inline]
    #[must_use]
    pub fn control_due(&self, config: &HeartbeatConfig, now: Moment) -> bool {
        match self.output {
            Output::Open => self.outbox.is_empty() && (self.pong.is_some() || self.heartbeat.due(config, now)),
            Output::Due { .. } => true,
            Output::Queued { .. } | Output::Sent { .. } | Output::Cut | Output::Gone => false,
        }
    }

    /// The control frame that is due: it must enter the outgoing stream now, at a frame border. `key` masks it
    /// on the leg where we are the client.
    pub fn take_control(
        &mut self,
        config: &HeartbeatConfig,
        now: Moment,
        key: impl FnOnce() -> [u8; 4],
    ) -> Option<ControlFrame> {
        if !self.control_due(config, now) {
            return None;
        }
        let key = (self.role == Role::Client).then(key);
        let position = self.outbox.position();
        let overhead = if key.is_some() { 6 } else { 2 };
        if let Output::Due { frame, .. } = &self.output {
            let (payload, length) = frame.payload();
            let control = ControlFrame::new(Opcode::Close, &payload[..length], key);
            let end = position + control.bytes().len() as u64;
            self.output = Output::Queued { code: frame.recorded(), end, since: now };
            return Some(control);
        }
        if let Some(payload) = self.pong.take() {
            return Some(ControlFrame::new(Opcode::Pong, payload.bytes(), key));
        }
        let payload: [u8; PING_PAYLOAD] = self.heartbeat.queue(|length| position + (overhead + length) as u64);
        let opcode = match config.kind {
            HeartbeatKind::Ping => Opcode::Ping,
            HeartbeatKind::Pong => Opcode::Pong,
        };
        Some(ControlFrame::new(opcode, &payload, key))
    }

    /// Whether `on_taken` has something to find out.
    #[inline]
    #[must_use]
    pub fn waits_for_transport(&self) -> bool {
        matches!(self.output, Output::Queued { .. }) || self.heartbeat.waits_for_transport()
    }

    /// The transport took more of the outgoing stream, and holds nothing back.
    pub fn on_taken(&mut self, config: &HeartbeatConfig, now: Moment, sample: impl FnOnce() -> Option<PathSample>) {
        let taken = self.outbox.taken();
        if let Output::Queued { code, end, .. } = self.output
            && taken >= end
        {
            self.output = Output::Sent { code, at: now };
        }
        self.heartbeat.on_taken(config, taken, now, sample);
    }

    /// The peer's close frame came.
    pub fn closed(&mut self, code: Option<u16>) {
        self.input = Input::Closed { eof: false };
        self.close_received = Some(code.unwrap_or(NO_CODE));
        self.quiet();
    }

    /// Nothing more is to be said on our own account.
    pub fn quiet(&mut self) {
        self.heartbeat.stop();
        self.pong = None;
    }

    /// What waits will never be taken.
    pub fn abandon(&mut self, output: Output, now: Moment) {
        self.quiet();
        self.outbox.clear();
        self.receiver.rest(now);
        self.output = output;
    }
}
