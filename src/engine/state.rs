//! The state in the composition: what is kept for longer than this process lives.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::digest;
use tokio_util::sync::CancellationToken;

use super::shared::StateAnswers;
use super::{Engine, StartError};
use crate::config::{self, StateEngine};
use crate::domain::{ClientChange, ClientId, TenantRefs, Withdrawals};
use crate::state::{
    Backend, ClientContext, FeedSettings, PostgresSettings, Record, Retention, Sealer, State,
    StateKey,
};

/// How often a start that waits for the state looks whether it is there.
const LOOK: Duration = Duration::from_millis(50);

/// Where the config wants the state.
pub fn backend(config: &StateEngine) -> Backend {
    match config {
        StateEngine::Sqlite(path) => Backend::Sqlite(path.clone()),
        StateEngine::Postgres { url, ca_pem } => {
            Backend::Postgres(PostgresSettings { url: url.0.clone(), ca_pem: ca_pem.clone() })
        }
    }
}

/// Nothing is known yet.
pub(super) fn withdrawals(config: &config::State) -> Arc<Withdrawals> {
    Arc::new(Withdrawals::new(tenant_refs(config)))
}

/// What names tenants in rows names them in logs and metadata too.
pub(super) fn tenant_refs(config: &config::State) -> TenantRefs {
    StateKey::new(config.key.clone()).tenant_refs()
}

/// Tells one config of the state from another without keeping its secrets.
pub(super) fn fingerprint(config: Option<&config::State>) -> String {
    let Some(config) = config else { return String::new() };
    let mut hash = digest::Context::new(&digest::SHA256);
    let place = match &config.engine {
        StateEngine::Sqlite(path) => format!("sqlite {}", path.display()),
        StateEngine::Postgres { url, ca_pem } => {
            hash.update(url.0.expose().as_bytes());
            format!("postgres {ca_pem:?}")
        }
    };
    hash.update(&*config.key);
    let rest = format!(
        "{place} {:?} {:?} {:?} {:?}",
        config.poll, config.snapshot, config.keep_audit, config.keep_usage
    );
    hash.update(rest.as_bytes());
    hex::encode(hash.finish())
}

impl Engine {
    /// Opens the state, if the config has one, and reads what is there. A database that is away is
    /// no error: nothing is decided until it has been read, or a local copy of it.
    pub async fn open_state(self: &Arc<Self>) -> Result<(), StartError> {
        let config = self.config();
        let (Some(config), Some(withdrawals)) = (&config.state, self.withdrawals()) else {
            return Ok(());
        };
        let key = StateKey::new(config.key.clone());
        let opened = backend(&config.engine).open(Arc::clone(&self.clock)).await;
        let store = opened.map_err(anyhow::Error::new).context("state")?;
        let settings = FeedSettings {
            poll: config.poll,
            retention: Retention { audit: config.keep_audit, usage: config.keep_usage },
            snapshot: config.snapshot.clone(),
            key_id: key.id(),
            credentials: self.keeps_credentials(),
        };
        let (engine, sealer) = (Arc::downgrade(self), key.sealer());
        let clients = Box::new(move |records: &[Arc<Record>]| {
            if let Some(engine) = engine.upgrade() {
                engine.take_stored_clients(&sealer, records);
            }
        });
        let clock = Arc::clone(&self.clock);
        let state = Arc::new(State::new(store, withdrawals, clients, clock, settings));
        state.start().await.map_err(anyhow::Error::new).context("state")?;
        if matches!(config.engine, StateEngine::Postgres { .. }) {
            let (state, clock) = (Arc::clone(&state), Arc::clone(&self.clock));
            self.tenants.share_by(Arc::new(StateAnswers::new(state, key.sealer(), clock)));
        }
        // Opened once: a changed section takes effect at the next start.
        let _ = self.state_key.set(key);
        let _ = self.state.set(state);
        Ok(())
    }

    /// `None`: the config has no state, or it has not been opened.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.state.get()
    }

    /// What the state was opened with.
    pub fn state_key(&self) -> Option<&StateKey> {
        self.state_key.get()
    }

    /// What is withdrawn by calls. `None`: the config has no state.
    pub fn withdrawals(&self) -> Option<Arc<Withdrawals>> {
        self.gate.snapshot.load().withdrawals.clone()
    }

    /// Returns once what has been withdrawn is known.
    pub async fn state_known(&self) {
        let Some(withdrawals) = self.withdrawals() else { return };
        while !withdrawals.is_known() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stored clients carry digests of their tenants, which a rotated key makes again.
    pub(super) fn read_stored_clients_again(&self) {
        if let Some(state) = self.state() {
            state.tell_clients_again();
        }
    }

    /// A process that only checks proves no clients, unless by API keys, and changes none.
    fn keeps_credentials(&self) -> bool {
        let config = self.config_now();
        let takes_keys = config.apis.iter().any(|api| api.api_key_header.is_some());
        self.mint.is_some() || takes_keys || config.listen.management.is_some()
    }

    pub(super) fn follow_use_of_credentials(&self) {
        if let Some(state) = self.state() {
            state.keep_credentials(self.keeps_credentials());
        }
    }

    fn take_stored_clients(&self, sealer: &Sealer, records: &[Arc<Record>]) {
        let snapshot = self.gate.snapshot.load();
        let context = ClientContext {
            sealer,
            digester: &snapshot.digester,
            issuer: &snapshot.own_issuer,
            static_lookup: self.static_lookup.load(Ordering::Relaxed),
        };
        let change = |record: &Arc<Record>| match context.client(record) {
            Some(client) => Some(ClientChange::Put(Arc::new(client))),
            None => ClientId::parse(&record.key.client).map(ClientChange::Remove),
        };
        self.change_clients(records.iter().filter_map(change).collect());
    }

    pub(super) fn run_state(&self, stop: &CancellationToken) {
        let Some(state) = self.state().cloned() else { return };
        self.tasks.spawn("state", stop.clone(), move || {
            let state = Arc::clone(&state);
            async move { state.run().await }
        });
    }

    /// A line of `/readyz?verbose`.
    pub(super) fn describe_state(&self, text: &mut String) {
        let Some(state) = self.state() else { return };
        let health = state.health();
        let age = match health.followed_at {
            Some(_) => format!("{} s old", state.age().as_secs()),
            None => "never read".to_owned(),
        };
        let copy = if health.from_snapshot { ", from the local copy" } else { "" };
        let _ = match &health.trouble {
            None => writeln!(text, "state: ok, {age}{copy}"),
            Some(trouble) => writeln!(text, "state: {trouble}; {age}{copy}"),
        };
    }

    /// Brings the gauges of the state up to date.
    pub fn measure_state(&self) {
        let (Some(state), Some(gauges)) = (self.state(), &self.state_gauges) else { return };
        let health = state.health();
        gauges.age.set(state.age().as_secs_f64());
        gauges.ok.set(i64::from(health.trouble.is_none()));
        gauges.withdrawals.set(state.withdrawals().len() as i64);
        gauges.differences.inc_by(health.differences.saturating_sub(gauges.differences.get()));
    }
}
