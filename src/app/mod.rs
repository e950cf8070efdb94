//! The composition root: files in, running listeners out. The only place that wires parts together.

mod evidence;
mod listeners;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::engine::StartError;

use self::listeners::{Listeners, Planned};
use crate::clients::Authenticator;
use crate::config::{Config, Limits};
use crate::domain::{Clock, Problem};
use crate::engine::Engine;
use crate::lifecycle::{DRAIN_LIMIT, Readiness};
use crate::serve::{
    self, AdminState, Bound, CheckEdge, CheckServer, ForwardedBy, HttpLimits, Listener,
    MessageLimits,
};
use crate::sources::Look;
use crate::telemetry::{Metrics, dropped_lines};
use crate::token::{Throttle, TokenService};

/// Long enough for a health check to notice that this process goes away, before it does.
/// How long storing the last counts of use may hold up the end.
const LAST_COUNTS: Duration = Duration::from_secs(2);
const LAME_DUCK: Duration = Duration::from_secs(1);

/// What the caller of [`start`] decides.
pub struct Environment {
    /// Tests pass one of their own.
    pub clock: Arc<dyn Clock>,
    /// Where checks run, apart from everything else.
    pub check_runtime: Handle,
}

/// Where the listeners are bound.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For Envoy's checks.
    pub check: Bound,
    /// `None`: this process mints nothing.
    pub token: Option<Bound>,
    /// For probes and scrapers.
    pub admin: Bound,
    /// `None`: no module is fed.
    pub feed: Option<Bound>,
    /// `None`: no management API.
    pub management: Option<Bound>,
}

