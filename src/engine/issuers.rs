use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::compose::{foreign_policy, own_policy};
use super::inputs::issuer_source;
use crate::authz::trust::KeySet;
use crate::authz::{IssuerPolicy, Snapshot};
use crate::config::{Config, KeySource, OwnKeys, TrustedIssuer};
use crate::domain::Problem;
use crate::keys::{KeysOf, Location, RemoteKeys, WantedKeys, key_client};
use crate::lifecycle::Supervisor;
use crate::outbound::{Reach, built};
use crate::sources::SourceStatus;
use crate::telemetry::Instruments;

/// The tasks that keep fetched keys fresh: one for each issuer whose keys are not read from a file.
pub struct RemoteIssuers {
    snapshot: Arc<ArcSwap<Snapshot>>,
    instruments: Instruments,
    tasks: Supervisor,
    /// Swapped whole: a check that leaves a hint never waits.
    running: ArcSwap<HashMap<String, Follower>>,
}

/// An issuer whose keys are fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// The section of the config.
    field: String,
    policy: Arc<IssuerPolicy>,
    location: Location,
    reach: Reach,
}

impl Followed {
    pub fn all(config: &Config) -> Vec<Self> {
        let own = config.issuer.as_ref().and_then(|issuer| {
            let OwnKeys::Url { url, tls, proxy } = &issuer.keys else { return None };
            Some(Self {
                field: "issuer".to_owned(),
                policy: Arc::new(own_policy(config, issuer)),
                location: Location::Jwks(url.clone()),
                reach: Reach { tls: tls.clone(), proxy: proxy.clone() },
            })
        });
        let others = config.issuers.iter().enumerate();
        let others = others.filter_map(|(index, issuer)| {
            Some(Self {
                field: format!("issuers[{index}]"),
                policy: Arc::new(foreign_policy(issuer)),
                location: location(issuer)?,
                reach: Reach { tls: issuer.tls.clone(), proxy: issuer.proxy.clone() },
            })
        });
        own.into_iter().chain(others).collect()
    }

    fn is_as(&self, other: &Self) -> bool {
        // Where it is in the config does not matter.
        Self { field: other.field.clone(), ..self.clone() } == *other
    }
}

#[derive(Clone)]
struct Follower {
    followed: Followed,
    keys: Arc<RemoteKeys>,
    _stop_on_drop: Arc<DropGuard>,
}

impl RemoteIssuers {
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        instruments: Instruments,
        tasks: Supervisor,
    ) -> Self {
        Self { snapshot, instruments, tasks, running: ArcSwap::default() }
    }

    /// Starts what is new, stops what is gone, and leaves alone what is as it was. An issuer that
    /// cannot be followed takes nothing from the others. One call at a time.
    pub fn follow(&self, config: &Config) -> Vec<Problem> {
        let running = self.running.load();
        let mut next = HashMap::new();
        let mut problems = Vec::new();
        for followed in Followed::all(config) {
            let issuer = followed.policy.issuer.clone();
            let same = running.get(&issuer).filter(|running| running.followed.is_as(&followed));
            match same.cloned().map_or_else(|| self.start(followed), Ok) {
                Ok(follower) => {
                    next.insert(issuer, follower);
                }
                Err(problem) => problems.push(problem),
            }
        }
        self.running.store(Arc::new(next));
        problems
    }

    fn start(&self, followed: Followed) -> Result<Follower, Problem> {
        let snapshot = Arc::clone(&self.snapshot);
        let policy = Arc::clone(&followed.policy);
        let publish = Arc::new(move |_: &str, keys: KeySet| {
            put_in_force(&snapshot, &policy, &Arc::new(keys));
        });
        let Followed { field, policy, location, reach } = &followed;
        let builder = reach.builder(field, &[location.url().as_str()])?;
        let client = built(key_client(builder), field)?;
        let (issuer, wanted) = (policy.issuer.clone(), WantedKeys::of(policy));
        let of = KeysOf { issuer, wanted, own: policy.own };
        let keys = RemoteKeys::new(of, location.clone(), client, self.instruments.clone(), publish);
        let keys = Arc::new(keys);
        let stop = CancellationToken::new();
        let following = Arc::clone(&keys);
        self.tasks.spawn("issuer_keys", stop.clone(), move || {
            let following = Arc::clone(&following);
            async move { following.run().await }
        });
        Ok(Follower { followed, keys, _stop_on_drop: Arc::new(stop.drop_guard()) })
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

/// A reload may swap the snapshot at the same time; neither takes back what the other did.
fn put_in_force(snapshot: &ArcSwap<Snapshot>, policy: &IssuerPolicy, keys: &Arc<KeySet>) {
    snapshot.rcu(|current| {
        let trust = current.trust.with_keys(policy, keys);
        Snapshot { trust: Arc::new(trust), ..Snapshot::clone(current) }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::domain::SystemClock;
    use crate::engine::Engine;
    use crate::sources::Look;

    /// Nobody answers at its address.
    const CONFIG: &str = "
listen: { check: '127.0.0.1:0', admin: '127.0.0.1:0' }
issuers:
  - issuer: https://other.test
    jwks_url: http://127.0.0.1:9/jwks
    audience: https://api.test
    tenant_claim: /tenants
    client_claim: /azp
apis: [{ name: oda, routes: [{ path: '/{tenant}', methods: [GET] }] }]
";

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reload_takes_no_keys_back_that_are_published_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tenantgate.yaml");
        std::fs::write(&file, CONFIG).unwrap();
        let engine = Engine::open(&file, Arc::new(SystemClock)).unwrap();
        let snapshot = Arc::clone(&engine.gate.snapshot);
        let trust = Arc::clone(&snapshot.load().trust);
        let policy = Arc::clone(&trust.issuer("https://other.test").unwrap().policy);
        let (stop, reloads) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut kept = true;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert!(engine.reload(Look::Everything).is_empty());
                    reloads.fetch_add(1, Ordering::Relaxed);
                }
            });
            // So often that a publication meets every step of a reload.
            while kept && reloads.load(Ordering::Relaxed) < 200 {
                let keys = Arc::<KeySet>::default();
                put_in_force(&snapshot, &policy, &keys);
                kept = (0..20).all(|_| {
                    let in_force = snapshot.load().trust.keys_of(&policy);
                    in_force.is_some_and(|now| Arc::ptr_eq(&now, &keys))
                });
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(kept, "a reload put the keys from before it back");
    }
}
