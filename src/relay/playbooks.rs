//! Playbooks: this arrives, exactly that is emitted. A mismatch prints the whole script and where it parts.
#![allow(clippy::unwrap_used)]

mod configure;
mod crossing;
mod endings;
mod limits;
mod rates;
mod shortcut;
mod turns;

use super::*;
use crate::protocol::{
    close::CloseCode,
    frame::{Header, Opcode},
    heartbeat::{Answers, HeartbeatConfig, HeartbeatKind, Liveness},
    mask,
};
use std::time::Duration;

const CLIENT: Side = Side::Downstream;
const UPSTREAM: Side = Side::Upstream;
const KEY: [u8; 4] = [1, 2, 3, 4];

const QUIET: HeartbeatConfig = HeartbeatConfig {
    ping_interval: None,
    ping_timeout: Some(Duration::from_secs(20)),
    jitter: 0.0,
    kind: HeartbeatKind::Ping,
    liveness: Liveness::Traffic,
    path_idle_limit: None,
};
const PINGS: HeartbeatConfig = HeartbeatConfig { ping_interval: Some(Duration::from_secs(20)), ..QUIET };

fn config() -> RelayConfig {
    RelayConfig {
        heartbeat: PerSide { downstream: QUIET, upstream: QUIET },
        pings: Pings::Forward,
        utf8: Utf8::Check,
        timeouts: RelayTimeouts {
            close: Duration::from_secs(10),
            stall: Some(Duration::from_secs(60)),
            idle: None,
            max_age: None,
        },
        limits: PerSide::default(),
        pace: Some(256),
        close_codes: CloseCodes::default(),
    }
}

/// A frame as `side` sends it: a client masks.
fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if side == CLIENT { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..126 => bytes.push(bit | short as u8),
        long @ 126..65_536 => {
            bytes.push(bit | 126);
            bytes.extend_from_slice(&(long as u16).to_be_bytes());
        }
        huge => {
            bytes.push(bit | 127);
            bytes.extend_from_slice(&(huge as u64).to_be_bytes());
        }
    }
    let start = bytes.len();
    if side == CLIENT {
        bytes.extend_from_slice(&KEY);
        bytes.resize(start + 4 + payload.len(), 0);
        mask::apply(payload, KEY, 0, &mut bytes[start + 4..]);
    } else {
        bytes.extend_from_slice(payload);
    }
    bytes
}

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// A relay, its virtual clock, and transports that take as much as they are told to.
struct Play {
    relay: Relay,
    now: Instant,
    room: PerSide<usize>,
    /// What left since the last `sees`, per leg, not yet cut into frames.
    wire: PerSide<Vec<u8>>,
    /// What came over a rate, and comes again once its side is read.
    aside: PerSide<Vec<u8>>,
    script: Vec<String>,
    seen: Vec<String>,
    pings: PerSide<Vec<u8>>,
    told: bool,
    answers: Answers,
    path: Option<PathSample>,
    /// Small messages go the way of all others.
    long_way: bool,
}

impl Play {
    fn new(config: RelayConfig) -> Self {
        Self::at(config, Instant::now())
    }

    fn at(config: RelayConfig, now: Instant) -> Self {
        let seeds = PerSide { downstream: Seed { secret: 1, jitter: 1 }, upstream: Seed { secret: 2, jitter: 2 } };
        Self {
            relay: Relay::new(Arc::new(config), false, seeds, now),
            now,
            room: PerSide { downstream: usize::MAX, upstream: usize::MAX },
            wire: PerSide::default(),
            aside: PerSide::default(),
            script: Vec::new(),
            seen: Vec::new(),
            pings: PerSide::default(),
            told: false,
            answers: Answers::Proven,
            path: None,
            long_way: false,
        }
    }

