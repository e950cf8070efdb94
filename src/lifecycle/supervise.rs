use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use prometheus::IntCounterVec;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::domain::Backoff;

const BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// A task that ran for so long starts with the shortest wait again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Runs the tasks in the background, and starts one again that panics.
#[derive(Clone)]
pub struct Supervisor {
    restarts: IntCounterVec,
    tasks: Arc<Mutex<BTreeMap<&'static str, TaskStatus>>>,
}

/// How the tasks of one name are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskStatus {
    /// Tasks of this name that run now.
    pub running: usize,
    /// Ended by a panic and not yet started again.
    pub down: usize,
    /// How often one of them has panicked and was started again.
    pub restarts: u64,
}

/// Counts a task in one state, as long as it lives.
struct Counted<'a> {
    supervisor: &'a Supervisor,
    name: &'static str,
    state: fn(&mut TaskStatus) -> &mut usize,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.supervisor.note(self.name, |task| *(self.state)(task) -= 1);
    }
}

impl Supervisor {
    /// `restarts` counts by the task's name.
    pub fn new(restarts: IntCounterVec) -> Self {
        Self { restarts, tasks: Arc::default() }
    }

    /// Runs `work` until `stop`, and again whenever it panics.
    pub fn spawn<F>(
        &self,
        name: &'static str,
        stop: CancellationToken,
        work: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        supervisor.restarts.with_label_values(&[name]);
        tokio::spawn(async move {
            stop.run_until_cancelled(supervisor.keep_running(name, work)).await;
        });
    }

    async fn keep_running<F>(&self, name: &'static str, work: impl Fn() -> F)
    where
        F: Future<Output = ()>,
    {
        let mut failures = 0;
        loop {
            let running = self.counted(name, |task| &mut task.running);
            let started = Instant::now();
            // What the task shares with others has to stand a panic: nothing is left locked.
            let ended = AssertUnwindSafe(async { work().await }).catch_unwind().await;
            drop(running);
            if ended.is_ok() {
                return;
            }
            failures = if started.elapsed() >= HEALTHY_AFTER { 1 } else { failures + 1 };
            let wait = BACKOFF.after(failures);
            self.restarts.with_label_values(&[name]).inc();
            self.note(name, |task| task.restarts += 1);
            tracing::error!(task = name, again_in = ?wait, "a background task panicked");
            let _down = self.counted(name, |task| &mut task.down);
            sleep(wait).await;
        }
    }

    fn counted(&self, name: &'static str, state: fn(&mut TaskStatus) -> &mut usize) -> Counted<'_> {
        self.note(name, |task| *state(task) += 1);
        Counted { supervisor: self, name, state }
    }

    fn note(&self, name: &'static str, change: impl FnOnce(&mut TaskStatus)) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        change(tasks.entry(name).or_default());
    }

    /// By their names.
    pub fn statuses(&self) -> BTreeMap<&'static str, TaskStatus> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus::Opts;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_and_started_again_with_growing_waits() {
        let opts = Opts::new("restarts", "Restarts.");
        let supervisor = Supervisor::new(IntCounterVec::new(opts, &["task"]).unwrap());
        let (stop, runs) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&runs);
        let started = Instant::now();
        supervisor.spawn("refresh", stop.clone(), move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                assert!(run >= 3, "one of the first runs");
                std::future::pending().await
            }
        });
        let status = || supervisor.statuses().get("refresh").copied().unwrap_or_default();
        let becomes = async |wanted: TaskStatus| {
            while status() != wanted {
                assert!(started.elapsed() < Duration::from_secs(20), "{:?}", status());
                sleep(Duration::from_millis(1)).await;
            }
        };
        becomes(TaskStatus { running: 0, down: 1, restarts: 1 }).await;
        becomes(TaskStatus { running: 1, down: 0, restarts: 3 }).await;
        assert!(started.elapsed() >= Duration::from_secs(1 + 2 + 4));
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        assert_eq!(supervisor.restarts.with_label_values(&["refresh"]).get(), 3);
        stop.cancel();
        becomes(TaskStatus { running: 0, down: 0, restarts: 3 }).await;
    }
}