/// A running tenantgate.
pub struct Running {
    /// Where it listens, with the ports that it was given for port 0.
    pub addresses: Addresses,
    readiness: Readiness,
    engine: Arc<Engine>,
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

/// Brings everything up and returns once all listeners are bound and ready.
pub async fn start(config_path: &Path, environment: Environment) -> Result<Running, StartError> {
    let Environment { clock, check_runtime } = environment;
    let readiness = Readiness::default();
    let starting = readiness.guard();
    let engine = Engine::open(config_path, clock)?;
    engine.open_state().await?;
    evidence::open(&engine)?;
    engine.warn();
    let config = engine.config();
    let check = CheckServer(Arc::clone(&engine.gate));

    let mut tasks = JoinSet::new();
    let stop = Stop::default();
    let background = CancellationToken::new();
    let listeners = Listeners::plan(&config, &engine.clock, &engine.metrics);
    let listeners = listeners?;
    let status = listeners.status();
    for tls in status.certificates.iter().map(Arc::clone) {
        let follow = move || Arc::clone(&tls).follow();
        engine.tasks.spawn("certificates", background.clone(), follow);
    }
    let Listeners { check: planned, token, admin, management } = listeners;

    let check_address = {
        let bound = check_runtime.spawn(planned.bind()).await.context("binding listen.check")?;
        let (entrance, bound) = bound?;
        let shutdown = stop.callers.clone().cancelled_owned();
        let limits = message_limits(&engine, &config.limits);
        let edge = CheckEdge { check, limits, readiness: readiness.clone() };
        let served = serve::serve_check(entrance, edge, shutdown);
        tasks.spawn_on(served.map(Ok), &check_runtime);
        bound
    };

    let token_address = match (token, token_service(&engine, &config.limits)) {
        (Some(planned), Some(service)) => {
            let forwarded_by = ForwardedBy::of(&config.limits);
            let router = serve::token_router(service, Arc::clone(&engine), forwarded_by);
            Some(spawn_http(&mut tasks, planned, router, stop.callers.clone()).await?)
        }
        _ => None,
    };

    let management_address = match management {
        Some(planned) => {
            let router = serve::management_router(Arc::clone(&engine));
            Some(spawn_http(&mut tasks, planned, router, stop.callers.clone()).await?)
        }
        None => None,
    };

    let feed_address = match &config.listen.feed {
        Some(on) => {
            let bound = Listener::bind(&on.address).await;
            let (listener, bound) =
                bound.with_context(|| format!("listen.feed: cannot listen on {}", on.address))?;
            let (fed, config_path) = (Arc::clone(&engine), config_path.to_owned());
            let shutdown = stop.callers.clone().cancelled_owned();
            tasks.spawn(async move {
                serve::serve_feed(listener, fed, &config_path, shutdown).await;
                Ok(())
            });
            Some(bound)
        }
        None => None,
    };

    let described = Arc::clone(&engine);
    let state = AdminState {
        readiness: readiness.clone(),
        metrics: Arc::clone(&engine.metrics),
        describe: Arc::new(move || described.describe() + &status.describe()),
        before_scrape: gauges(&engine),
    };
    let router = serve::admin_router(state);
    let admin_address = spawn_http(&mut tasks, admin, router, stop.admin.clone()).await?;

    engine.run(&background);
    if engine.withdrawals().is_some_and(|withdrawals| !withdrawals.is_known()) {
        let (waiting, engine) = (readiness.guard(), Arc::clone(&engine));
        tokio::spawn(async move {
            engine.state_known().await;
            drop(waiting);
        });
    }
    drop(starting);
    let addresses = Addresses {
        check: check_address,
        token: token_address,
        admin: admin_address,
        feed: feed_address,
        management: management_address,
    };
    Ok(Running { addresses, readiness, engine, background, stop, tasks })
}

fn message_limits(engine: &Engine, limits: &Limits) -> Arc<MessageLimits> {
    let (message, unfinished) = (limits.check_message_bytes, limits.check_unfinished_bytes);
    MessageLimits::new(message, unfinished, &engine.metrics)
}

fn token_service(engine: &Engine, limits: &Limits) -> Option<Arc<TokenService>> {
    let context = Arc::clone(engine.mint.as_ref()?);
    let (clock, metrics) = (Arc::clone(&engine.clock), Arc::clone(&engine.metrics));
    Some(Arc::new(TokenService {
        context,
        authenticator: Authenticator::new(limits.slow_hashes),
        throttle: Throttle::new(limits.failures_per_minute, &clock, &metrics),
        tenants: Arc::clone(&engine.tenants),
        clock,
        metrics,
        audit: engine.gate.ledger.audit.get().cloned(),
    }))
}

impl Running {
    /// For tests, which look at what it knows.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Reads the files again. What one says is applied whatever is wrong with another; the error is
    /// everything that is wrong.
    pub async fn reload(&self) -> Result<(), Vec<Problem>> {
        let engine = Arc::clone(&self.engine);
        // Reading a large registry takes a while, and argon2id strings are parsed.
        match tokio::task::spawn_blocking(move || engine.reload(Look::Everything)).await {
            Ok(problems) if problems.is_empty() => Ok(()),
            Ok(problems) => Err(problems),
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
            tracing::warn!(limit = ?DRAIN_LIMIT, "connections were still open at the end of \
                                                  draining");
        }
        evidence::end_traces(&self.engine).await;
        let stored = tokio::time::timeout(LAST_COUNTS, self.engine.store_usage()).await;
        if !matches!(stored, Ok(Ok(()))) {
            tracing::warn!("the last counts of use could not be stored");
        }
    }
}

async fn spawn_http(
    tasks: &mut JoinSet<anyhow::Result<()>>,
    planned: Planned,
    router: axum::Router,
    shutdown: CancellationToken,
) -> Result<Bound, StartError> {
    let (entrance, bound) = planned.bind().await?;
    tasks.spawn(async move {
        serve::serve_http(entrance, router, HttpLimits::default(), shutdown).await;
        Ok(())
    });
    Ok(bound)
}

/// What is wrong with the certificates of a config's listeners.
pub fn certificate_problems(config: &Config, clock: &Arc<dyn Clock>) -> Vec<Problem> {
    Listeners::plan(config, clock, &Metrics::new()).err().unwrap_or_default()
}

/// The gauges that nobody keeps up to date between scrapes.
fn gauges(engine: &Arc<Engine>) -> Arc<dyn Fn() + Send + Sync> {
    let (engine, metrics) = (Arc::clone(engine), Arc::clone(&engine.metrics));
    let entries = metrics.cache_entries.with_label_values(&["tokens"]);
    let bytes = metrics.cache_bytes.with_label_values(&["tokens"]);
    let hits = metrics.cache_hits.with_label_values(&["tokens"]);
    let misses = metrics.cache_misses.with_label_values(&["tokens"]);
    Arc::new(move || {
        let lines_dropped = &metrics.log_lines_dropped;
        lines_dropped.inc_by(dropped_lines().saturating_sub(lines_dropped.get()));
        let cache = &engine.gate.cache;
        entries.set(cache.len() as i64);
        bytes.set(cache.bytes() as i64);
        let (hit, missed) = cache.hits_and_misses();
        hits.inc_by(hit.saturating_sub(hits.get()));
        misses.inc_by(missed.saturating_sub(misses.get()));
        metrics.clients.set(engine.clients().map_or(0, |book| book.len()) as i64);
        if let Some(created) = engine.signing_key_created() {
            metrics.signing_key_created.set(created.secs() as f64);
        }
        engine.measure_sources();
        engine.measure_state();
        engine.measure_evidence();
    })
}
