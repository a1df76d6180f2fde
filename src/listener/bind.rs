//! Binds the listeners' sockets, one for each worker.
use super::{
    ListenAddress, ListenerConfig,
    inherited::{Inherited, InheritedSocket},
    spread::Arrival,
};
use crate::transport;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    fs::{self, Permissions},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Connections that may wait to be accepted; the kernel caps it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Who may open the admin listener's socket: owner and group.
const OPERATORS: u32 = 0o660;

/// A listener whose sockets are bound. A Unix socket's file is removed when this is dropped.
#[derive(Debug)]
pub struct Bound {
    pub config: ListenerConfig,
    /// Where it listens: `config.address`, with the port that the kernel chose for port 0.
    pub address: ListenAddress,
    /// One for each worker, or a single one; inherited ones may be more or fewer. Non-blocking.
    pub sockets: Vec<ListenSocket>,
    pub(crate) file: Option<Arc<SocketFile>>,
}

impl Bound {
    /// How its connections come to `workers` workers.
    #[must_use]
    pub fn arrival(&self, workers: usize) -> Arrival {
        if self.sockets.len() < workers { Arrival::Single } else { Arrival::Hashed }
    }
}

/// One worker's listening socket, not yet tied to a runtime.
#[derive(Debug)]
pub enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Why a listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "cannot listen on {address}: the address is in use by another process; stop that one, or choose another address \
         in gateway.toml or with --listen"
    )]
    InUse { address: ListenAddress },
    #[error(
        "cannot listen on {address}: there is a file of that name that is not a socket; move it or choose another path"
    )]
    NotASocket { address: ListenAddress },
    #[error("cannot listen on {address}: {}", advice(.source))]
    Io { address: ListenAddress, source: io::Error },
}

fn advice(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE, Unix sockets a folder that we may write"
        }
        Some(libc::EADDRNOTAVAIL) => "; no network interface of this machine has that address",
        Some(libc::EAFNOSUPPORT) => "; this machine has no such address family (is IPv6 switched off?)",
        Some(libc::ENOENT) => "; the folder of the socket does not exist",
        Some(_) | None => "",
    };
    format!("{error}{advice}")
}

/// Binds every listener, or none.
///
/// TCP listeners get one socket per worker (`SO_REUSEPORT`), so that the kernel spreads connections; a first bind without that
/// option makes an address in use an error, as it would be without it. `[::]` accepts IPv4 too, unless a listener for
/// `0.0.0.0` on the same port is configured besides it. A Unix socket is one socket, for one worker to deal out; a file
/// left behind by a process that died is replaced, a socket that somebody serves is not.
///
/// # Errors
/// The first address that cannot be listened on, and why.
pub fn bind(listeners: &[ListenerConfig], workers: usize) -> Result<Vec<Bound>, BindError> {
    bind_with(&mut Inherited::default(), listeners, workers)
}

/// The same, but listeners that find their sockets among the inherited ones use those, and bind nothing that could fail.
///
/// # Errors
/// As [`bind`].
pub fn bind_with(
    inherited: &mut Inherited,
    listeners: &[ListenerConfig],
    workers: usize,
) -> Result<Vec<Bound>, BindError> {
    bind_beside(inherited, listeners, listeners, workers)
}

/// Binds some of the listeners that there will be, or none, while the others are bound already.
///
/// # Errors
/// As [`bind`].
pub fn bind_beside(
    inherited: &mut Inherited,
    some: &[ListenerConfig],
    all: &[ListenerConfig],
    workers: usize,
) -> Result<Vec<Bound>, BindError> {
    let addresses: Vec<&ListenAddress> = all.iter().map(|listener| &listener.address).collect();
    let each = |listener: &ListenerConfig| {
        let workers = workers.max(1);
        let mut found = inherited.claim(&listener.address);
        match found.pop() {
            Some(last) => adopt(listener, last, found, workers),
            None => bind_one(listener, &addresses, workers),
        }
    };
    some.iter().map(each).collect()
}

