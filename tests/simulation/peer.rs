//! A simulated client or backend: what it sends, how it reads, how it ends.
use crate::{
    codec::{self, BINARY, CLOSE, CONTINUE, Frame, PING, PONG, TEXT},
    scenario::{Answering, Farewell, Fate, MS, Micros, PeerPlan, Reading, S, Violating},
};
use fastrand::Rng;
use pulsegate::relay::Side;

/// Whether the process behind a socket runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Condition {
    Runs,
    /// Stopped; its kernel goes on.
    Frozen,
    /// Nothing of it is left.
    Vanished,
    /// Its socket is closed.
    Closed,
}

/// How it wants its stream to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Fin,
    Rst,
}

pub(crate) struct Peer {
    pub(crate) side: Side,
    pub(crate) plan: PeerPlan,
    pub(crate) condition: Condition,
    /// Bytes to be sent that the network has not taken.
    pub(crate) outgoing: Vec<u8>,
    pub(crate) wants: Option<Ending>,
    /// Every frame that ought to cross, in order, as on the wire.
    pub(crate) log: Vec<u8>,
    pub(crate) close_sent: Option<Frame>,
    pub(crate) close_received: Option<Frame>,
    pub(crate) own_pings_seen: u32,
    pub(crate) own_pongs_sent: u32,
    pub(crate) messages_seen: u64,
    pub(crate) last_own_ping: Option<Micros>,
    /// Payloads of its own pings, in order (where the gateway answers them).
    pub(crate) asked: Vec<Vec<u8>>,
    pub(crate) answered: usize,
    /// Its fate has come.
    pub(crate) fated: bool,
    pub(crate) saw_end: Option<Ending>,
    incoming: Vec<u8>,
    secret: [u8; 8],
    rng: Rng,
    pongs: Vec<(Micros, Vec<u8>)>,
    reply_at: Option<Micros>,
    next_message: Option<Micros>,
    next_ping: Option<Micros>,
    next_trickle: Option<Micros>,
    reads_from: Micros,
    pub(crate) crossing_pings: bool,
    /// permessage-deflate was agreed.
    deflate: bool,
}

impl Peer {
    pub(crate) fn new(
        side: Side,
        plan: PeerPlan,
        secret: u64,
        crossing_pings: bool,
        deflate: bool,
        mut rng: Rng,
    ) -> Self {
        let next_message = plan.talk.map(|every| rng.u64(0..every * 2));
        let next_ping = plan.pings.map(|every| rng.u64(0..every));
        Self {
            side,
            plan,
            condition: Condition::Runs,
            outgoing: Vec::new(),
            wants: None,
            log: Vec::new(),
            close_sent: None,
            close_received: None,
            own_pings_seen: 0,
            own_pongs_sent: 0,
            messages_seen: 0,
            last_own_ping: None,
            asked: Vec::new(),
            answered: 0,
            fated: false,
            saw_end: None,
            incoming: Vec::new(),
            secret: secret.to_be_bytes(),
            rng,
            pongs: Vec::new(),
            reply_at: None,
            next_message,
            next_ping,
            next_trickle: None,
            reads_from: 0,
            crossing_pings,
            deflate,
        }
    }

    fn key(&mut self) -> Option<[u8; 4]> {
        (self.side == Side::Downstream).then(|| self.rng.u32(..).to_ne_bytes())
    }

    fn send(&mut self, opcode: tungstenite::protocol::frame::coding::OpCode, fin: bool, payload: &[u8], crosses: bool) {
        let key = self.key();
        let raw = codec::encode(opcode, fin, payload, key);
        self.send_raw(&raw, crosses);
    }

    fn send_raw(&mut self, raw: &[u8], crosses: bool) {
        if crosses {
            self.log.extend_from_slice(raw);
        }
        self.outgoing.extend_from_slice(raw);
    }

