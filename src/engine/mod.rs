//! All that decisions and mints are made with, composed once for everybody who needs it: the
//! running process, the commands that ask one question, and the edges that serve decisions in
//! another way.

mod compose;
mod describe;
mod evidence;
mod explain;
mod inputs;
mod issuers;
mod minting;
mod offline;
mod registry;
mod report;
mod restart;
mod shared;
mod state;
mod warnings;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use explain::{Ask, Explanation, Word};
pub use inputs::{Inputs, StartError};
pub use minting::MintContext;
pub use offline::in_words;
pub use report::Report;
pub use state::backend as state_backend;

use self::issuers::RemoteIssuers;
use self::registry::Registry;
use crate::authz::{FactsCache, Hint, ProbeWatch, Snapshot};
use crate::clients::{self, LoadContext, RawClient};
use crate::config::{Config, Lookup};
use crate::domain::{ClientBook, ClientChange, Clock, GrantBook, Problem, Timestamp};
use crate::gate::Gate;
use crate::grants::{Settings, Tenants};
use crate::lifecycle::Supervisor;
use crate::lookup::Directory;
use crate::sources::Look;
use crate::state::{State, StateKey};
use crate::telemetry::{Instruments, Metrics, StateGauges};

/// What is in force, and what brings changes into it.
pub struct Engine {
    /// Of every part.
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Answers requests.
    pub gate: Arc<Gate>,
    /// Keeps what lookups have answered.
    pub tenants: Arc<Tenants>,
    /// `None`: this process mints nothing.
    pub mint: Option<Arc<ArcSwap<MintContext>>>,
    /// What runs in the background.
    pub tasks: Supervisor,
    state: OnceLock<Arc<State>>,
    state_key: OnceLock<StateKey>,
    state_gauges: Option<StateGauges>,
    /// There is no lookup. For stored clients, which must not wait for files.
    static_lookup: AtomicBool,
    issuers: Arc<RemoteIssuers>,
    /// Somebody thinks that the files have changed.
    look: Arc<Notify>,
    read: Mutex<Read>,
    /// Locked after `read`, and alone by what must not wait for files.
    registry: Mutex<Registry>,
    report: ArcSwap<Report>,
    /// The config, for callers that must not wait for a reading of files.
    config: ArcSwap<Config>,
}

/// What the values in force were made from.
struct Read {
    inputs: Inputs,
    directory: Arc<Directory>,
    /// Why the config's lookup or issuers are not those in force.
    problems: Vec<Problem>,
}

