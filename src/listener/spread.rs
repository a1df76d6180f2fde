//! Which worker serves a new connection: a board with the load of each, and the rule.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A worker has too many connections above this many percent of the mean of all, ...
const TOLERANCE: usize = 120;
/// ... and this many more, so that a handful is not sent about.
const SLACK: usize = 4;
/// From this share of its time on, in percent, a busy worker looks for a calmer one, ...
const BUSY: u32 = 50;
/// ... which must be calmer by so many percent of its time.
const CALMER: u32 = 25;
/// A worker whose last tick is older stands still, as in [`crate::session::pause`], and is given nothing.
const STILL: Duration = Duration::from_millis(1500);

/// Instead of a worker's last tick, for one that has ended: some centuries from now.
const NEVER_LATE: u64 = 1 << 43;

/// How a listener's connections come to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// To each worker's own socket, as the kernel's hash has it: only a lopsided spread is corrected.
    Hashed,
    /// All to the one worker that has the socket, which deals them out.
    Single,
}

/// What one worker has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub sessions: usize,
    /// Connections in their opening handshake, or on their way to this worker.
    pub handshakes: usize,
    /// The share of its time that it lately spent working rather than waiting, in percent.
    pub busy: u32,
    /// It stands still: stopped, or starved of CPU.
    pub still: bool,
}

impl Load {
    fn connections(&self) -> usize {
        self.sessions + self.handshakes
    }
}

/// The loads of all workers. Written when a connection begins or ends and twice a second, never per frame.
#[derive(Debug)]
pub struct Board {
    posts: Box<[Post]>,
    start: Instant,
}

/// One worker's figures, on cache lines of their own. But for `coming`, only that worker writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Post {
    sessions: AtomicUsize,
    handshakes: AtomicUsize,
    /// Handed over by others and not taken yet.
    coming: AtomicUsize,
    busy: AtomicU32,
    /// Milliseconds from the board's start to the last tick.
    ticked: AtomicU64,
}

impl Board {
    #[must_use]
    pub fn new(workers: usize, now: Instant) -> Self {
        Self { posts: (0..workers).map(|_| Post::default()).collect(), start: now }
    }

    /// The load of each worker at `now`.
    pub fn loads(&self, now: Instant) -> impl Iterator<Item = Load> {
        (0..self.posts.len()).map(move |worker| self.load(worker, now))
    }

    fn load(&self, worker: usize, now: Instant) -> Load {
        let Post { sessions, handshakes, coming, busy, ticked } = &self.posts[worker];
        let ticked = self.start + Duration::from_millis(ticked.load(Relaxed));
        Load {
            sessions: sessions.load(Relaxed),
            handshakes: handshakes.load(Relaxed) + coming.load(Relaxed),
            busy: busy.load(Relaxed),
            still: now.saturating_duration_since(ticked) > STILL,
        }
    }

    /// A connection is on its way to `worker`.
    pub(super) fn coming(&self, worker: usize) {
        self.posts[worker].coming.fetch_add(1, Relaxed);
    }
}

/// One worker's own place on the board.
#[derive(Clone, Debug)]
pub struct Seat {
    board: Arc<Board>,
    worker: usize,
}

impl Seat {
    #[must_use]
    pub fn new(board: &Arc<Board>, worker: usize) -> Self {
        Self { board: Arc::clone(board), worker }
    }

    /// The worker that should have the connection which this one has just accepted; `None`: this one keeps it.
    #[must_use]
    pub fn better(&self, arrival: Arrival, now: Instant) -> Option<usize> {
        let workers = self.board.posts.len();
        if workers == 1 {
            return None;
        }
        let chosen = choose(self.worker, workers, arrival, |worker| self.board.load(worker, now));
        (chosen != self.worker).then_some(chosen)
    }

    /// Tells how many sessions there are now.
    pub fn show_sessions(&self, sessions: usize) {
        self.post().sessions.store(sessions, Relaxed);
    }

    /// Tells how many handshakes are under way now.
    pub fn show_handshakes(&self, handshakes: usize) {
        self.post().handshakes.store(handshakes, Relaxed);
    }

    /// The worker lives, and worked for `busy` percent of the time since its last tick. What is shown follows by halves, so
    /// that it neither jumps nor lags.
    pub fn tick(&self, busy: u32, now: Instant) {
        let post = self.post();
        let alive = now.saturating_duration_since(self.board.start).as_millis();
        post.ticked.store(u64::try_from(alive).unwrap_or(u64::MAX), Relaxed);
        post.busy.store(post.busy.load(Relaxed).midpoint(busy.min(100)), Relaxed);
    }

