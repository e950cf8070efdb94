use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Engine;
use crate::sources::{FolderWatch, Look};

/// Editors and Kubernetes change several files in a row; wait until they are through.
const SETTLE: Duration = Duration::from_millis(200);
/// Some file systems tell nobody of changes, and a mount can be replaced whole.
const POLL: Duration = Duration::from_secs(5);

/// Reads what changes of the files that the config names, without an end. What is broken is read
/// again every few seconds without a further change: a file may have been named before it was
/// there.
pub async fn follow(engine: Arc<Engine>) {
    let mut files = engine.files();
    // Dropping a watch ends it.
    let mut _watch = watch(&engine, &files);
    let mut next_retry = Instant::now();
    loop {
        tokio::select! {
            () = engine.look.notified() => sleep(SETTLE).await,
            () = sleep(POLL) => {}
        }
        let started = Instant::now();
        let retry = !engine.report.load().problems.is_empty() && started >= next_retry;
        let look = if retry { Look::Retry } else { Look::Changed };
        let reloading = Arc::clone(&engine);
        // Reading a large registry takes a while, and argon2id strings are parsed.
        let work = tokio::task::spawn_blocking(move || reloading.reload(look));
        if let Err(failed) = work.await {
            // This task is started again.
            std::panic::resume_unwind(failed.into_panic());
        }
        // A broken file that takes long to read is not read all the time.
        if retry {
            next_retry = Instant::now() + POLL.max(started.elapsed() * 20);
        }
        let now = engine.files();
        if now != files {
            _watch = watch(&engine, &now);
            files = now;
        }
    }
}

fn watch(engine: &Arc<Engine>, files: &[PathBuf]) -> FolderWatch {
    let look = Arc::clone(&engine.look);
    FolderWatch::start(files, move || look.notify_one())
}
