//! Looks the names of backends up again, each when its answer is no longer good, on a thread of its own.
use crate::{
    metrics::Meters,
    upstream::Upstream,
    worker::{Worker, Workers},
};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::{runtime::Builder, sync::mpsc, task::JoinSet, time::sleep};

type Pools = Vec<Arc<Upstream>>;

/// The thread, once there is a name to look up. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Names {
    workers: Workers,
    meters: Arc<Meters>,
    pools: Mutex<Option<mpsc::UnboundedSender<Pools>>>,
}

impl Names {
    pub(super) fn new(workers: Workers, meters: Arc<Meters>) -> Self {
        Self { workers, meters, pools: Mutex::default() }
    }

    /// From now on the names of these pools are looked up, and no others.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn follow(&self, pools: Pools) -> io::Result<()> {
        let mut sender = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = match &*sender {
            Some(thread) => thread.send(pools),
            None if pools.iter().all(|pool| pool.names() == 0) => Ok(()),
            None => Err(mpsc::error::SendError(pools)),
        };
        if let Err(mpsc::error::SendError(pools)) = unchanged {
            let (started, news) = mpsc::unbounded_channel();
            let (workers, meters) = (self.workers.clone(), Arc::clone(&self.meters));
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let run = move || runtime.block_on(run(news, workers, meters));
            thread::Builder::new().name("names".into()).spawn(run)?;
            // It waits for just this.
            let _ = started.send(pools);
            *sender = Some(started);
        }
        Ok(())
    }
}

async fn run(mut news: mpsc::UnboundedReceiver<Pools>, workers: Workers, meters: Arc<Meters>) {
    // Replacing the set ends the lookups in it.
    let mut lookups = JoinSet::new();
    while let Some(pools) = news.recv().await {
        lookups = JoinSet::new();
        for pool in pools {
            for name in 0..pool.names() {
                lookups.spawn(keep(Arc::clone(&pool), name, workers.clone(), Arc::clone(&meters)));
            }
        }
    }
    lookups.abort_all();
}

async fn keep(pool: Arc<Upstream>, name: usize, workers: Workers, meters: Arc<Meters>) {
    loop {
        let refreshed = pool.refresh(name).await;
        if refreshed.reviewed {
            workers.ask(Worker::shed).await;
            meters.forget_backends();
        }
        sleep(refreshed.after).await;
    }
}
