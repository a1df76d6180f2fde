//! What a worker tells of its sessions, and how it ends them when an operator says so.
use super::Worker;
use crate::{
    relay::{EndReason, PerSide, Side},
    session::{
        census::Figures,
        registry::{Found, Key, Order, Parting},
        select::{Filter, Position, Record, SessionKey, Sort},
    },
};
use std::{
    array,
    cell::Cell,
    collections::{HashMap, HashSet},
    rc::Rc,
    time::{Duration, Instant},
};

/// Sessions of one worker that an overview asks; of more, a sample is taken.
const SAMPLE: usize = 20_000;
/// The slowest and the quietest sessions in an overview.
const FOREMOST: usize = 10;

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Query {
    pub filter: Filter,
    pub sort: Sort,
    /// Only what comes behind this.
    pub after: Option<Position>,
    pub limit: usize,
}

/// One worker's part of a page.
#[derive(Debug)]
pub(crate) struct Part {
    /// Sessions that fit.
    pub(crate) matching: usize,
    /// Those of them that come behind `after`.
    pub(crate) behind: usize,
    /// The first of those.
    pub(crate) records: Vec<Record>,
}

/// A session that is to be ended. The older one is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Chosen {
    born: u32,
    pub(crate) worker: u32,
    pub(crate) key: Key,
}

/// One worker's part of an overview.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) open: usize,
    pub(crate) asked: usize,
    pub(crate) started: u64,
    /// By the order of `EndReason::ALL`.
    pub(crate) ended: [u64; EndReason::ALL.len()],
    pub(crate) round_trips: PerSide<Vec<Duration>>,
    pub(crate) outbox: u64,
    pub(crate) paused: usize,
    pub(crate) slowest: Vec<Record>,
    pub(crate) quietest: Vec<Record>,
}

/// Sessions of one worker that began and ended so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    started: Cell<u64>,
    ended: [Cell<u64>; EndReason::ALL.len()],
}

impl Counts {
    pub(super) fn started(&self) {
        self.started.set(self.started.get() + 1);
    }

    pub(super) fn ended(&self, reason: EndReason) {
        if let Some(place) = EndReason::ALL.iter().position(|one| *one == reason) {
            self.ended[place].set(self.ended[place].get() + 1);
        }
    }
}

/// A session and where it stands in a list; its figures if they were asked for.
struct Placed {
    position: Position,
    key: Key,
    figures: Option<Figures>,
}

impl Worker {
    /// Its part of a page.
    pub(crate) async fn list(self: Rc<Self>, query: Query) -> Part {
        let found = self.context.registry.select(Instant::now(), |facts, age| query.filter.fits(facts, age));
        let live = query.filter.is_live() || query.sort.rank(0).is_none();
        let mut placed = if live { self.asked(&found, &query).await } else { self.placed(&found, query.sort) };
        let matching = placed.len();
        placed.retain(|one| query.after.is_none_or(|after| one.position > after));
        let behind = placed.len();
        placed.sort_unstable_by_key(|one| one.position);
        placed.truncate(query.limit);
        Part { matching, behind, records: self.records(placed).await }
    }

    fn session_key(&self, key: Key) -> SessionKey {
        SessionKey { worker: self.share.worker, number: key.number }
    }

    fn placed(&self, found: &[Found], sort: Sort) -> Vec<Placed> {
        let place = |found: &Found| {
            let rank = sort.rank(found.born).unwrap_or_default();
            Placed { position: Position { rank, key: self.session_key(found.key) }, key: found.key, figures: None }
        };
        found.iter().map(place).collect()
    }

    async fn asked(&self, found: &[Found], query: &Query) -> Vec<Placed> {
        let born: HashMap<u64, u32> = found.iter().map(|found| (found.key.number, found.born)).collect();
        let counted = self.context.registry.census(found.iter().map(|found| found.key).collect()).await;
        let fitting = counted.into_iter().filter(|(_, figures)| query.filter.fits_live(figures));
        let place = |(key, figures): (Key, Figures)| {
            let rank = query.sort.live_rank(born.get(&key.number).copied().unwrap_or_default(), &figures);
            Placed { position: Position { rank, key: self.session_key(key) }, key, figures: Some(figures) }
        };
        fitting.map(place).collect()
    }

