//! An upgrade without a refused connection: a new process takes over the listening sockets, and the old one drains.
//!
//! The old process starts the program that it was started as, with one end of a socket pair as standard input. The
//! descriptors of the listening sockets cross on it, then words: the new one is ready, or says why it is not. Both accept on
//! the same sockets until the old one, told so, stops; what waits in their queues is nobody's loss. Until then, whatever
//! happens to the new process leaves the old one as it was.
mod channel;
mod give;
mod notice;
mod program;
mod take;
mod trigger;

pub use give::UpgradeError;
pub use notice::{Notice, Notices};
pub use program::Program;
pub use take::{InheritError, Inheritance};
pub use trigger::Trigger;

pub(crate) use give::{Part, upgrade};

use crate::{listener::ListenAddress, supervisor::Supervisor, worker::Offer};
use std::{
    fmt,
    os::fd::OwnedFd,
    process,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The variable that tells a new process what it is: its generation, and the id of the process that started it.
const VARIABLE: &str = "PULSEGATE_UPGRADE";

/// How long a worker, or the other process, may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a look is taken whether an upgrade is over.
const SETTLING: Duration = Duration::from_millis(20);

/// Where this process stands in a row of upgrades; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lineage(Arc<Line>);

#[derive(Debug)]
struct Line {
    generation: u32,
    parent: Option<u32>,
    /// What to start at an upgrade. None in programs that embed a gateway.
    program: Option<Program>,
    supervisor: Supervisor,
    predecessors: Mutex<Vec<Predecessor>>,
    /// Listening sockets besides those of the workers.
    offers: Mutex<Vec<Offer>>,
    under_way: AtomicBool,
    /// Once another process serves: the addresses at which it does.
    kept: OnceLock<Arc<[ListenAddress]>>,
}

/// A process that has handed its listeners over, and still drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub generation: u32,
    pub process: u32,
    /// As it said a second ago.
    pub sessions: usize,
}

/// A process that has taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    pub generation: u32,
    pub process: u32,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            generation: 1,
            parent: None,
            program: None,
            supervisor: Supervisor::default(),
            predecessors: Mutex::default(),
            offers: Mutex::default(),
            under_way: AtomicBool::new(false),
            kept: OnceLock::new(),
        }
    }
}

impl Lineage {
    fn new(generation: u32, parent: Option<u32>, program: Option<Program>, supervisor: Supervisor) -> Self {
        Self(Arc::new(Line { generation, parent, program, supervisor, ..Line::default() }))
    }

    /// 1 for a process that was started anew, one more with each upgrade.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.0.generation
    }

    /// The process whose listeners this one took over.
    #[must_use]
    pub fn parent(&self) -> Option<u32> {
        self.0.parent
    }

    /// Earlier generations that still drain, the youngest first.
    #[must_use]
    pub fn predecessors(&self) -> Vec<Predecessor> {
        self.0.predecessors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_predecessors(&self, predecessors: Vec<Predecessor>) {
        *self.0.predecessors.lock().unwrap_or_else(PoisonError::into_inner) = predecessors;
    }

    /// Hands one more listening socket to the new process at an upgrade: a copy of one that is none of the workers', which finds it
    /// among [`Inheritance::sockets`]. Whoever accepts on it stops without accepting what waits, once
    /// [`Lineage::succeeded`] says so and the gateway drains.
    pub fn offer(&self, asked: ListenAddress, socket: OwnedFd, owns_file: bool) {
        self.offers().push(Offer { asked, socket, owns_file });
    }

    fn offers(&self) -> MutexGuard<'_, Vec<Offer>> {
        self.0.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// systemd, or nobody.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }

    /// Whether another process serves instead of this one.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.0.kept.get().is_some()
    }

    /// Whether that process serves at this address, as it was bound. The file of a Unix socket is that process's then.
    #[must_use]
    pub fn kept(&self, address: &ListenAddress) -> bool {
        self.0.kept.get().is_some_and(|kept| kept.contains(address))
    }

    fn set_succeeded(&self, kept: Arc<[ListenAddress]>) {
        // There is one upgrade that goes well.
        let _ = self.0.kept.set(kept);
    }

    /// Whether a new process is being started, which serves with the listeners that this one had when it began.
    #[must_use]
    pub fn under_way(&self) -> bool {
        self.0.under_way.load(Ordering::Acquire)
    }

    /// Waits, for a process that ends, until an upgrade that failed by that has taken its new process along.
    pub fn settle(&self) {
        let until = Instant::now() + ANSWER;
        while self.under_way() && !self.succeeded() && Instant::now() < until {
            thread::sleep(SETTLING);
        }
    }

    /// Claims the only upgrade that may be under way.
    fn begin(&self) -> bool {
        !self.0.under_way.swap(true, Ordering::AcqRel)
    }

    fn failed(&self) {
        self.0.under_way.store(false, Ordering::Release);
    }

    /// This process as its successor sees it.
    fn as_predecessor(&self, sessions: usize) -> Predecessor {
        Predecessor { generation: self.generation(), process: process::id(), sessions }
    }
}

impl fmt::Display for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}, process {}", self.generation, self.process)
    }
}