    /// When it has something to do of its own accord.
    pub(crate) fn next(&self) -> Option<Micros> {
        if self.condition != Condition::Runs {
            return None;
        }
        let pongs = self.pongs.first().map(|(at, _)| *at);
        let fate = (!self.fated).then_some(self.plan.fate_at);
        let talking = self.close_sent.is_none() && self.wants.is_none();
        let talk =
            if talking { [self.next_message, self.next_ping, self.next_trickle, fate, pongs] } else { [None; 5] };
        talk.into_iter().chain([self.reply_at]).flatten().min()
    }

    /// How much it reads now of `available` bytes, and when to look again.
    pub(crate) fn reads(&mut self, available: usize, now: Micros) -> (usize, Option<Micros>) {
        if self.condition != Condition::Runs || available == 0 {
            return (0, None);
        }
        if self.fated && matches!(self.plan.fate, Fate::Deaf(_)) {
            return (0, None);
        }
        if now < self.reads_from {
            return (0, Some(self.reads_from));
        }
        match self.plan.reading {
            Reading::Promptly => (available, None),
            Reading::Rate(rate) => {
                let count = available.min((rate / 50).max(1) as usize);
                self.reads_from = now + (count as u64 * S / rate).max(1);
                (count, (count < available).then_some(self.reads_from))
            }
            Reading::Pauses(pause) => {
                if now > self.reads_from + 4 * pause && self.rng.bool() {
                    self.reads_from = now + pause;
                    return (0, Some(self.reads_from));
                }
                (available, None)
            }
        }
    }

    /// Bytes came to the process. `expected` is the other peer's log behind what has crossed before; the answer is how
    /// much of it crossed now.
    pub(crate) fn receives(&mut self, bytes: &[u8], expected: &[u8], now: Micros) -> Result<usize, String> {
        if self.close_received.is_some() && !bytes.is_empty() {
            return Err(format!("{:?}: {} bytes after a close frame", self.side, bytes.len()));
        }
        self.incoming.extend_from_slice(bytes);
        let mut incoming = std::mem::take(&mut self.incoming);
        let (mut at, mut crossed) = (0, 0);
        while let Some(frame) = codec::decode(&incoming[at..]).map_err(|error| format!("{:?}: {error}", self.side))? {
            at += frame.raw.len();
            if self.close_received.is_some() {
                return Err(format!("{:?}: a frame after a close frame", self.side));
            }
            if frame.masked != (self.side == Side::Upstream) {
                return Err(format!("{:?}: mask bit of {frame:?}", self.side));
            }
            if self.accepts(&frame, now)? {
                if !expected[crossed..].starts_with(&frame.raw) {
                    let length = frame.raw.len().min(40);
                    return Err(format!(
                        "{:?}: {:?} frame of {} bytes is not what was sent next: {:02x?}",
                        self.side,
                        frame.opcode,
                        frame.raw.len(),
                        &frame.raw[..length]
                    ));
                }
                crossed += frame.raw.len();
                self.messages_seen += u64::from(frame.fin && !matches!(frame.opcode, PING | PONG));
            }
        }
        incoming.drain(..at);
        self.incoming = incoming;
        Ok(crossed)
    }

