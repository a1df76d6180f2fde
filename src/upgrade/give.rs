//! The old process's part: starts the new one, waits until it is ready, and gives way.
use super::{
    ANSWER, Lineage, Program, Successor,
    channel::{Channel, Heard, Word},
    notice::Notice,
};
use crate::{
    listener::ListenAddress,
    shutdown::{Control, DrainCause, Phase},
    worker::{Offer, Workers},
};
use std::{
    fmt, io,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitStatus},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Builder, sync::oneshot, time::timeout};

/// How often a look is taken at what else may have happened.
const TURN: Duration = Duration::from_millis(100);
/// How often a process that drains says so to its successor.
const TELLING: Duration = Duration::from_secs(1);
/// Bytes kept of what a new process complains of: the last ones.
const COMPLAINTS: usize = 8 * 1024;
/// How long complaints of a process that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why there is no new process. The old one serves as before.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("this gateway runs inside another program, which is to be upgraded as that program is")]
    Embedded,
    #[error("this is the first process of its container, which would end with it: start another container instead")]
    First,
    #[error("an upgrade is under way already")]
    UnderWay,
    #[error("this process drains: it was told to stop")]
    Draining,
    #[error("a worker does not answer")]
    Worker,
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("cannot hand the listening sockets over: {0}")]
    HandOver(io::Error),
    #[error("the new process ended, {status}{}", Complaints(.words))]
    Ended { status: ExitStatus, words: String },
    #[error("the new process refused: {words}")]
    Refused { words: String },
    #[error("the new process was not ready within {} s and was ended{}", .within.as_secs_f32(), Complaints(.words))]
    Silent { within: Duration, words: String },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What a process wrote before it was ready, if anything.
struct Complaints<'a>(&'a str);

impl fmt::Display for Complaints<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => f.write_str(", and wrote nothing"),
            words => write!(f, "; it wrote: {words}"),
        }
    }
}

/// What of a gateway takes part in its upgrade.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) lineage: Lineage,
    pub(crate) control: Control,
    pub(crate) workers: Workers,
    /// How long the new process may take to be ready.
    pub(crate) within: Duration,
}

/// Starts the new process, and once it serves has this one drain. Answers when that is decided; the log hears it, too.
///
/// # Errors
/// When the new process does not come to serve; this one goes on then.
pub(crate) async fn upgrade(part: Part) -> Result<Successor, UpgradeError> {
    let (answer, answered) = oneshot::channel();
    thread::Builder::new().name("upgrade".into()).spawn(move || give(&part, answer)).map_err(UpgradeError::Thread)?;
    // Without an answer the thread has panicked.
    answered.await.unwrap_or(Err(UpgradeError::Worker))
}

/// The upgrade itself, told to the log and to all who asked.
fn give(part: &Part, answer: oneshot::Sender<Result<Successor, UpgradeError>>) {
    let outcome = if part.lineage.begin() { attempt(part) } else { Err(UpgradeError::UnderWay) };
    let heir = match outcome {
        Ok(heir) => heir,
        Err(error) => {
            tracing::error!(generation = part.lineage.generation(), "no upgrade, serving as before: {error}");
            Notice::Failed(error.to_string()).send();
            if !matches!(error, UpgradeError::UnderWay) {
                part.lineage.failed();
            }
            // Whoever asked may have gone.
            let _ = answer.send(Err(error));
            return;
        }
    };
    part.lineage.set_succeeded(Arc::clone(&heir.kept));
    // Before the new one speaks to systemd: that listens to the main process alone.
    part.lineage.supervisor().succeeded_by(heir.successor.process);
    if let Err(error) = heir.channel.say(&Word::Serve, None, ANSWER) {
        tracing::warn!(%error, "the new process does not listen any more");
    }
    let Successor { generation, process } = heir.successor;
    tracing::info!(generation, process, "upgraded: the new process serves, and this one drains");
    Notice::Done(heir.successor.to_string()).send();
    let _ = answer.send(Ok(heir.successor));
    // Last, since a process without sessions ends at once.
    give_way(part, heir);
}

/// A new process that accepts on the addresses that it kept.
struct Heir {
    successor: Successor,
    kept: Arc<[ListenAddress]>,
    channel: Channel,
    child: Child,
}

