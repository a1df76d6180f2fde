//! What other threads have a worker do. Everything a worker owns stays on its thread, so whoever wants to know or change
//! something sends the question there, and the answer comes back.
use super::Worker;
use futures_util::future::join_all;
use std::{fmt, future::Future, pin::Pin, rc::Rc, sync::Arc};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_local,
};

type Errand = Box<dyn FnOnce(Rc<Worker>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Reaches the workers of one gateway from any thread.
#[derive(Clone)]
pub(crate) struct Workers(Arc<[mpsc::UnboundedSender<Errand>]>);

/// One worker's end of it.
pub(crate) struct Errands(mpsc::UnboundedReceiver<Errand>);

impl Workers {
    /// The errands go to the workers, one to each.
    pub(crate) fn new(workers: usize) -> (Self, Vec<Errands>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| {
                let (sender, receiver) = mpsc::unbounded_channel();
                (sender, Errands(receiver))
            })
            .unzip();
        (Self(senders.into()), receivers)
    }

    /// Runs `errand` on the thread of every worker, all at the same time, and gives their answers in the workers' order.
    /// A worker that has ended answers nothing. Errands run between the turns of sessions, so they must be short, or give way.
    pub(crate) async fn ask<T, F>(&self, errand: impl FnOnce(Rc<Worker>) -> F + Clone + Send + 'static) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let asked = self.0.iter().map(|worker| {
            let (answer, answered) = oneshot::channel();
            let errand = errand.clone();
            let run = move |worker: Rc<Worker>| {
                let running = errand(worker);
                Box::pin(async move {
                    // Whoever asked may have gone.
                    let _ = answer.send(running.await);
                }) as Pin<Box<dyn Future<Output = ()>>>
            };
            // A worker that has ended drops the errand, and the answer fails.
            let _ = worker.send(Box::new(run));
            answered
        });
        join_all(asked.collect::<Vec<_>>()).await.into_iter().filter_map(Result::ok).collect()
    }

    /// Runs `errand` on the thread of one worker, if that has not ended. Nobody waits for it; it ends with the worker.
    pub(crate) fn send<F>(&self, worker: u32, errand: impl FnOnce(Rc<Worker>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let worker = usize::try_from(worker).ok().and_then(|worker| self.0.get(worker));
        // One that has ended has nothing left to be done.
        let _ = worker.map(|worker| worker.send(Box::new(|worker| Box::pin(errand(worker)))));
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Workers").field(&self.0.len()).finish()
    }
}

impl Errands {
    /// Takes errands for as long as the worker lives. Each runs in a task of its own.
    pub(super) async fn run(mut self, worker: Rc<Worker>) {
        while let Some(errand) = self.0.recv().await {
            spawn_local(errand(Rc::clone(&worker)));
        }
    }
}
