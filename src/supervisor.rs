//! What systemd wants to know of a service (`Type=notify-reload`, watchdog), and the sockets that it has opened for it.
//! Without systemd nothing here does anything.
use crate::{
    listener::{
        bind::ListenSocket,
        inherited::{Inherited, InheritedSocket},
        spread::Load,
    },
    shutdown::{Control, Phase},
};
use listenfd::ListenFd;
use std::{
    env,
    ffi::OsStr,
    fmt::Display,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::{
    runtime::Builder,
    time::{MissedTickBehavior, interval},
};

/// How often the status text follows the number of sessions.
const STATUS: Duration = Duration::from_secs(10);
/// Kept between the end of the longest drain and the moment at which systemd kills.
const MARGIN: Duration = Duration::from_secs(5);

/// The service manager, if there is one; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<Notifications>);

#[derive(Debug, Default)]
struct Notifications {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Within what time it wants to hear of us.
    watchdog: Option<Duration>,
    /// It is told that we end.
    stopping: OnceLock<()>,
    /// Another process is the service now, and speaks for it.
    silent: AtomicBool,
}

impl Supervisor {
    /// What `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say.
    #[must_use]
    pub fn of_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|path| {
            // Whoever would be told has no other way of hearing.
            connect(&path).ok()
        });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0).map(Duration::from_micros);
        Self(Arc::new(Notifications { socket, watchdog, ..Notifications::default() }))
    }

    /// The service serves: at the start, and after a reload, well or ill.
    pub fn ready(&self, status: impl Display) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins. [`Supervisor::ready`] must follow, even if the new configuration is bad.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading"));
    }

    /// The service ends, which may take so long. Told once.
    pub fn stopping(&self, within: Duration) {
        let micros = (within + MARGIN).as_micros();
        // Who comes second waits until it was said.
        let say = || self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=draining"));
        self.0.stopping.get_or_init(say);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: impl Display) {
        self.say(&format!("STATUS={status}"));
    }

    /// Another process is the service from now on, and we say nothing more.
    pub fn succeeded_by(&self, process: u32) {
        self.say(&format!("MAINPID={process}"));
        self.0.silent.store(true, Relaxed);
    }

    fn say(&self, words: &str) {
        let Some((socket, address)) = &self.0.socket else { return };
        if self.0.silent.load(Relaxed) {
            return;
        }
        // Whoever would be told is the one that does not listen.
        if let Err(error) = socket.send_to_addr(words.as_bytes(), address) {
            tracing::debug!(%error, "systemd was not told: {words:?}");
        }
    }

    /// Tells systemd, from a thread of its own, that the workers live, how many sessions they have, and when they drain, for
    /// which they have `drain` time. Whoever has no systemd gets no thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn attend<L: Iterator<Item = Load>>(
        &self,
        control: &Control,
        drain: Duration,
        loads: impl Fn() -> L + Send + 'static,
    ) -> io::Result<()> {
        if self.0.socket.is_none() {
            return Ok(());
        }
        let (this, mut phase) = (self.clone(), control.watch());
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let attend = move || {
            runtime.block_on(async {
                let every = |period| {
                    let mut ticks = interval(period);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    ticks
                };
                // A third of the time, so that one late turn of ours kills nobody.
                let mut pet = every(this.0.watchdog.map_or(STATUS, |within| within / 3));
                let mut status = every(STATUS);
                let mut serving = true;
                loop {
                    tokio::select! {
                        _ = pet.tick() => this.pet(loads()),
                        _ = status.tick(), if serving => this.status(sessions(loads())),
                        changed = phase.wait_for(|phase| *phase != Phase::Serving), if serving => {
                            if changed.is_ok() {
                                this.stopping(drain);
                            }
                            serving = false;
                        }
                    }
                }
            });
        };
        thread::Builder::new().name("supervisor".into()).spawn(attend).map(drop)
    }

    /// Only if every worker's last tick was in time: otherwise systemd is to find out.
    fn pet(&self, mut loads: impl Iterator<Item = Load>) {
        if self.0.watchdog.is_some() && loads.all(|load| !load.still) {
            self.say("WATCHDOG=1");
        }
    }
}

