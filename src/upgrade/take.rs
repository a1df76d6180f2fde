//! The new process's part: takes the listening sockets, says when it serves, and hears of the old one until that has ended.
use super::{
    ANSWER, Lineage, Program, VARIABLE,
    channel::{Channel, Heard, Word},
};
use crate::{
    listener::{
        ListenAddress,
        bind::ListenSocket,
        inherited::{Inherited, InheritedSocket},
    },
    supervisor::{self, Supervisor},
};
use rustix::{
    process::getppid,
    stdio::{dup2_stderr, dup2_stdin},
};
use std::{
    env,
    fmt::Display,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::Duration,
};

/// How long the old process may take to hand everything over.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a new process cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("cannot take the listening sockets over from process {parent}: {source}")]
    Io { parent: u32, source: io::Error },
    #[error("process {parent} did not hand its listening sockets over")]
    Incomplete { parent: u32 },
    /// It was stopped meanwhile, and so are we.
    #[error("process {parent} ended before it had given way")]
    Gone { parent: u32 },
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// What this process was given at its start: by its predecessor, by systemd, or nothing.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// Sockets to listen on.
    pub sockets: Inherited,
    /// What systemd gave that is no such socket.
    useless: Vec<String>,
    lineage: Lineage,
    channel: Option<Channel>,
    log: Option<OwnedFd>,
}

impl Inheritance {
    /// Takes what there is. For `main`, before any thread starts: it reads the environment, and may replace standard input.
    ///
    /// # Errors
    /// When this process was started for an upgrade, and the old one does not hand over.
    pub fn receive() -> Result<Self, InheritError> {
        let (sockets, useless) = supervisor::activated();
        let (program, supervisor) = (Program::current(), Supervisor::of_environment());
        let Some((generation, parent)) = env::var(VARIABLE).ok().and_then(|value| started_by(&value)) else {
            let lineage = Lineage::new(1, None, program, supervisor);
            return Ok(Self { sockets, useless, lineage, ..Self::default() });
        };
        let lineage = Lineage::new(generation, Some(parent), program, supervisor);
        let explain = |source| InheritError::Io { parent, source };
        let channel = io::stdin().as_fd().try_clone_to_owned().map(Channel::new).map_err(explain)?;
        File::open("/dev/null").and_then(|null| Ok(dup2_stdin(null)?)).map_err(explain)?;
        let mut inheritance = Self { sockets, useless, lineage, channel: None, log: None };
        loop {
            match channel.hear(PATIENCE).map_err(explain)? {
                Heard::Word(Word::Log, log) => inheritance.log = log,
                Heard::Word(Word::Listener { asked, owns_file }, Some(descriptor)) => {
                    let (socket, address) = ListenSocket::of_descriptor(descriptor).map_err(explain)?;
                    let asked = Some(asked);
                    inheritance.sockets.add(InheritedSocket { asked, address, socket, owns_file });
                }
                Heard::Word(Word::Begin, _) => break,
                Heard::Word(
                    Word::Listener { .. }
                    | Word::Ready(_)
                    | Word::Failed(_)
                    | Word::Serve
                    | Word::Draining(_)
                    | Word::Unknown,
                    _,
                ) => {}
                Heard::Nothing | Heard::End => return Err(InheritError::Incomplete { parent }),
            }
        }
        inheritance.channel = Some(channel);
        Ok(inheritance)
    }

    /// Where this process stands, to be shared with its gateway.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }

    /// From now on standard error is the log that the old process had; before, the old one has listened to it, to tell why a
    /// start failed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_log(&mut self) -> io::Result<()> {
        match self.log.take() {
            Some(log) => Ok(dup2_stderr(log)?),
            None => Ok(()),
        }
    }

    /// Tells the old process, if there is one, why this one ends.
    pub fn failed(&self, why: impl Display) {
        if let Some(channel) = &self.channel {
            // It has ended, then.
            let _ = channel.say(&Word::Failed(why.to_string()), None, ANSWER);
        }
    }

    /// Tells the old process, if there is one, that this one accepts at these addresses, and waits until that has given way; then
    /// tells systemd. From then on a thread hears of the old one until that has drained.
    ///
    /// # Errors
    /// When the old process ends before it has given way, since nobody has made this one the service then.
    pub fn serving<'a>(self, addresses: impl Iterator<Item = &'a ListenAddress>) -> Result<(), InheritError> {
        let Self { sockets, useless, lineage, channel, log: _ } = self;
        useless.iter().for_each(|problem| tracing::warn!("{problem}"));
        for address in sockets.unclaimed() {
            match lineage.parent() {
                Some(_) => tracing::info!(%address, "no longer a listener; the old process accepts what waits there"),
                None => tracing::warn!(%address, "systemd listens for us there, but no [[listener]] has this address"),
            }
        }
        drop(sockets);
        if let (Some(channel), Some(parent)) = (channel, lineage.parent()) {
            let ready = channel.say(&Word::Ready(addresses.cloned().collect()), None, ANSWER);
            ready.and_then(|()| relieved(&channel)).map_err(|_| InheritError::Gone { parent })?;
            tracing::info!(generation = lineage.generation(), parent, "took over; the old process drains");
            let watched = lineage.clone();
            let watch = move || follow(&watched, &channel);
            thread::Builder::new().name("predecessor".into()).spawn(watch).map_err(InheritError::Thread)?;
        }
        lineage.supervisor().ready("serving");
        Ok(())
    }
}

