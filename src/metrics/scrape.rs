//! Adds the workers' counters up and writes them, family by family.
use super::{
    BackendMeter, DialFailure, Ejection, HandshakeMeter, HandshakeResult, Meter, Meters, Names, ReloadResult,
    RequestResult, TlsResult,
    codes::CODES,
    count::{Count, Distribution},
    families as f, locked,
    meter::{Flow, LegMeter},
    process,
    requests::CLASSES,
    seconds,
    text::{Family, Format, Page},
};
use crate::{
    descriptors,
    relay::{EndReason, Side},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// One route's counters on all workers.
type Routes = BTreeMap<Names, Vec<Arc<Meter>>>;

type FigureOf<T> = fn(&T) -> u64;
type CountOf<T> = fn(&T) -> &Count;
type CodesOf = fn(&LegMeter) -> &[Count; CODES.len()];

/// What `side` is called that caused an end.
const fn culprit(reason: EndReason) -> &'static str {
    match reason {
        EndReason::ClientClosed
        | EndReason::ClientGone
        | EndReason::ClientUnresponsive
        | EndReason::ClientViolation
        | EndReason::ClientStalled => Side::Downstream.label(),
        EndReason::UpstreamClosed
        | EndReason::UpstreamGone
        | EndReason::UpstreamUnresponsive
        | EndReason::UpstreamViolation
        | EndReason::UpstreamStalled => Side::Upstream.label(),
        EndReason::Idle
        | EndReason::MaxAge
        | EndReason::Draining
        | EndReason::Policy
        | EndReason::Terminated
        | EndReason::Internal => "gateway",
    }
}

impl Meters {
    /// All figures as they are now.
    #[must_use]
    pub fn text(&self, format: Format, draining: bool) -> String {
        let mut page = Page::new(format);
        let mut routes = Routes::new();
        for worker in &self.workers {
            for (names, meter) in locked(&worker.routes).iter() {
                routes.entry(names.clone()).or_default().push(Arc::clone(meter));
            }
        }
        self.sessions(&mut page, &routes);
        self.handshakes(&mut page, &routes);
        requests(&mut page, &routes);
        traffic(&mut page, &routes);
        heartbeats(&mut page, &routes);
        self.outboxes(&mut page, &routes);
        self.backends(&mut page);
        self.operations(&mut page, &routes, draining);
        self.workload(&mut page);
        self.process(&mut page);
        page.finish()
    }

    fn sessions(&self, page: &mut Page, routes: &Routes) {
        by_route(page, &f::SESSIONS_OPEN, routes, |meter| &meter.open);
        one(page, &f::SESSIONS_LIMIT, self.max_sessions.load(Relaxed));
        by_route(page, &f::SESSIONS_STARTED, routes, |meter| &meter.started);
        page.family(&f::SESSIONS_ENDED, |samples| {
            for ((route, upstream), meters) in routes {
                for reason in EndReason::ALL {
                    let ended = sum(meters, |meter| &meter.ended[reason as usize]);
                    samples.put(&[route, upstream, reason.label(), culprit(reason)], ended);
                }
            }
        });
        page.family(&f::SESSION_DURATION, |samples| {
            for ((route, upstream), meters) in routes {
                let mut lives = Distribution::default();
                meters.iter().for_each(|meter| meter.lives.add_to(&mut lives));
                samples.histogram(&[route, upstream], &lives);
            }
        });
        page.family(&f::CLOSE_CODES, |samples| {
            let directions: [(_, CodesOf); 2] =
                [("received", |leg| &leg.codes_received), ("sent", |leg| &leg.codes_sent)];
            for ((route, upstream), meters, side) in legs(routes) {
                for (direction, codes) in directions {
                    for (place, code) in CODES.into_iter().enumerate() {
                        let count = sum(meters, |meter| &codes(&meter.legs[side])[place]);
                        // Most codes are never said.
                        if count > 0 {
                            samples.put(&[route, upstream, side.label(), direction, code], count);
                        }
                    }
                }
            }
        });
    }

