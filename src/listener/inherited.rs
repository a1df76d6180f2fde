//! Listening sockets that this process did not bind itself: those of its predecessor, and those of systemd.
use super::{ListenAddress, bind::ListenSocket};
use std::{
    io,
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::absolute,
};

/// Inherited sockets that no listener has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<InheritedSocket>);

/// One listening socket of somebody else.
#[derive(Debug)]
pub struct InheritedSocket {
    /// What was asked for when it was bound, if that is known: port 0 is some other port by now.
    pub asked: Option<ListenAddress>,
    /// Where it listens.
    pub address: ListenAddress,
    pub socket: ListenSocket,
    /// Whether the file of a Unix socket is now ours to remove. systemd removes its own.
    pub owns_file: bool,
}

impl Inherited {
    /// Adds a socket, to be claimed by its address or by the one that was asked for.
    pub fn add(&mut self, socket: InheritedSocket) {
        self.0.push(socket);
    }

    /// The sockets of one listener, which may be several for TCP, or none: by the address that it was asked to have before by
    /// the one it has.
    pub fn claim(&mut self, wanted: &ListenAddress) -> Vec<InheritedSocket> {
        let asked = |found: &&InheritedSocket| found.asked.as_ref().is_some_and(|asked| same(asked, wanted));
        let has = |found: &&InheritedSocket| same(&found.address, wanted);
        let Some(first) = self.0.iter().find(asked).or_else(|| self.0.iter().find(has)) else { return Vec::new() };
        let address = first.address.clone();
        self.0.extract_if(.., |found| found.address == address).collect()
    }

    /// Addresses that no listener has claimed.
    pub fn unclaimed(&self) -> impl Iterator<Item = &ListenAddress> {
        self.0.iter().map(|found| &found.address)
    }
}

/// Paths may be written relative to the working directory.
fn same(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => one == other,
        (ListenAddress::Unix(one), ListenAddress::Unix(other)) => {
            one == other || absolute(one).is_ok_and(|one| absolute(other).is_ok_and(|other| one == other))
        }
        (ListenAddress::Tcp(_), ListenAddress::Unix(_)) | (ListenAddress::Unix(_), ListenAddress::Tcp(_)) => false,
    }
}

impl ListenSocket {
    /// A descriptor as a listening socket, non-blocking, and where it listens.
    ///
    /// # Errors
    /// When it is no listening stream socket with an address: of TCP, or a path.
    pub fn of_descriptor(descriptor: OwnedFd) -> io::Result<(Self, ListenAddress)> {
        let socket = socket2::Socket::from(descriptor);
        if !socket.is_listener()? || socket.r#type()? != socket2::Type::STREAM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if let Some(address) = address.as_socket() {
            return Ok((Self::Tcp(TcpListener::from(socket)), ListenAddress::Tcp(address)));
        }
        match address.as_pathname() {
            Some(path) => {
                let path = ListenAddress::Unix(path.into());
                Ok((Self::Unix(UnixListener::from(socket)), path))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither TCP nor a Unix socket with a path")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;

    fn tcp(text: &str) -> ListenAddress {
        ListenAddress::Tcp(text.parse().unwrap())
    }

    fn found(asked: Option<&str>) -> InheritedSocket {
        let (socket, address) = ListenSocket::of_descriptor(TcpListener::bind("127.0.0.1:0").unwrap().into()).unwrap();
        InheritedSocket { asked: asked.map(tcp), address, socket, owns_file: false }
    }

    #[test]
    fn a_socket_is_claimed_by_what_was_asked_for_or_by_what_it_has() {
        let mut inherited = Inherited::default();
        let (first, second) = (found(Some("127.0.0.1:0")), found(None));
        let (has, other) = (first.address.clone(), second.address.clone());
        inherited.add(first);
        inherited.add(second);
        assert!(inherited.claim(&tcp("127.0.0.1:1")).is_empty());
        assert_eq!(inherited.claim(&tcp("127.0.0.1:0"))[0].address, has);
        assert!(inherited.claim(&has).is_empty(), "it is claimed once");
        assert_eq!(inherited.claim(&other).len(), 1);
        assert_eq!(inherited.unclaimed().count(), 0);
    }

    #[test]
    fn all_sockets_of_an_address_are_claimed_together() {
        let mut inherited = Inherited::default();
        let first = found(Some("127.0.0.1:0"));
        let ListenSocket::Tcp(socket) = &first.socket else { panic!("TCP") };
        let twin = ListenSocket::Tcp(socket.try_clone().unwrap());
        inherited.add(InheritedSocket {
            socket: twin,
            asked: first.asked.clone(),
            address: first.address.clone(),
            owns_file: false,
        });
        inherited.add(first);
        inherited.add(found(Some("127.0.0.1:0")));
        assert_eq!(inherited.claim(&tcp("127.0.0.1:0")).len(), 2);
        assert_eq!(inherited.claim(&tcp("127.0.0.1:0")).len(), 1, "another listener that asked for the same");
    }

    #[test]
    fn paths_are_the_same_however_they_are_written() {
        let folder = std::env::current_dir().unwrap();
        let unix = |path: &std::path::Path| ListenAddress::Unix(path.into());
        assert!(same(&unix("run/a.sock".as_ref()), &unix(&folder.join("run/a.sock"))));
        assert!(!same(&unix("run/a.sock".as_ref()), &unix("run/b.sock".as_ref())));
        assert!(!same(&unix("1".as_ref()), &tcp("127.0.0.1:1")));
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(ListenSocket::of_descriptor(one.into()).is_err());
        let file = tempfile::tempfile().unwrap();
        assert!(ListenSocket::of_descriptor(file.into()).is_err());
    }
}
