//! What the provider knows, all of it in memory, and how it starts out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};

use crate::{
    faults::{Fault, Faults},
    upstream::RecordedRequest,
};

pub struct Provider {
    pub callout_secret: String,
    state: Mutex<State>,
}

pub struct State {
    pub clients: BTreeMap<String, Client>,
    pub counters: Counters,
    pub faults: Faults,
    pub token_lifetime: Duration,
    /// Every token issued, with its expiry.
    pub tokens: HashMap<String, SystemTime>,
    /// The public key of tenantgate's client assertions; with none `private_key_jwt` is refused.
    pub assertion_key: Option<DecodingKey>,
    /// The `jti` of every client assertion accepted, as each may be used once.
    pub used_assertions: BTreeSet<String>,
    pub upstream: VecDeque<RecordedRequest>,
}

/// An app as its lookup shows it: the tenants whose admins have authorised it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    pub tenants: BTreeSet<String>,
    #[serde(default = "default_plan")]
    pub plan: String,
}

#[derive(Default, Serialize)]
pub struct Counters {
    pub token_requests: u64,
    pub tokens_issued: u64,
    pub lookups: Lookups,
    /// Lookups answered with 304.
    pub not_modified: u64,
    pub upstream_requests: u64,
    /// Requests to where the fault "redirect" points; a careful caller leaves this at 0.
    pub attacker_requests: u64,
}

#[derive(Default, Serialize)]
pub struct Lookups {
    pub total: u64,
    pub by_client: BTreeMap<String, u64>,
}

impl Provider {
    pub fn new(callout_secret: String) -> Self {
        Self { callout_secret, state: Mutex::new(State::default()) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with the lock held")
    }
}

impl Default for State {
    fn default() -> Self {
        let clients =
            [("acme-analytics", Client::new(["T1001", "T1002"])), ("empty-app", Client::new([]))];
        Self {
            clients: clients.map(|(id, client)| (id.to_owned(), client)).into(),
            counters: Counters::default(),
            faults: Faults::default(),
            token_lifetime: Duration::from_secs(300),
            tokens: HashMap::new(),
            assertion_key: None,
            used_assertions: BTreeSet::new(),
            upstream: VecDeque::new(),
        }
    }
}

impl State {
    pub fn token_is_valid(&self, token: &str) -> bool {
        self.tokens.get(token).is_some_and(|expiry| now() < *expiry)
    }

    pub fn count_lookup(&mut self, client_id: &str) -> Option<Fault> {
        let lookups = &mut self.counters.lookups;
        lookups.total += 1;
        *lookups.by_client.entry(client_id.to_owned()).or_default() += 1;
        self.faults.lookup.take()
    }

    pub fn count_token_request(&mut self) -> Option<Fault> {
        self.counters.token_requests += 1;
        self.faults.token.take()
    }
}

impl Client {
    pub fn new<const N: usize>(tenants: [&str; N]) -> Self {
        Self { tenants: tenants.map(str::to_owned).into(), plan: default_plan() }
    }
}

fn default_plan() -> String {
    "gold".to_owned()
}

#[allow(clippy::disallowed_methods, reason = "the one place here that reads the clock")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
