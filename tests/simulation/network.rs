//! One leg's path: both kernels' buffers, windows, acknowledgements, and a layer above the gateway's socket.
use crate::{
    peer::{Condition, Ending},
    scenario::{Micros, Path, S},
};
use fastrand::Rng;
use pulsegate::{protocol::heartbeat::PathSample, relay::Loss};
use std::{collections::VecDeque, time::Duration};

/// Something on its way.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    ToPeer(Vec<u8>),
    EndToPeer(Ending),
    Acknowledged(usize),
    ToGateway(Vec<u8>),
    EndToGateway(Ending),
}

impl Packet {
    pub(crate) fn is_for_gateway(&self) -> bool {
        matches!(self, Self::Acknowledged(_) | Self::ToGateway(_) | Self::EndToGateway(_))
    }
}

/// How the gateway's socket stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Socket {
    Open,
    /// Writing is shut down.
    Half,
    Closed,
}

pub(crate) struct Link {
    pub(crate) path: Path,
    pub(crate) socket: Socket,
    /// Taken by the layer above the kernel.
    layer: VecDeque<u8>,
    send_buffer: VecDeque<u8>,
    unacknowledged: usize,
    flying: usize,
    acked: u64,
    last_ack: Micros,
    pub(crate) at_peer: VecDeque<u8>,
    fin_due: bool,
    pub(crate) at_gateway: VecDeque<u8>,
    flying_back: usize,
    pub(crate) loss: Option<Loss>,
    pub(crate) broken: bool,
    peer_end_sent: bool,
    reset_sent: bool,
    to_peer_until: Micros,
    to_gateway_until: Micros,
}

pub(crate) type Sends = Vec<(Micros, Packet)>;

impl Link {
    pub(crate) fn new(path: Path) -> Self {
        Self {
            path,
            socket: Socket::Open,
            layer: VecDeque::new(),
            send_buffer: VecDeque::new(),
            unacknowledged: 0,
            flying: 0,
            acked: 0,
            last_ack: 0,
            at_peer: VecDeque::new(),
            fin_due: false,
            at_gateway: VecDeque::new(),
            flying_back: 0,
            loss: None,
            broken: false,
            peer_end_sent: false,
            reset_sent: false,
            to_peer_until: 0,
            to_gateway_until: 0,
        }
    }

    fn arrival(path: &Path, until: &mut Micros, now: Micros, rng: &mut Rng) -> Micros {
        *until = (now + path.latency + rng.u64(0..=path.jitter)).max(*until + 1);
        *until
    }

