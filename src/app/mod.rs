//! The composition root: files in, running listeners out. Nobody else wires.

mod compose;
mod issuers;
mod load;
mod offline;
mod reload;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::load::{Loaded, ProcessKey};
pub use self::offline::{Offline, told};

use self::issuers::RemoteIssuers;
use self::reload::{Reloader, RunningWith};
use crate::authz::{FactsCache, Hint, ProbeWatch, Snapshot};
use crate::clients::Authenticator;
use crate::config::{ListenAddress, Problem};
use crate::domain::{Clock, GrantBook};
use crate::gate::Gate;
use crate::grants::{Settings, Tenants};
use crate::lifecycle::{DRAIN_LIMIT, Readiness};
use crate::lookup::Directory;
use crate::serve::{self, AdminState, Bound, CheckServer, HttpLimits, Listener, ReloadStatus};
use crate::telemetry::{Metrics, dropped_lines};
use crate::token::{Throttle, TokenService};

/// Long enough for a health check to notice that this process goes away, before it does.
const LAME_DUCK: Duration = Duration::from_secs(1);
/// Scrapers and probes; nobody else has business there.
const ADMIN_CONNECTIONS: usize = 64;

/// What the caller of [`start`] decides.
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    /// Where checks run, apart from everything else.
    pub check_runtime: Handle,
}

/// Where the listeners are bound.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub check: Bound,
    pub token: Option<Bound>,
    pub admin: Bound,
}

/// A running tenantgate.
pub struct Running {
    pub addresses: Addresses,
    readiness: Readiness,
    reloader: Arc<Reloader>,
    background: CancellationToken,
    /// Stops the token and admin listeners and the checks, in the order of their closing.
    stop: Stop,
    tasks: JoinSet<anyhow::Result<()>>,
}

#[derive(Clone, Default)]
struct Stop {
    callers: CancellationToken,
    admin: CancellationToken,
}

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the config has {} problem(s)", .0.len())]
    Config(Vec<Problem>),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Brings everything up and returns once all listeners are bound and ready.
pub async fn start(config_path: &Path, environment: Environment) -> Result<Running, StartError> {
    let Environment { clock, check_runtime } = environment;
    let process_key = ProcessKey::generate()?;
    let loaded = Loaded::read(config_path, &process_key).map_err(StartError::Config)?;
    let metrics = Arc::new(Metrics::new());
    let readiness = Readiness::default();
    let starting = readiness.guard();

    let tenants = start_tenants(&loaded, &clock, &metrics)?;
    let snapshot = Arc::new(ArcSwap::from_pointee(loaded.snapshot(&metrics)));
    let mint = loaded.mint_context().map(|context| Arc::new(ArcSwap::from_pointee(context)));
    let issuers = Arc::new(RemoteIssuers::new(
        Arc::clone(&snapshot),
        Arc::clone(&clock),
        Arc::clone(&metrics),
    ));
    issuers.follow(&loaded.config.issuers).context("no HTTP client for other issuers' keys")?;

    let reloader = Arc::new(Reloader {
        config_path: PathBuf::from(config_path),
        process_key,
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        tenants: Arc::clone(&tenants),
        snapshot: Arc::clone(&snapshot),
        mint: mint.clone(),
        issuers: Arc::clone(&issuers),
        status: ReloadStatus::default(),
        running: Mutex::new(RunningWith::new(&loaded)),
        look: Notify::new(),
    });

    let cache = Arc::new(FactsCache::new(loaded.config.limits.token_cache_bytes));
    let check = CheckServer(Arc::new(Gate {
        snapshot: Arc::clone(&snapshot),
        cache: Arc::clone(&cache),
        probes: ProbeWatch::default(),
        grants: Arc::clone(&tenants) as Arc<dyn GrantBook>,
        clock: Arc::clone(&clock),
        metrics: Arc::clone(&metrics),
        hints: take_hints(Arc::clone(&tenants), issuers, Arc::clone(&reloader)),
        decision_ids: AtomicU64::new(clock.now().nanos()),
    }));

    let mut tasks = JoinSet::new();
    let stop = Stop::default();
    let background = CancellationToken::new();
    let listen = &loaded.config.listen;

    let check_address = {
        let (readiness, address) = (readiness.clone(), listen.check.clone());
        let bind = async move { Listener::bind(&address).await };
        let bound = check_runtime.spawn(bind).await.context("binding listen.check")?;
        let (listener, bound) = bound.with_context(|| cannot_listen("check", &listen.check))?;
        let shutdown = stop.callers.clone().cancelled_owned();
        let served = serve::serve_check(listener, check, readiness, shutdown);
        tasks.spawn_on(served.map(Ok), &check_runtime);
        bound
    };

    let token_address = match (&listen.token, mint) {
        (Some(address), Some(context)) => {
            let service = Arc::new(TokenService {
                context,
                authenticator: Authenticator::new(loaded.config.limits.slow_hashes),
                throttle: Throttle::new(loaded.config.limits.failures_per_minute, &clock, &metrics),
                tenants: Arc::clone(&tenants),
                clock: Arc::clone(&clock),
                metrics: Arc::clone(&metrics),
            });
            let limits = &loaded.config.limits;
            let router = serve::token_router(service, limits.trusted_proxies);
            let limits = HttpLimits::with_connections(limits.token_connections);
            let shutdown = stop.callers.clone();
            Some(spawn_http(&mut tasks, "token", address, (router, limits), shutdown).await?)
        }
        _ => None,
    };

    let admin = AdminState {
        readiness: readiness.clone(),
        metrics: Arc::clone(&metrics),
        reload: reloader.status.clone(),
        before_scrape: gauges(&metrics, cache, snapshot, &reloader),
    };
    let admin = (serve::admin_router(admin), HttpLimits::with_connections(ADMIN_CONNECTIONS));
    let shutdown = stop.admin.clone();
    let admin_address = spawn_http(&mut tasks, "admin", &listen.admin, admin, shutdown).await?;

    tokio::spawn(Arc::clone(&tenants).run(background.clone()));
    reload::watch(Arc::clone(&reloader), background.clone());
    drop(starting);
    let addresses = Addresses { check: check_address, token: token_address, admin: admin_address };
    Ok(Running { addresses, readiness, reloader, background, stop, tasks })
}

