//! The tasks of one worker by kind: counted, so that a drain can wait for them, and safe from each other's panics.
use pin_project_lite::pin_project;
use std::{
    any::Any,
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::sync::Notify;

/// Tasks of one kind that run now.
#[derive(Default)]
pub struct Tasks {
    running: Cell<usize>,
    none: Notify,
    show: Option<Box<dyn Fn(usize)>>,
}

impl Tasks {
    /// Tasks whose number is told to `show` whenever it changes.
    #[must_use]
    pub fn shown(show: impl Fn(usize) + 'static) -> Rc<Self> {
        Rc::new(Self { show: Some(Box::new(show)), ..Self::default() })
    }

    /// Runs a task on this thread. Its panic ends that task alone; `panicked` is told what it said.
    pub fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static, panicked: impl FnOnce(&str) + 'static) {
        let counted = Counted::new(self);
        tokio::task::spawn_local(Caught { task, panicked: Some(panicked), counted });
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.running.get()
    }

    fn count(&self, running: usize) {
        self.running.set(running);
        if let Some(show) = &self.show {
            show(running);
        }
    }

    /// Waits until none runs.
    pub async fn finished(&self) {
        loop {
            let none = self.none.notified();
            if self.running.get() == 0 {
                return;
            }
            none.await;
        }
    }
}

struct Counted(Rc<Tasks>);

impl Counted {
    fn new(tasks: &Rc<Tasks>) -> Self {
        tasks.count(tasks.running() + 1);
        Self(Rc::clone(tasks))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.count(self.0.running() - 1);
        if self.0.running() == 0 {
            self.0.none.notify_waiters();
        }
    }
}

pin_project! {
    /// A task whose panic is caught. By hand, since an async block around it would hold a session more than once.
    struct Caught<Task, Panicked> {
        #[pin]
        task: Task,
        panicked: Option<Panicked>,
        counted: Counted,
    }
}

impl<Task: Future<Output = ()>, Panicked: FnOnce(&str)> Future for Caught<Task, Panicked> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // After a panic the task is never polled again, so a torn state is never seen.
        catch_unwind(AssertUnwindSafe(|| this.task.poll(cx))).unwrap_or_else(|panic| {
            if let Some(panicked) = this.panicked.take() {
                panicked(message(&*panic));
            }
            Poll::Ready(())
        })
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::cell::RefCell;
    use tokio::runtime::{Builder, LocalOptions};

    fn run(test: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn a_panic_ends_its_task_and_no_other() {
        run(async {
            let tasks = Rc::new(Tasks::default());
            let said = Rc::new(RefCell::new(String::new()));
            let heard = Rc::clone(&said);
            let survived = Rc::new(Cell::new(false));
            let mark = Rc::clone(&survived);
            tasks.spawn(async { panic!("broken {}", 7) }, move |message| message.clone_into(&mut heard.borrow_mut()));
            tasks.spawn(
                async move {
                    tokio::task::yield_now().await;
                    mark.set(true);
                },
                |_| {},
            );
            assert_eq!(tasks.running(), 2);
            tasks.finished().await;
            assert_eq!(tasks.running(), 0);
            assert_eq!(*said.borrow(), "broken 7");
            assert!(survived.get());
        });
    }

    #[test]
    fn every_change_is_shown() {
        run(async {
            let shown = Rc::new(RefCell::new(Vec::new()));
            let heard = Rc::clone(&shown);
            let tasks = Tasks::shown(move |running| heard.borrow_mut().push(running));
            tasks.spawn(async {}, |_| {});
            tasks.spawn(async { panic!("broken") }, |_| {});
            tasks.finished().await;
            assert_eq!(*shown.borrow(), [1, 2, 1, 0]);
        });
    }

    #[test]
    fn none_running_is_finished_at_once() {
        run(async { Rc::new(Tasks::default()).finished().await });
    }
}
