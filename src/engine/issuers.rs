use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::compose::foreign_policy;
use super::inputs::issuer_source;
use crate::authz::Snapshot;
use crate::authz::trust::KeySet;
use crate::config::{KeySource, Problem, TrustedIssuer};
use crate::domain::Clock;
use crate::keys::{Location, RemoteKeys};
use crate::lifecycle::Supervisor;
use crate::sources::SourceStatus;
use crate::telemetry::Metrics;

/// The tasks that keep other issuers' keys fresh: one for each that is not read from a file.
pub struct RemoteIssuers {
    snapshot: Arc<ArcSwap<Snapshot>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tasks: Supervisor,
    /// Swapped whole: a check that leaves a hint never waits.
    running: ArcSwap<HashMap<String, Follower>>,
}

#[derive(Clone)]
struct Follower {
    config: TrustedIssuer,
    keys: Arc<RemoteKeys>,
    _stop_on_drop: Arc<DropGuard>,
}

impl RemoteIssuers {
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        tasks: Supervisor,
    ) -> Self {
        Self { snapshot, clock, metrics, tasks, running: ArcSwap::default() }
    }

    /// Starts what is new, stops what is gone, and leaves alone what is as it was. An issuer that cannot be
    /// followed takes nothing from the others. One call at a time.
    pub fn follow(&self, issuers: &[TrustedIssuer]) -> Vec<Problem> {
        let running = self.running.load();
        let mut next = HashMap::new();
        let mut problems = Vec::new();
        for (index, issuer) in issuers.iter().enumerate() {
            let Some(location) = location(issuer) else { continue };
            let same = running.get(&issuer.issuer).filter(|running| running.config == *issuer);
            let follower = same.cloned().map_or_else(|| self.start(issuer, location), Ok);
            match follower {
                Ok(follower) => {
                    next.insert(issuer.issuer.clone(), follower);
                }
                Err(error) => problems.push(Problem::new(
                    format!("issuers[{index}]"),
                    format!("no HTTP client for its keys ({error})"),
                    "check the system's TLS set-up",
                )),
            }
        }
        self.running.store(Arc::new(next));
        problems
    }

    fn start(
        &self,
        issuer: &TrustedIssuer,
        location: Location,
    ) -> Result<Follower, reqwest::Error> {
        let snapshot = Arc::clone(&self.snapshot);
        let policy = foreign_policy(issuer);
        let publish = Arc::new(move |_: &str, keys: KeySet| {
            let keys = Arc::new(keys);
            snapshot.rcu(|current| {
                let trust = current.trust.with_keys(&policy, &keys);
                Snapshot { trust: Arc::new(trust), ..Snapshot::clone(current) }
            });
        });
        let (clock, metrics) = (Arc::clone(&self.clock), Arc::clone(&self.metrics));
        let keys = Arc::new(RemoteKeys::new(issuer, location, clock, metrics, publish)?);
        let stop = CancellationToken::new();
        let following = Arc::clone(&keys);
        self.tasks.spawn("issuer_keys", stop.clone(), move || {
            let following = Arc::clone(&following);
            async move { following.run().await }
        });
        Ok(Follower { config: issuer.clone(), keys, _stop_on_drop: Arc::new(stop.drop_guard()) })
    }

    pub fn hint_unknown_key(&self, issuer: &str) {
        if let Some(follower) = self.running.load().get(issuer) {
            follower.keys.hint_unknown_kid();
        }
    }

    pub fn statuses(&self) -> Vec<SourceStatus> {
        let status = |(issuer, follower): (&String, &Follower)| {
            let fetched = follower.keys.status();
            SourceStatus {
                name: issuer_source(issuer),
                in_force: fetched.last_success.is_some(),
                confirmed_at: fetched.last_success,
                problems: fetched.error.into_iter().collect(),
            }
        };
        let mut all: Vec<_> = self.running.load().iter().map(status).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn location(issuer: &TrustedIssuer) -> Option<Location> {
    match &issuer.keys {
        KeySource::Url(url) => Some(Location::Jwks(url.clone())),
        KeySource::Discovery(url) => Some(Location::Discovery(url.clone())),
        KeySource::File(_) => None,
    }
}