impl Engine {
    /// Reads everything, and starts to follow other issuers' keys. Whatever is wrong is an error.
    pub fn open(config: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StartError> {
        let inputs = Inputs::open(config, Arc::clone(&clock))?;
        let metrics = Arc::new(Metrics::new());
        let config = inputs.config();
        let lookup = &config.tenants.lookup;
        let instruments = Instruments { clock: Arc::clone(&clock), metrics: Arc::clone(&metrics) };
        let directory = Directory::new(lookup, instruments.clone())
            .map_err(|problem| StartError::from(vec![problem]))?;
        let settings = settings(&inputs, &directory);
        let tenants = Tenants::new(settings, instruments.clone());
        compose::tell_shadow_mode(&config, &metrics);
        let snapshot = Arc::new(ArcSwap::from_pointee(inputs.snapshot(&metrics, None)));
        let mint = inputs.mint_context(None);
        let tasks = Supervisor::new(metrics.task_restarts.clone());
        let issuers = RemoteIssuers::new(Arc::clone(&snapshot), instruments, tasks.clone());
        let problems = issuers.follow(&config);
        if !problems.is_empty() {
            return Err(problems.into());
        }
        let (issuers, look) = (Arc::new(issuers), Arc::default());
        let gate = Gate {
            timed: true,
            snapshot,
            cache: Arc::new(FactsCache::new(config.limits.token_cache_bytes)),
            probes: ProbeWatch::default(),
            grants: Arc::clone(&tenants) as Arc<dyn GrantBook>,
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            hints: take_hints(&tenants, &issuers, &look),
            decision_ids: AtomicU64::new(clock.now().nanos()),
            ledger: Default::default(),
        };
        Ok(Arc::new(Self {
            clock,
            gate: Arc::new(gate),
            tenants,
            mint: mint.map(|context| Arc::new(ArcSwap::from_pointee(context))),
            tasks,
            state: OnceLock::new(),
            state_key: OnceLock::new(),
            state_gauges: config.state.is_some().then(|| metrics.state()),
            static_lookup: AtomicBool::new(*lookup == Lookup::Static),
            issuers,
            look,
            report: ArcSwap::from_pointee(Report::of(&inputs, &[])),
            registry: Mutex::new(Registry::new(inputs.clients())),
            config: ArcSwap::new(Arc::clone(&config)),
            read: Mutex::new(Read { inputs, directory, problems }),
            metrics,
        }))
    }

    /// Keeps grants fresh and the files in sight, until `stop`.
    pub fn run(self: &Arc<Self>, stop: &CancellationToken) {
        let (tenants, stopped) = (Arc::clone(&self.tenants), stop.clone());
        self.tasks.spawn("grants", stop.clone(), move || Arc::clone(&tenants).run(stopped.clone()));
        self.run_state(stop);
        self.run_evidence(stop);
        let engine = Arc::clone(self);
        self.tasks.spawn("reload", stop.clone(), move || watch::follow(Arc::clone(&engine)));
    }

    /// Reads the files that this look wants, and puts what they say in force: all that takes away,
    /// whatever is wrong with another. In the answer is everything that is wrong.
    pub fn reload(&self, look: Look) -> Vec<Problem> {
        // One at a time: the later one has read the newer files.
        let digester = Arc::clone(&self.gate.snapshot.load().digester);
        let mut read = self.read();
        let any = read.inputs.read(look);
        if any {
            self.apply(&mut read);
        }
        let problems = [read.inputs.problems(), read.problems.clone()].concat();
        let report = Report::of(&read.inputs, &read.problems);
        let before = self.report.swap(Arc::new(report));
        self.tell(&before, &problems, look, any);
        drop(read);
        self.follow_use_of_credentials();
        if !Arc::ptr_eq(&digester, &self.gate.snapshot.load().digester) {
            self.read_stored_clients_again();
        }
        problems
    }

    fn apply(&self, read: &mut Read) {
        let config = read.inputs.config();
        read.problems.clear();
        self.config.store(Arc::clone(&config));
        match self.tenants.directory_for(&config.tenants.lookup) {
            Ok(directory) => read.directory = directory,
            Err(problem) => read.problems.push(problem),
        }
        // Grants are put under new digest keys before tokens are checked under them.
        self.tenants.reconfigure(settings(&read.inputs, &read.directory));
        compose::tell_shadow_mode(&config, &self.metrics);
        let mut next = read.inputs.snapshot(&self.metrics, None);
        let mint = self.mint.as_ref();
        let context = mint.and_then(|mint| read.inputs.mint_context(Some(&mint.load())));
        let mut registry = self.registry();
        registry.set_file(read.inputs.clients());
        next.clients = registry.all().cloned();
        self.gate.snapshot.rcu(|current| {
            let trust = Arc::new(read.inputs.trust(Some(&current.trust)));
            Snapshot { trust, ..next.clone() }
        });
        if let (Some(mint), Some(context)) = (mint, context) {
            let clients = registry.all().cloned().unwrap_or_default();
            mint.store(Arc::new(MintContext { clients, ..context }));
        }
        drop(registry);
        self.static_lookup.store(config.tenants.lookup == Lookup::Static, Ordering::Relaxed);
        read.problems.extend(self.issuers.follow(&config));
    }

    /// Says nothing new of problems that have been told.
    fn tell(&self, before: &Report, problems: &[Problem], look: Look, any: bool) {
        let now = self.report.load();
        if !any || (look == Look::Retry && before.problems == now.problems) {
            return;
        }
        let ok = problems.is_empty();
        let label = if ok { "ok" } else { "failed" };
        self.metrics.reloads.with_label_values(&[label]).inc();
        self.metrics.last_reload_ok.set(i64::from(ok));
        for problem in problems {
            tracing::error!(%problem, "not reloaded: what this source last said stays in force");
        }
        for warning in now.warnings.iter().filter(|warning| !before.warnings.contains(warning)) {
            tracing::warn!(%warning, "reloaded, but look at this");
        }
        for setting in &now.waiting_for_restart {
            tracing::warn!(setting, "changed, and takes effect at the next start only");
        }
        if ok {
            tracing::info!("reloaded: everything else that the files say is in force");
        }
    }

    /// Puts changes of clients in force that are not in the file; where the file has a client, it
    /// counts. Waits for no reading of files, and costs the same however many clients there are.
    pub fn change_clients(&self, changes: Vec<ClientChange>) {
        let mut registry = self.registry();
        registry.change(changes);
        let all = registry.all().cloned();
        self.gate
            .snapshot
            .rcu(|current| Snapshot { clients: all.clone(), ..Snapshot::clone(current) });
        if let Some(mint) = &self.mint {
            mint.rcu(|current| MintContext {
                clients: all.clone().unwrap_or_default(),
                ..MintContext::clone(current)
            });
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The config in force.
    pub fn config(&self) -> Arc<Config> {
        self.read().inputs.config()
    }

    /// The config in force, without waiting for files that are just being read.
    pub fn config_now(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The registry in force. `None`: there is none.
    pub fn clients(&self) -> Option<Arc<ClientBook>> {
        self.gate.snapshot.load().clients.clone()
    }

    /// Whether `clients.yaml` has this client.
    pub fn in_clients_file(&self, id: &str) -> bool {
        self.registry().in_file(id)
    }

    /// What is wrong with a client that is to be registered; the fields are its own.
    pub fn wrong_with(&self, client: RawClient) -> Vec<Problem> {
        let (config, snapshot) = (self.config_now(), self.gate.snapshot.load());
        let issuer = config.issuer.as_ref();
        let api_names: Vec<&str> = config.apis.iter().map(|api| api.name.as_str()).collect();
        let context = LoadContext {
            digester: &snapshot.digester,
            issuer: &snapshot.own_issuer,
            tenant_claim: issuer.map_or("", |issuer| &issuer.tenant_claim.name),
            api_names: &api_names,
            static_lookup: config.tenants.lookup == Lookup::Static,
        };
        clients::check(client, &context)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.read().inputs.files()
    }

    /// `None`: this process does not sign.
    pub fn signing_key_created(&self) -> Option<Timestamp> {
        let context = self.mint.as_ref()?.load();
        context.keys.signer(self.clock.now()).map(|signer| signer.created_at())
    }
}

/// Passes a decision's wishes on. Nothing here blocks or waits.
fn take_hints(
    tenants: &Arc<Tenants>,
    issuers: &Arc<RemoteIssuers>,
    look: &Arc<Notify>,
) -> Box<dyn Fn(Hint) + Send + Sync> {
    let (tenants, issuers, look) = (Arc::clone(tenants), Arc::clone(issuers), Arc::clone(look));
    Box::new(move |hint| match hint {
        Hint::Grants(client) => tenants.hint(&client),
        Hint::Miss(client) => tenants.hint_miss(&client),
        Hint::UnknownKey { issuer } => {
            issuers.hint_unknown_key(&issuer);
            // Another replica that reads the same key directory may sign with a key that this one
            // has not seen.
            look.notify_one();
        }
    })
}

fn settings(inputs: &Inputs, directory: &Arc<Directory>) -> Settings {
    let config = inputs.config();
    let issuer = config.issuer.as_ref().map_or("", |issuer| &issuer.url);
    let (directory, digester) = (Arc::clone(directory), Arc::clone(inputs.digester()));
    let settings = Settings::new(
        directory,
        config.tenants.freshness,
        digester,
        issuer.into(),
        config.tenants.mass_withdrawal,
    );
    settings.sharing(shared::section(&config))
}
