//! The backend: an echo, a sink, and sources that push. It answers whole frames, as backends do.
use crate::{
    handshake,
    options::Serve,
    wire::{self, CLOSE, Header, PING, PONG, Part, Scanner},
};
use std::{
    cell::RefCell,
    error::Error,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    time::{Interval, interval, sleep},
};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// Read from a connection at once, and written by a source at once.
const CHUNK: usize = 64 << 10;
/// An empty buffer larger than this is given back.
const KEEP: usize = 256 << 10;
/// Before the next try, after accepting failed: mostly for want of descriptors.
const PAUSE: Duration = Duration::from_millis(10);

thread_local! {
    /// To read into, within one poll.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Echo,
    Sink,
    /// `rate` messages a second; 0: as fast as they go.
    Source {
        size: usize,
        rate: u32,
        text: bool,
    },
}

impl Service {
    fn of(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let mut words = path.split('/').skip_while(|word| !matches!(*word, "echo" | "sink" | "source"));
        match words.next() {
            Some("sink") => Self::Sink,
            Some("source") => Self::Source {
                size: words.next().and_then(|word| word.parse().ok()).unwrap_or(64),
                rate: words.next().and_then(|word| word.parse().ok()).unwrap_or(0),
                text: words.next() == Some("text"),
            },
            Some(_) | None => Self::Echo,
        }
    }
}

/// A connection after its handshake, on its way to another thread.
type Accepted = (std::net::TcpStream, Service, Vec<u8>);

/// Serves until the process ends.
pub(crate) async fn run(options: &Serve) -> Result<(), Box<dyn Error>> {
    let listener = listen(options.listen).map_err(|error| format!("{}: {error}", options.listen))?;
    #[allow(clippy::print_stdout, reason = "scripts read the address")]
    {
        println!("listening on ws://{}", listener.local_addr()?);
    }
    serve(listener, options.split).await?;
    Ok(())
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(crate) async fn serve(listener: TcpListener, split: bool) -> io::Result<()> {
    let second = if split { Some(second_thread()?) } else { None };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let second = second.clone();
        // A client that vanishes is no business of a backend for measuring.
        tokio::task::spawn_local(async move { drop(accepted(stream, second).await) });
    }
}

async fn accepted(mut stream: TcpStream, second: Option<mpsc::UnboundedSender<Accepted>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some((path, early)) = handshake::answer(&mut stream).await? else { return Ok(()) };
    let service = Service::of(&path);
    match second {
        Some(second) if service != Service::Echo => {
            // The second thread lives as long as this one.
            let _ = second.send((stream.into_std()?, service, early));
            Ok(())
        }
        Some(_) | None => Peer::new(stream, service).run(&early).await,
    }
}

fn second_thread() -> io::Result<mpsc::UnboundedSender<Accepted>> {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Accepted>();
    thread::Builder::new().name("sources".to_owned()).spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            while let Some((stream, service, early)) = receiver.recv().await {
                tokio::task::spawn_local(async move {
                    if let Ok(stream) = TcpStream::from_std(stream) {
                        drop(Peer::new(stream, service).run(&early).await);
                    }
                });
            }
        });
    })?;
    Ok(sender)
}

/// One session.
struct Peer {
    stream: TcpStream,
    service: Service,
    scanner: Scanner,
    /// The frame that is arriving, and whether it is answered.
    frame: Option<(Header, bool)>,
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that are sent, and bytes that make whole frames.
    sent: usize,
    whole: usize,
    /// What a source sends over and over, and how much of it is to be sent still.
    batch: Vec<u8>,
    unsent: usize,
    tick: Option<Interval>,
    /// A close frame came.
    closing: bool,
}

impl Peer {
    fn new(stream: TcpStream, service: Service) -> Self {
        let (batch, tick) = match service {
            Service::Source { size, rate, text } => {
                let many = if rate == 0 { (CHUNK / (size + 4)).max(1) } else { 1 };
                let tick = (rate > 0).then(|| interval(Duration::from_secs(1) / rate));
                (wire::messages(many, size, text, false), tick)
            }
            Service::Echo | Service::Sink => (Vec::new(), None),
        };
        Self {
            stream,
            service,
            scanner: Scanner::default(),
            frame: None,
            outgoing: Vec::new(),
            sent: 0,
            whole: 0,
            batch,
            unsent: 0,
            tick,
            closing: false,
        }
    }

    async fn run(mut self, early: &[u8]) -> io::Result<()> {
        self.scan(early)?;
        poll_fn(|cx| ROOM.with_borrow_mut(|room| self.poll(cx, room))).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<()>> {
        loop {
            let sending = self.poll_send(cx)?;
            if self.closing {
                ready!(sending);
                return Pin::new(&mut self.stream).poll_shutdown(cx);
            }
            // An echo that is not taken is not read for, either.
            if sending.is_pending() && self.batch.is_empty() {
                return Poll::Pending;
            }
            let mut into = ReadBuf::new(room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
            if into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.scan(into.filled())?;
        }
    }

    /// Answers first, between the batches of a source. Ready once there is nothing to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.unsent > 0 {
                let rest = &self.batch[self.batch.len() - self.unsent..];
                self.unsent -= ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            }
            while self.sent < self.whole {
                self.sent += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing[self.sent..self.whole]))?;
            }
            self.outgoing.drain(..self.whole);
            (self.sent, self.whole) = (0, 0);
            if self.outgoing.is_empty() && self.outgoing.capacity() > KEEP {
                self.outgoing = Vec::new();
            }
            if self.batch.is_empty() || self.closing {
                return Poll::Ready(Ok(()));
            }
            if let Some(tick) = &mut self.tick {
                ready!(tick.poll_tick(cx));
            }
            self.unsent = self.batch.len();
        }
    }

    fn scan(&mut self, mut input: &[u8]) -> io::Result<()> {
        let broken = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        while let Some(part) = self.scanner.next(&mut input).map_err(broken)? {
            match part {
                Part::Head(header) => {
                    if header.key.is_none() {
                        return Err(broken("an unmasked frame"));
                    }
                    let answer = match header.opcode {
                        PING => Some(PONG),
                        PONG => None,
                        CLOSE => Some(CLOSE),
                        data => (self.service == Service::Echo).then_some(data),
                    };
                    if let Some(opcode) = answer {
                        wire::put_header(&mut self.outgoing, header.fin, opcode, header.length, None);
                    }
                    self.frame = Some((header, answer.is_some()));
                }
                Part::Payload { bytes, at, last } => {
                    let Some((header, answered)) = &self.frame else { continue };
                    if *answered {
                        let begin = self.outgoing.len();
                        self.outgoing.extend_from_slice(bytes);
                        wire::mask(&mut self.outgoing[begin..], header.key.unwrap_or_default(), at);
                    }
                    if last {
                        self.whole = self.outgoing.len();
                        self.closing |= header.opcode == CLOSE;
                        self.frame = None;
                    }
                }
            }
            if self.closing {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_served() {
        assert_eq!(Service::of("/echo"), Service::Echo);
        assert_eq!(Service::of("/"), Service::Echo);
        assert_eq!(Service::of("/chat/room?source=1"), Service::Echo);
        assert_eq!(Service::of("/prefix/sink"), Service::Sink);
        assert_eq!(Service::of("/source/256/50"), Service::Source { size: 256, rate: 50, text: false });
        assert_eq!(Service::of("/source/65536/0/text"), Service::Source { size: 65536, rate: 0, text: true });
        assert_eq!(Service::of("/source"), Service::Source { size: 64, rate: 0, text: false });
    }
}
