//! The least that a proxy of WebSockets over hyper does, to measure handshakes against: it checks, logs, bounds and
//! counts nothing, knows no time, and copies bytes. Not for any other use.
//!
//! `cargo run --release --example bare_hyper -- 127.0.0.1:8080 127.0.0.1:8000`, then the load example's `churn` through it.
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{cell::RefCell, env, error::Error, future::poll_fn, pin::pin, rc::Rc};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::LocalSet,
};
use tungstenite::handshake::{client::generate_key, derive_accept_key};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments = env::args().skip(1);
    let (Some(own), Some(backend)) = (arguments.next(), arguments.next()) else {
        return Err("two addresses are wanted: its own, and the backend's".into());
    };
    let backend: Rc<str> = backend.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(own).await?;
        loop {
            let (client, _) = listener.accept().await?;
            // Whatever goes wrong ends that session.
            tokio::task::spawn_local(serve(client, Rc::clone(&backend)));
        }
    })
}

async fn serve(client: TcpStream, backend: Rc<str>) -> Outcome<()> {
    client.set_nodelay(true)?;
    let upstream = Rc::new(RefCell::new(None));
    let service = service_fn(|request| Box::pin(answer(request, Rc::clone(&backend), Rc::clone(&upstream))));
    let mut connection = server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), service);
    poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
    let mut client = connection.into_parts().io.into_inner();
    let upstream = upstream.take();
    let mut upstream: TcpStream = upstream.ok_or("no session was opened")?;
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// Opens a session with the backend, leaves its stream in `upstream`, and says 101.
async fn answer(
    request: Request<Incoming>,
    backend: Rc<str>,
    upstream: Rc<RefCell<Option<TcpStream>>>,
) -> Outcome<Response<Empty<Bytes>>> {
    let key = request.headers().get("sec-websocket-key").ok_or("no key")?.clone();
    let stream = TcpStream::connect(&*backend).await?;
    stream.set_nodelay(true)?;
    let (mut sender, mut connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let (mut head, _) = request.into_parts();
    head.headers.insert("sec-websocket-key", generate_key().parse()?);
    let mut asked = pin!(sender.send_request(Request::from_parts(head, Empty::<Bytes>::new())));
    let (response, ended) = tokio::select! {
        biased;
        response = &mut asked => (response?, false),
        // It hands over a response or an error before it ends.
        _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => (asked.await?, true),
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err("the backend refuses".into());
    }
    if !ended {
        poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
    }
    upstream.replace(Some(connection.into_parts().io.into_inner()));
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", derive_accept_key(key.as_bytes()));
    Ok(answer.body(Empty::new())?)
}