impl Running {
    /// Reads the files again. What is wrong with them leaves everything as it was.
    pub async fn reload(&self) -> Result<(), Vec<Problem>> {
        let reloader = Arc::clone(&self.reloader);
        // Reading a large registry takes a while, and argon2id strings are parsed.
        match tokio::task::spawn_blocking(move || reloader.reload()).await {
            Ok(outcome) => outcome,
            Err(panicked) => {
                let message = format!("reading the files failed: {panicked}; report this");
                Err(vec![Problem { field: "config".to_owned(), message }])
            }
        }
    }

    /// A listener that fails ends the process.
    pub async fn failure(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(panicked)) => anyhow::Error::new(panicked).context("a listener failed"),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("a listener ended"),
        }
    }

    /// Not ready first, then no new work, then the end of what is under way, within a bound.
    pub async fn drain(mut self) {
        self.readiness.start_draining();
        tokio::time::sleep(LAME_DUCK).await;
        self.stop.callers.cancel();
        self.background.cancel();
        let stop_admin = self.stop.admin.clone();
        let admin_last = async {
            while self.tasks.len() > 1 {
                self.tasks.join_next().await;
            }
            stop_admin.cancel();
            while self.tasks.join_next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN_LIMIT.saturating_sub(LAME_DUCK), admin_last).await.is_err() {
            tracing::warn!(limit = ?DRAIN_LIMIT, "connections were still open at the end of draining");
        }
    }
}

fn start_tenants(
    loaded: &Loaded,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Tenants>, StartError> {
    let lookup = &loaded.config.tenants.lookup;
    let directory = Directory::new(lookup, Arc::clone(clock), Arc::clone(metrics))
        .map_err(|problem| StartError::Config(vec![problem]))?;
    let settings = settings(loaded, directory);
    Ok(Tenants::new(settings, Arc::clone(clock), Arc::clone(metrics)))
}

fn settings(loaded: &Loaded, directory: Arc<Directory>) -> Settings {
    let issuer = loaded.config.issuer.as_ref().map_or("", |issuer| &issuer.url);
    let digester = Arc::clone(&loaded.digester);
    Settings::new(directory, loaded.config.tenants.freshness, digester, issuer.into())
}

fn cannot_listen(name: &str, address: &ListenAddress) -> String {
    let address = match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    };
    format!(
        "listen.{name}: cannot listen on {address}; choose another address or stop what uses it"
    )
}

async fn spawn_http(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    name: &'static str,
    address: &ListenAddress,
    (router, limits): (axum::Router, HttpLimits),
    shutdown: CancellationToken,
) -> Result<Bound, StartError> {
    let bound = Listener::bind(address).await;
    let (listener, bound) = bound.with_context(|| cannot_listen(name, address))?;
    let Listener::Tcp(listener) = listener else {
        return Err(anyhow::anyhow!("listen.{name}: must be IP:PORT").into());
    };
    tasks.spawn(async move {
        serve::serve_http(listener, router, limits, shutdown).await;
        Ok(())
    });
    Ok(bound)
}

/// Passes a decision's wishes on. Nothing here blocks or waits.
fn take_hints(
    tenants: Arc<Tenants>,
    issuers: Arc<RemoteIssuers>,
    reloader: Arc<Reloader>,
) -> Box<dyn Fn(Hint) + Send + Sync> {
    Box::new(move |hint| match hint {
        Hint::Grants(client) => tenants.hint(&client),
        Hint::Miss(client) => tenants.hint_miss(&client),
        Hint::UnknownKey { issuer } => {
            issuers.hint_unknown_key(&issuer);
            reloader.hint_unknown_key();
        }
    })
}

/// The gauges that nobody keeps up to date between scrapes.
fn gauges(
    metrics: &Arc<Metrics>,
    cache: Arc<FactsCache>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    reloader: &Arc<Reloader>,
) -> Arc<dyn Fn() + Send + Sync> {
    let entries = metrics.cache_entries.with_label_values(&["tokens"]);
    let bytes = metrics.cache_bytes.with_label_values(&["tokens"]);
    let hits = metrics.cache_hits.with_label_values(&["tokens"]);
    let misses = metrics.cache_misses.with_label_values(&["tokens"]);
    let (clients, key_created) = (metrics.clients.clone(), metrics.signing_key_created.clone());
    let reloader = Arc::clone(reloader);
    let lines_dropped = metrics.log_lines_dropped.clone();
    Arc::new(move || {
        lines_dropped.inc_by(dropped_lines().saturating_sub(lines_dropped.get()));
        entries.set(cache.len() as i64);
        bytes.set(cache.bytes() as i64);
        let (hit, missed) = cache.hits_and_misses();
        hits.inc_by(hit.saturating_sub(hits.get()));
        misses.inc_by(missed.saturating_sub(misses.get()));
        clients.set(snapshot.load().clients.as_ref().map_or(0, |book| book.len()) as i64);
        if let Some(created) = reloader.signing_key_created() {
            key_created.set(created.secs() as f64);
        }
    })
}
