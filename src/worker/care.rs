//! Checks of the backends: one worker makes them for all.
use super::Worker;
use crate::{tasks::Tasks, upstream::check};
use std::{rc::Rc, time::Duration};
use tokio::time::sleep;

/// How often it is looked at what is due, unless a check is to come more often.
const LOOK: Duration = Duration::from_millis(500);
/// Nor more often than this.
const OFTEN: Duration = Duration::from_millis(10);

impl Worker {
    /// Makes the checks that are due, for as long as new sessions are wanted. Pools that a reload brings are seen at the next look.
    pub(super) async fn care_for_backends(self: Rc<Self>) {
        if self.share.worker != 0 {
            return;
        }
        let checks = Rc::<Tasks>::default();
        loop {
            let mut next = LOOK;
            for upstream in self.upstreams() {
                next = upstream.config().check.as_ref().map_or(next, |check| next.min(check.interval));
                check::due(&upstream, |task| {
                    checks.spawn(task, |said| tracing::error!(said, "a check panicked; this is a bug of the gateway"));
                });
            }
            sleep(next.max(OFTEN)).await;
        }
    }
}
