//! The admin listener: HTTP for operators, on a thread of its own, so that whatever is asked there takes nothing from the workers
//! but the turns that its answers need.
mod api;
mod body;
mod cannot;
mod guard;
mod page;
mod query;
mod view;

use crate::{
    config::{AdminConfig, TokenError, read_token},
    gateway::Operator,
    listener::{
        ListenAddress,
        bind::{BindError, Bound, ListenSocket, bind_for_operators},
        inherited::Inherited,
    },
    shutdown::Phase,
    upgrade::Lineage,
};
use api::Api;
use guard::{Guard, Own};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    os::fd::AsFd,
    pin::pin,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime::Builder,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

/// Connections at a time; more wait in the kernel.
const CONNECTIONS: usize = 64;
/// For a request's head; a connection that asks for nothing is closed after it, too.
const HEAD: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// For a connection as a whole: a reader that takes its answer byte by byte holds a place no longer.
const CONNECTION: Duration = Duration::from_secs(600);
/// For answers under way when it ends: that a drain began, for example.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a process that drains looks whether another one serves instead.
const SUCCESSION: Duration = Duration::from_millis(50);
/// After an error of accepting.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the admin listener does not start.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("admin: {0}")]
    Bind(#[from] BindError),
    #[error("admin.token_file: {0}")]
    Token(#[from] TokenError),
    #[error("admin: cannot start: {0}")]
    Thread(#[from] io::Error),
}

/// An admin listener that is bound and serves nobody yet: those who connect wait.
#[derive(Debug)]
pub struct Admin {
    bound: Bound,
    guard: Guard,
}

/// A running admin listener; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    /// A Unix socket's file is removed with it, unless another process has it now.
    bound: Bound,
    lineage: Lineage,
}

impl Admin {
    /// Binds the address and reads the token.
    ///
    /// # Errors
    /// When either cannot be done.
    pub fn bind(config: &AdminConfig) -> Result<Self, AdminError> {
        Self::inheriting(config, &mut Inherited::default())
    }

    /// The same, on a socket that is there already, if one is.
    ///
    /// # Errors
    /// As [`Admin::bind`].
    pub fn inheriting(config: &AdminConfig, inherited: &mut Inherited) -> Result<Self, AdminError> {
        let token = config.token_file.as_deref().map(read_token).transpose()?;
        let bound = bind_for_operators(inherited, &config.address)?;
        let unix = matches!(bound.address, ListenAddress::Unix(_));
        Ok(Self { bound, guard: Guard { local: config.is_local(), unix, token, hosts: config.hosts.clone() } })
    }

    /// Where it listens: the kernel's choice where port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &ListenAddress {
        &self.bound.address
    }

    /// Has an upgrade hand its socket to the new process. Then [`Admin::serve`] ends without accepting what waits.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn offer(&self, lineage: &Lineage) -> io::Result<()> {
        let asked = &self.bound.config.address;
        for socket in self.bound.sockets.iter().filter(|_| !asked.is_any_port()) {
            lineage.offer(asked.clone(), socket.as_fd().try_clone_to_owned()?, self.bound.file.is_some());
        }
        Ok(())
    }

    /// Answers for the gateway that `operator` holds, until another process does instead.
    ///
    /// # Errors
    /// When its thread cannot be started.
    pub fn serve(mut self, operator: Operator) -> Result<Server, AdminError> {
        let socket = self.bound.sockets.pop().ok_or_else(|| io::Error::other("no socket"))?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            Listener::new(socket)?
        };
        let (stop, stopped) = watch::channel(false);
        let lineage = operator.lineage().clone();
        let succession = give_way(operator.clone(), stop.clone());
        let api = Arc::new(Api::new(operator, self.guard));
        let body = move || {
            runtime.spawn(succession);
            runtime.block_on(accept(listener, api, stopped));
        };
        let thread = thread::Builder::new().name("admin".into()).spawn(body)?;
        Ok(Server { stop, thread: Some(thread), bound: self.bound, lineage })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the admin listener failed, which is a bug");
        }
        if let (true, Some(file)) = (self.lineage.kept(&self.bound.address), &self.bound.file) {
            file.leave();
        }
    }
}

/// Says when the server ends.
type Stopped = watch::Receiver<bool>;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: ListenSocket) -> io::Result<Self> {
        Ok(match socket {
            ListenSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ListenSocket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// Takes one connection, and serves it in a task of its own.
    async fn one(&self, api: &Arc<Api>, place: OwnedSemaphorePermit, stopped: &Stopped) -> io::Result<()> {
        let (api, stopped) = (Arc::clone(api), stopped.clone());
        match self {
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                let own = Own(Some(stream.local_addr()?.ip().to_canonical()));
                tokio::spawn(connection(stream, own, api, place, stopped));
            }
            Self::Unix(listener) => {
                tokio::spawn(connection(listener.accept().await?.0, Own(None), api, place, stopped));
            }
        }
        Ok(())
    }
}

async fn accept(listener: Listener, api: Arc<Api>, mut stopped: Stopped) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let ending = stopped.clone();
    let accepting = async {
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            if let Err(error) = listener.one(&api, place, &ending).await {
                tracing::warn!(%error, "the admin listener cannot accept; it tries again");
                sleep(PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop(&mut stopped) => {}
    }
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if timeout(FAREWELL, places.acquire_many(all)).await.is_err() {
        tracing::debug!("connections to the admin listener are cut");
    }
}

/// Ends everything once another process serves: what waits to be accepted is that process's.
async fn give_way(operator: Operator, stop: watch::Sender<bool>) {
    if operator.control().watch().wait_for(|phase| *phase != Phase::Serving).await.is_err() {
        return;
    }
    // Whoever was told to stop may be in the middle of an upgrade.
    while !operator.lineage().succeeded() {
        sleep(SUCCESSION).await;
    }
    stop.send_replace(true);
}

/// A server that is gone wants all to end, too.
async fn stop(stopped: &mut Stopped) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    own: Own,
    api: Arc<Api>,
    _place: OwnedSemaphorePermit,
    mut stopped: Stopped,
) {
    let begun = Notify::new();
    let answer = |request| {
        begun.notify_one();
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(api.answer(request, own).await) }
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        // Who asks and ends at once (`nc -N`) is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = timeout(CONNECTION, serving.as_mut()) => ended,
        () = stop(&mut stopped) => {
            let parting = async {
                // Its first request may be on the way, and hyper would not wait for that.
                tokio::select! {
                    ended = serving.as_mut() => return ended,
                    () = begun.notified() => {}
                }
                serving.as_mut().graceful_shutdown();
                serving.as_mut().await
            };
            timeout(FAREWELL, parting).await
        }
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "a connection to the admin listener ended early");
    }
}
