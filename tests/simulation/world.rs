//! The virtual clock and the events: what happens to the peers, the network and the gateway.
mod shell;

use crate::{
    check,
    network::{Link, Packet, Sends},
    peer::{Condition, Ending, Peer},
    scenario::{Fate, Micros, S, Scenario},
};
use fastrand::Rng;
use pulsegate::{
    protocol::heartbeat::Seed,
    relay::{EndReason, Loss, Outcome, PerSide, Pings, Relay, Side},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// After a machine's pause, when its peers' packets come again.
const RESENT_AFTER: Micros = 200_000;

#[derive(Clone, Debug)]
enum Event {
    Packet(Side, Packet),
    Peer(Side),
    Gateway,
    Resumes,
    Drain,
    Cut,
    GivenUp(Side),
    /// By now this silent side must have ended the session; `true`: if nothing came between.
    Found(Side, bool),
    Over,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) relay: Relay,
    pub(crate) peers: PerSide<Peer>,
    pub(crate) links: PerSide<Link>,
    pub(crate) now: Micros,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) ended_at: Option<Micros>,
    /// All that was read from each side.
    pub(crate) read: PerSide<Vec<u8>>,
    pub(crate) deaf: PerSide<bool>,
    pub(crate) drained: bool,
    pub(crate) cut: bool,
    /// Something kept the detection of a silent side from running straight.
    hindered: PerSide<bool>,
    crossed: PerSide<usize>,
    codes: PerSide<(Option<u16>, Option<u16>)>,
    base: Instant,
    rng: Rng,
    events: BTreeMap<(Micros, u64), Event>,
    order: u64,
    timer: Option<Micros>,
    peer_wakes: PerSide<Option<Micros>>,
    paused_until: Option<Micros>,
    write_failed: PerSide<bool>,
    told_lost: PerSide<bool>,
    trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, base: Instant, trace: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let scenario = Scenario::new(&mut rng);
        if trace {
            eprintln!("{scenario:#?}");
        }
        let mut fresh = || Seed { secret: rng.u64(..), jitter: rng.u64(..) };
        let seeds = PerSide { downstream: fresh(), upstream: fresh() };
        let crossing = scenario.config.pings == Pings::Forward;
        let mut peer = |side: Side| {
            let (plan, secret) = (scenario.peers[side].clone(), seeds[side].secret);
            Peer::new(side, plan, secret, crossing, scenario.deflate, rng.fork())
        };
        let peers = PerSide { downstream: peer(Side::Downstream), upstream: peer(Side::Upstream) };
        let links = PerSide {
            downstream: Link::new(scenario.paths.downstream.clone()),
            upstream: Link::new(scenario.paths.upstream.clone()),
        };
        let relay = Relay::new(Arc::new(scenario.config.clone()), scenario.deflate, seeds, base);
        let mut world = Self {
            scenario,
            relay,
            peers,
            links,
            now: 0,
            outcome: None,
            ended_at: None,
            read: PerSide::default(),
            deaf: PerSide::default(),
            drained: false,
            cut: false,
            hindered: PerSide::default(),
            crossed: PerSide::default(),
            codes: PerSide::default(),
            base,
            rng,
            events: BTreeMap::new(),
            order: 0,
            timer: None,
            peer_wakes: PerSide::default(),
            paused_until: None,
            write_failed: PerSide::default(),
            told_lost: PerSide::default(),
            trace,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let scenario = self.scenario.clone();
        self.at(scenario.drain_at, Event::Drain);
        if let Some(after) = scenario.cut_after {
            self.at(scenario.drain_at + after, Event::Cut);
        }
        if let Some((at, long)) = scenario.pause {
            self.at(at, Event::Resumes);
            self.at(at + long, Event::Resumes);
        }
        let timeouts = &scenario.config.timeouts;
        let stall = timeouts.stall.unwrap_or_default().as_micros() as Micros;
        let paused = scenario.pause.map_or(0, |(_, long)| long);
        self.at(
            scenario.drain_at + 6 * timeouts.close.as_micros() as Micros + 3 * stall + 60 * S + paused,
            Event::Over,
        );
        for side in Side::BOTH {
            self.at(0, Event::Peer(side));
            let fate_at = scenario.peers[side].fate_at;
            if let Fate::TimesOut(after) = scenario.peers[side].fate {
                self.at(fate_at + after, Event::GivenUp(side));
            }
            if let Some((straight, hindered)) = check::bounds(&scenario, side) {
                self.at(fate_at + straight, Event::Found(side, true));
                self.at(fate_at + hindered + paused, Event::Found(side, false));
            }
        }
        self.at(0, Event::Gateway);
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.order += 1;
        self.events.insert((when.max(self.now), self.order), event);
    }

    fn clock(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>12.6} {}", self.now as f64 / S as f64, what());
        }
    }

    /// Runs until the session is over and the peers have seen all of it.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while let Some(((when, _), event)) = self.events.pop_first() {
            self.now = when;
            let late = matches!(event, Event::Over | Event::Found(..) | Event::Gateway | Event::Drain);
            if self.relay.is_done() && late {
                continue;
            }
            if self.relay.is_done() && when > self.ended_at.unwrap_or(0) + 600 * S {
                break;
            }
            self.happens(event).map_err(|error| format!("at {:.6} s: {error}", when as f64 / S as f64))?;
        }
        if !self.relay.is_done() {
            return Err("the session never ended".to_owned());
        }
        check::at_the_end(self, self.codes)
    }

    /// When packets that reach the gateway's machine now are taken in, if it is paused as a whole.
    fn postponed(&self) -> Option<Micros> {
        let (at, long) = self.scenario.pause.filter(|_| self.scenario.kernel_paused)?;
        let back = at + long + RESENT_AFTER;
        (at <= self.now && self.now <= back).then_some(back + 1)
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Packet(side, packet) if packet.is_for_gateway() && self.postponed().is_some() => {
                let later = self.postponed().unwrap_or(self.now);
                self.at(later, Event::Packet(side, packet));
                return Ok(());
            }
            Event::Packet(side, packet) => return self.arrives(side, packet),
            Event::Peer(side) => {
                if self.peer_wakes[side].is_some_and(|at| at <= self.now) {
                    self.peer_wakes[side] = None;
                }
                return self.peer(side);
            }
            Event::Gateway => self.timer = None,
            Event::Resumes => match self.paused_until {
                None => {
                    self.note(|| "gateway paused".to_owned());
                    self.hindered = PerSide { downstream: true, upstream: true };
                    self.paused_until = self.scenario.pause.map(|(at, long)| at + long);
                    return Ok(());
                }
                Some(_) => {
                    self.note(|| "gateway resumes".to_owned());
                    self.paused_until = None;
                    let now = self.clock();
                    self.relay.resume(now);
                }
            },
            Event::Drain => {
                self.note(|| "drain".to_owned());
                let now = self.clock();
                self.drained = true;
                self.relay.end(EndReason::Draining, None, now);
            }
            Event::Cut => {
                self.note(|| "cut".to_owned());
                let now = self.clock();
                self.cut = true;
                self.relay.cut(EndReason::Draining, now);
                self.turn()?;
                return if self.relay.is_done() || self.paused_until.is_some() {
                    Ok(())
                } else {
                    Err("not over after a cut".to_owned())
                };
            }
            Event::GivenUp(side) if self.peers[side].condition == Condition::Vanished => {
                self.links[side].loss = Some(Loss::TimedOut);
            }
            Event::GivenUp(_) => {}
            Event::Found(side, straight) => {
                // A closed window without `timeouts.stall`, or a frame that trickles in between without
                // `limits.pace`, is nobody's to judge.
                let config = &self.scenario.config;
                let unjudged = straight || config.timeouts.stall.is_none() || config.pace.is_none();
                if self.ended_at.is_none() && !(self.hindered[side] && unjudged) {
                    return Err(format!("{side:?} has been silent for too long and nobody noticed"));
                }
                return Ok(());
            }
            Event::Over => return Err("not over long after the drain began".to_owned()),
        }
        self.turn()
    }

    fn arrives(&mut self, side: Side, packet: Packet) -> Result<(), String> {
        let now = self.now;
        let mut sends = Sends::new();
        let link = &mut self.links[side];
        match packet {
            Packet::ToPeer(bytes) => {
                if matches!(self.peers[side].condition, Condition::Runs | Condition::Frozen) {
                    link.reached_peer(&bytes, now, &mut sends);
                    self.at(now, Event::Peer(side));
                }
            }
            Packet::EndToPeer(ending) => {
                if self.peers[side].condition == Condition::Runs {
                    self.note(|| format!("{side:?}: peer sees {ending:?}"));
                    // What came before the end is read before it.
                    self.drain_peer(side)?;
                    self.peers[side].ended(ending)?;
                    self.at(now, Event::Peer(side));
                }
            }
            Packet::Acknowledged(count) => link.acknowledged(count, now),
            Packet::ToGateway(bytes) => link.reached_gateway(&bytes, now, &mut sends),
            Packet::EndToGateway(Ending::Fin) => link.loss = link.loss.or(Some(Loss::End)),
            Packet::EndToGateway(Ending::Rst) => {
                link.loss = Some(Loss::Failed);
                link.broken = true;
            }
        }
        self.post(side, sends);
        self.turn()
    }

    /// A peer that is about to see the end of the stream reads up to it.
    fn drain_peer(&mut self, side: Side) -> Result<(), String> {
        let deaf = self.peers[side].fated && matches!(self.peers[side].plan.fate, Fate::Deaf(_));
        if deaf {
            return Ok(());
        }
        let bytes: Vec<u8> = self.links[side].at_peer.drain(..).collect();
        self.peer_receives(side, &bytes)
    }

    fn peer_receives(&mut self, side: Side, bytes: &[u8]) -> Result<(), String> {
        let expected = std::mem::take(&mut self.peers[side.other()].log);
        let from = self.crossed[side.other()];
        let crossed = self.peers[side].receives(bytes, &expected[from..], self.now);
        self.peers[side.other()].log = expected;
        self.crossed[side.other()] += crossed?;
        Ok(())
    }

    /// The process of a peer has its turn.
    fn peer(&mut self, side: Side) -> Result<(), String> {
        let now = self.now;
        let (count, again) = self.peers[side].reads(self.links[side].at_peer.len(), now);
        if count > 0 {
            let bytes: Vec<u8> = self.links[side].at_peer.drain(..count).collect();
            self.peer_receives(side, &bytes)?;
        }
        self.note(|| {
            format!(
                "{side:?}: peer has {} to read, reads {count}, {} to send, {:?}",
                self.links[side].at_peer.len(),
                self.peers[side].outgoing.len(),
                self.peers[side].last_own_ping
            )
        });
        self.peers[side].act(now);
        let mut sends = Sends::new();
        let (peer, link) = (&mut self.peers[side], &mut self.links[side]);
        if peer.condition == Condition::Runs {
            link.pump_back(&mut peer.outgoing, peer.wants, now, &mut self.rng, &mut sends);
            if peer.wants == Some(Ending::Rst) {
                peer.condition = Condition::Closed;
            }
        }
        if matches!(peer.condition, Condition::Runs | Condition::Frozen) {
            link.pump(now, &mut self.rng, &mut sends);
        }
        let wake = [peer.next(), again].into_iter().flatten().min();
        self.post(side, sends);
        if let Some(wake) = wake
            && self.peer_wakes[side].is_none_or(|at| wake < at)
        {
            self.peer_wakes[side] = Some(wake);
            self.at(wake, Event::Peer(side));
        }
        Ok(())
    }

    fn post(&mut self, side: Side, sends: Sends) {
        for (when, packet) in sends {
            self.at(when, Event::Packet(side, packet));
        }
    }
}