    /// How much the gateway's transport takes of `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = if self.path.layer > 0 {
            self.path.layer - self.layer.len().min(self.path.layer)
        } else {
            self.path.send_buffer - (self.send_buffer.len() + self.unacknowledged).min(self.path.send_buffer)
        };
        let count = bytes.len().min(room);
        let target = if self.path.layer > 0 { &mut self.layer } else { &mut self.send_buffer };
        target.extend(&bytes[..count]);
        count
    }

    /// Whether the layer above the kernel holds nothing back.
    pub(crate) fn flushed(&self) -> bool {
        self.layer.is_empty()
    }

    pub(crate) fn sample(&self, now: Micros, condition: Condition) -> PathSample {
        let waiting = self.send_buffer.len();
        let probed = self.unacknowledged == 0 && waiting > 0 && condition != Condition::Vanished;
        let since = if probed { (now - self.last_ack).min(S) } else { now - self.last_ack };
        PathSample {
            acked: self.acked,
            queued: (waiting + self.unacknowledged) as u64,
            in_flight: self.unacknowledged > 0,
            since_ack: Duration::from_micros(since),
        }
    }

    /// Moves what windows and buffers allow towards the peer.
    pub(crate) fn pump(&mut self, now: Micros, rng: &mut Rng, sends: &mut Sends) {
        let room = self.path.send_buffer - (self.send_buffer.len() + self.unacknowledged).min(self.path.send_buffer);
        let count = room.min(self.layer.len());
        self.send_buffer.extend(self.layer.drain(..count));
        loop {
            let window = self.path.peer_buffer.saturating_sub(self.at_peer.len() + self.flying);
            let count = window.min(self.send_buffer.len()).min(self.path.segment);
            if count == 0 {
                break;
            }
            let bytes: Vec<u8> = self.send_buffer.drain(..count).collect();
            self.unacknowledged += count;
            self.flying += count;
            let at = Self::arrival(&self.path, &mut self.to_peer_until, now, rng);
            sends.push((at, Packet::ToPeer(bytes)));
        }
        if self.fin_due && self.send_buffer.is_empty() && self.layer.is_empty() {
            self.fin_due = false;
            let at = Self::arrival(&self.path, &mut self.to_peer_until, now, rng);
            sends.push((at, Packet::EndToPeer(Ending::Fin)));
        }
    }

    /// Moves what the window allows towards the gateway.
    pub(crate) fn pump_back(
        &mut self,
        outgoing: &mut Vec<u8>,
        wants: Option<Ending>,
        now: Micros,
        rng: &mut Rng,
        sends: &mut Sends,
    ) {
        if self.peer_end_sent {
            return;
        }
        loop {
            let window = self.path.receive_buffer.saturating_sub(self.at_gateway.len() + self.flying_back);
            let count = window.min(outgoing.len()).min(rng.usize(1..=self.path.segment));
            if count == 0 || wants == Some(Ending::Rst) {
                break;
            }
            self.flying_back += count;
            let at = Self::arrival(&self.path, &mut self.to_gateway_until, now, rng);
            sends.push((at, Packet::ToGateway(outgoing.drain(..count).collect())));
        }
        if let Some(ending) = wants
            && (outgoing.is_empty() || ending == Ending::Rst)
        {
            self.peer_end_sent = true;
            let at = Self::arrival(&self.path, &mut self.to_gateway_until, now, rng);
            sends.push((at, Packet::EndToGateway(ending)));
        }
    }

    /// Bytes reached the peer's kernel.
    pub(crate) fn reached_peer(&mut self, bytes: &[u8], now: Micros, sends: &mut Sends) {
        self.flying -= bytes.len();
        self.at_peer.extend(bytes);
        sends.push((now + self.path.latency, Packet::Acknowledged(bytes.len())));
    }

    pub(crate) fn acknowledged(&mut self, count: usize, now: Micros) {
        self.unacknowledged -= count;
        self.acked += count as u64;
        self.last_ack = now;
    }

    /// Bytes reached the gateway's kernel; a closed socket answers with a reset.
    pub(crate) fn reached_gateway(&mut self, bytes: &[u8], now: Micros, sends: &mut Sends) {
        self.flying_back -= bytes.len();
        if self.socket == Socket::Closed {
            self.reset(now, sends);
        } else {
            self.at_gateway.extend(bytes);
        }
    }

    pub(crate) fn shut_down(&mut self) {
        self.socket = Socket::Half;
        self.fin_due = true;
    }

    pub(crate) fn close(&mut self, now: Micros, sends: &mut Sends) {
        if self.socket == Socket::Open {
            self.fin_due = true;
        }
        self.socket = Socket::Closed;
        if !self.at_gateway.is_empty() || !self.layer.is_empty() {
            self.reset(now, sends);
        }
    }

    pub(crate) fn reset(&mut self, now: Micros, sends: &mut Sends) {
        self.socket = Socket::Closed;
        self.send_buffer.clear();
        self.layer.clear();
        self.fin_due = false;
        if !std::mem::replace(&mut self.reset_sent, true) {
            self.to_peer_until = (now + self.path.latency).max(self.to_peer_until + 1);
            sends.push((self.to_peer_until, Packet::EndToPeer(Ending::Rst)));
        }
    }
}

impl Link {
    /// Whether everything given to it is on its way.
    pub(crate) fn idle(&self) -> bool {
        self.layer.is_empty() && self.send_buffer.is_empty()
    }
}