    fn handshakes(&self, page: &mut Page, routes: &Routes) {
        let strangers: Vec<&HandshakeMeter> = self.workers.iter().map(|worker| &worker.strangers).collect();
        let mut named: BTreeMap<&str, Vec<&HandshakeMeter>> = BTreeMap::new();
        for ((route, _), meters) in routes {
            named.entry(route).or_default().extend(meters.iter().map(|meter| &meter.handshakes));
        }
        page.family(&f::HANDSHAKES, |samples| {
            for (route, meters) in [("", &strangers)].into_iter().chain(named.iter().map(|(name, of)| (*name, of))) {
                for result in HandshakeResult::ALL {
                    let count = meters.iter().map(|meter| meter.results[result as usize].get()).sum::<u64>();
                    let usual = result.before_route().is_none_or(|before| before == route.is_empty());
                    if usual || count > 0 {
                        samples.put(&[route, result.label()], count);
                    }
                }
            }
        });
        page.family(&f::HANDSHAKE_DURATION, |samples| {
            for (route, meters) in &named {
                let mut took = Distribution::default();
                meters.iter().for_each(|meter| meter.took.add_to(&mut took));
                samples.histogram(&[route], &took);
            }
        });
        page.family(&f::TLS_HANDSHAKES, |samples| {
            for result in TlsResult::ALL {
                let count = self.workers.iter().map(|worker| worker.tls.results[result as usize].get()).sum::<u64>();
                samples.put(&[result.label()], count);
            }
        });
        page.family(&f::TLS_HANDSHAKE_DURATION, |samples| {
            let mut took = Distribution::default();
            self.workers.iter().for_each(|worker| worker.tls.took.add_to(&mut took));
            samples.histogram(&[], &took);
        });
        page.family(&f::CERTIFICATE_EXPIRY, |samples| {
            for certificate in locked(&self.certificates).iter() {
                samples.put(&[&certificate.file.to_string_lossy()], certificate.not_after);
            }
        });
    }

    fn outboxes(&self, page: &mut Page, routes: &Routes) {
        by_leg(page, &f::OUTBOX_BYTES, routes, |leg| &leg.waiting);
        page.family(&f::OUTBOX_LIMIT, |samples| match self.memory_limit.load(Relaxed) {
            0 => {}
            limit => samples.put(&[], limit),
        });
        by_leg(page, &f::OUTBOX_STALLS, routes, |leg| &leg.stalls);
        by_leg(page, &f::SESSIONS_SLOWED, routes, |leg| &leg.slowed);
        by_leg(page, &f::SESSIONS_PAUSED, routes, |leg| &leg.paused);
    }

    fn backends(&self, page: &mut Page) {
        let backends: Vec<(Names, Arc<BackendMeter>)> = {
            let backends = locked(&self.backends);
            backends.iter().map(|(names, meter)| (names.clone(), Arc::clone(meter))).collect()
        };
        let figures: [(_, FigureOf<BackendMeter>); 4] = [
            (&f::BACKEND_UP, |meter| meter.up().into()),
            (&f::BACKEND_SESSIONS, BackendMeter::sessions),
            (&f::BACKEND_REQUESTS, BackendMeter::requests),
            (&f::BACKEND_DIALS, BackendMeter::dials),
        ];
        for (family, figure) in figures {
            page.family(family, |samples| {
                for ((upstream, backend), meter) in &backends {
                    samples.put(&[upstream, backend], figure(meter));
                }
            });
        }
        page.family(&f::BACKEND_DIAL_ERRORS, |samples| {
            for ((upstream, backend), meter) in &backends {
                for failure in DialFailure::ALL {
                    samples.put(&[upstream, backend, failure.label()], meter.failures(failure));
                }
            }
        });
        page.family(&f::BACKEND_EJECTIONS, |samples| {
            for ((upstream, backend), meter) in &backends {
                for cause in Ejection::ALL {
                    samples.put(&[upstream, backend, cause.label()], meter.ejections(cause));
                }
            }
        });
        page.family(&f::BACKEND_SESSIONS_ENDED, |samples| {
            for ((upstream, backend), meter) in &backends {
                for reason in EndReason::ALL {
                    samples.put(&[upstream, backend, reason.label()], meter.ends(reason));
                }
            }
        });
    }

    fn operations(&self, page: &mut Page, routes: &Routes, draining: bool) {
        one(page, &f::DRAINING, u64::from(draining));
        by_route(page, &f::DRAIN_TOLD, routes, |meter| &meter.told);
        by_route(page, &f::DRAIN_CUT, routes, |meter| &meter.cut);
        page.family(&f::RELOADS, |samples| {
            for result in ReloadResult::ALL {
                samples.put(&[result.label()], self.reloads[result as usize].load(Relaxed));
            }
        });
        one(page, &f::LAST_RELOAD, self.last_reload.load(Relaxed));
        one(page, &f::GENERATION, self.generation.load(Relaxed));
    }

    fn workload(&self, page: &mut Page) {
        let workers = || self.workers.iter().enumerate().map(|(number, worker)| (number.to_string(), worker));
        page.family(&f::WORKER_BUSY, |samples| {
            for (number, worker) in workers() {
                samples.put(&[&number], worker.busy_nanos.get() as f64 / 1e9);
            }
        });
        page.family(&f::WORKER_SESSIONS, |samples| {
            for (number, worker) in workers() {
                let open: u64 = locked(&worker.routes).values().map(|meter| meter.open.get()).sum();
                samples.put(&[&number], open);
            }
        });
        page.family(&f::WORKER_PAUSES, |samples| {
            for (number, worker) in workers() {
                samples.put(&[&number], worker.pauses.get());
            }
        });
    }

