//! What a seed stands for: the route's settings, the two paths, and what each peer will do.
use fastrand::Rng;
use pulsegate::{
    protocol::{
        close::CloseCode,
        heartbeat::{Answers, HeartbeatConfig, HeartbeatKind, Liveness},
    },
    relay::{
        CloseCodes, EndReason, Farewell as Told, MessageLimits, PerSide, Pings, RelayConfig, RelayTimeouts, Side, Utf8,
    },
};
use std::time::Duration;

/// Microseconds of virtual time.
pub(crate) type Micros = u64;
pub(crate) const MS: Micros = 1_000;
pub(crate) const S: Micros = 1_000_000;

/// When and how a peer answers the pings it sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answering {
    Promptly,
    /// Only the newest of those that came within this time.
    Newest(Micros),
    Late(Micros),
    Never,
}

/// How a peer reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reading {
    Promptly,
    /// Bytes a second.
    Rate(u64),
    /// Stops for this long now and then.
    Pauses(Micros),
}

/// What becomes of a peer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Lives,
    /// Sends a close frame with this code (1005: without one).
    Closes(u16),
    /// Ends its stream without a word.
    Fin,
    Rst,
    /// Gone without a trace.
    Vanishes,
    /// Gone, and its kernel or ours gives the connection up after a while.
    TimesOut(Micros),
    /// The process stops, its kernel goes on.
    Freezes,
    /// Reads nothing any more; `true`: goes on sending.
    Deaf(bool),
    /// Leaves a frame unfinished, and sends a byte of it now and then.
    Trickles,
    Violates(Violating),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Violating {
    ReservedBit,
    WrongMask,
    Opcode,
    BadText,
    /// Bad text at the end of a large frame, most of which has crossed.
    BadTextLate,
    TooBig,
    BadClose,
    Orphan,
    /// RSV1 on a control frame, whatever was agreed.
    CompressedPing,
}

/// What a peer does when it is told to close.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Farewell {
    Answers(Micros),
    AnswersAndEnds,
    Ends,
    Resets,
    GoesOn,
}

#[derive(Clone, Debug)]
pub(crate) struct PeerPlan {
    pub(crate) answering: Answering,
    pub(crate) reading: Reading,
    pub(crate) farewell: Farewell,
    pub(crate) fate: Fate,
    pub(crate) fate_at: Micros,
    /// Mean time between messages; `None`: it says nothing.
    pub(crate) talk: Option<Micros>,
    pub(crate) size: usize,
    pub(crate) budget: usize,
    pub(crate) pings: Option<Micros>,
}

#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) latency: Micros,
    pub(crate) jitter: Micros,
    pub(crate) segment: usize,
    /// What the gateway's kernel takes of outgoing bytes.
    pub(crate) send_buffer: usize,
    pub(crate) receive_buffer: usize,
    /// What the peer's kernel keeps for it.
    pub(crate) peer_buffer: usize,
    /// A layer (TLS) that takes bytes before the kernel does.
    pub(crate) layer: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) config: RelayConfig,
    pub(crate) answers: Answers,
    pub(crate) peers: PerSide<PeerPlan>,
    pub(crate) paths: PerSide<Path>,
    pub(crate) drain_at: Micros,
    /// After the drain began.
    pub(crate) cut_after: Option<Micros>,
    /// The gateway itself is paused: when, how long.
    pub(crate) pause: Option<(Micros, Micros)>,
    /// Its kernel is paused too (a virtual machine that moves): what came meanwhile comes again later.
    pub(crate) kernel_paused: bool,
    pub(crate) read_size: usize,
    /// permessage-deflate was agreed.
    pub(crate) deflate: bool,
}

fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(0..100) < percent
}

fn heartbeat(rng: &mut Rng) -> HeartbeatConfig {
    HeartbeatConfig {
        ping_interval: (!chance(rng, 6)).then(|| Duration::from_millis(rng.u64(500..20_000))),
        ping_timeout: (!chance(rng, 6)).then(|| Duration::from_millis(rng.u64(3_000..20_000))),
        jitter: rng.f64() / 2.0,
        kind: if chance(rng, 6) { HeartbeatKind::Pong } else { HeartbeatKind::Ping },
        liveness: if chance(rng, 15) { Liveness::Pong } else { Liveness::Traffic },
        path_idle_limit: None,
    }
}

fn path(rng: &mut Rng) -> Path {
    let segment = *rng.choice(&[5, 60, 1400, 1400, 16_384, 65_536]).unwrap_or(&1400);
    let buffer = |rng: &mut Rng| if chance(rng, 30) { rng.usize(200..2_000) } else { rng.usize(2_000..60_000) };
    Path {
        latency: rng.u64(50..150 * MS),
        jitter: rng.u64(0..50 * MS),
        segment,
        send_buffer: buffer(rng),
        receive_buffer: buffer(rng),
        peer_buffer: buffer(rng),
        layer: if chance(rng, 30) { rng.usize(100..17_000) } else { 0 },
    }
}

