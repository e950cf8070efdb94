use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::compose::foreign_policy;
use crate::authz::Snapshot;
use crate::authz::trust::KeySet;
use crate::config::{KeySource, TrustedIssuer};
use crate::domain::Clock;
use crate::keys::{Location, RemoteKeys};
use crate::telemetry::Metrics;

/// The tasks that keep other issuers' keys fresh: one for each that is not read from a file.
pub struct RemoteIssuers {
    snapshot: Arc<ArcSwap<Snapshot>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    running: Mutex<HashMap<String, Follower>>,
}

struct Follower {
    config: TrustedIssuer,
    keys: Arc<RemoteKeys>,
    _stop_on_drop: DropGuard,
}

impl RemoteIssuers {
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { snapshot, clock, metrics, running: Mutex::default() }
    }

    /// Starts what is new, stops what is gone, and leaves alone what is as it was.
    pub fn follow(&self, issuers: &[TrustedIssuer]) -> Result<(), reqwest::Error> {
        let mut running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut kept = HashMap::new();
        for issuer in issuers {
            let Some(location) = location(issuer) else { continue };
            let same = running.remove(&issuer.issuer).filter(|follower| follower.config == *issuer);
            let follower = match same {
                Some(follower) => follower,
                None => self.start(issuer, location)?,
            };
            kept.insert(issuer.issuer.clone(), follower);
        }
        *running = kept;
        Ok(())
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
        let (following, stopped) = (Arc::clone(&keys), stop.clone());
        tokio::spawn(async move { following.run(stopped).await });
        Ok(Follower { config: issuer.clone(), keys, _stop_on_drop: stop.drop_guard() })
    }

    pub fn hint_unknown_key(&self, issuer: &str) {
        let running = self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(follower) = running.get(issuer) {
            follower.keys.hint_unknown_kid();
        }
    }
}

fn location(issuer: &TrustedIssuer) -> Option<Location> {
    match &issuer.keys {
        KeySource::Url(url) => Some(Location::Jwks(url.clone())),
        KeySource::Discovery(url) => Some(Location::Discovery(url.clone())),
        KeySource::File(_) => None,
    }
}