fn attempt(part: &Part) -> Result<Heir, UpgradeError> {
    let Part { lineage, control, workers, within } = part;
    let program = lineage.0.program.as_ref().ok_or(UpgradeError::Embedded)?;
    if std::process::id() == 1 {
        return Err(UpgradeError::First);
    }
    if control.phase() != Phase::Serving {
        return Err(UpgradeError::Draining);
    }
    Notice::Begun { within: *within }.send();
    let mut offers = offers(workers)?;
    for offer in lineage.offers().iter() {
        offers.push(offer.try_clone().map_err(UpgradeError::HandOver)?);
    }
    let generation = lineage.generation() + 1;
    let (channel, theirs) = Channel::pair().map_err(UpgradeError::HandOver)?;
    tracing::info!(program = %program.path().display(), generation, sockets = offers.len(), "upgrade: starting");
    let mut started = Started::new(program, generation, theirs)?;
    let deadline = Instant::now() + *within;
    let kept =
        hand_over(&channel, &offers, deadline).and_then(|()| started.ready(&channel, control, deadline, *within));
    match kept {
        Ok(kept) => {
            let child = started.child;
            let successor = Successor { generation, process: child.id() };
            Ok(Heir { successor, kept: kept.into(), channel, child })
        }
        Err(error) => Err(started.end(error)),
    }
}

/// Has every worker stop accepting and drain, and stays with the new process until this one ends.
fn give_way(part: &Part, heir: Heir) {
    let Heir { kept, channel, child, .. } = heir;
    // The new process has these sockets: a worker that does not answer loses nobody.
    let relieved = ask(part.workers.ask(move |worker| async move { worker.relieve(kept) }));
    if relieved.is_none() {
        tracing::warn!("a worker does not answer; it drains when it does");
    }
    part.lineage.offers().clear();
    part.control.drain_for(DrainCause::Upgrade);
    accompany(part, &channel, child);
}

/// What all workers offer. The thread has no runtime of its own.
fn offers(workers: &Workers) -> Result<Vec<Offer>, UpgradeError> {
    let asked = ask(workers.ask(|worker| async move { worker.offers() })).ok_or(UpgradeError::Worker)?;
    let each = asked.into_iter().collect::<io::Result<Vec<_>>>().map_err(UpgradeError::HandOver)?;
    Ok(each.into_iter().flatten().collect())
}

fn ask<T>(asked: impl Future<Output = T>) -> Option<T> {
    let runtime = Builder::new_current_thread().enable_time().build().ok()?;
    runtime.block_on(async { timeout(ANSWER, asked).await }).ok()
}

fn hand_over(channel: &Channel, offers: &[Offer], deadline: Instant) -> Result<(), UpgradeError> {
    let left = || deadline.saturating_duration_since(Instant::now()).max(TURN);
    let given = channel.say(&Word::Log, Some(io::stderr().as_fd()), left()).and_then(|()| {
        for Offer { asked, socket, owns_file } in offers {
            let word = Word::Listener { asked: asked.clone(), owns_file: *owns_file };
            channel.say(&word, Some(socket.as_fd()), left())?;
        }
        channel.say(&Word::Begin, None, left())
    });
    match given {
        // It has ended, or it does not listen: waiting for it finds out which.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::WouldBlock) => Ok(()),
        given => given.map_err(UpgradeError::HandOver),
    }
}

/// A new process on its way. Not to be dropped before it has ended, or serves.
struct Started {
    child: Child,
    complaints: mpsc::Receiver<String>,
}

impl Started {
    fn new(program: &Program, generation: u32, channel: OwnedFd) -> Result<Self, UpgradeError> {
        let explain = |source| UpgradeError::Start { program: program.path().display().to_string(), source };
        let mut child = program.start(generation, channel).map_err(explain)?;
        let (sender, complaints) = mpsc::sync_channel(1);
        if let Some(pipe) = child.stderr.take() {
            // Ends with the pipe: when the new process ends, or has the log instead.
            let listen = move || drop(sender.send(last_of(pipe)));
            if let Err(error) = thread::Builder::new().name("complaints".into()).spawn(listen) {
                tracing::warn!(%error, "complaints of the new process will not be heard");
            }
        }
        Ok(Self { child, complaints })
    }

