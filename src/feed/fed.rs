use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::FeedError;
use super::cells::Cells;
use super::follow::follow;
use super::stage::{Committed, Place, Stage};
use super::v1::Commit;
use crate::authz::{Apis, FactsCache, FreshnessRule, Hint, ProbeWatch, Probing, Snapshot, Trust};
use crate::domain::{Clock, DIGEST_KEY_LEN, DenyReason, GrantBook, Monotonic, TenantDigester};
use crate::gate::{Answer, Gate, Ledger, Request};
use crate::lifecycle::Supervisor;
use crate::telemetry::Metrics;

/// Hints that wait for the connection. What does not fit is hinted again by the next request.
const HINTS: usize = 1024;

/// Decides with what the sidecar has told, as long as that is young enough.
pub struct Fed {
    gate: Gate,
    pub(super) cells: Arc<Cells>,
    /// When what is in force was confirmed last, in nanoseconds. Zero: nothing is in force.
    confirmed_at: AtomicU64,
    /// How long that may be ago, in nanoseconds.
    max_age: AtomicU64,
    pub(super) hints: Mutex<mpsc::Receiver<Hint>>,
}

impl Fed {
    /// Nothing is known yet.
    pub fn new(clock: Arc<dyn Clock>, token_cache_bytes: u64) -> Self {
        let metrics = Arc::new(Metrics::new());
        let cells = Arc::new(Cells::default());
        let (hint, hints) = mpsc::channel(HINTS);
        let asking = Arc::clone(&cells);
        let gate = Gate {
            timed: false,
            snapshot: Arc::new(ArcSwap::from_pointee(blank(&metrics))),
            cache: Arc::new(FactsCache::new(token_cache_bytes)),
            probes: ProbeWatch::default(),
            ledger: Ledger::default(),
            grants: Arc::clone(&cells) as Arc<dyn GrantBook>,
            hints: Box::new(move |wish| ask(&asking, &hint, wish)),
            decision_ids: AtomicU64::new(clock.now().nanos()),
            clock,
            metrics,
        };
        let (confirmed_at, max_age) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { gate, cells, confirmed_at, max_age, hints: Mutex::new(hints) }
    }

    /// Decides, or says that nothing can be decided.
    pub fn answer<R>(&self, request: &Request<'_>, render: impl Fn(&Answer<'_>) -> R) -> R {
        if self.is_fresh() {
            self.gate.answer(Some(request), render)
        } else {
            self.gate.refuse(DenyReason::FeedUnavailable, render)
        }
    }

    /// The answer where something of ours has panicked.
    pub fn failed<R>(&self, render: impl Fn(&Answer<'_>) -> R) -> R {
        self.gate.failed(render)
    }

    /// Whether what is in force has been confirmed within its time.
    pub fn is_fresh(&self) -> bool {
        let confirmed_at = self.confirmed_at.load(Ordering::Acquire);
        let age = self.now().since(Monotonic::from_nanos(confirmed_at));
        confirmed_at != 0 && age <= Duration::from_nanos(self.max_age.load(Ordering::Relaxed))
    }

    /// Follows the feed at `socket` until `stop`. `config` is the file that the sidecar should run
    /// with.
    pub fn run(self: &Arc<Self>, socket: &Path, config: &Path, stop: &CancellationToken) {
        let (fed, stopped) = (Arc::clone(self), stop.clone());
        let (socket, config) = (socket.to_owned(), config.to_owned());
        let tasks = Supervisor::new(self.gate.metrics.task_restarts.clone());
        tasks.spawn("feed", stop.clone(), move || {
            let (fed, stopped) = (Arc::clone(&fed), stopped.clone());
            let (socket, config) = (socket.clone(), config.clone());
            async move {
                stopped.run_until_cancelled(follow(&fed, &socket, &config)).await;
            }
        });
    }

    #[cfg(test)]
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.gate.snapshot.load_full()
    }

    pub(super) fn now(&self) -> Monotonic {
        self.gate.clock.monotonic()
    }

    /// Takes what was told up to a commit. `first`: of a connection.
    pub(super) fn commit(
        &self,
        stage: Stage,
        commit: Commit,
        first: bool,
    ) -> Result<(), FeedError> {
        let now = self.gate.clock.moment();
        let on_its_way =
            Duration::from_nanos(now.wall.nanos().saturating_sub(commit.sent_at_nanos));
        let sent_at = now.monotonic.minus(on_its_way);
        let place = Place { sent_at, metrics: &self.gate.metrics };
        let before = self.gate.snapshot.load_full();
        if first || !stage.is_empty() {
            let take = if first { Stage::begin } else { Stage::apply };
            let Committed { snapshot, feed_max_age } = take(stage, &self.cells, &before, place)?;
            self.gate.snapshot.store(snapshot);
            if let Some(age) = feed_max_age {
                let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
                self.max_age.store(nanos, Ordering::Relaxed);
            }
        }
        self.confirmed_at.store(sent_at.nanos(), Ordering::Release);
        Ok(())
    }
}

/// One wish for a client at a time, until it is served or a moment has passed.
fn ask(cells: &Cells, hints: &mpsc::Sender<Hint>, wish: Hint) {
    let client = match &wish {
        Hint::Grants(client) | Hint::Miss(client) => Some(cells.cell(client)),
        Hint::UnknownKey { .. } => None,
    };
    if client.as_ref().is_none_or(|cell| cell.want())
        && hints.try_send(wish).is_err()
        && let Some(cell) = client
    {
        cell.served();
    }
}

/// Lets nothing pass, and is never asked: [`Fed::is_fresh`] comes first.
fn blank(metrics: &Metrics) -> Snapshot {
    Snapshot {
        apis: Arc::new(Apis::new(Vec::new())),
        trust: Arc::new(Trust::default()),
        clients: None,
        digester: Arc::new(TenantDigester::new(&[0; DIGEST_KEY_LEN], None)),
        withdrawals: None,
        own_issuer: "".into(),
        freshness: FreshnessRule::MaxAge(Duration::ZERO),
        lookup_on_miss: false,
        probing: Probing { tenants: 0, window: Duration::ZERO, throttle: false },
        realm: "tenantgate".into(),
        no_api: Arc::new(metrics.api("none")),
        issuer_meters: Arc::default(),
    }
}