/// Waits until the old process has given way. It may be stopped for a while, and then it still serves as soon as it runs.
fn relieved(channel: &Channel) -> io::Result<()> {
    loop {
        match channel.hear(PATIENCE)? {
            Heard::Word(Word::Serve, _) => return Ok(()),
            Heard::Word(_, _) | Heard::Nothing => {}
            Heard::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The generation and the process that started us, if that is still our parent: the variable may have been inherited further.
fn started_by(value: &str) -> Option<(u32, u32)> {
    let (generation, parent) = value.split_once(' ')?;
    let (generation, parent) = (generation.parse().ok()?, parent.parse::<u32>().ok()?);
    let ours = getppid().and_then(|id| u32::try_from(id.as_raw_nonzero().get()).ok());
    (ours == Some(parent)).then_some((generation, parent))
}

/// Hears of the processes that still drain until the one that speaks has ended.
fn follow(lineage: &Lineage, channel: &Channel) {
    loop {
        match channel.hear(PATIENCE) {
            Ok(Heard::Word(Word::Draining(processes), _)) => lineage.set_predecessors(processes),
            // Silence is not an end: it may be stopped.
            Ok(Heard::Word(_, _) | Heard::Nothing) => {}
            Ok(Heard::End) | Err(_) => break,
        }
    }
    lineage.set_predecessors(Vec::new());
    tracing::info!(parent = lineage.parent(), "the old process has ended");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::upgrade::Predecessor;

    #[test]
    fn only_a_parent_is_believed() {
        let parent = getppid().and_then(|id| u32::try_from(id.as_raw_nonzero().get()).ok()).unwrap_or_default();
        assert_eq!(started_by(&format!("2 {parent}")), Some((2, parent)));
        assert_eq!(started_by(&format!("2 {}", parent + 1)), None);
        assert_eq!(started_by("2"), None);
        assert_eq!(started_by(""), None);
    }

    #[test]
    fn nobody_takes_over_from_a_process_that_has_not_given_way() {
        let inheritance = || {
            let (old, new) = Channel::pair().unwrap();
            let lineage = Lineage::new(2, Some(7), None, Supervisor::default());
            (old, Inheritance { lineage, channel: Some(Channel::new(new)), ..Inheritance::default() })
        };
        let (old, new) = inheritance();
        drop(old);
        assert!(matches!(new.serving([].iter()), Err(InheritError::Gone { parent: 7 })));
        let (old, new) = inheritance();
        old.say(&Word::Serve, None, ANSWER).unwrap();
        new.serving([].iter()).unwrap();
        assert!(matches!(old.hear(ANSWER).unwrap(), Heard::Word(Word::Ready(_), None)));
    }

    #[test]
    fn an_old_process_is_seen_until_its_end() {
        let (old, new) = Channel::pair().unwrap();
        let lineage = Lineage::new(3, Some(7), None, Supervisor::default());
        let drains = |sessions| Predecessor { generation: 2, process: 7, sessions };
        let seen = lineage.clone();
        let following = thread::spawn(move || follow(&seen, &Channel::new(new)));
        for sessions in [5, 4] {
            old.say(&Word::Draining(vec![drains(sessions)]), None, ANSWER).unwrap();
            while lineage.predecessors() != [drains(sessions)] {
                thread::yield_now();
            }
        }
        drop(old);
        following.join().unwrap();
        assert_eq!(lineage.predecessors(), []);
        assert_eq!((lineage.generation(), lineage.parent()), (3, Some(7)));
    }
}