    /// Bytes arrive.
    fn bytes(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        self.script.push(format!("> {}: {} bytes", side.label(), bytes.len()));
        if !self.relay.wants_read(side) {
            self.seen.push(format!("{}: not read", side.label()));
            return self;
        }
        let mut chunk = vec![0; 139 + bytes.len()];
        let held = self.relay.take_held(side, &mut chunk);
        chunk.truncate(held + bytes.len());
        chunk[held..].copy_from_slice(bytes);
        self.relay.arrived(side, bytes.len(), self.relay.moment(self.now));
        self.controls();
        self.chunk(side, &chunk);
        self.after();
        self
    }

    fn chunk(&mut self, side: Side, chunk: &[u8]) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let now = self.relay.moment(self.now);
            let step = if self.long_way {
                self.relay.receive_any(side, rest, now)
            } else {
                self.relay.receive(side, rest, now)
            };
            if step.used == 0 {
                assert!(self.relay.slowed(side) && !self.relay.wants_read(side));
                self.aside[side] = rest.to_vec();
                return;
            }
            self.send(side.other(), &rest[step.pass]);
            rest = &rest[step.used..];
            self.controls();
        }
    }

    fn frame(&mut self, side: Side, first: u8, payload: &[u8]) -> &mut Self {
        self.bytes(side, &frame(side, first, payload))
    }

    fn lost(&mut self, side: Side, loss: Loss) -> &mut Self {
        self.script.push(format!("> {}: {loss:?}", side.label()));
        self.relay.lost(side, loss, self.now);
        self.after();
        self
    }

    fn order(&mut self, reason: EndReason, code: Option<CloseCode>) -> &mut Self {
        self.script.push(format!("> end: {}", reason.label()));
        self.relay.end(reason, code, self.now);
        self.after();
        self
    }

    fn terminate(&mut self, code: Option<u16>, words: Option<&str>) -> &mut Self {
        self.script.push(format!("> terminate: {code:?} {words:?}"));
        self.relay.terminate(code.and_then(CloseCode::new), words, self.now);
        self.after();
        self
    }

    /// The transport of a leg takes this much more from now on.
    fn room(&mut self, side: Side, room: usize) -> &mut Self {
        self.script.push(format!("> {} takes {room}", side.label()));
        self.room[side] = room;
        let waiting = self.relay.outbox(side).waiting();
        let count = waiting.len().min(room);
        let bytes = waiting[..count].to_vec();
        self.room[side] -= count;
        self.wire[side].extend_from_slice(&bytes);
        if count > 0 {
            self.relay.took(side, count, self.now);
        }
        self.after();
        self
    }

    /// Time passes, deadline by deadline.
    fn pass(&mut self, seconds: u64) -> &mut Self {
        self.script.push(format!("> {seconds} s"));
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            let (answers, path) = (self.answers, self.path);
            self.relay.on_timeout(self.now, answers, |_| path);
            self.after();
        }
        self.now = end;
        self
    }

    /// The gateway itself stands still for a while.
    fn pause(&mut self, seconds: u64) -> &mut Self {
        self.script.push(format!("> paused for {seconds} s"));
        self.now += Duration::from_secs(seconds);
        self.relay.resume(self.now);
        self
    }

    fn send(&mut self, side: Side, bytes: &[u8]) {
        let count = if self.relay.outbox(side).is_empty() { bytes.len().min(self.room[side]) } else { 0 };
        self.room[side] -= count;
        self.wire[side].extend_from_slice(&bytes[..count]);
        if count > 0 {
            self.relay.sent(side, count);
        }
        self.relay.queue(side, &bytes[count..], self.now);
    }

    fn controls(&mut self) {
        for side in Side::BOTH {
            while let Some(control) = self.relay.take_control(side, self.now, || KEY) {
                self.send(side, control.bytes());
            }
        }
    }

    fn after(&mut self) {
        self.controls();
        for side in Side::BOTH {
            if self.relay.wants_read(side) && !self.aside[side].is_empty() {
                let aside = std::mem::take(&mut self.aside[side]);
                self.chunk(side, &aside);
            }
        }
        for side in Side::BOTH {
            if self.relay.outbox(side).is_empty() && self.relay.waits_for_transport(side) {
                let path = self.path;
                self.relay.on_taken(side, self.now, || path);
            }
            self.frames(side);
        }
        for side in Side::BOTH {
            let wish = self.relay.wish(side);
            assert!(wish == Wish::Keep || self.relay.is_ending(), "no transport ends before its session does");
            match wish {
                Wish::Keep => continue,
                Wish::ShutDown => self.relay.shut_down(side, self.now),
                Wish::Drop | Wish::Reset => self.relay.finished(side),
            }
            self.seen.push(format!("{}: {wish:?}", side.label()));
        }
        if let Some(outcome) = self.relay.outcome().filter(|_| !std::mem::replace(&mut self.told, true)) {
            let first = outcome.first.map_or("gateway", Side::label);
            self.seen.push(format!("outcome: {} by {first}", outcome.reason.label()));
        }
    }

    /// Writes down the frames that left.
    fn frames(&mut self, side: Side) {
        // What leaves towards the client is as a server sends it.
        let role = if side == CLIENT { Role::Client } else { Role::Server };
        let wire = std::mem::take(&mut self.wire[side]);
        let mut rest = &wire[..];
        while let Ok(Some(header)) = Header::parse(rest, role, false) {
            let size = header.size + header.length as usize;
            let Some(body) = rest.get(header.size..size) else { break };
            let mut payload = vec![0; body.len()];
            mask::apply(body, header.mask.unwrap_or_default(), 0, &mut payload);
            let line = self.line(side, header, &payload);
            self.seen.push(format!("{}: {line}", side.label()));
            rest = &rest[size..];
        }
        self.wire[side] = rest.to_vec();
    }

    fn line(&mut self, side: Side, header: Header, payload: &[u8]) -> String {
        let secret = if side == CLIENT { 1u64 } else { 2 };
        let more = if header.fin { "" } else { "…" };
        let text = if payload.len() > 200 {
            format!("{} bytes", payload.len())
        } else {
            String::from_utf8_lossy(payload).into_owned()
        };
        match header.opcode {
            Opcode::Ping if payload.starts_with(&secret.to_be_bytes()) => {
                self.pings[side] = payload.to_vec();
                "our ping".to_owned()
            }
            Opcode::Close => match payload.split_first_chunk::<2>() {
                Some((code, reason)) => {
                    format!("close {} {}", u16::from_be_bytes(*code), String::from_utf8_lossy(reason))
                }
                None => "close".to_owned(),
            },
            Opcode::Text => format!("text {text}{more}"),
            Opcode::Binary => format!("binary {text}{more}"),
            Opcode::Continuation => format!("goes on {text}{more}"),
            Opcode::Ping => format!("ping {text}"),
            Opcode::Pong => format!("pong {text}"),
        }
    }

    /// Exactly this left since the last time.
    #[track_caller]
    fn sees(&mut self, expected: &[&str]) -> &mut Self {
        let seen = std::mem::take(&mut self.seen);
        let seen: Vec<&str> = seen.iter().map(|line| line.trim_end()).collect();
        for index in 0..seen.len().max(expected.len()) {
            match (seen.get(index), expected.get(index)) {
                (Some(seen), Some(expected)) if seen == expected => self.script.push(format!("  {seen}")),
                (seen, expected) => {
                    self.script.extend(expected.map(|line| format!("- {line}")));
                    self.script.extend(seen.map(|line| format!("+ {line}")));
                }
            }
        }
        assert!(seen == expected, "(- expected, + seen)\n{}", self.script.join("\n"));
        self
    }

    /// Bytes of an unfinished frame that left on a leg.
    fn partial(&self, side: Side) -> usize {
        self.wire[side].len()
    }

    fn codes(&self, side: Side) -> (Option<u16>, Option<u16>) {
        (self.relay.leg(side).close_received, self.relay.leg(side).close_sent())
    }
}
