//! The listeners of a gateway: which are open, and what has to be done to have others.
use super::StartError;
use crate::{
    listener::{
        Health, ListenerConfig,
        bind::{Bound, bind_beside},
        inherited::Inherited,
        tls::Secured,
    },
    shutdown::{Control, Phase},
    worker::{Greeting, ListenerId, Listening},
};
use std::sync::Arc;

/// The listeners that are open, in the order of the configuration.
pub(super) struct Listeners {
    served: Vec<Served>,
    given: u64,
    /// Says whether the gateway is ready, to who asks at a listener.
    control: Control,
}

struct Served {
    id: ListenerId,
    bound: Bound,
    tls: Option<Secured>,
}

/// What will be done: all that can fail was done already, and nothing was changed.
pub(super) struct Prepared {
    next: Vec<Next>,
    /// Those that are to be opened.
    bound: Vec<Bound>,
    /// Listeners that stay, but with other certificates.
    pub(super) renewed: Vec<String>,
}

struct Next {
    config: ListenerConfig,
    /// Its place among the open ones.
    known: Option<usize>,
    tls: Option<Secured>,
    /// Its handshakes will be others.
    differs: bool,
}

/// What the workers have to do for it.
pub(super) struct Orders {
    /// For each worker.
    pub(super) opened: Vec<Vec<Listening>>,
    pub(super) secured: Vec<Greeting>,
    pub(super) closed: Vec<ListenerId>,
    /// To be dropped when the workers have closed them.
    pub(super) former: Vec<Bound>,
}

impl Listeners {
    pub(super) fn new(control: Control) -> Self {
        Self { served: Vec::new(), given: 0, control }
    }

    /// Reads certificates and binds new addresses. A listener that is open stays so if its address is wanted.
    /// New addresses may find their sockets among the inherited ones.
    pub(super) fn prepare(
        &self,
        inherited: &mut Inherited,
        wanted: &[ListenerConfig],
        workers: usize,
    ) -> Result<Prepared, StartError> {
        let mut left: Vec<usize> = (0..self.served.len()).collect();
        let (mut next, mut renewed) = (Vec::new(), Vec::new());
        for config in wanted {
            let address = |index: &usize| self.served[*index].bound.config.address == config.address;
            let known = left.iter().position(address).map(|at| left.remove(at));
            let former = known.and_then(|index| self.served[index].tls.as_ref());
            let fresh = config.tls.as_ref().map(|tls| Secured::read(tls, former)).transpose()?;
            let differs = match (former, &fresh) {
                (None, None) => false,
                (Some(former), Some(fresh)) => !former.equals(fresh),
                (None, Some(_)) | (Some(_), None) => true,
            };
            let greets = |config: &ListenerConfig| (config.health.clone(), config.proxy_protocol);
            let differs =
                differs || known.is_some_and(|index| greets(&self.served[index].bound.config) != greets(config));
            if let (Some(former), Some(fresh)) = (former, &fresh)
                && !former.has_certificates_of(fresh)
            {
                renewed.push(config.address.to_string());
            }
            let tls = if differs { fresh } else { former.cloned().or(fresh) };
            next.push(Next { config: config.clone(), known, tls, differs });
        }
        let missing: Vec<_> = next.iter().filter(|next| next.known.is_none()).map(|next| next.config.clone()).collect();
        let bound = bind_beside(inherited, &missing, wanted, workers)?;
        Ok(Prepared { next, bound, renewed })
    }

    /// These are the listeners from now on; the workers have to be told.
    pub(super) fn commit(&mut self, prepared: Prepared, workers: usize) -> Orders {
        let mut opened: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
        let mut former: Vec<Option<Served>> = std::mem::take(&mut self.served).into_iter().map(Some).collect();
        let (mut bound, mut secured) = (prepared.bound.into_iter(), Vec::new());
        for Next { config, known, tls, differs } in prepared.next {
            let served = match known.and_then(|index| former[index].take()) {
                Some(mut served) => {
                    if differs {
                        let (id, health) = (served.id, health(&config, &self.control));
                        let (tls, proxy_protocol) =
                            (tls.as_ref().map(|tls| tls.configs().clone()), config.proxy_protocol);
                        secured.push(Greeting { id, tls, health, proxy_protocol });
                    }
                    (served.bound.config, served.tls) = (config, tls);
                    served
                }
                None => {
                    let Some(bound) = bound.next() else { continue };
                    self.given += 1;
                    let mut served = Served { id: ListenerId(self.given), bound, tls };
                    let health = health(&served.bound.config, &self.control);
                    served.deal(&mut opened, health.as_ref());
                    served
                }
            };
            self.served.push(served);
        }
        let closed: Vec<Served> = former.into_iter().flatten().collect();
        let ids = closed.iter().map(|served| served.id).collect();
        Orders { opened, secured, closed: ids, former: closed.into_iter().map(|served| served.bound).collect() }
    }

    /// With the addresses they really have.
    pub(super) fn listening(&self) -> impl Iterator<Item = ListenerConfig> {
        self.served
            .iter()
            .map(|served| ListenerConfig { address: served.bound.address.clone(), ..served.bound.config.clone() })
    }
}

impl Served {
    /// A socket for each worker; more, or none, if it has more or fewer than there are workers. A single one goes to the first.
    fn deal(&mut self, workers: &mut [Vec<Listening>], health: Option<&Arc<Health>>) {
        let arrival = self.bound.arrival(workers.len());
        let count = workers.len();
        for (index, worker) in workers.iter_mut().enumerate() {
            let sockets = &mut self.bound.sockets;
            let kept = sockets.len() - sockets.len().div_ceil(count - index);
            let dealt = sockets.split_off(kept);
            worker.extend(dealt.into_iter().map(|socket| Listening {
                id: self.id,
                socket,
                asked: self.bound.config.address.clone(),
                address: self.bound.address.clone(),
                file: self.bound.file.clone(),
                tls: self.tls.as_ref().map(|tls| tls.configs().clone()),
                health: health.cloned(),
                proxy_protocol: self.bound.config.proxy_protocol,
                arrival,
            }));
        }
    }
}

/// What a listener answers who asks whether the gateway is ready; `None` where that is not asked.
fn health(config: &ListenerConfig, control: &Control) -> Option<Arc<Health>> {
    let (path, control) = (config.health.clone()?, control.clone());
    Some(Arc::new(Health { path, ready: Box::new(move || control.phase() == Phase::Serving) }))
}
