use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;

use super::issuers::RemoteIssuers;
use super::load::{Loaded, ProcessKey};
use super::{StartError, start_tenants};
use crate::authz::{self, Authorizer, CheckInput, FactsCache, Observer, Snapshot};
use crate::domain::{Clock, DenyReason};
use crate::grants::{Outcome, Tenants};
use crate::telemetry::Metrics;

/// How long other issuers' keys may take to load.
const KEYS_PATIENCE: Duration = Duration::from_secs(8);

/// All that a running process decides with, without listeners: for commands that ask one question.
pub struct Offline {
    pub loaded: Loaded,
    pub tenants: Arc<Tenants>,
    pub clock: Arc<dyn Clock>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    cache: FactsCache,
    _issuers: RemoteIssuers,
}

impl Offline {
    pub fn open(config: &Path, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let process_key = ProcessKey::generate()?;
        let loaded = Loaded::read(config, &process_key).map_err(StartError::Config)?;
        let metrics = Arc::new(Metrics::new());
        let tenants = start_tenants(&loaded, &clock, &metrics)?;
        let snapshot = Arc::new(ArcSwap::from_pointee(loaded.snapshot(&metrics)));
        let issuers = RemoteIssuers::new(Arc::clone(&snapshot), Arc::clone(&clock), metrics);
        issuers.follow(&loaded.config.issuers).context("no HTTP client for issuers' keys")?;
        let cache = FactsCache::new(loaded.config.limits.token_cache_bytes);
        Ok(Self { loaded, tenants, clock, snapshot, cache, _issuers: issuers })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Decides with what is known now.
    pub fn decide<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        input: &CheckInput<'a>,
        observer: &mut impl Observer,
    ) -> authz::Outcome<'a> {
        let (grants, now) = (&*self.tenants, self.clock.now());
        Authorizer { snapshot, cache: &self.cache, grants, probes: None, now }
            .decide(input, observer)
    }

    /// Makes known what a decision on this input needs: the keys of the token's issuer and the grants of its
    /// client, by a real lookup. Says what it did.
    pub async fn prepare(&self, input: &CheckInput<'_>) -> Option<String> {
        let wait = async {
            loop {
                let snapshot = self.snapshot();
                let outcome = self.decide(&snapshot, input, &mut ());
                if outcome.denied() != Some(DenyReason::KeysUnavailable) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // Without keys the decision itself says so.
        let _ = tokio::time::timeout(KEYS_PATIENCE, wait).await;
        let snapshot = self.snapshot();
        let outcome = self.decide(&snapshot, input, &mut ());
        let client = outcome.looked_up_client(&snapshot)?;
        Some(told(&self.tenants.grants(&client).await))
    }
}

/// The outcome of a lookup in a few words, without a code.
pub fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Granted(grants) => format!("granted, {} tenants", grants.codes.len()),
        Outcome::Denied(_) => "no tenant has authorised this client".to_owned(),
        Outcome::Unavailable(reason) => format!("unavailable: {reason}"),
    }
}