fn fate(rng: &mut Rng) -> Fate {
    use Violating as V;
    let violating = [
        V::ReservedBit,
        V::WrongMask,
        V::Opcode,
        V::BadText,
        V::BadTextLate,
        V::TooBig,
        V::BadClose,
        V::Orphan,
        V::CompressedPing,
    ];
    match rng.u8(0..100) {
        0..45 => Fate::Lives,
        45..60 => Fate::Closes(*rng.choice(&[1000, 1001, 1014, 3000, 4999, 1005]).unwrap_or(&1000)),
        60..64 => Fate::Fin,
        64..68 => Fate::Rst,
        68..76 => Fate::Vanishes,
        76..79 => Fate::TimesOut(rng.u64(0..30 * S)),
        79..86 => Fate::Freezes,
        86..90 => Fate::Deaf(rng.bool()),
        90..94 => Fate::Trickles,
        _ => Fate::Violates(*rng.choice(&violating).unwrap_or(&V::Opcode)),
    }
}

fn peer(rng: &mut Rng, path: &Path, heartbeat: &HeartbeatConfig) -> PeerPlan {
    let patience = heartbeat.ping_timeout.map_or(3 * S, |timeout| timeout.as_micros() as Micros);
    // Slow, but never so slow that what its kernel keeps for it takes a good part of the timeout.
    let slowest = (path.peer_buffer as u64 * 6 * S / patience).max(4_000);
    PeerPlan {
        answering: match rng.u8(0..100) {
            0..55 => Answering::Promptly,
            55..70 => Answering::Newest(rng.u64(1..500 * MS)),
            70..85 => Answering::Late(rng.u64(1..500 * MS)),
            _ => Answering::Never,
        },
        reading: match rng.u8(0..100) {
            0..70 => Reading::Promptly,
            70..85 => Reading::Rate(rng.u64(slowest..slowest * 10)),
            _ => Reading::Pauses(rng.u64(10 * MS..patience / 6)),
        },
        farewell: match rng.u8(0..100) {
            0..70 => Farewell::Answers(rng.u64(0..500 * MS)),
            70..80 => Farewell::AnswersAndEnds,
            80..86 => Farewell::Ends,
            86..92 => Farewell::Resets,
            _ => Farewell::GoesOn,
        },
        fate: fate(rng),
        fate_at: rng.u64(0..60 * S),
        talk: (!chance(rng, 30)).then(|| rng.u64(5 * MS..8 * S)),
        size: *rng.choice(&[20, 300, 3_000, 70_000]).unwrap_or(&300),
        budget: (path.segment * 150).min(150_000),
        pings: chance(rng, 30).then(|| rng.u64(200 * MS..15 * S)),
    }
}

/// Some reasons get a code of the operator's on a side, or are cut.
fn close_codes(rng: &mut Rng) -> CloseCodes {
    let mut codes = CloseCodes::default();
    if chance(rng, 70) {
        return codes;
    }
    let told = |rng: &mut Rng| match rng.u8(0..10) {
        0..3 => CloseCode::new(*rng.choice(&[1014, 3999, 4000]).unwrap_or(&4000)).map(Told::Code),
        3..5 => Some(Told::Cut),
        _ => None,
    };
    for reason in EndReason::ALL {
        codes.0.insert(reason, PerSide { downstream: told(rng), upstream: told(rng) });
    }
    codes
}

impl Scenario {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let heartbeats = PerSide { downstream: heartbeat(rng), upstream: heartbeat(rng) };
        let paths = PerSide { downstream: path(rng), upstream: path(rng) };
        let mut peers = PerSide {
            downstream: peer(rng, &paths.downstream, &heartbeats.downstream),
            upstream: peer(rng, &paths.upstream, &heartbeats.upstream),
        };
        if chance(rng, 50) {
            // One fate at a time shows more clearly what it leads to.
            peers[*rng.choice(&Side::BOTH).unwrap_or(&Side::Upstream)].fate = Fate::Lives;
        }
        let limits = MessageLimits { message: Some(100_000), frame: Some(90_000), ..MessageLimits::default() };
        let timeouts = RelayTimeouts {
            close: Duration::from_millis(rng.u64(1_500..10_000)),
            stall: (!chance(rng, 10)).then(|| Duration::from_millis(rng.u64(8_000..30_000))),
            idle: chance(rng, 8).then(|| Duration::from_millis(rng.u64(5_000..40_000))),
            max_age: chance(rng, 8).then(|| Duration::from_millis(rng.u64(5_000..80_000))),
        };
        let never = peers.upstream.answering == Answering::Never;
        Self {
            config: RelayConfig {
                heartbeat: heartbeats,
                pings: if chance(rng, 30) { Pings::Answer } else { Pings::Forward },
                utf8: Utf8::Check,
                timeouts,
                limits: PerSide { downstream: limits, upstream: limits },
                pace: (!chance(rng, 20)).then(|| rng.u64(1..256)),
                close_codes: close_codes(rng),
            },
            answers: if chance(rng, if never { 85 } else { 30 }) { Answers::Unproven } else { Answers::Proven },
            peers,
            paths,
            drain_at: if chance(rng, 60) { rng.u64(S..90 * S) } else { 240 * S },
            cut_after: chance(rng, 40).then(|| rng.u64(0..30 * S)),
            pause: chance(rng, 15).then(|| (rng.u64(0..60 * S), rng.u64(1_100 * MS..40 * S))),
            kernel_paused: rng.bool(),
            read_size: if chance(rng, 20) { rng.usize(1..300) } else { 65_536 },
            deflate: chance(rng, 30),
        }
    }
}
