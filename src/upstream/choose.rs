//! Which backend of a pool is tried next.
use super::{Backend, balance::Balance};
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

/// The next backend to try, of those that are not drained: by balance among those that are well or due, then those left alone, the first to
/// return first, so that the last one is never left alone. Those only while the time for a handshake lasts.
pub(super) fn choose(
    backends: &[Arc<Backend>],
    balance: &Balance,
    tried: &[bool],
    patience: Patience<'_>,
) -> Option<usize> {
    let Patience { began, options } = patience;
    let now = Instant::now();
    let (mut due, mut alone) = (Vec::new(), None::<(Instant, usize)>);
    for (index, backend) in backends.iter().enumerate().filter(|&(index, backend)| !tried[index] && !backend.drained())
    {
        match backend.health.alone_until(now) {
            None => due.push(index),
            Some(until) if alone.is_none_or(|(first, _)| until < first) => alone = Some((until, index)),
            Some(_) => {}
        }
    }
    let chosen = balance
        .pick(&due, |index| backends[index].sessions())
        .or_else(|| alone.filter(|_| now < began + options.handshake).map(|(_, index)| index))?;
    backends[chosen].health.claim(now + options.connect + options.handshake);
    Some(chosen)
}
