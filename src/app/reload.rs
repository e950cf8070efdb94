use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::issuers::RemoteIssuers;
use super::load::{Loaded, ProcessKey};
use super::settings;
use crate::authz::Snapshot;
use crate::config::{Listen, Problem};
use crate::domain::{Clock, Timestamp};
use crate::grants::Tenants;
use crate::serve::ReloadStatus;
use crate::telemetry::Metrics;
use crate::token::MintContext;

/// Editors and Kubernetes change several files in a row; wait until they are through.
const SETTLE: Duration = Duration::from_millis(200);
/// Some file systems tell nobody of changes, and a mount can be replaced whole.
const POLL: Duration = Duration::from_secs(5);

/// Brings what changed on disk into the running process, all of it or nothing.
pub struct Reloader {
    pub config_path: PathBuf,
    pub process_key: ProcessKey,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub tenants: Arc<Tenants>,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub mint: Option<Arc<ArcSwap<MintContext>>>,
    pub issuers: Arc<RemoteIssuers>,
    pub status: ReloadStatus,
    pub running: Mutex<RunningWith>,
    /// Somebody thinks that the files have changed.
    pub look: Notify,
}

/// What the running state was made from.
pub struct RunningWith {
    listen: Listen,
    files: Vec<PathBuf>,
}

impl RunningWith {
    pub fn new(loaded: &Loaded) -> Self {
        Self { listen: loaded.config.listen.clone(), files: loaded.files() }
    }
}

impl Reloader {
    /// Builds everything anew off to the side, then swaps.
    pub fn reload(&self) -> Result<(), Vec<Problem>> {
        // One at a time: the later one has read the newer files.
        let mut running = self.running();
        let outcome = self.apply(&mut running);
        self.tell(&outcome);
        outcome
    }

    /// Tries again what failed: a file may have been named before it was there. Says nothing new of
    /// problems that have been told.
    fn retry(&self) {
        let mut running = self.running();
        let outcome = self.apply(&mut running);
        let told = |problems: &Vec<Problem>| lines(problems) == self.status.get();
        if !outcome.as_ref().is_err_and(told) {
            self.tell(&outcome);
        }
    }

    fn tell(&self, outcome: &Result<(), Vec<Problem>>) {
        let label = if outcome.is_ok() { "ok" } else { "failed" };
        self.metrics.reloads.with_label_values(&[label]).inc();
        self.metrics.last_reload_ok.set(i64::from(outcome.is_ok()));
        match outcome {
            Ok(()) => {
                self.status.set(Vec::new());
                tracing::info!("reloaded config, clients, keys and secrets");
            }
            Err(problems) => {
                let lines = lines(problems);
                for problem in &lines {
                    tracing::error!(%problem, "not reloaded, the last good state runs on");
                }
                self.status.set(lines);
            }
        }
    }

    fn has_failed(&self) -> bool {
        !self.status.get().is_empty()
    }

    fn running(&self) -> MutexGuard<'_, RunningWith> {
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.running().files.clone()
    }

    fn apply(&self, running: &mut RunningWith) -> Result<(), Vec<Problem>> {
        let loaded = Loaded::read(&self.config_path, &self.process_key)?;
        if loaded.config.listen != running.listen {
            tracing::warn!("changed listen addresses take effect at the next start only");
        }
        let directory = self.tenants.directory_for(&loaded.config.tenants.lookup);
        let directory = directory.map_err(|problem| vec![problem])?;
        running.files = loaded.files();
        let no_client = |error: reqwest::Error| {
            vec![Problem { field: "issuers".to_owned(), message: format!("{error}; check TLS") }]
        };
        self.tenants.reconfigure(settings(&loaded, directory));
        let next = loaded.snapshot(&self.metrics);
        self.snapshot.rcu(|current| {
            let trust = loaded.trust(Some(&current.trust));
            Snapshot { trust: Arc::new(trust), ..next.clone() }
        });
        if let (Some(mint), Some(context)) = (&self.mint, loaded.mint_context()) {
            mint.store(Arc::new(context));
        }
        self.issuers.follow(&loaded.config.issuers).map_err(no_client)
    }

    /// Has the files looked at now: another replica that reads the same key directory may sign with a
    /// key that this one has not seen.
    pub fn hint_unknown_key(&self) {
        self.look.notify_one();
    }

    pub fn signing_key_created(&self) -> Option<Timestamp> {
        let context = self.mint.as_ref()?.load();
        context.keys.signer(self.clock.now()).map(|signer| signer.created_at())
    }
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Reloads after a change of any file that the config names, until `stop`.
pub fn watch(reloader: Arc<Reloader>, stop: CancellationToken) {
    tokio::spawn(async move {
        let mut seen = fingerprint(&reloader.files());
        // Dropping a watcher ends its watch.
        let mut _watcher = watch_folders(&reloader);
        let mut next_retry = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = reloader.look.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(POLL) => {}
            }
            let now = fingerprint(&reloader.files());
            let changed = now != seen;
            let again = reloader.has_failed() && Instant::now() >= next_retry;
            if !changed && !again {
                continue;
            }
            let started = Instant::now();
            let reloading = Arc::clone(&reloader);
            let work = move || {
                if changed {
                    // The outcome is logged and shown where it is handled.
                    let _ = reloading.reload();
                } else {
                    reloading.retry();
                }
            };
            let _ = tokio::task::spawn_blocking(work).await;
            // A broken file that takes long to read is not read all the time.
            next_retry = Instant::now() + POLL.max(started.elapsed() * 20);
            // Not what is there by now: a change during the reload has to be seen the next time.
            seen = now;
            // Files may have been added.
            _watcher = watch_folders(&reloader);
        }
    });
}

/// Watches folders rather than files: editors, `clients add` and Kubernetes replace files by renaming.
fn watch_folders(reloader: &Arc<Reloader>) -> Option<RecommendedWatcher> {
    let changed = Arc::clone(reloader);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files for a reload is an event too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.look.notify_one();
        }
    });
    let mut watcher = watcher
        .inspect_err(|error| tracing::warn!(%error, "files are looked at every few seconds only"))
        .ok()?;
    for folder in folders(&reloader.files()) {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            tracing::debug!(%error, folder = %folder.display(), "not watched");
        }
    }
    Some(watcher)
}

fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parents = files.iter().filter_map(|file| file.parent());
    let folders = files.iter().map(PathBuf::as_path).filter(|file| file.is_dir());
    // A bare file name has an empty parent.
    let here =
        |folder: &Path| if folder.as_os_str().is_empty() { ".".into() } else { folder.into() };
    parents.chain(folders).map(here).collect()
}

/// What tells one state of a file from another without reading it.
#[derive(PartialEq)]
struct FileState {
    changed: (i64, i64),
    size: u64,
    inode: u64,
}

/// `None`: the file is not there.
fn fingerprint(files: &[PathBuf]) -> Vec<(PathBuf, Option<FileState>)> {
    let mut all = Vec::new();
    for file in files {
        all.push(file.clone());
        if let Ok(entries) = std::fs::read_dir(file) {
            all.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    all.sort_unstable();
    all.dedup();
    let state = |file: &Path| {
        let found = std::fs::metadata(file).ok()?;
        let changed = (found.mtime(), found.mtime_nsec());
        Some(FileState { changed, size: found.size(), inode: found.ino() })
    };
    let with_state = |file: PathBuf| {
        let state = state(&file);
        (file, state)
    };
    all.into_iter().map(with_state).collect()
}
