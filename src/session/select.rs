//! Which sessions an operator means, in which order, and what is told of each.
use super::{ClientAddress, Facts, census::Figures};
use crate::relay::{LegFigures, Side};
use ipnet::IpNet;
use std::{fmt, num::NonZeroU16, str::FromStr, time::Duration};

/// A session among all of a gateway, for as long as the process lives: `WORKER-NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    pub worker: u32,
    /// Counts the sessions of that worker.
    pub number: u64,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.worker, self.number)
    }
}

/// A text that is no session's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session's key, which looks like 0-17")]
pub struct NoKey;

impl FromStr for SessionKey {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let (worker, number) = text.split_once('-').ok_or(NoKey)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(worker) || !digits(number) {
            return Err(NoKey);
        }
        Ok(Self { worker: worker.parse().map_err(|_| NoKey)?, number: number.parse().map_err(|_| NoKey)? })
    }
}

/// Sessions with all of these properties; one that is not given is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The request's id, as in the logs.
    pub id: Option<String>,
    pub route: Option<String>,
    pub upstream: Option<String>,
    /// Its name, or that of all addresses of a name.
    pub backend: Option<String>,
    pub client: Option<Clients>,
    pub min_age: Option<Duration>,
    pub max_age: Option<Duration>,
    /// The last round trip of either leg.
    pub min_round_trip: Option<Duration>,
    /// Bytes that wait, both legs together.
    pub min_outbox: Option<u64>,
    /// Since the last byte on either leg.
    pub min_silence: Option<Duration>,
    /// A leg is not read, because the other does not take what came.
    pub paused: Option<bool>,
}

/// Clients by where they connect from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// On a Unix socket.
    Unix,
    /// Named by their proxies in a way that cannot be read.
    Unknown,
    From(IpNet),
}

impl Clients {
    fn holds(self, address: ClientAddress) -> bool {
        match self {
            Self::Unix => address == ClientAddress::Unix,
            Self::Unknown => address == ClientAddress::Unknown,
            Self::From(network) => address.ip().is_some_and(|address| network.contains(&address.to_canonical())),
        }
    }
}

impl Filter {
    /// Whether what does not change about a session fits.
    #[must_use]
    pub fn fits(&self, facts: &Facts, age: Duration) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|wanted| wanted == text);
        let backend = facts.lease.backend();
        is(&self.id, &facts.id)
            && is(&self.route, &facts.route.name)
            && is(&self.upstream, &backend.upstream)
            && self.backend.as_ref().is_none_or(|wanted| backend.is_called(wanted))
            && self.client.is_none_or(|clients| clients.holds(facts.client))
            && self.min_age.is_none_or(|least| age >= least)
            && self.max_age.is_none_or(|most| age <= most)
    }

    /// Whether sessions have to be asked.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let Self { min_round_trip, min_outbox, min_silence, paused, .. } = self;
        min_round_trip.is_some() || min_outbox.is_some() || min_silence.is_some() || paused.is_some()
    }

    /// Whether what a session answered fits.
    #[must_use]
    pub fn fits_live(&self, figures: &Figures) -> bool {
        self.min_round_trip.is_none_or(|least| figures.round_trip().is_some_and(|time| time >= least))
            && self.min_outbox.is_none_or(|least| figures.outbox() >= least)
            && self.min_silence.is_none_or(|least| figures.silence() >= least)
            && self.paused.is_none_or(|paused| figures.paused() == paused)
    }
}

impl Figures {
    fn of<T>(&self, figure: impl Fn(&LegFigures) -> T) -> [T; 2] {
        Side::BOTH.map(|side| figure(&self.legs[side]))
    }

    /// The longer of both legs' last round trips.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.of(|leg| leg.round_trip).into_iter().max().flatten()
    }

    /// The longer of both legs' silences.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.of(|leg| leg.silence).into_iter().max().unwrap_or_default()
    }

    /// Bytes that wait on both legs.
    #[must_use]
    pub fn outbox(&self) -> u64 {
        self.of(|leg| leg.outbox).into_iter().sum()
    }

    /// Whether one of the legs is not read.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.of(|leg| leg.paused).into_iter().any(|paused| paused)
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Oldest,
    Newest,
    /// The longest round trip of either leg.
    RoundTrip,
    /// The most bytes that wait.
    Outbox,
    /// The longest silence of either leg.
    Silence,
    /// The most bytes received on both legs.
    Bytes,
    /// The most messages received on both legs.
    Messages,
}