    /// Whether its stream stands inside a frame.
    pub(crate) fn inside_frame(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Acts upon a frame; whether it must have come from the other peer.
    fn accepts(&mut self, frame: &Frame, now: Micros) -> Result<bool, String> {
        let own = frame.payload.len() == 12 && frame.payload.starts_with(&self.secret);
        match frame.opcode {
            CLOSE => {
                self.close_received = Some(frame.clone());
                self.told(now);
                Ok(false)
            }
            PING => {
                if own {
                    self.own_pings_seen += 1;
                    self.last_own_ping = Some(now);
                } else if !self.crossing_pings {
                    return Err(format!("{:?}: a foreign ping crossed", self.side));
                }
                self.answer(frame, now);
                Ok(!own)
            }
            PONG if own => {
                self.own_pings_seen += 1;
                Ok(false)
            }
            PONG if self.crossing_pings => Ok(true),
            PONG => {
                let Some(index) = self.asked[self.answered..].iter().position(|asked| *asked == frame.payload) else {
                    return Err(format!("{:?}: a pong to no ping", self.side));
                };
                self.answered += index + 1;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn answer(&mut self, ping: &Frame, now: Micros) {
        match self.plan.answering {
            Answering::Never => {}
            Answering::Promptly => self.pongs.push((now, ping.payload.clone())),
            Answering::Late(late) => self.pongs.push((now + late, ping.payload.clone())),
            Answering::Newest(within) => {
                let at = self.pongs.first().map_or(now + within, |(at, _)| *at);
                self.pongs = vec![(at, ping.payload.clone())];
            }
        }
    }

    fn told(&mut self, now: Micros) {
        match self.plan.farewell {
            _ if self.close_sent.is_some() => self.both_closed(),
            _ if self.next_trickle.is_some() => {}
            Farewell::Answers(after) => self.reply_at = Some(now + after),
            Farewell::AnswersAndEnds => self.reply_at = Some(now),
            Farewell::Ends => self.wants = Some(Ending::Fin),
            Farewell::Resets => self.wants = Some(Ending::Rst),
            Farewell::GoesOn => {}
        }
    }

    /// The server ends TCP first.
    fn both_closed(&mut self) {
        if self.side == Side::Upstream || self.plan.farewell == Farewell::AnswersAndEnds {
            self.wants = Some(Ending::Fin);
        }
    }

    /// The gateway's end of stream, or its reset, came.
    pub(crate) fn ended(&mut self, ending: Ending) -> Result<(), String> {
        self.saw_end.get_or_insert(ending);
        let deaf = self.fated && matches!(self.plan.fate, Fate::Deaf(_));
        let unasked = self.wants.is_none() && self.close_sent.is_none() && !deaf;
        if ending == Ending::Fin && self.inside_frame() && self.condition == Condition::Runs && unasked {
            return Err(format!("{:?}: an orderly end inside a frame", self.side));
        }
        match ending {
            Ending::Fin => self.wants = Some(Ending::Fin),
            Ending::Rst => self.condition = Condition::Closed,
        }
        Ok(())
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, now: Micros) {
        if self.condition != Condition::Runs {
            return;
        }
        if self.reply_at.is_some_and(|at| at <= now) {
            self.reply_at = None;
            if self.close_sent.is_none() {
                let payload = self.close_received.as_ref().map(|frame| frame.payload.clone()).unwrap_or_default();
                self.close(&payload);
            }
            self.both_closed();
        }
        if self.close_sent.is_some() || self.wants.is_some() {
            return;
        }
        while self.pongs.first().is_some_and(|(at, _)| *at <= now) {
            let (_, payload) = self.pongs.remove(0);
            let own = payload.len() == 12 && payload.starts_with(&self.secret);
            self.own_pongs_sent += u32::from(own);
            self.send(PONG, true, &payload, !own && self.crossing_pings);
        }
        if self.next_ping.is_some_and(|at| at <= now) {
            let payload = self.rng.u64(..).to_be_bytes();
            self.asked.push(payload.to_vec());
            self.send(PING, true, &payload, self.crossing_pings);
            self.next_ping = self.plan.pings.map(|every| now + every);
        }
        if self.next_message.is_some_and(|at| at <= now) {
            self.talks(now);
        }
        if self.next_trickle.is_some_and(|at| at <= now) {
            self.outgoing.push(7);
            self.next_trickle = Some(now + 3 * S);
        }
        if !self.fated && self.plan.fate_at <= now {
            self.fated = true;
            self.meets_its_fate(now);
        }
    }

    fn talks(&mut self, now: Micros) {
        for _ in 0..self.rng.usize(1..5) {
            let size = if self.rng.u8(0..8) == 0 { 0 } else { self.rng.usize(0..self.plan.size) };
            self.plan.budget = self.plan.budget.saturating_sub(size + 6);
            if self.plan.budget == 0 {
                self.next_message = None;
                return;
            }
            let text = self.rng.bool();
            let compressed = self.deflate && self.rng.bool();
            let payload = self.payload(text && !compressed, size);
            let fragments = if self.rng.u8(0..3) == 0 { self.rng.usize(2..5) } else { 1 };
            let piece = payload.len() / fragments + 1;
            for index in 0..fragments {
                let part = &payload[(index * piece).min(payload.len())..((index + 1) * piece).min(payload.len())];
                let opcode = match (index, text) {
                    (0, true) => TEXT,
                    (0, false) => BINARY,
                    _ => CONTINUE,
                };
                let key = self.key();
                let mut raw = codec::encode(opcode, index + 1 == fragments, part, key);
                if compressed && index == 0 {
                    codec::set_rsv1(&mut raw);
                }
                self.send_raw(&raw, true);
            }
        }
        self.next_message = self.plan.talk.map(|every| now + self.rng.u64(0..every * 2) + MS);
    }

    fn payload(&mut self, text: bool, size: usize) -> Vec<u8> {
        if text {
            let letters = ['a', 'ß', '水', '🦀'];
            let mut text = String::new();
            while text.len() < size {
                text.push(letters[self.rng.usize(0..4)]);
            }
            return text.into_bytes();
        }
        let mut bytes = vec![0; size];
        self.rng.fill(&mut bytes);
        bytes
    }

    fn close(&mut self, payload: &[u8]) {
        let key = self.key();
        let raw = codec::encode(CLOSE, true, payload, key);
        self.outgoing.extend_from_slice(&raw);
        self.close_sent = codec::decode(&raw).unwrap();
    }

    fn meets_its_fate(&mut self, now: Micros) {
        match self.plan.fate {
            Fate::Lives => {}
            Fate::Closes(1005) => self.close(b""),
            Fate::Closes(code) => {
                let reason = if code == 4999 { "x".repeat(123) } else { "so long".to_owned() };
                self.close(&[&code.to_be_bytes(), reason.as_bytes()].concat());
            }
            Fate::Fin => self.wants = Some(Ending::Fin),
            Fate::Rst => self.wants = Some(Ending::Rst),
            Fate::Vanishes | Fate::TimesOut(_) => self.condition = Condition::Vanished,
            Fate::Freezes => self.condition = Condition::Frozen,
            Fate::Deaf(talks) => {
                if !talks {
                    self.next_message = None;
                    self.next_ping = None;
                }
            }
            Fate::Trickles => {
                let key = self.key();
                let raw = codec::encode(BINARY, true, &[7; 5_000], key);
                self.outgoing.extend_from_slice(&raw[..self.rng.usize(14..40)]);
                (self.next_message, self.next_ping) = (None, None);
                self.pongs.clear();
                self.plan.answering = Answering::Never;
                self.next_trickle = Some(now + S);
            }
            Fate::Violates(how) => self.violates(how),
        }
    }

    fn violates(&mut self, how: Violating) {
        let key = self.key();
        let mut raw = match how {
            Violating::ReservedBit | Violating::WrongMask | Violating::Opcode => {
                codec::encode(BINARY, true, b"abcdef", key)
            }
            Violating::BadText => codec::encode(TEXT, true, b"ab\xff", key),
            Violating::BadTextLate => {
                let mut text = vec![b'a'; 50_000];
                text.push(0xff);
                codec::encode(TEXT, true, &text, key)
            }
            Violating::TooBig => codec::encode(BINARY, true, &[0; 90_001], key),
            Violating::BadClose => codec::encode(CLOSE, true, &1005u16.to_be_bytes(), key),
            Violating::Orphan => codec::encode(CONTINUE, true, b"abc", key),
            Violating::CompressedPing => codec::encode(PING, true, b"abc", key),
        };
        match how {
            Violating::ReservedBit => raw[0] |= 0x20,
            Violating::WrongMask => raw[1] ^= 0x80,
            Violating::Opcode => raw[0] = 0x83,
            Violating::CompressedPing => codec::set_rsv1(&mut raw),
            Violating::BadText
            | Violating::BadTextLate
            | Violating::TooBig
            | Violating::BadClose
            | Violating::Orphan => {}
        }
        self.outgoing.extend_from_slice(&raw);
        // What follows must not cross, so it is not logged; nothing follows, then.
        (self.next_message, self.next_ping) = (None, None);
        self.pongs.clear();
        self.plan.answering = Answering::Never;
    }
}