fn sessions(loads: impl Iterator<Item = Load>) -> String {
    format!("serving, {} sessions", loads.map(|load| load.sessions).sum::<usize>())
}

/// A path, or with `@` in front a name in the abstract namespace.
fn connect(path: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // Neither a watchdog nor a drain waits for a manager that is busy.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The sockets of socket activation (`LISTEN_FDS`), to be claimed by listeners of the same address. To be called before any
/// thread starts: it takes the variables out of the environment. Answers too what it could not use, for the log.
#[must_use]
pub fn activated() -> (Inherited, Vec<String>) {
    let names: Vec<String> = env::var("LISTEN_FDNAMES").unwrap_or_default().split(':').map(ToOwned::to_owned).collect();
    let mut sockets = ListenFd::from_env();
    let (mut inherited, mut useless) = (Inherited::default(), Vec::new());
    for index in 0..sockets.len() {
        let descriptor = match sockets.take_tcp_listener(index) {
            Ok(Some(socket)) => Ok(socket.into()),
            // It is given back if it is no TCP socket.
            Ok(None) | Err(_) => match sockets.take_unix_listener(index) {
                Ok(Some(socket)) => Ok(socket.into()),
                Ok(None) => continue,
                Err(error) => Err(error),
            },
        };
        match descriptor.and_then(ListenSocket::of_descriptor) {
            Ok((socket, address)) => {
                inherited.add(InheritedSocket { asked: None, address, socket, owns_file: false });
            }
            Err(error) => {
                let name = names.get(index).map_or("", String::as_str);
                useless.push(format!("descriptor {index} of systemd, {name:?}, cannot be listened on: {error}"));
            }
        }
    }
    (inherited, useless)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn supervised(watchdog: Option<Duration>) -> (Supervisor, UnixDatagram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let socket = Some(connect(path.as_os_str()).unwrap());
        (Supervisor(Arc::new(Notifications { socket, watchdog, ..Notifications::default() })), manager, folder)
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_of_a_reload_with_its_time() {
        let (supervisor, manager, _folder) = supervised(None);
        supervisor.reloading();
        supervisor.ready("serving");
        let reload = heard(&manager);
        let micros = reload.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(reload.starts_with("RELOADING=1\n") && micros.parse::<u64>().unwrap() > 0, "{reload}");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=serving");
        (0..2).for_each(|_| supervisor.stopping(Duration::from_secs(1)));
        supervisor.status("told once");
        assert_eq!(heard(&manager), "STOPPING=1\nEXTEND_TIMEOUT_USEC=6000000\nSTATUS=draining");
        assert_eq!(heard(&manager), "STATUS=told once");
    }

    #[test]
    fn a_successor_is_the_last_word() {
        let (supervisor, manager, _folder) = supervised(None);
        supervisor.succeeded_by(42);
        supervisor.stopping(Duration::from_secs(1));
        supervisor.0.silent.store(false, Relaxed);
        supervisor.status("the next");
        assert_eq!(heard(&manager), "MAINPID=42");
        assert_eq!(heard(&manager), "STATUS=the next");
    }

    #[test]
    fn a_worker_that_stands_still_is_not_covered_up() {
        let (supervisor, manager, _folder) = supervised(Some(Duration::from_secs(9)));
        let still = Load { still: true, ..Load::default() };
        supervisor.pet([Load::default(), still].into_iter());
        supervisor.status("nothing before this");
        supervisor.pet([Load::default(), Load::default()].into_iter());
        assert_eq!(heard(&manager), "STATUS=nothing before this");
        assert_eq!(heard(&manager), "WATCHDOG=1");
    }

    #[test]
    fn the_start_of_a_drain_is_told_with_its_length() {
        let (supervisor, manager, _folder) = supervised(None);
        let control = Control::default();
        control.drain();
        let loads = || [Load { sessions: 3, ..Load::default() }].into_iter();
        supervisor.attend(&control, Duration::from_secs(25), loads).unwrap();
        let mut words = heard(&manager);
        while words.contains("serving, 3 sessions") {
            words = heard(&manager);
        }
        assert_eq!(words, "STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\nSTATUS=draining");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let nobody = Supervisor::default();
        nobody.ready("serving");
        nobody.attend(&Control::default(), Duration::ZERO, || [].into_iter()).unwrap();
    }
}
