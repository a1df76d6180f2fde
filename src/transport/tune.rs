//! Socket options that every TCP leg wants.

use socket2::{SockRef, Socket, TcpKeepalive};
use std::{io, ops::Deref, os::fd::AsFd, time::Duration};

/// Unsent bytes that a socket may hold before it stops being writable: enough to keep a path busy, little enough that
/// a ping is not buried behind seconds of data. As many as an outbox mostly holds; with a quarter of that a stream towards a
/// slower receiver is written in a third more pieces.
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// TCP's own keepalive, the backstop for legs without a heartbeat deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backstop {
    /// Starts late and lasts long (13 minutes in all), so that it neither wakes sleeping devices between their pings
    /// nor ends sessions whose operator switched deadlines off.
    Clients,
    /// Two minutes in all: a backend's host is awake, or gone.
    Backends,
}

impl Backstop {
    fn keepalive(self) -> TcpKeepalive {
        let (idle, interval, probes) = match self {
            Self::Clients => (300, 60, 8),
            Self::Backends => (60, 15, 4),
        };
        TcpKeepalive::new()
            .with_time(Duration::from_secs(idle))
            .with_interval(Duration::from_secs(interval))
            .with_retries(probes)
    }
}

/// Sets `TCP_NODELAY`, `TCP_NOTSENT_LOWAT` and, for a backstop, `SO_KEEPALIVE`. Accepted sockets inherit them from a listening
/// one.
///
/// # Errors
/// Those of `setsockopt`.
pub fn tune<'s>(socket: impl Into<SockRef<'s>>, backstop: Option<Backstop>) -> io::Result<()> {
    let socket = socket.into();
    let socket: &Socket = socket.deref();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    backstop.map_or(Ok(()), |backstop| socket.set_tcp_keepalive(&backstop.keepalive()))
}

/// Has TCP acknowledge what comes as in a conversation: with what it sends, or every second message, or after 40 ms; not each
/// message as soon as it is read, which costs an eighth of relaying it. TCP begins that by itself when it sends something soon after
/// something came, and ends it when 40 ms pass without a second message.
pub(super) fn acknowledge_later(socket: impl AsFd) {
    // It saves work, and changes nothing else.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_quickack(socket, false);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn accepted_sockets_inherit_what_the_listener_has() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        tune(&listener, Some(Backstop::Clients)).unwrap();
        let _near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(300));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 8);
    }
}
