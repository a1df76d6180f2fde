//! How an upgrade goes, for whoever asked for it by a signal, which takes no answer: datagrams to a socket whose name both
//! sides know.
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt::set_socket_passcred};
use std::{
    fmt,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    time::{Duration, Instant},
};

/// Bytes of one notice.
const LONGEST: usize = 32 * 1024;

/// One step of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It begins, and has this time.
    Begun { within: Duration },
    /// It is done, by the process that says what.
    Done(String),
    /// It failed, and the old process serves on.
    Failed(String),
}

/// Hears how the upgrade of one process goes. To be made before the signal is sent.
#[derive(Debug)]
pub struct Notices {
    socket: UnixDatagram,
    process: u32,
}

/// In the abstract namespace, where nothing is left behind.
fn address(process: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("pulsegate-upgrade-{process}"))
}

impl Notice {
    /// Tells whoever listens, if anybody does.
    pub(super) fn send(&self) {
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            let text = self.to_string();
            socket.send_to_addr(&text.as_bytes()[..text.floor_char_boundary(LONGEST)], &address(process::id())?)
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "nobody waits for this upgrade");
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ')?;
        match word {
            "begun" => Some(Self::Begun { within: Duration::from_millis(rest.parse().ok()?) }),
            "done" => Some(Self::Done(rest.to_owned())),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { within } => write!(f, "begun {}", within.as_millis()),
            Self::Done(what) => write!(f, "done {what}"),
            Self::Failed(why) => write!(f, "failed {why}"),
        }
    }
}

impl Notices {
    /// # Errors
    /// When somebody else listens for the same process, or the system has no such sockets.
    pub fn of(process: u32) -> io::Result<Self> {
        let socket = UnixDatagram::bind_addr(&address(process)?)?;
        set_socket_passcred(&socket, true)?;
        Ok(Self { socket, process })
    }

    /// The next notice of that process, or `None` if none comes in time. Any process may send to us; those of others are passed
    /// over, by the id that the kernel attests.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn next(&self, within: Duration) -> io::Result<Option<Notice>> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let mut bytes = vec![0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty());
            let length = match received.map_err(io::Error::from) {
                Ok(message) => message.bytes,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let sender = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmCredentials(sender) => u32::try_from(sender.pid.as_raw_nonzero().get()).ok(),
                RecvAncillaryMessage::ScmRights(_) | _ => None,
            });
            let notice = Notice::parse(&String::from_utf8_lossy(&bytes[..length]));
            if let (true, Some(notice)) = (sender == Some(self.process), notice) {
                return Ok(Some(notice));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn whoever_asked_hears_how_it_goes() {
        let notices = Notices::of(process::id()).unwrap();
        assert!(Notices::of(process::id()).is_err(), "one at a time");
        let (begun, failed) = (Notice::Begun { within: WITHIN }, Notice::Failed("line 1\nline 2".into()));
        begun.send();
        Notice::Done("generation 2".into()).send();
        failed.send();
        assert_eq!(notices.next(WITHIN).unwrap(), Some(begun));
        assert_eq!(notices.next(WITHIN).unwrap(), Some(Notice::Done("generation 2".into())));
        assert_eq!(notices.next(WITHIN).unwrap(), Some(failed));
        assert_eq!(notices.next(Duration::from_millis(10)).unwrap(), None);
    }

    #[test]
    fn others_are_not_believed() {
        // The notices of process 1, and we are not that.
        let notices = Notices::of(1).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to_addr(b"done all of it", &address(1).unwrap()).unwrap();
        assert_eq!(notices.next(Duration::from_millis(10)).unwrap(), None);
    }
}