    /// The worker has nothing left to do and ends in good order: from now on no tick is missed.
    pub fn leave(&self) {
        self.post().ticked.store(NEVER_LATE, Relaxed);
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// A connection that was on its way here has come.
    pub(super) fn came(&self) {
        self.post().coming.fetch_sub(1, Relaxed);
    }

    fn post(&self) -> &Post {
        &self.board.posts[self.worker]
    }
}

/// Numbers bound what busyness may decide: it chooses only among workers that have not too many connections, and so a burst
/// within one tick cannot all go to the worker that was calm before it.
fn choose(own: usize, workers: usize, arrival: Arrival, load: impl Fn(usize) -> Load) -> usize {
    let awake =
        || (0..workers).map(|worker| (worker, load(worker))).filter(|(worker, load)| *worker == own || !load.still);
    // The connection itself is one more.
    let (count, sum) = awake().fold((0, 1), |(count, sum), (_, load)| (count + 1, sum + load.connections()));
    let above = |connections: usize, percent: usize, slack: usize| {
        (connections + 1) * count * 100 > sum * percent + slack * count * 100
    };
    // In doubt it stays where it is.
    let least = || awake().min_by_key(|(worker, load)| (load.connections(), load.busy, *worker != own));
    let mine = (own, load(own));
    let first = match arrival {
        Arrival::Hashed if !above(mine.1.connections(), TOLERANCE, SLACK) => mine,
        Arrival::Hashed | Arrival::Single => least().unwrap_or(mine),
    };
    if first.1.busy < BUSY {
        return first.0;
    }
    // Half of the tolerance, so that what the kernel brings to the calmer one need not leave it again.
    let room = |load: &Load| !above(load.connections(), 100 + (TOLERANCE - 100) / 2, SLACK / 2);
    awake()
        .filter(|(_, load)| load.busy + CALMER <= first.1.busy && room(load))
        .min_by_key(|(_, load)| (load.busy, load.connections()))
        .unwrap_or(first)
        .0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(counts: &[usize]) -> Vec<Load> {
        counts.iter().map(|&sessions| Load { sessions, ..Load::default() }).collect()
    }

    /// Opens a session where it belongs.
    fn open(own: usize, arrival: Arrival, loads: &mut [Load]) {
        let worker = chosen(own, arrival, loads);
        loads[worker].sessions += 1;
    }

    fn chosen(own: usize, arrival: Arrival, loads: &[Load]) -> usize {
        choose(own, loads.len(), arrival, |worker| loads[worker])
    }

    #[test]
    fn a_handful_stays_where_the_kernel_brought_it() {
        assert_eq!(chosen(0, Arrival::Hashed, &sessions(&[0, 0])), 0);
        assert_eq!(chosen(0, Arrival::Hashed, &sessions(&[8, 2])), 0);
        assert_eq!(chosen(0, Arrival::Hashed, &sessions(&[4, 0, 0, 0])), 0);
    }

    #[test]
    fn a_worker_far_above_the_mean_hands_over_to_the_least_loaded() {
        assert_eq!(chosen(0, Arrival::Hashed, &sessions(&[123, 100])), 0);
        assert_eq!(chosen(0, Arrival::Hashed, &sessions(&[160, 100])), 1);
        assert_eq!(chosen(1, Arrival::Hashed, &sessions(&[100, 160])), 0);
        assert_eq!(chosen(2, Arrival::Hashed, &sessions(&[90, 80, 160, 85])), 1);
        assert_eq!(chosen(0, Arrival::Hashed, &sessions(&[90, 80, 160, 85])), 0, "only who has too many does");
    }

    /// However unlucky the hash, and wherever it changes its mind.
    #[test]
    fn no_worker_is_ever_above_the_bound() {
        for workers in [2, 3, 4, 7, 64] {
            for seed in 0..20 {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut loads = sessions(&vec![0; workers]);
                let favourites = random.usize(1..=workers);
                for opened in 1..=3000 {
                    let own = random.usize(..favourites);
                    open(own, Arrival::Hashed, &mut loads);
                    let most = loads.iter().map(|load| load.sessions).max().unwrap_or_default();
                    let bound = 6 * opened + 5 * SLACK * workers;
                    assert!(most * 5 * workers <= bound, "{most} of {opened} on {workers} workers, seed {seed}");
                }
            }
        }
    }

    #[test]
    fn a_single_socket_is_dealt_out_evenly() {
        let mut loads = sessions(&[0; 3]);
        for _ in 0..300 {
            open(1, Arrival::Single, &mut loads);
        }
        assert_eq!(loads, sessions(&[100; 3]));
    }

    #[test]
    fn handshakes_count_as_sessions_do() {
        let shaking = Load { handshakes: 60, sessions: 100, ..Load::default() };
        assert_eq!(chosen(0, Arrival::Hashed, &[shaking, sessions(&[100])[0]]), 1);
    }

    #[test]
    fn a_busy_worker_prefers_a_calmer_one_within_the_bound() {
        let load = |sessions, busy| Load { sessions, busy, ..Load::default() };
        assert_eq!(chosen(0, Arrival::Hashed, &[load(100, 90), load(100, 10)]), 1);
        assert_eq!(chosen(0, Arrival::Hashed, &[load(100, 90), load(100, 70)]), 0, "hardly calmer");
        assert_eq!(chosen(0, Arrival::Hashed, &[load(100, 40), load(100, 0)]), 0, "not busy");
        assert_eq!(chosen(0, Arrival::Hashed, &[load(100, 90), load(130, 10)]), 0, "has enough");
        assert_eq!(chosen(0, Arrival::Hashed, &[load(100, 90), load(104, 20), load(106, 10)]), 2);
        assert_eq!(chosen(0, Arrival::Hashed, &[load(200, 10), load(100, 95), load(110, 10)]), 2);
        assert_eq!(chosen(0, Arrival::Single, &[load(100, 90), load(100, 10)]), 1);
    }

    /// A burst between two ticks sees the same busyness all along.
    #[test]
    fn a_burst_does_not_all_go_to_the_calm_worker() {
        for arrival in [Arrival::Hashed, Arrival::Single] {
            let mut loads = [Load { busy: 100, ..Load::default() }, Load::default()];
            for opened in 0..10_000 {
                let own = if arrival == Arrival::Single { 0 } else { opened % 2 };
                open(own, arrival, &mut loads);
            }
            let [busy, calm] = loads.map(|load| load.sessions);
            assert!(busy >= 3900 && calm > busy, "{arrival:?}: {busy} and {calm}");
        }
    }

    #[test]
    fn who_stands_still_gets_nothing_and_counts_for_nothing() {
        let still = Load { still: true, ..Load::default() };
        let two = sessions(&[100, 100]);
        assert_eq!(chosen(0, Arrival::Hashed, &[two[0], still]), 0);
        assert_eq!(chosen(0, Arrival::Hashed, &[two[0], still, two[1]]), 0);
        assert_eq!(chosen(0, Arrival::Single, &[two[0], still]), 0);
        assert_eq!(chosen(0, Arrival::Hashed, &[still, still]), 0, "whoever accepts does not stand still");
    }

    #[test]
    fn the_board_shows_what_it_was_told() {
        let start = Instant::now();
        let board = Arc::new(Board::new(2, start));
        let [first, second] = [0, 1].map(|worker| Seat::new(&board, worker));
        first.show_sessions(100);
        first.show_handshakes(20);
        board.coming(1);
        first.tick(80, start);
        let expected = [
            Load { sessions: 100, handshakes: 20, busy: 40, still: false },
            Load { sessions: 0, handshakes: 1, busy: 0, still: false },
        ];
        assert!(board.loads(start).eq(expected));
        assert_eq!(first.better(Arrival::Hashed, start), Some(1));
        assert_eq!(second.better(Arrival::Hashed, start), None);
        second.came();
        let later = start + STILL + Duration::from_millis(1);
        first.tick(80, later);
        let figures = || board.loads(later).map(|load| (load.handshakes, load.busy, load.still)).collect::<Vec<_>>();
        assert_eq!(figures(), [(20, 60, false), (0, 0, true)]);
        second.leave();
        assert!(!figures()[1].2, "who has ended does not stand still");
        second.tick(0, start);
        assert_eq!(first.better(Arrival::Hashed, later), None);
    }

    #[test]
    fn one_worker_has_nobody_to_hand_over_to() {
        let start = Instant::now();
        let seat = Seat::new(&Arc::new(Board::new(1, start)), 0);
        seat.show_sessions(1000);
        assert_eq!(seat.better(Arrival::Single, start), None);
    }
}