    /// Asks those that were not asked yet. Sessions that end meanwhile are left out.
    async fn records(&self, placed: Vec<Placed>) -> Vec<Record> {
        let registry = &self.context.registry;
        let silent: Vec<Key> = placed.iter().filter(|one| one.figures.is_none()).map(|one| one.key).collect();
        let answers: HashMap<u64, Figures> =
            registry.census(silent).await.into_iter().map(|(key, figures)| (key.number, figures)).collect();
        let record = |one: Placed| {
            let figures = one.figures.or_else(|| answers.get(&one.key.number).copied())?;
            Some(Record::of(one.position, &*registry.facts(one.key)?, figures))
        };
        placed.into_iter().filter_map(record).collect()
    }

    /// What there is to know of one session.
    pub(crate) async fn show(self: Rc<Self>, key: SessionKey) -> Option<Record> {
        let key = self.own(key)?;
        let placed = Placed { position: Position { rank: 0, key: self.session_key(key) }, key, figures: None };
        self.records(vec![placed]).await.pop()
    }

    fn own(&self, key: SessionKey) -> Option<Key> {
        if key.worker == self.share.worker { self.context.registry.find(key.number) } else { None }
    }

    /// Ends one session, if it is its own and still runs; whether it does.
    pub(crate) fn end(&self, key: SessionKey, parting: Parting) -> bool {
        let own = self.own(key);
        self.terminate(own.as_slice(), parting);
        own.is_some()
    }

    /// Ends these sessions of its own, as far as they still run.
    pub(crate) fn terminate(&self, keys: &[Key], parting: Parting) {
        let parting = Rc::new(parting);
        keys.iter().for_each(|key| self.context.registry.order(*key, Order::Terminate(Rc::clone(&parting))));
    }

    /// The sessions that fit.
    pub(crate) async fn choose(self: Rc<Self>, filter: Filter) -> Vec<Chosen> {
        let found = self.context.registry.select(Instant::now(), |facts, age| filter.fits(facts, age));
        let chosen = |found: Found| Chosen { born: found.born, worker: self.share.worker, key: found.key };
        if !filter.is_live() {
            return found.into_iter().map(chosen).collect();
        }
        let query = Query { filter, sort: Sort::Oldest, after: None, limit: 0 };
        let fitting: HashSet<Key> = self.asked(&found, &query).await.into_iter().map(|one| one.key).collect();
        found.into_iter().filter(|found| fitting.contains(&found.key)).map(chosen).collect()
    }

    /// Its part of an overview.
    pub(crate) async fn survey(self: Rc<Self>) -> Survey {
        let found = self.context.registry.select(Instant::now(), |_, _| true);
        let open = found.len();
        let stride = open.div_ceil(SAMPLE).max(1);
        let sample = found.into_iter().step_by(stride).map(|found| found.key).collect();
        let counted = self.context.registry.census(sample).await;
        let round_trips =
            |side: Side| counted.iter().filter_map(|(_, figures)| figures.legs[side].round_trip).collect();
        let placed = |sort: Sort| {
            let place = |(key, figures): &(Key, Figures)| Placed {
                position: Position { rank: sort.live_rank(0, figures), key: self.session_key(*key) },
                key: *key,
                figures: Some(*figures),
            };
            let mut all: Vec<Placed> = counted.iter().map(place).filter(|one| one.position.rank > 0).collect();
            all.sort_unstable_by_key(|one| one.position);
            all.truncate(FOREMOST);
            all
        };
        Survey {
            open,
            asked: counted.len(),
            started: self.counts.started.get(),
            ended: array::from_fn(|place| self.counts.ended[place].get()),
            round_trips: PerSide { downstream: round_trips(Side::Downstream), upstream: round_trips(Side::Upstream) },
            outbox: counted.iter().map(|(_, figures)| figures.outbox()).sum(),
            paused: counted.iter().filter(|(_, figures)| figures.paused()).count(),
            slowest: self.records(placed(Sort::RoundTrip)).await,
            quietest: self.records(placed(Sort::Silence)).await,
        }
    }
}
