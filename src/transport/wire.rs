//! A socket as a session drives it: it is asked first, and listened to only when it has nothing.
use super::stream::Socket;
use rustix::{
    fd::AsFd,
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    task::coop::has_budget_remaining,
};

/// A socket, and whether its next bytes wake us.
///
/// Most wake-ups of a session concern one of its two sockets. To ask the other one what it has, through the runtime, is to
/// lock and to leave the same waker again; what is remembered here spares that.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: Socket,
    /// Nothing was there to be read, and the runtime has the waker of the task at hand.
    awaited: bool,
}

impl From<Socket> for Wire {
    fn from(socket: Socket) -> Self {
        Self { socket, awaited: false }
    }
}

/// Runs `$body` with the tokio stream of a kernel socket, or gives `$otherwise` for one in memory.
macro_rules! kernel {
    ($socket:expr, $stream:ident => $body:expr, $memory:ident => $otherwise:expr) => {
        match $socket {
            Socket::Tcp($stream) => $body,
            Socket::Unix($stream) => $body,
            Socket::Memory($memory) => $otherwise,
        }
    };
}

impl Wire {
    /// The task that drives it is another one, or has another waker, from now on.
    pub(super) fn forget_waker(&mut self) {
        self.awaited = false;
    }

    /// Reads into `room`; 0 is the end of the stream.
    #[inline]
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { socket, awaited } = self;
        kernel!(socket, stream => loop {
            let mut read = None;
            forget(stream.try_io(Interest::READABLE, || {
                *awaited = false;
                once(receive(&*stream, room), room.len(), &mut read)
            }));
            match read {
                Some(outcome) => return Poll::Ready(outcome),
                None if *awaited => return Poll::Pending,
                None => {
                    // With its budget spent the runtime wakes us at once, and keeps no waker.
                    let kept = has_budget_remaining();
                    if stream.poll_read_ready(cx)?.is_pending() {
                        *awaited = kept;
                        return Poll::Pending;
                    }
                }
            }
        }, memory => {
            let mut buffer = ReadBuf::new(room);
            ready!(Pin::new(memory).poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Whether the last read left nothing behind, and what comes next wakes us.
    #[inline]
    pub(super) fn drained(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.awaited {
            let kept = has_budget_remaining();
            self.awaited = kernel!(&self.socket, stream => {
                kept && stream.poll_read_ready(cx).is_pending()
            }, _memory => false);
        }
        self.awaited
    }

    /// Takes some of `bytes`.
    #[inline]
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        kernel!(&mut self.socket, stream => loop {
            let mut written = None;
            forget(stream.try_io(Interest::WRITABLE, || {
                once(send(&*stream, bytes, SendFlags::NOSIGNAL), bytes.len(), &mut written)
            }));
            if let Some(outcome) = written {
                return Poll::Ready(outcome);
            }
            ready!(stream.poll_write_ready(cx))?;
        }, memory => Pin::new(memory).poll_write(cx, bytes))
    }
}

fn receive(socket: impl AsFd, room: &mut [u8]) -> Result<usize, Errno> {
    Ok(recv(socket, room, RecvFlags::empty())?.0)
}

/// Notes what came of asking a socket, if it was ready, and says whether it is ready for more. It is not if it did not use all
/// it was given: with edge-triggered events that is known without asking it again.
#[inline]
fn once(moved: Result<usize, Errno>, most: usize, note: &mut Option<io::Result<usize>>) -> io::Result<()> {
    match moved {
        Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::WouldBlock.into()),
        Ok(length) if 0 < length && length < most => {
            *note = Some(Ok(length));
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(length) => *note = Some(Ok(length)),
        Err(error) => *note = Some(Err(error.into())),
    }
    Ok(())
}

/// All that `try_io` says has been noted, but that the socket is not ready; and that owns nothing that would have to be dropped.
#[inline]
fn forget(asked: io::Result<()>) {
    debug_assert!(asked.as_ref().err().is_none_or(|error| error.kind() == io::ErrorKind::WouldBlock));
    mem::forget(asked);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        task::{unconstrained, yield_now},
    };

    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Socket::Unix(ours).into(), theirs)
    }

    async fn rung(bell: &Bell) {
        while bell.0.swap(0, Ordering::Relaxed) == 0 {
            yield_now().await;
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whatever_comes_after_nothing_was_there_wakes_once_and_is_read() {
        let (mut wire, mut peer) = pair();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        let mut room = [0; 8];
        for round in 0..300_u16 {
            assert!(wire.poll_read(&mut cx, &mut room).is_pending());
            // Asking again neither finds anything nor loses the waker.
            assert!(wire.poll_read(&mut cx, &mut room).is_pending() && wire.drained(&mut cx));
            peer.write_all(&round.to_be_bytes()).await.unwrap();
            rung(&bell).await;
            assert!(matches!(wire.poll_read(&mut cx, &mut room), Poll::Ready(Ok(2))));
            assert_eq!(room[..2], round.to_be_bytes());
            if round % 2 == 0 {
                assert!(wire.drained(&mut cx), "a short read left nothing");
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_full_read_may_have_left_something() {
        let (mut wire, mut peer) = pair();
        let bell = Arc::new(Bell::default());
        let waker = Waker::from(Arc::clone(&bell));
        let mut cx = Context::from_waker(&waker);
        let mut room = [0; 4];
        assert!(wire.poll_read(&mut cx, &mut room).is_pending());
        peer.write_all(b"sixteen bytes it").await.unwrap();
        rung(&bell).await;
        for _ in 0..4 {
            assert!(matches!(wire.poll_read(&mut cx, &mut room), Poll::Ready(Ok(4))));
            assert!(!wire.drained(&mut cx));
        }
        assert!(wire.poll_read(&mut cx, &mut room).is_pending() && wire.drained(&mut cx));
        drop(peer);
        rung(&bell).await;
        assert!(matches!(wire.poll_read(&mut cx, &mut room), Poll::Ready(Ok(0))));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn another_waker_is_the_one_that_is_woken() {
        let (mut wire, mut peer) = pair();
        let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
        let wakers = bells.clone().map(Waker::from);
        let mut room = [0; 8];
        for waker in &wakers {
            wire.forget_waker();
            assert!(wire.poll_read(&mut Context::from_waker(waker), &mut room).is_pending());
        }
        peer.write_all(b"x").await.unwrap();
        rung(&bells[1]).await;
        assert_eq!(bells[0].0.load(Ordering::Relaxed), 0);
    }

    /// A runtime that stops a greedy task wakes it, but keeps no waker for its sockets.
    #[tokio::test(flavor = "current_thread")]
    async fn a_spent_budget_is_not_taken_for_a_waker_left() {
        let (mut wire, mut peer) = pair();
        let (mut greedy, mut feed) = UnixStream::pair().unwrap();
        feed.write_all(&[0; 4096]).await.unwrap();
        greedy.readable().await.unwrap();
        let mut room = [0; 8];
        poll_fn(|cx| {
            let mut one = [0];
            // Until the runtime says that it is enough.
            while Pin::new(&mut greedy).poll_read(cx, &mut ReadBuf::new(&mut one)).is_ready() {}
            assert!(wire.poll_read(cx, &mut room).is_pending() && !wire.drained(cx));
            Poll::Ready(())
        })
        .await;
        let reading = poll_fn(|cx| wire.poll_read(cx, &mut room));
        let (read, ()) = tokio::join!(unconstrained(reading), async {
            yield_now().await;
            peer.write_all(b"late").await.unwrap();
        });
        assert_eq!(read.unwrap(), 4);
        drop(greedy.read(&mut [0; 1]).await);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_socket_does_not_take_waits_until_it_does() {
        let (mut wire, mut peer) = pair();
        let bytes = vec![7; 4 << 20];
        let writing = async {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let taken = poll_fn(|cx| wire.poll_write(cx, rest)).await.unwrap();
                rest = &rest[taken..];
            }
        };
        let mut read = vec![0; bytes.len()];
        let ((), outcome) = tokio::join!(writing, peer.read_exact(&mut read));
        outcome.unwrap();
        assert_eq!(read, bytes);
        drop(peer);
        let gone = poll_fn(|cx| wire.poll_write(cx, b"x")).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }
}
