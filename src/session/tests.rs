//! Tests of the loop on sockets in memory, where a sender can be as fast as it likes.
#![allow(clippy::unwrap_used)]
use super::{
    appetite::{Bite, MUCH_WAITS, NEAR_FOR, SHARED_FOR},
    *,
};
use crate::{
    handshake::admission::Admission,
    relay::{EndReason, Pings, Relay},
    route::{HostPattern, tests::route},
    transport::Socket,
    upstream::{Backend, BackendAddress},
};
use socket2::SockRef;
use std::{
    future::poll_fn,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    task::{coop::unconstrained, spawn_local, yield_now},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(10);

fn opening(downstream: DuplexStream, upstream: DuplexStream, close: Duration) -> Opening {
    opening_on(Socket::Memory(downstream), Socket::Memory(upstream), close)
}

fn opening_on(downstream: Socket, upstream: Socket, close: Duration) -> Opening {
    let mut route = route(HostPattern::Any, "/");
    Arc::make_mut(&mut route.options.relay).timeouts.close = close;
    let permit = Admission::new(1, None).admit(&route, None).unwrap();
    let facts = Facts {
        id: "one".into(),
        route: Arc::new(route),
        lease: Lease::new(Arc::new(Backend::new("pool", BackendAddress::Echo))),
        client: ClientAddress::Unix,
        user_agent: None,
        origin: None,
        local_port: None,
        accounts: Cell::default(),
        permit,
        meter: Arc::default(),
    };
    let opened = |socket| Opened { stream: Stream::Plain(socket), early: Vec::new() };
    Opening { downstream: opened(downstream), upstream: opened(upstream), deflate: false, facts }
}

fn context(verdicts: &Rc<RefCell<Vec<Verdict>>>) -> Rc<WorkerContext> {
    let verdicts = Rc::clone(verdicts);
    Rc::new(WorkerContext {
        registry: Rc::default(),
        routes: Routes::default(),
        pause: Rc::new(PauseWatch::new(Instant::now())),
        heartbeat: None,
        report: Box::new(move |verdict| verdicts.borrow_mut().push(verdict)),
        farewells: Cell::new(crate::pacing::Bounded {
            pace: crate::pacing::Pace::Spread(std::time::Duration::ZERO),
            most: std::time::Duration::ZERO,
        }),
        account: None,
        outboxes: Arc::default(),
        scratch: RefCell::default(),
    })
}

#[test]
fn a_flood_that_never_pauses_keeps_no_deadline_from_passing() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let (client, downstream) = duplex(4096);
        // It holds more than a session reads in a turn, and is full again when the next one comes.
        let (mut backend, upstream) = duplex(8 * 1024 * 1024);
        let flood = spawn_local(async move {
            let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
            frame.resize(frame.len() + 65536, 0);
            while backend.write_all(&frame).await.is_ok() {}
        });
        let verdicts = Rc::default();
        let session = run(opening(downstream, upstream, Duration::from_millis(50)), context(&verdicts));
        // The backend is told, and never answers.
        drop(client);
        timeout(SOON, session).await.expect("it ends");
        timeout(SOON, flood).await.expect("its stream is closed").unwrap();
        assert_eq!(verdicts.borrow()[0].reason, EndReason::ClientGone);
    });
}

#[test]
fn a_backend_that_only_talks_gets_no_acknowledgement_for_each_message() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap().into_std().unwrap();
        let (mut backend, _) = listener.accept().await.unwrap();
        backend.set_nodelay(true).unwrap();
        let socket = upstream.try_clone().unwrap();
        let at_once = || SockRef::from(&socket).tcp_quickack().unwrap();
        let (mut client, downstream) = duplex(4096);
        let verdicts = Rc::default();
        let upstream = Socket::Tcp(TcpStream::from_std(upstream).unwrap());
        let session = spawn_local(run(opening_on(Socket::Memory(downstream), upstream, SOON), context(&verdicts)));
        let mut later = Vec::new();
        for _ in 0..16 {
            later.push(!at_once());
            backend.write_all(&[0x82, 2, 1, 2]).await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
        }
        assert!(!later.contains(&true), "who may talk with it is acknowledged as ever: {later:?}");
        // TCP takes that back if this test is held up for 40 ms right here; another read asks for it once more.
        let mut reads = 16;
        while at_once() {
            assert!(reads < 1 << 16);
            backend.write_all(&[0x82, 2, 1, 2]).await.unwrap();
            client.read_exact(&mut [0; 4]).await.unwrap();
            reads += 1;
        }
        drop(client);
        drop(backend);
        session.await.unwrap();
    });
}

