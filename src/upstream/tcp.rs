//! TCP connections to backends: from which of our addresses, and to which of theirs first (happy eyeballs, RFC 8305).
use super::connect::{DialError, is_unavailable};
use crate::transport::{Backstop, bind_without_port, tune};
use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout_at},
};

/// How long an attempt has before the next address is tried beside it (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// What this machine lacks is said once in this time, however many dials it concerns.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// Dials for one pool, on all workers.
#[derive(Debug, Default)]
pub(crate) struct TcpDialer {
    /// Our own addresses that connections start from; the kernel chooses if there are none.
    sources: Vec<IpAddr>,
    turn: AtomicUsize,
    complained: Mutex<Option<Instant>>,
}

impl TcpDialer {
    pub(super) fn new(sources: &[IpAddr]) -> Self {
        Self { sources: sources.to_vec(), ..Self::default() }
    }

    /// Connects to the first address that answers. They are tried in their order, families in turn; the next one as soon
    /// as one failed, or beside one that does not answer for [`ATTEMPT_DELAY`].
    pub(crate) async fn connect(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
        within: Duration,
        backstop: Option<Backstop>,
    ) -> Result<TcpStream, DialError> {
        let late = || DialError::Timeout { step: "connection", within };
        if let [address] = addresses {
            return timeout_at(deadline, self.attempt(*address, backstop)).await.map_err(|_| late())?;
        }
        let mut waiting = in_turn(addresses).into_iter();
        let mut attempts: FuturesUnordered<_> =
            waiting.next().map(|address| self.attempt(address, backstop)).into_iter().collect();
        let mut failure = None;
        let mut next = Instant::now() + ATTEMPT_DELAY;
        // What is under way is asked first: a timer for now would cost a turn of the whole worker.
        while !attempts.is_empty() {
            tokio::select! {
                biased;
                Some(attempt) = attempts.next() => match attempt {
                    Ok(tcp) => return Ok(tcp),
                    Err(error) => failure = Some(error),
                },
                () = sleep_until(deadline) => return Err(late()),
                () = sleep_until(next), if waiting.len() > 0 => {}
            }
            // One failed, or took long.
            attempts.extend(waiting.next().map(|address| self.attempt(address, backstop)));
            next = Instant::now() + ATTEMPT_DELAY;
        }
        Err(failure.unwrap_or_else(late))
    }

    async fn attempt(&self, address: SocketAddr, backstop: Option<Backstop>) -> Result<TcpStream, DialError> {
        if !self.sources.is_empty() {
            return self.connect_from_a_source(address, backstop).await;
        }
        let connected = match unbound(address.ip(), backstop) {
            Ok(socket) => join(socket, address).await,
            Err(error) => Err(error),
        };
        connected.map_err(|source| {
            let no_way = is_unavailable(&source) && !leads_to(address);
            if no_way {
                DialError::NoWay { address }
            } else {
                DialError::Connect { address: address.to_string(), source }
            }
        })
    }

    /// Each source in turn; one whose ports towards the address are used up is passed over.
    async fn connect_from_a_source(
        &self,
        address: SocketAddr,
        backstop: Option<Backstop>,
    ) -> Result<TcpStream, DialError> {
        let fitting: Vec<IpAddr> =
            self.sources.iter().copied().filter(|source| source.is_ipv4() == address.is_ipv4()).collect();
        let mut failure = DialError::NoSource { address };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        for place in 0..fitting.len() {
            let from = fitting[turn.wrapping_add(place) % fitting.len()];
            failure = match bound(from, backstop) {
                Err(source) => DialError::Source { from, source },
                Ok(socket) => match join(socket, address).await {
                    Ok(tcp) => return Ok(tcp),
                    Err(source) => DialError::Connect { address: address.to_string(), source },
                },
            };
            if !failure.is_of_the_source() {
                break;
            }
        }
        Err(failure)
    }

    /// Whether what this machine lacks is to be said now, or was just now.
    pub(super) fn complains(&self) -> bool {
        let now = Instant::now();
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.duration_since(last) >= COMPLAINT_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Whether an address of ours leads there. UDP has ports of its own, and sends nothing when it connects.
fn leads_to(address: SocketAddr) -> bool {
    let any = if address.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    match UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| socket.connect(address)) {
        Ok(()) => true,
        Err(error) => {
            !matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENETUNREACH | libc::EAFNOSUPPORT))
        }
    }
}

/// A socket for an address of this family. It is tuned before it connects: `TCP_NOTSENT_LOWAT` on a connected socket
/// wakes who waits for it.
fn unbound(family: IpAddr, backstop: Option<Backstop>) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    tune(&socket, backstop)?;
    Ok(socket)
}

/// A socket on one of our addresses whose port is chosen when it connects, so that a port is used up only towards one
/// address and not for all of them.
fn bound(from: IpAddr, backstop: Option<Backstop>) -> io::Result<Socket> {
    let socket = unbound(from, backstop)?;
    bind_without_port(&socket)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    Ok(socket)
}