    fn process(&self, page: &mut Page) {
        page.family(&f::BUILD, |samples| samples.put(&[env!("CARGO_PKG_VERSION")], 1));
        one(page, &f::START_TIME, seconds(self.started).as_secs_f64());
        page.family(&f::CPU, |samples| process::cpu_seconds().into_iter().for_each(|value| samples.put(&[], value)));
        let figures = [
            (&f::RESIDENT, process::resident_bytes()),
            (&f::OPEN_DESCRIPTORS, process::open_descriptors()),
            (&f::MAX_DESCRIPTORS, Some(descriptors::limit())),
        ];
        for (family, value) in figures {
            page.family(family, |samples| value.into_iter().for_each(|value| samples.put(&[], value)));
        }
    }
}

fn requests(page: &mut Page, routes: &Routes) {
    by_route(page, &f::REQUESTS_OPEN, routes, |meter| &meter.requests.open);
    page.family(&f::REQUESTS, |samples| {
        for ((route, upstream), meters) in routes {
            for result in RequestResult::ALL {
                let count = sum(meters, |meter| &meter.requests.results[result as usize]);
                samples.put(&[route, upstream, result.label()], count);
            }
        }
    });
    page.family(&f::RESPONSES, |samples| {
        for ((route, upstream), meters) in routes {
            for (place, class) in CLASSES.into_iter().enumerate() {
                let count = sum(meters, |meter| &meter.requests.statuses[place]);
                samples.put(&[route, upstream, class], count);
            }
        }
    });
    page.family(&f::REQUEST_DURATION, |samples| {
        for ((route, upstream), meters) in routes {
            let mut took = Distribution::default();
            meters.iter().for_each(|meter| meter.requests.took.add_to(&mut took));
            samples.histogram(&[route, upstream], &took);
        }
    });
    page.family(&f::REQUEST_BYTES, |samples| {
        for ((route, upstream), meters) in routes {
            samples.put(&[route, upstream, "received"], sum(meters, |meter| &meter.requests.received));
            samples.put(&[route, upstream, "sent"], sum(meters, |meter| &meter.requests.sent));
        }
    });
}

fn traffic(page: &mut Page, routes: &Routes) {
    let figures: [(_, CountOf<Flow>); 3] = [
        (&f::TRAFFIC_BYTES, |flow| &flow.bytes),
        (&f::FRAMES, |flow| &flow.frames),
        (&f::MESSAGES, |flow| &flow.messages),
    ];
    for (family, figure) in figures {
        page.family(family, |samples| {
            for ((route, upstream), meters, side) in legs(routes) {
                let received = sum(meters, |meter| figure(&meter.legs[side].received));
                let sent = sum(meters, |meter| figure(&meter.legs[side].sent));
                samples.put(&[route, upstream, side.label(), "received"], received);
                samples.put(&[route, upstream, side.label(), "sent"], sent);
            }
        });
    }
}

fn heartbeats(page: &mut Page, routes: &Routes) {
    by_leg(page, &f::PINGS_SENT, routes, |leg| &leg.pings_sent);
    by_leg(page, &f::PINGS_ANSWERED, routes, |leg| &leg.pings_answered);
    by_leg(page, &f::PINGS_LATE, routes, |leg| &leg.pings_late);
    by_leg(page, &f::PINGS_MISSED, routes, |leg| &leg.pings_missed);
    by_leg(page, &f::PINGS_UNPROVEN, routes, |leg| &leg.pings_unproven);
    page.family(&f::ROUND_TRIP, |samples| {
        for ((route, upstream), meters, side) in legs(routes) {
            let mut trips = Distribution::default();
            meters.iter().for_each(|meter| meter.legs[side].round_trips.add_to(&mut trips));
            samples.histogram(&[route, upstream, side.label()], &trips);
        }
    });
}

fn one(page: &mut Page, family: &Family, value: impl std::fmt::Display) {
    page.family(family, |samples| samples.put(&[], value));
}

fn by_route(page: &mut Page, family: &Family, routes: &Routes, figure: CountOf<Meter>) {
    page.family(family, |samples| {
        for ((route, upstream), meters) in routes {
            samples.put(&[route, upstream], sum(meters, figure));
        }
    });
}

fn by_leg(page: &mut Page, family: &Family, routes: &Routes, figure: CountOf<LegMeter>) {
    page.family(family, |samples| {
        for ((route, upstream), meters, side) in legs(routes) {
            samples.put(&[route, upstream, side.label()], sum(meters, |meter| figure(&meter.legs[side])));
        }
    });
}

/// Each leg of each route.
fn legs(routes: &Routes) -> impl Iterator<Item = (&Names, &[Arc<Meter>], Side)> {
    routes.iter().flat_map(|(names, meters)| Side::BOTH.map(|side| (names, meters.as_slice(), side)))
}

fn sum(meters: &[Arc<Meter>], figure: impl Fn(&Meter) -> &Count) -> u64 {
    meters.iter().map(|meter| figure(meter).get()).fold(0, u64::wrapping_add)
}