#[test]
fn a_flood_moves_a_bounded_number_of_bytes_in_one_turn() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        // Both peers have sent more than a turn moves, and take all that they are sent.
        let room = 16 * SCRATCH;
        let ((mut client, downstream), (mut backend, upstream)) = (duplex(room), duplex(room));
        let head =
            |mask: u8| [&[0x82, 127 | mask, 0, 0, 0, 0, 2, 0, 0, 0][..], &[0; 4][..usize::from(mask >> 5)]].concat();
        client.write_all(&[head(0x80), vec![0; 8 * SCRATCH]].concat()).await.unwrap();
        backend.write_all(&[head(0), vec![0; 8 * SCRATCH]].concat()).await.unwrap();
        let verdicts = Rc::default();
        let mut session = Box::pin(run(opening(downstream, upstream, SOON), context(&verdicts)));
        let mut moved = Vec::new();
        let mut before = 0;
        let mut sink = vec![0; room];
        while before < 2 * 8 * SCRATCH {
            let poll = poll_fn(|cx| Poll::Ready(session.as_mut().poll(cx))).await;
            assert!(poll.is_pending());
            let mut got = 0;
            for peer in [&mut client, &mut backend] {
                while let Ok(Ok(length)) = timeout(Duration::ZERO, peer.read(&mut sink)).await {
                    got += length;
                }
            }
            moved.push(got);
            before += got;
        }
        // What a turn may move, and the round that took it there.
        assert!(moved.iter().all(|moved| *moved <= Bite::WHOLE.turn + 2 * SCRATCH), "{moved:?}");
        assert!(moved.len() >= 5, "{moved:?}");
    });
}

#[test]
fn a_flood_takes_small_bites_beside_a_session_that_is_sent_little() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let verdicts = Rc::default();
        let context = context(&verdicts);
        let ((mut chatting, downstream), (_chatted, upstream)) = (duplex(65536), duplex(65536));
        let little = run(opening(downstream, upstream, SOON), Rc::clone(&context));
        let room = 16 * SCRATCH;
        let ((mut client, downstream), (mut backend, upstream)) = (duplex(room), duplex(room));
        backend.write_all(&[&[0x82, 127, 0, 0, 0, 0, 2, 0, 0, 0][..], &vec![0; room - 10]].concat()).await.unwrap();
        let flood = run(opening(downstream, upstream, SOON), Rc::clone(&context));
        // Sockets have no budget, as those in memory would.
        let (mut little, mut flood) = (Box::pin(unconstrained(little)), Box::pin(unconstrained(flood)));
        let mut sink = vec![0; room];
        let mut flooded = async || {
            assert!(poll_fn(|cx| Poll::Ready(flood.as_mut().poll(cx))).await.is_pending());
            let polled = Instant::now();
            let mut got = 0;
            while let Ok(Ok(length)) = timeout(Duration::ZERO, client.read(&mut sink)).await {
                got += length;
            }
            (got, polled)
        };
        let (mut judged, mut began) = (0, Instant::now());
        for _ in 0..40 {
            began = Instant::now();
            chatting.write_all(&[0x82, 0x81, 0, 0, 0, 0, 7]).await.unwrap();
            assert!(poll_fn(|cx| Poll::Ready(little.as_mut().poll(cx))).await.is_pending());
            let (got, polled) = flooded().await;
            // If this thread stood still in between, nothing can be said.
            if polled - began < SHARED_FOR {
                assert!(got <= 2 * Bite::SMALL.read, "{got}");
                judged += 1;
            }
        }
        assert!(judged > 0);
        tokio::time::sleep(SHARED_FOR).await;
        chatting.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert!(poll_fn(|cx| Poll::Ready(little.as_mut().poll(cx))).await.is_pending());
        let (got, polled) = flooded().await;
        assert!(got >= Bite::LARGE.turn, "beside one that only answers a ping it takes more at once: {got}");
        let large = Bite::LARGE.turn + Bite::LARGE.read;
        assert!(got <= large || polled - began >= NEAR_FOR, "that one may talk again: {got}");
        context.scratch.borrow_mut().company = Company::default();
        context.outboxes.fetch_add(MUCH_WAITS + 1, Ordering::Relaxed);
        let (got, _) = flooded().await;
        assert!(got <= large, "much waits: {got}");
        context.outboxes.fetch_sub(MUCH_WAITS + 1, Ordering::Relaxed);
        let (got, _) = flooded().await;
        assert!(got >= Bite::WHOLE.turn, "and the most when nobody else is near: {got}");
    });
}

