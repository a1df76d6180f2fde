//! Which backend of a pool is tried next.
use super::{
    Affinity, Backend, UpstreamConfig,
    balance::{Balance, Candidate},
};
use crate::route::RouteOptions;
use std::sync::Arc;
use tokio::time::Instant;

/// For how long a client waits to be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience<'a> {
    /// When it had asked.
    pub(super) began: Instant,
    pub(super) options: &'a RouteOptions,
}

/// What is to go to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burden {
    /// It counts towards `max_sessions`.
    Session,
    /// A plain request, which does not.
    Request,
}

/// For whom a backend is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) burden: Burden,
    pub(super) affinity: Affinity,
    /// The place of the one that it is stuck to.
    pub(super) stuck: Option<usize>,
    pub(super) patience: Patience<'a>,
    /// Which backends were tried for it already.
    pub(super) tried: &'a [bool],
}

/// Places of backends that are as well as each other.
#[derive(Debug, Default)]
struct Ranks {
    first: Vec<usize>,
    backups: Vec<usize>,
}

impl Ranks {
    fn add(&mut self, index: usize, backend: &Backend) {
        let rank = if backend.share().backup { &mut self.backups } else { &mut self.first };
        rank.push(index);
    }
}

/// A pool's way to choose, shared by all workers.
#[derive(Debug)]
pub(super) struct Chooser {
    balance: Balance,
}

impl Chooser {
    pub(super) fn new(config: &UpstreamConfig) -> Self {
        Self { balance: Balance::new(config.balance.clone()) }
    }

    /// The next of `backends` to try, by its place. Of those that are neither drained nor full: the one that the client is stuck
    /// to; by balance among those that are well or due, backups only if there are no others; then those left alone, the first to
    /// return first, so that the last one is never left alone; then, in the way of those that are well, those that are out until a
    /// check passes. The last two only while the time for a handshake lasts.
    pub(super) fn choose(&self, backends: &[Arc<Backend>], asking: Asking<'_>) -> Option<usize> {
        let Patience { began, options } = asking.patience;
        let now = Instant::now();
        let (mut due, mut out, mut alone) = (Ranks::default(), Ranks::default(), None::<(Instant, usize)>);
        for (index, backend) in backends.iter().enumerate() {
            let full = asking.burden == Burden::Session && backend.full();
            if asking.tried[index] || backend.drained() || full {
                continue;
            }
            match backend.health.alone_until(now) {
                None => due.add(index, backend),
                Some(_) if backend.health.is_out() => out.add(index, backend),
                Some(until) if alone.is_none_or(|(first, _)| until < first) => alone = Some((until, index)),
                Some(_) => {}
            }
        }
        let in_time = now < began + options.handshake;
        let chosen = self
            .among(backends, &due, &asking)
            .or_else(|| alone.filter(|_| in_time).map(|(_, index)| index))
            .or_else(|| in_time.then(|| self.among(backends, &out, &asking)).flatten())?;
        backends[chosen].health.claim(now + options.connect + options.handshake);
        Some(chosen)
    }

    fn among(&self, backends: &[Arc<Backend>], ranks: &Ranks, asking: &Asking<'_>) -> Option<usize> {
        let stuck = asking.stuck.filter(|index| ranks.first.contains(index) || ranks.backups.contains(index));
        stuck
            .or_else(|| self.pick(backends, &ranks.first, asking.affinity))
            .or_else(|| self.pick(backends, &ranks.backups, asking.affinity))
    }

    /// Those that start slowly take part in a part of the choices only, as long as there is another.
    fn pick(&self, backends: &[Arc<Backend>], among: &[usize], affinity: Affinity) -> Option<usize> {
        if let [only] = among {
            return Some(*only);
        }
        let candidate = |&index: &usize| {
            let backend = &backends[index];
            Candidate { index, weight: backend.weight(), sessions: backend.sessions(), seed: backend.seed() }
        };
        let all: Vec<Candidate> = among.iter().map(candidate).collect();
        let takes_part = |one: &&Candidate| match backends[one.index].part() {
            1.0 => true,
            part => one.lot(affinity.key()) < part,
        };
        let ready: Vec<Candidate> = all.iter().filter(takes_part).copied().collect();
        let ready = if ready.is_empty() { all } else { ready };
        self.balance.pick(&ready, affinity.key())
    }
}
