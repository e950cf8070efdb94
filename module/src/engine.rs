//! One engine for each `tenantgate.yaml`, however many filters name it: Envoy makes a filter's
//! config again with every change of its listener.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tenantgate::config::FedConfig;
use tenantgate::domain::{Problem, SystemClock};
#[cfg(feature = "lookup")]
use tenantgate::engine::{Engine, StartError};
use tenantgate::feed::Fed;
use tenantgate::gate::{Answer, Request};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Lookups, files and keys: nothing that a request waits for.
const THREADS: usize = 2;

/// What decides.
pub enum Decider {
    /// Reads the files and asks the lookup itself.
    #[cfg(feature = "lookup")]
    Own(Arc<Engine>),
    /// Is told by a sidecar.
    Fed(Arc<Fed>),
}

impl Decider {
    pub fn answer<R>(&self, request: &Request<'_>, render: impl Fn(&Answer<'_>) -> R) -> R {
        match self {
            #[cfg(feature = "lookup")]
            Self::Own(engine) => engine.gate.answer(Some(request), render),
            Self::Fed(fed) => fed.answer(request, render),
        }
    }

    /// The answer where something of ours has panicked.
    pub fn failed<R>(&self, render: impl Fn(&Answer<'_>) -> R) -> R {
        match self {
            #[cfg(feature = "lookup")]
            Self::Own(engine) => engine.gate.failed(render),
            Self::Fed(fed) => fed.failed(render),
        }
    }
}

/// What decides, with threads of its own, apart from Envoy's workers.
pub struct Running {
    pub decider: Decider,
    /// Before the runtime: what runs there is told to stop first.
    _stop: DropGuard,
    runtime: Option<Runtime>,
}

/// A config, and the socket of its feed.
type Name = (PathBuf, Option<PathBuf>);

static RUNNING: Mutex<Option<HashMap<Name, Weak<Running>>>> = Mutex::new(None);

impl Running {
    /// What decides by this config, started if it does not run yet. The error has every problem of
    /// the files.
    pub fn of(config: &Path, feed: Option<&Path>) -> Result<Arc<Self>, String> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_default();
        running.retain(|_, one| one.strong_count() > 0);
        let name = (config.to_owned(), feed.map(Path::to_owned));
        if let Some(found) = running.get(&name).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let started = Arc::new(Self::start(config, feed)?);
        running.insert(name, Arc::downgrade(&started));
        Ok(started)
    }

    fn start(config: &Path, feed: Option<&Path>) -> Result<Self, String> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(THREADS).thread_name("tenantgate").enable_all();
        let runtime = builder.build().map_err(|error| format!("no threads: {error}"))?;
        let stop = CancellationToken::new();
        let decider = match feed {
            None => own(config, &runtime, &stop)?,
            Some(socket) => {
                let limits = FedConfig::read(config).map_err(lines)?;
                let _inside = runtime.enter();
                let fed = Arc::new(Fed::new(Arc::new(SystemClock), limits.token_cache_bytes));
                fed.run(socket, config, &stop);
                Decider::Fed(fed)
            }
        };
        Ok(Self { decider, _stop: stop.drop_guard(), runtime: Some(runtime) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Envoy's thread does not wait for a lookup under way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(feature = "lookup")]
fn own(config: &Path, runtime: &Runtime, stop: &CancellationToken) -> Result<Decider, String> {
    let _inside = runtime.enter();
    let engine = Engine::open(config, Arc::new(SystemClock)).map_err(in_words)?;
    runtime.block_on(engine.open_state()).map_err(in_words)?;
    engine.run(stop);
    Ok(Decider::Own(engine))
}

#[cfg(not(feature = "lookup"))]
fn own(_: &Path, _: &Runtime, _: &CancellationToken) -> Result<Decider, String> {
    Err("the filter's config: feed: missing; this module is built without `lookup`, so it decides \
         by a sidecar's feed only: name its socket, unix:/run/tenantgate/feed.sock"
        .to_owned())
}

#[cfg(feature = "lookup")]
fn in_words(error: StartError) -> String {
    match error {
        StartError::Config { problems, .. } => lines(problems),
        StartError::Other(error) => format!("{error:#}"),
    }
}

fn lines(problems: Vec<Problem>) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}
