//! What two processes say to each other during an upgrade, and the descriptors that cross with it.
use super::Predecessor;
use crate::listener::ListenAddress;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

/// Bytes of one message. A complaint is cut to fit.
const LONGEST: usize = 16 * 1024;

/// One end of a socket pair that keeps messages apart.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// What is said. Whoever does not know a word passes over it, since the other process may be of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Old to new, with the log's descriptor, which is standard error from the end of the start on.
    Log,
    /// Old to new, with a listening socket: what was asked for, and whether its file is to be removed at the end.
    Listener {
        asked: ListenAddress,
        owns_file: bool,
    },
    /// Old to new: that is all.
    Begin,
    /// New to old: it serves these addresses.
    Ready(Vec<ListenAddress>),
    /// New to old: it ends, and why.
    Failed(String),
    /// Old to new: it is the service now.
    Serve,
    /// Old to new, again and again: who still drains.
    Draining(Vec<Predecessor>),
    Unknown,
}

/// What came.
#[derive(Debug)]
pub(super) enum Heard {
    Word(Word, Option<OwnedFd>),
    /// Nothing in time.
    Nothing,
    /// The other has ended.
    End,
}

impl Channel {
    /// Our end and the other's.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Says a word, with a descriptor if one belongs to it. Whoever does not listen is not waited for longer than `within`.
    pub(super) fn say(&self, word: &Word, descriptor: Option<BorrowedFd<'_>>, within: Duration) -> io::Result<()> {
        set_socket_timeout(&self.0, Timeout::Send, Some(within))?;
        let text = word.to_string();
        let bytes = &text.as_bytes()[..text.floor_char_boundary(LONGEST)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a word.
    pub(super) fn hear(&self, within: Duration) -> io::Result<Heard> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(within))?;
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = match received {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Heard::Nothing),
            Err(Errno::CONNRESET) => return Ok(Heard::End),
            Err(error) => return Err(error.into()),
        };
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            RecvAncillaryMessage::ScmCredentials(_) | _ => None,
        });
        if length == 0 {
            return Ok(Heard::End);
        }
        Ok(Heard::Word(Word::parse(&String::from_utf8_lossy(&bytes[..length])), descriptor))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("log"),
            Self::Listener { asked, owns_file: true } => write!(f, "listener-with-file {asked}"),
            Self::Listener { asked, owns_file: false } => write!(f, "listener {asked}"),
            Self::Begin => f.write_str("begin"),
            Self::Ready(kept) => {
                f.write_str("ready ")?;
                kept.iter().try_for_each(|address| writeln!(f, "{address}"))
            }
            Self::Failed(why) => write!(f, "failed {why}"),
            Self::Serve => f.write_str("serve"),
            Self::Draining(processes) => {
                f.write_str("draining ")?;
                processes.iter().try_for_each(|Predecessor { generation, process, sessions }| {
                    writeln!(f, "{generation} {process} {sessions}")
                })
            }
            Self::Unknown => f.write_str("?"),
        }
    }
}

impl Word {
    fn parse(text: &str) -> Self {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let listener = |owns_file| address(rest).map_or(Self::Unknown, |asked| Self::Listener { asked, owns_file });
        match word {
            "log" => Self::Log,
            "listener" => listener(false),
            "listener-with-file" => listener(true),
            "begin" => Self::Begin,
            "ready" => Self::Ready(rest.lines().filter_map(address).collect()),
            "failed" => Self::Failed(rest.to_owned()),
            "serve" => Self::Serve,
            "draining" => Self::Draining(rest.lines().filter_map(predecessor).collect()),
            _ => Self::Unknown,
        }
    }
}

fn address(text: &str) -> Option<ListenAddress> {
    match text.strip_prefix("unix:") {
        Some(path) => Some(ListenAddress::Unix(path.into())),
        None => text.parse().ok().map(ListenAddress::Tcp),
    }
}

fn predecessor(line: &str) -> Option<Predecessor> {
    let mut numbers = line.split(' ');
    let generation = numbers.next()?.parse().ok()?;
    let process = numbers.next()?.parse().ok()?;
    let sessions = numbers.next()?.parse().ok()?;
    Some(Predecessor { generation, process, sessions })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read, Seek, Write};

    const WITHIN: Duration = Duration::from_secs(10);

    #[test]
    fn every_word_is_heard_as_it_was_said() {
        let (one, other) = Channel::pair().unwrap();
        let other = Channel::new(other);
        let tcp = ListenAddress::Tcp("[::1]:443".parse().unwrap());
        let unix = ListenAddress::Unix("run/a gate.sock".into());
        let words = [
            Word::Log,
            Word::Listener { asked: tcp.clone(), owns_file: false },
            Word::Listener { asked: unix.clone(), owns_file: true },
            Word::Begin,
            Word::Ready(vec![tcp, unix]),
            Word::Ready(Vec::new()),
            Word::Failed("gateway.toml:1:1: no\nand no".into()),
            Word::Serve,
            Word::Draining(vec![Predecessor { generation: 2, process: 77, sessions: 1000 }]),
        ];
        for word in words {
            one.say(&word, None, WITHIN).unwrap();
            match other.hear(WITHIN).unwrap() {
                Heard::Word(heard, None) => assert_eq!(heard, word),
                heard @ (Heard::Word(..) | Heard::Nothing | Heard::End) => panic!("{heard:?}"),
            }
        }
    }

    #[test]
    fn a_descriptor_crosses() {
        let (one, other) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"ours").unwrap();
        one.say(&Word::Log, Some(file.as_fd()), WITHIN).unwrap();
        let Heard::Word(Word::Log, Some(copy)) = Channel::new(other).hear(WITHIN).unwrap() else { panic!("a file") };
        let mut copy = std::fs::File::from(copy);
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ours");
    }

    #[test]
    fn silence_an_end_and_nonsense_are_told_apart() {
        let (one, other) = Channel::pair().unwrap();
        assert!(matches!(one.hear(Duration::from_millis(1)).unwrap(), Heard::Nothing));
        rustix::net::send(&other, b"later versions may say this", SendFlags::empty()).unwrap();
        assert!(matches!(one.hear(WITHIN).unwrap(), Heard::Word(Word::Unknown, None)));
        drop(other);
        assert!(matches!(one.hear(WITHIN).unwrap(), Heard::End));
        assert!(one.say(&Word::Serve, None, WITHIN).is_err());
    }

    #[test]
    fn a_long_complaint_is_cut() {
        let (one, other) = Channel::pair().unwrap();
        one.say(&Word::Failed("ü".repeat(LONGEST)), None, WITHIN).unwrap();
        let Heard::Word(Word::Failed(why), None) = Channel::new(other).hear(WITHIN).unwrap() else { panic!("failed") };
        assert!(why.chars().all(|letter| letter == 'ü') && why.len() > LONGEST - 16);
    }
}