#[test]
fn a_flood_of_pings_that_we_answer_gives_way_whatever_came_before_it() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let room = 4 * SCRATCH;
        let ((mut client, downstream), (_backend, upstream)) = (duplex(room), duplex(room));
        let mut opening = opening(downstream, upstream, SOON);
        let route = Arc::get_mut(&mut opening.facts.route).unwrap();
        Arc::make_mut(&mut route.options.relay).pings = Pings::Answer;
        // A frame of data makes the session ask for as much as it can; then pings come.
        let data = [&[0x82, 0xfe, 0xe0, 0, 0, 0, 0, 0][..], &[0; 0xe000]].concat();
        client.write_all(&data).await.unwrap();
        client.write_all(&[0x89, 0x80, 0, 0, 0, 0].repeat(10_000)).await.unwrap();
        let verdicts = Rc::default();
        // Sockets have no budget, as those in memory would.
        let mut session = Box::pin(unconstrained(run(opening, context(&verdicts))));
        let mut pongs = Vec::new();
        while pongs.iter().sum::<usize>() < 10_000 {
            let poll = poll_fn(|cx| Poll::Ready(session.as_mut().poll(cx))).await;
            assert!(poll.is_pending());
            let mut sink = vec![0; room];
            let mut got = 0;
            while let Ok(Ok(length)) = timeout(Duration::ZERO, client.read(&mut sink)).await {
                assert!(length > 0, "it ended: {pongs:?}");
                got += length;
            }
            pongs.push(got / 2);
            yield_now().await;
        }
        assert!(pongs.iter().all(|pongs| *pongs <= 512), "{pongs:?}");
    });
}

/// Plays a session whose legs' peers write these bytes and then neither read on nor end TCP, until its verdict is known.
/// Answers how many sessions a cut would then lose.
fn unsettled_after(client: &'static [u8], backend: &'static [u8]) -> usize {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let ((mut ours, downstream), (mut theirs, upstream)) = (duplex(4096), duplex(4096));
        let verdicts = Rc::default();
        let context = context(&verdicts);
        let registry = Rc::clone(&context.registry);
        let session = spawn_local(run(opening(downstream, upstream, SOON), context));
        assert_eq!(registry.unsettled(), 1);
        ours.write_all(client).await.unwrap();
        theirs.write_all(backend).await.unwrap();
        let known = async {
            while verdicts.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, known).await.expect("its codes are known");
        assert_eq!(registry.len(), 1, "it waits for the end of TCP");
        assert!(!session.is_finished());
        registry.unsettled()
    })
}

#[test]
fn a_session_that_waits_for_the_end_of_tcp_is_lost_by_a_cut_only_if_a_close_frame_is_missing() {
    const CLOSE: &[u8] = &[0x88, 0x02, 0x03, 0xe8];
    const MASKED_CLOSE: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];
    const UNMASKED: &[u8] = &[0x82, 0x00];
    assert_eq!(unsettled_after(MASKED_CLOSE, CLOSE), 0);
    assert_eq!(unsettled_after(UNMASKED, CLOSE), 1);
}

/// The runtime aligns a task to 128 bytes and adds about 104 of its own: this is what fits into 1,024.
#[test]
fn the_task_of_a_session_stays_within_one_kibibyte() {
    let task = size_of::<Running>() + size_of::<Rc<()>>() + size_of::<usize>();
    assert!(task <= 920, "{task} bytes: {} of them the relay, {} the timer", size_of::<Relay>(), size_of::<Sleep>());
    assert!(size_of::<Facts>() <= 120, "{} bytes", size_of::<Facts>());
}

#[test]
fn what_comes_over_a_rate_crosses_later_and_is_counted_once() {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let ((mut client, downstream), (mut backend, upstream)) = (duplex(65536), duplex(65536));
        let mut opening = opening(downstream, upstream, SOON);
        let route = Arc::get_mut(&mut opening.facts.route).unwrap();
        let rate = std::num::NonZeroU64::new(100).map(crate::protocol::rate::Rate);
        Arc::make_mut(&mut route.options.relay).limits.downstream.messages_per_second = rate;
        let meter = Arc::clone(&opening.facts.meter);
        let verdicts = Rc::default();
        let began = Instant::now();
        let session = spawn_local(run(opening, context(&verdicts)));
        let sent: Vec<u8> = (0..150u8).flat_map(|number| [0x82, 0x81, 0, 0, 0, 0, number]).collect();
        client.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        timeout(SOON, backend.read_exact(&mut received)).await.expect("all of it").unwrap();
        assert!(began.elapsed() >= Duration::from_millis(490), "a second's worth at once, half a second's later");
        assert!(received == sent);
        drop((client, backend));
        timeout(SOON, session).await.expect("it ends").unwrap();
        let verdict = &verdicts.borrow()[0];
        assert_eq!((verdict.legs.downstream.bytes_received, verdict.legs.downstream.messages_received), (1050, 150));
        assert!(meter.slowed_count(Side::Downstream) > 0);
    });
}