/// Listens on sockets that others bound. If workers are more, further sockets join their `SO_REUSEPORT` group; where that is
/// refused, for want of a right or since they are no such group, those there are serve all workers.
fn adopt(
    config: &ListenerConfig,
    last: InheritedSocket,
    more: Vec<InheritedSocket>,
    workers: usize,
) -> Result<Bound, BindError> {
    let explain = |source| BindError::Io { address: config.address.clone(), source };
    let file = match &last.address {
        ListenAddress::Unix(path) if last.owns_file => Some(Arc::new(SocketFile::of(path).map_err(explain)?)),
        ListenAddress::Unix(_) | ListenAddress::Tcp(_) => None,
    };
    let address = last.address.clone();
    let mut sockets: Vec<_> = more.into_iter().map(|found| found.socket).chain([last.socket]).collect();
    for socket in &sockets {
        match socket {
            ListenSocket::Tcp(socket) => {
                transport::tune(socket, Some(transport::Backstop::Clients)).map_err(explain)?
            }
            ListenSocket::Unix(_) => {}
        }
    }
    if let (ListenAddress::Tcp(address), Some(ListenSocket::Tcp(first))) = (&address, sockets.first()) {
        let only_v6 = address.is_ipv6() && SockRef::from(first).only_v6().map_err(explain)?;
        let missing = if SockRef::from(first).reuse_port().map_err(explain)? { sockets.len()..workers } else { 0..0 };
        for _ in missing {
            match open_tcp(*address, only_v6, true) {
                Ok(socket) => sockets.push(ListenSocket::Tcp(socket)),
                Err(error) => {
                    tracing::info!(%error, %address, sockets = sockets.len(), "workers share the inherited sockets");
                    break;
                }
            }
        }
    }
    Ok(Bound { config: config.clone(), address, sockets, file })
}

/// One socket for the admin listener: an inherited one, or a new one; the file of a Unix socket is open to its owner and group
/// alone then. Port 0 is a new port each time, as it would not be known from that of a listener.
///
/// # Errors
/// When the address cannot be listened on, and why.
pub fn bind_for_operators(inherited: &mut Inherited, address: &ListenAddress) -> Result<Bound, BindError> {
    let config = ListenerConfig::plain(address.clone());
    let mut found = if address.is_any_port() { Vec::new() } else { inherited.claim(address) };
    let mut bound = match found.pop() {
        Some(last) => adopt(&config, last, found, 1)?,
        None => bind_with_mode(&config, &[address], 1, Some(OPERATORS))?,
    };
    bound.sockets.truncate(1);
    Ok(bound)
}

fn bind_one(config: &ListenerConfig, all: &[&ListenAddress], workers: usize) -> Result<Bound, BindError> {
    bind_with_mode(config, all, workers, None)
}

fn bind_with_mode(
    config: &ListenerConfig,
    all: &[&ListenAddress],
    workers: usize,
    mode: Option<u32>,
) -> Result<Bound, BindError> {
    let explain = |source: io::Error| {
        let address = config.address.clone();
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::InUse { address }
        } else {
            BindError::Io { address, source }
        }
    };
    match &config.address {
        ListenAddress::Tcp(address) => {
            let only_v6 = address.is_ipv6() && has_v4_twin(*address, all);
            let (address, sockets) = bind_tcp(*address, only_v6, workers).map_err(explain)?;
            let sockets = sockets.into_iter().map(ListenSocket::Tcp).collect();
            Ok(Bound { config: config.clone(), address: ListenAddress::Tcp(address), sockets, file: None })
        }
        ListenAddress::Unix(path) => {
            clear_stale(path, &config.address)?;
            let (file, socket) = bind_unix(path, mode).map_err(explain)?;
            let sockets = vec![ListenSocket::Unix(socket)];
            Ok(Bound { config: config.clone(), address: config.address.clone(), sockets, file: Some(Arc::new(file)) })
        }
    }
}

/// Whether `0.0.0.0` on the same port is to be listened on by itself, so that `[::]` must leave IPv4 alone.
fn has_v4_twin(address: SocketAddr, all: &[&ListenAddress]) -> bool {
    all.contains(&&ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))))
}

fn bind_tcp(address: SocketAddr, only_v6: bool, workers: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    // Every process of ours could join a SO_REUSEPORT group: a socket without it finds out whether one exists.
    let address = open_tcp(address, only_v6, false)?.local_addr()?;
    let sockets = (0..workers).map(|_| open_tcp(address, only_v6, true)).collect::<io::Result<_>>()?;
    Ok((address, sockets))
}

