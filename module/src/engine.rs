//! One engine for each `tenantgate.yaml`, however many filters name it: Envoy makes a filter's config anew with
//! every change of its listener.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tenantgate::domain::SystemClock;
use tenantgate::engine::{Engine, StartError};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Lookups, files and keys: nothing that a request waits for.
const THREADS: usize = 2;

/// A running engine with threads of its own, apart from Envoy's workers.
pub struct Running {
    pub engine: Arc<Engine>,
    /// Before the runtime: what runs there is told to stop first.
    _stop: DropGuard,
    runtime: Option<Runtime>,
}

static RUNNING: Mutex<Option<HashMap<PathBuf, Weak<Running>>>> = Mutex::new(None);

impl Running {
    /// The engine of this config, started if it does not run yet. The error has every problem of the files.
    pub fn of(config: &Path) -> Result<Arc<Self>, String> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.get_or_insert_default();
        if let Some(found) = running.get(config).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let started = Arc::new(Self::start(config)?);
        running.insert(config.to_owned(), Arc::downgrade(&started));
        Ok(started)
    }

    fn start(config: &Path) -> Result<Self, String> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(THREADS).thread_name("tenantgate").enable_all();
        let runtime = builder.build().map_err(|error| format!("no threads: {error}"))?;
        let stop = CancellationToken::new();
        let engine = {
            let _inside = runtime.enter();
            let engine = Engine::open(config, Arc::new(SystemClock)).map_err(told)?;
            engine.run(&stop);
            engine
        };
        Ok(Self { engine, _stop: stop.drop_guard(), runtime: Some(runtime) })
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

fn told(error: StartError) -> String {
    match error {
        StartError::Config(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("; ")
        }
        StartError::Other(error) => format!("{error:#}"),
    }
}