/// Connects. The handshake with a process on this machine is mostly over when `connect` returns, though it says that it goes
/// on: asked once more it tells, and the session need not sleep until the runtime hears of it.
async fn join(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    let to = address.into();
    let mut asked = socket.connect(&to);
    if address.ip().is_loopback() && goes_on(&asked) {
        asked = socket.connect(&to);
    }
    let goes_on = goes_on(&asked);
    match asked {
        Err(error) if !goes_on && error.raw_os_error() != Some(libc::EISCONN) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    if goes_on {
        stream.writable().await?;
        stream.take_error()?.map_or(Ok(()), Err)?;
    }
    Ok(stream)
}

fn goes_on(asked: &io::Result<()>) -> bool {
    let error = asked.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(error, Some(libc::EINPROGRESS | libc::EALREADY))
}

/// The families in turn, the first one's first (RFC 8305 section 4).
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (mut these, mut those) = (Vec::new(), Vec::new());
    for &address in addresses {
        if address.is_ipv4() == first { these.push(address) } else { those.push(address) }
    }
    let mut those = those.into_iter();
    let mut all: Vec<SocketAddr> = these.into_iter().flat_map(|one| [Some(one), those.next()]).flatten().collect();
    all.extend(those);
    all
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::FutureExt;
    use tokio::{
        net::{TcpListener, TcpSocket},
        time::timeout,
    };

    /// An address that refuses connections as long as its socket does not listen; nobody else is given it.
    pub(crate) fn unheard() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    const WITHIN: Duration = Duration::from_secs(5);

    async fn connect(dialer: &TcpDialer, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
        dialer.connect(addresses, Instant::now() + WITHIN, WITHIN, None).await
    }

    /// A listener that accepts nothing more: its queue is full, and the kernel leaves further connections unanswered.
    async fn mute() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            held.push(connected.unwrap());
        }
        (listener, held, address)
    }

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let mixed = of(&["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1", "10.0.0.2:1"]);
        assert_eq!(in_turn(&mixed), of(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "[::3]:1"]));
        assert!(in_turn(&[]).is_empty());
    }

    #[tokio::test]
    async fn connections_are_tuned_wherever_they_start_from() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = "127.0.0.1".parse().unwrap();
        for (sources, backstop) in
            [(vec![], None), (vec![], Some(Backstop::Backends)), (vec![source], Some(Backstop::Backends))]
        {
            let dialer = TcpDialer::new(&sources);
            let tcp = dialer.connect(&[address], Instant::now() + WITHIN, WITHIN, backstop).await.unwrap();
            let socket = socket2::SockRef::from(&tcp);
            assert!(socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 64 * 1024);
            assert_eq!(socket.keepalive().unwrap(), backstop.is_some());
            if backstop.is_some() {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
            }
        }
    }

    #[tokio::test]
    async fn the_next_address_is_tried_at_once_after_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ((_socket, dead), alive) = (unheard(), listener.local_addr().unwrap());
        let tcp = connect(&TcpDialer::default(), &[dead, alive]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), alive);
        let error = connect(&TcpDialer::default(), &[dead]).await.unwrap_err();
        assert_eq!(error.step(), "connect");
        assert!(error.to_string().contains(&dead.to_string()), "{error}");
    }

    /// A busy kernel may put the handshake off, so not each time.
    #[tokio::test]
    async fn what_this_machine_answers_is_known_without_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ((_socket, dead), alive) = (unheard(), listener.local_addr().unwrap());
        let (dialer, mut at_once) = (TcpDialer::default(), (false, false));
        while at_once != (true, true) {
            if let Some(connected) = connect(&dialer, &[alive]).now_or_never() {
                assert_eq!(connected.unwrap().peer_addr().unwrap(), alive);
                at_once.0 = true;
            }
            if let Some(refused) = connect(&dialer, &[dead]).now_or_never() {
                assert!(refused.unwrap_err().to_string().contains("refused"));
                at_once.1 = true;
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_nobody_up() {
        let (_listener, _held, mute) = mute().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let start = Instant::now();
        let tcp = connect(&TcpDialer::default(), &[mute, alive]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), alive);
        // It had its time alone; a share of the whole would have been half of `WITHIN`.
        assert!((ATTEMPT_DELAY..WITHIN / 2).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn nobody_answering_is_a_timeout() {
        let (_listener, _held, mute) = mute().await;
        let within = Duration::from_millis(50);
        let error = TcpDialer::default().connect(&[mute], Instant::now() + within, within, None).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    }

    #[tokio::test]
    async fn connections_start_from_each_source_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialer = TcpDialer::new(&["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()]);
        let mut from = Vec::new();
        for _ in 0..4 {
            from.push(connect(&dialer, &[address]).await.unwrap().local_addr().unwrap().ip().to_string());
        }
        assert_eq!(from, ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]);
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_used_is_told_and_is_our_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let elsewhere = TcpDialer::new(&["192.0.2.1".parse().unwrap()]);
        let error = connect(&elsewhere, &[address]).await.unwrap_err();
        assert!(error.is_ours() && error.has_no_way() && error.to_string().contains("192.0.2.1"), "{error}");
        let other_family = TcpDialer::new(&["::1".parse().unwrap()]);
        let error = connect(&other_family, &[address]).await.unwrap_err();
        assert!(error.is_ours() && error.has_no_way() && error.to_string().contains("IPv4"), "{error}");
    }

    #[tokio::test]
    async fn a_lack_is_told_once_in_a_while() {
        tokio::time::pause();
        let dialer = TcpDialer::default();
        assert!(dialer.complains() && !dialer.complains());
        tokio::time::advance(COMPLAINT_EVERY).await;
        assert!(dialer.complains());
    }
}