    /// Waits until it is ready, and answers which addresses it serves.
    fn ready(
        &mut self,
        channel: &Channel,
        control: &Control,
        deadline: Instant,
        within: Duration,
    ) -> Result<Vec<ListenAddress>, UpgradeError> {
        loop {
            if control.phase() != Phase::Serving {
                return Err(UpgradeError::Draining);
            }
            match channel.hear(TURN).map_err(UpgradeError::HandOver)? {
                Heard::Word(Word::Ready(kept), _) => return Ok(kept),
                Heard::Word(Word::Failed(words), _) => return Err(UpgradeError::Refused { words }),
                Heard::Word(
                    Word::Log | Word::Listener { .. } | Word::Begin | Word::Serve | Word::Draining(_) | Word::Unknown,
                    _,
                ) => {}
                Heard::Nothing | Heard::End => {
                    if let Ok(Some(status)) = self.child.try_wait() {
                        return Err(UpgradeError::Ended { status, words: String::new() });
                    }
                    if Instant::now() >= deadline {
                        return Err(UpgradeError::Silent { within, words: String::new() });
                    }
                    // A closed channel is heard at once, again and again, until its process ends.
                    thread::sleep(TURN / 10);
                }
            }
        }
    }

    /// Ends it if need be, and adds its complaints to the error.
    fn end(mut self, error: UpgradeError) -> UpgradeError {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let words = self.complaints.recv_timeout(LAST_WORDS).unwrap_or_default();
        match error {
            UpgradeError::Ended { status, .. } => UpgradeError::Ended { status, words },
            UpgradeError::Silent { within, .. } => UpgradeError::Silent { within, words },
            other @ (UpgradeError::Embedded
            | UpgradeError::First
            | UpgradeError::UnderWay
            | UpgradeError::Draining
            | UpgradeError::Worker
            | UpgradeError::Start { .. }
            | UpgradeError::HandOver(_)
            | UpgradeError::Refused { .. }
            | UpgradeError::Thread(_)) => other,
        }
    }
}

/// The end of what is written to a pipe.
fn last_of(mut pipe: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        let excess = kept.len().saturating_sub(COMPLAINTS);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// Tells the successor how many sessions are left, until this process ends. A successor that ends first leaves no trace but its
/// exit status.
fn accompany(part: &Part, channel: &Channel, mut child: Child) {
    loop {
        let sessions = ask(part.workers.ask(|worker| async move { worker.open_sessions() }));
        let own = part.lineage.as_predecessor(sessions.unwrap_or_default().iter().sum());
        let all = [own].into_iter().chain(part.lineage.predecessors()).collect();
        if channel.say(&Word::Draining(all), None, TELLING).is_err()
            && let Ok(Some(status)) = child.try_wait()
        {
            tracing::error!(%status, "the process that took over has ended; whoever supervises it must start another");
            return;
        }
        thread::sleep(TELLING);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn part(lineage: Lineage) -> Part {
        let (control, within) = (Control::default(), Duration::from_secs(10));
        Part { lineage, control, workers: Workers::new(0).0, within }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_gateway_inside_another_program_is_not_upgraded() {
        let error = upgrade(part(Lineage::default())).await.unwrap_err();
        assert!(matches!(error, UpgradeError::Embedded), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn there_is_one_upgrade_at_a_time_and_another_after_a_failure() {
        let lineage = Lineage::default();
        assert!(lineage.begin());
        let error = upgrade(part(lineage.clone())).await.unwrap_err();
        assert!(matches!(error, UpgradeError::UnderWay), "{error}");
        lineage.failed();
        assert!(matches!(upgrade(part(lineage.clone())).await, Err(UpgradeError::Embedded)));
        assert!(lineage.begin() && !lineage.succeeded());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_process_that_drains_is_not_upgraded() {
        let lineage = Lineage::new(1, None, Program::current(), crate::supervisor::Supervisor::default());
        let part = part(lineage);
        part.control.drain();
        assert!(matches!(upgrade(part).await, Err(UpgradeError::Draining)));
    }

    #[test]
    fn of_complaints_the_last_ones_are_kept() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done; printf '%s\n\n' last >&2"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = last_of(child.stdout.take().unwrap());
        assert!(lines.len() < COMPLAINTS && lines.ends_with("line 2998\nline 2999"), "{lines}");
        assert_eq!(last_of(child.stderr.take().unwrap()), "last");
        child.wait().unwrap();
    }
}