impl Sort {
    /// Every order, with its name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("oldest", Self::Oldest),
        ("newest", Self::Newest),
        ("round_trip", Self::RoundTrip),
        ("outbox", Self::Outbox),
        ("silence", Self::Silence),
        ("bytes", Self::Bytes),
        ("messages", Self::Messages),
    ];

    /// A session's rank, the highest first, as far as it is known without asking: `born` as the registry tells it.
    #[must_use]
    pub fn rank(self, born: u32) -> Option<u64> {
        match self {
            Self::Oldest => Some(u64::from(u32::MAX - born)),
            Self::Newest => Some(u64::from(born)),
            Self::RoundTrip | Self::Outbox | Self::Silence | Self::Bytes | Self::Messages => None,
        }
    }

    /// The rank of a session that was asked.
    #[must_use]
    pub fn live_rank(self, born: u32, figures: &Figures) -> u64 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match self {
            Self::Oldest | Self::Newest => self.rank(born).unwrap_or_default(),
            Self::RoundTrip => figures.round_trip().map_or(0, micros),
            Self::Outbox => figures.outbox(),
            Self::Silence => micros(figures.silence()),
            Self::Bytes => figures.of(|leg| leg.bytes_received).into_iter().sum(),
            Self::Messages => figures.of(|leg| leg.messages_received).into_iter().sum(),
        }
    }
}

/// A place in a list; the lesser one comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub rank: u64,
    pub key: SessionKey,
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.rank.cmp(&self.rank).then(self.key.cmp(&other.key))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.rank, self.key)
    }
}

impl FromStr for Position {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let (rank, key) = text.split_once('-').ok_or(NoKey)?;
        Ok(Self { rank: rank.parse().map_err(|_| NoKey)?, key: key.parse()? })
    }
}

/// A running session as it is told outside of its worker.
#[derive(Clone, Debug)]
pub struct Record {
    pub position: Position,
    pub id: Box<str>,
    pub route: String,
    pub upstream: String,
    pub backend: String,
    pub local_port: Option<u16>,
    pub client: ClientAddress,
    pub user_agent: Option<Box<str>>,
    pub origin: Option<Box<str>>,
    pub figures: Figures,
}

impl Record {
    #[must_use]
    pub fn of(position: Position, facts: &Facts, figures: Figures) -> Self {
        let backend = facts.lease.backend();
        Self {
            position,
            id: facts.id.clone(),
            route: facts.route.name.clone(),
            upstream: backend.upstream.clone(),
            backend: backend.name.clone(),
            local_port: facts.local_port.map(NonZeroU16::get),
            client: facts.client,
            user_agent: facts.user_agent.clone(),
            origin: facts.origin.clone(),
            figures,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::relay::PerSide;

    #[test]
    fn keys_and_positions_read_back() {
        let position = Position { rank: 9, key: SessionKey { worker: 1, number: 42 } };
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!("1-42".parse(), Ok(position.key));
        for wrong in ["", "1", "1-", "-1", "a-1", "1-+2", "1-2-3"] {
            assert_eq!(wrong.parse::<SessionKey>(), Err(NoKey), "{wrong}");
        }
    }

    #[test]
    fn the_highest_rank_comes_first_and_the_older_of_equals() {
        let at = |rank, number| Position { rank, key: SessionKey { worker: 0, number } };
        let mut list = [at(1, 1), at(3, 2), at(3, 1)];
        list.sort();
        assert_eq!(list, [at(3, 1), at(3, 2), at(1, 1)]);
        assert!(Sort::Oldest.rank(3) > Sort::Oldest.rank(4) && Sort::Newest.rank(3) < Sort::Newest.rank(4));
    }

    #[test]
    fn live_figures_are_judged_by_either_leg() {
        let leg = |millis, outbox| LegFigures {
            round_trip: Some(Duration::from_millis(millis)),
            outbox,
            ..LegFigures::default()
        };
        let figures = Figures {
            age: Duration::ZERO,
            ending: false,
            legs: PerSide { downstream: leg(30, 100), upstream: leg(5, 20) },
        };
        let slow = |millis| Filter { min_round_trip: Some(Duration::from_millis(millis)), ..Filter::default() };
        assert!(slow(30).fits_live(&figures) && !slow(31).fits_live(&figures));
        let waiting = |bytes| Filter { min_outbox: Some(bytes), ..Filter::default() };
        assert!(waiting(120).fits_live(&figures) && !waiting(121).fits_live(&figures));
        assert!(!Filter::default().is_live() && slow(0).is_live());
        assert_eq!(Sort::RoundTrip.live_rank(0, &figures), 30_000);
    }

    #[test]
    fn clients_are_found_by_network() {
        let from = |text: &str| Clients::From(text.parse().unwrap());
        let at = |text: &str| ClientAddress::Ip(text.parse().unwrap());
        assert!(from("10.0.0.0/8").holds(at("10.1.2.3")) && from("10.0.0.0/8").holds(at("::ffff:10.1.2.3")));
        assert!(!from("10.0.0.0/8").holds(at("11.0.0.1")) && !from("10.0.0.0/8").holds(ClientAddress::Unix));
        assert!(Clients::Unix.holds(ClientAddress::Unix) && !Clients::Unix.holds(at("::1")));
        assert!(Clients::Unknown.holds(ClientAddress::Unknown) && !Clients::Unix.holds(ClientAddress::Unknown));
    }
}