fn open_tcp(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Not held up by connections of a former process in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    transport::tune(&socket, Some(transport::Backstop::Clients))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn clear_stale(path: &Path, address: &ListenAddress) -> Result<(), BindError> {
    let io = |source| BindError::Io { address: address.clone(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { address: address.clone() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io(error)),
        // Connected, or its backlog is full: somebody serves it.
        Ok(_) | Err(_) => Err(BindError::InUse { address: address.clone() }),
    }
}

/// One socket: if every worker waited on it, connections would wake workers in vain, and the quickest would take most.
fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<(SocketFile, UnixListener)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Before it listens nobody can connect.
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((file, socket.into()))
}

/// The file of our Unix socket, removed with us unless another process has put its own there, or serves ours.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    left: AtomicBool,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        // A relative path would be lost if the process changed its working directory.
        Ok(Self {
            path: std::path::absolute(path)?,
            device: found.dev(),
            inode: found.ino(),
            left: AtomicBool::new(false),
        })
    }

    /// Another process serves the socket now, and removes its file when it is done.
    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = !self.left.load(Relaxed)
            && fs::symlink_metadata(&self.path)
                .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{IpAddr, Ipv6Addr, TcpStream};

    fn tcp(address: &str) -> ListenerConfig {
        ListenerConfig::plain(ListenAddress::Tcp(address.parse().unwrap()))
    }

    fn unix(path: &Path) -> ListenerConfig {
        ListenerConfig::plain(ListenAddress::Unix(path.into()))
    }

    fn port(bound: &Bound) -> SocketAddr {
        match &bound.address {
            ListenAddress::Tcp(address) => *address,
            ListenAddress::Unix(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn one_socket_per_worker_on_one_port() {
        let bound = bind(&[tcp("127.0.0.1:0")], 3).unwrap().remove(0);
        assert_eq!(bound.sockets.len(), 3);
        let address = port(&bound);
        assert_ne!(address.port(), 0);
        for socket in &bound.sockets {
            match socket {
                ListenSocket::Tcp(socket) => assert_eq!(socket.local_addr().unwrap(), address),
                ListenSocket::Unix(socket) => panic!("{socket:?}"),
            }
        }
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn an_address_in_use_is_refused_although_the_port_could_be_shared() {
        let first = bind(&[tcp("127.0.0.1:0")], 1).unwrap().remove(0);
        let error = bind(&[tcp(&port(&first).to_string())], 1).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("in use") && text.contains("--listen"), "{text}");
        assert!(text.contains(&port(&first).to_string()), "{text}");
    }

    #[test]
    fn an_address_of_nobody_is_explained() {
        let error = bind(&[tcp("192.0.2.1:0")], 1).unwrap_err();
        assert!(error.to_string().contains("no network interface"), "{error}");
    }

    #[test]
    fn the_v6_wildcard_serves_v4_too_unless_v4_is_listed() {
        let Ok(mut bound) = bind(&[tcp("[::]:0")], 1) else { return }; // a machine without IPv6
        let both = port(&bound.remove(0)).port();
        let bound = bind(&[tcp(&format!("[::]:{both}"))], 1).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, both)).unwrap();
        drop(bound);
        let bound = bind(&[tcp(&format!("[::]:{both}")), tcp(&format!("0.0.0.0:{both}"))], 1).unwrap();
        assert_eq!(bound.len(), 2);
        for local in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            TcpStream::connect((local, both)).unwrap();
        }
    }

    #[test]
    fn a_unix_socket_is_one_and_removed_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.sock");
        let bound = bind(&[unix(&path)], 2).unwrap();
        assert_eq!(bound[0].sockets.len(), 1);
        UnixStream::connect(&path).unwrap();
        let error = bind(&[unix(&path)], 1).unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        bind(&[unix(&stale)], 1).unwrap();

        let file = folder.path().join("notes.txt");
        fs::write(&file, "mine").unwrap();
        let error = bind(&[unix(&file)], 1).unwrap_err();
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn a_socket_file_of_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.sock");
        let bound = bind(&[unix(&path)], 1).unwrap();
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
        drop(other);
    }
}
