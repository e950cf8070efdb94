//! Which tenants have authorised a client: the remembered answers of lookups, and the background
//! work that keeps them fresh while tokens live.

mod emptied;
mod entry;
mod outcome;
mod pace;
mod provider;
mod refresh;
mod shared;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};

use crate::config::{Freshness, Lookup, LookupLimits, MassAction, MassWithdrawal};
use crate::domain::{ClientId, GrantBook, GrantCell, GrantSet, Monotonic, Problem, TenantDigester};
use crate::lookup::{Directory, Joined, Question, TokenHealth, Unavailable};
use crate::telemetry::Instruments;

pub use entry::LastKnown;
pub use outcome::LookupOutcome;
pub use provider::Health;
pub use shared::{SharedAnswer, SharedAnswers, Turn, Wish};

use emptied::{Emptied, Lost};
use entry::{Answered, Cached, Entry, Kept};
use pace::Pace;
use provider::Provider;
use shared::Wanted;

/// Hints that wait for the background task. What does not fit is hinted again by the next check.
const HINTS: usize = 1024;
/// The lost tenants that one log line names.
const MAX_REFERENCES: usize = 20;
/// One refresh with its jitter, as a multiple of `refresh`.
const WINDOW: f64 = 1.2;
/// How long a mint waits for its client to be looked up again after a failure.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a reload can change.
pub struct Settings {
    /// Where grants are looked up.
    pub directory: Arc<Directory>,
    /// How often grants are refreshed, and how old they may be.
    pub freshness: Freshness,
    /// Makes the digests that checks compare grants by.
    pub digester: Arc<TenantDigester>,
    /// Our own issuer, for digests.
    pub issuer: Arc<str>,
    /// When many clients that lose everything mean that the lookup is at fault.
    pub mass_withdrawal: MassWithdrawal,
    /// The name under which replicas share answers. `None`: each asks for itself.
    section: Option<String>,
    /// Counts the directories, so that an answer of one is not taken for that of another.
    generation: u64,
}

impl Settings {
    /// Answers are not shared, unless [`Settings::sharing`] says so.
    pub fn new(
        directory: Arc<Directory>,
        freshness: Freshness,
        digester: Arc<TenantDigester>,
        issuer: Arc<str>,
        mass_withdrawal: MassWithdrawal,
    ) -> Self {
        let section = None;
        Self { directory, freshness, digester, issuer, mass_withdrawal, section, generation: 1 }
    }

    /// Shares answers with the replicas that use the same section. `None`: with none.
    #[must_use]
    pub fn sharing(self, section: Option<String>) -> Self {
        Self { section, ..self }
    }
}

impl Settings {
    /// How new an answer has to be for a mint.
    fn for_mint(&self, limits: &LookupLimits, core: &Core) -> Wanted {
        let now = core.instruments.clock.monotonic();
        Wanted {
            newer_than: now.minus(limits.cache_ttl),
            none_newer_than: now.minus(limits.negative_ttl),
        }
    }

    fn one_refresh_before(&self, now: Monotonic) -> Monotonic {
        match self.freshness {
            Freshness::Lookup { refresh, .. } => now.minus(refresh),
            Freshness::Token => now,
        }
    }
}

/// The grants of every client seen so far. Lives as long as the process: cells and cached
/// answers survive reloads.
pub struct Tenants {
    core: Arc<Core>,
    entries: DashMap<ClientId, Arc<Entry>>,
    hints: mpsc::Sender<LookupHint>,
    /// Held by [`Tenants::run`], and released if that panics.
    hinted: Mutex<mpsc::Receiver<LookupHint>>,
    hits: IntCounter,
    misses: IntCounter,
    size: IntGauge,
}

/// Wanted: an answer for `client` that was asked for after `at`.
struct LookupHint {
    client: ClientId,
    at: Monotonic,
    /// Another replica's answer will do, if it is newer than this.
    newer_than: Monotonic,
}

/// What a lookup needs, whatever started it.
struct Core {
    settings: ArcSwap<Settings>,
    instruments: Instruments,
    provider: Provider,
    pace: Pace,
    emptied: Emptied,
    shared: OnceLock<Arc<dyn SharedAnswers>>,
}

impl Tenants {
    /// Empty; [`Tenants::run`] does the background work.
    pub fn new(settings: Settings, instruments: Instruments) -> Arc<Self> {
        let metrics = &instruments.metrics;
        let (hints, hinted) = mpsc::channel(HINTS);
        Arc::new(Self {
            entries: DashMap::new(),
            hints,
            hinted: Mutex::new(hinted),
            hits: metrics.cache_hits.with_label_values(&["grants"]),
            misses: metrics.cache_misses.with_label_values(&["grants"]),
            size: metrics.cache_entries.with_label_values(&["grants"]),
            core: Arc::new(Core {
                settings: ArcSwap::from_pointee(settings),
                instruments,
                provider: Provider::default(),
                pace: Pace::default(),
                emptied: Emptied::default(),
                shared: OnceLock::new(),
            }),
        })
    }

    /// The directory for a reloaded config: the one in use, with its token, if nothing changed.
    pub fn directory_for(&self, config: &Lookup) -> Result<Arc<Directory>, Problem> {
        let current = self.core.settings.load();
        if current.directory.config() == config {
            return Ok(Arc::clone(&current.directory));
        }
        Directory::new(config, self.core.instruments.clone())
    }

    /// How the lookups go, and the token they are made with. `None`: nothing is looked up.
    pub fn lookup_health(&self) -> Option<(Health, Option<TokenHealth>)> {
        let directory = &self.core.settings.load().directory;
        directory.limits()?;
        Some((self.core.provider.health(), directory.token_health()))
    }

    /// Takes the settings of a reload. Sets already known are put under the new digest keys, so
    /// call this before tokens are checked under those keys.
    pub fn reconfigure(&self, mut settings: Settings) {
        let current = self.core.settings.load();
        let same = Arc::ptr_eq(&current.directory, &settings.directory);
        settings.generation = current.generation + u64::from(!same);
        let same_digests =
            Arc::ptr_eq(&current.digester, &settings.digester) && current.issuer == settings.issuer;
        let settings = Arc::new(settings);
        self.core.settings.store(Arc::clone(&settings));
        if same && same_digests {
            return;
        }
        // Not under the map's locks: checks must not wait for this.
        let entries: Vec<_> =
            self.entries.iter().map(|e| (e.key().clone(), Arc::clone(e.value()))).collect();
        for (client, entry) in entries {
            entry.redigest(&client, &settings);
        }
    }

    /// The grants of a client for a mint: remembered ones while they count, else a lookup, at most
    /// one at a time for a client.
    pub async fn grants(&self, client: &ClientId) -> LookupOutcome {
        let entry = self.entry(client);
        let outcome = self.remembered_or_looked_up(client, &entry).await;
        if let LookupOutcome::Granted(_) = outcome {
            // What is minted now may be used at any time, and be withdrawn before.
            entry.cell.touch(self.core.instruments.clock.monotonic());
        }
        outcome
    }

    /// What is known of a client, without a lookup. `None`: it has not been seen yet.
    pub fn known(&self, client: &ClientId) -> Option<LastKnown> {
        let entry = self.entries.get(client)?;
        Some(entry.known())
    }

    /// The grants of a client by a lookup that is made now, or under way.
    pub async fn grants_anew(&self, client: &ClientId) -> LookupOutcome {
        let (entry, now) = (self.entry(client), self.core.instruments.clock.monotonic());
        entry.cell.touch(now);
        if let Some(reason) = entry.backing_off(now) {
            return LookupOutcome::Unavailable(reason);
        }
        let outcome = self.look_up(client, &entry, Wanted::since(now)).result().await;
        outcome.unwrap_or(LookupOutcome::Unavailable(Unavailable::Aborted))
    }

    async fn remembered_or_looked_up(
        &self,
        client: &ClientId,
        entry: &Arc<Entry>,
    ) -> LookupOutcome {
        let settings = self.core.settings.load_full();
        if let Some(limits) = settings.directory.limits() {
            let mut patience = PATIENCE;
            loop {
                match entry.cached(&settings, limits, self.core.instruments.clock.monotonic()) {
                    Cached::Fresh(outcome) => {
                        self.hits.inc();
                        return outcome;
                    }
                    Cached::Stale(outcome) => {
                        self.hits.inc();
                        drop(self.look_up(client, entry, settings.for_mint(limits, &self.core)));
                        return outcome;
                    }
                    // However often it mints, it asks no more often than its backoff allows.
                    Cached::Failed { again_in, .. } if again_in <= patience => {
                        sleep(again_in).await;
                        patience = Duration::ZERO;
                    }
                    Cached::Failed { reason, .. } => return LookupOutcome::Unavailable(reason),
                    Cached::Nothing => break,
                }
            }
            self.misses.inc();
        }
        let wanted = match settings.directory.limits() {
            Some(limits) => settings.for_mint(limits, &self.core),
            None => Wanted::since(self.core.instruments.clock.monotonic()),
        };
        let outcome = self.look_up(client, entry, wanted).result().await;
        let outcome = match outcome {
            // Once more, from the directory that is in use now.
            Some(LookupOutcome::Unavailable(Unavailable::Replaced)) => {
                self.look_up(client, entry, wanted).result().await
            }
            outcome => outcome,
        };
        outcome.unwrap_or(LookupOutcome::Unavailable(Unavailable::Aborted))
    }

    /// For the check path: a client is not known here, or its grants are old. It is looked up at
    /// once in the background, unless that was tried a moment ago.
    pub fn hint(&self, client: &ClientId) {
        if self.keeps_fresh() {
            let (entry, now) = (self.entry(client), self.core.instruments.clock.monotonic());
            if entry.may_look_up(now) {
                let newer_than = self.core.settings.load().one_refresh_before(now);
                self.pass_on(client, &entry, now, newer_than);
            }
        }
    }

    /// For the check path: a token lacks a tenant, which may have been granted since. The client is
    /// looked up in the background, within a budget per client, so that probing is not amplified.
    pub fn hint_miss(&self, client: &ClientId) {
        if self.keeps_fresh() {
            let (entry, now) = (self.entry(client), self.core.instruments.clock.monotonic());
            if entry.take_miss(now) {
                self.pass_on(client, &entry, now, now);
            }
        }
    }

    fn keeps_fresh(&self) -> bool {
        match self.core.settings.load().freshness {
            Freshness::Token => false,
            Freshness::Lookup { .. } => true,
        }
    }

    fn pass_on(&self, client: &ClientId, entry: &Entry, at: Monotonic, newer_than: Monotonic) {
        let hint = || LookupHint { client: client.clone(), at, newer_than };
        if entry.cell.want() && self.hints.try_send(hint()).is_err() {
            entry.cell.served();
        }
    }

    fn entry(&self, client: &ClientId) -> Arc<Entry> {
        if let Some(entry) = self.entries.get(client) {
            return Arc::clone(&entry);
        }
        let entry = self.entries.entry(client.clone()).or_insert_with(|| {
            self.size.inc();
            Arc::default()
        });
        Arc::clone(&entry)
    }

    fn look_up(
        &self,
        client: &ClientId,
        entry: &Arc<Entry>,
        wanted: Wanted,
    ) -> Joined<LookupOutcome> {
        entry
            .flight
            .join(|| Arc::clone(&self.core).look_up(client.clone(), Arc::clone(entry), wanted))
    }
}

impl Tenants {
    /// The grants that checks use now, of every client that has been looked up.
    pub fn all_known(&self) -> Vec<(ClientId, Arc<GrantSet>)> {
        let entries = self.entries.iter();
        let known = entries.filter_map(|entry| {
            Some((entry.key().clone(), entry.cell.current().as_ref().cloned()?))
        });
        known.collect()
    }
}

impl GrantBook for Tenants {
    fn cell(&self, client: &ClientId) -> Arc<GrantCell> {
        Arc::clone(&self.entry(client).cell)
    }
}

impl Core {
    async fn look_up(
        self: Arc<Self>,
        client: ClientId,
        entry: Arc<Entry>,
        wanted: Wanted,
    ) -> LookupOutcome {
        let settings = self.settings.load_full();
        if let Some(outcome) = self.shared_answer(&client, &entry, &settings, wanted).await {
            return outcome;
        }
        let previous = entry.previous(&settings);
        let etag = previous.as_ref().and_then(|set| set.etag.clone());
        let started = Instant::now();
        let question =
            Question { client: &client, etag: etag.as_deref(), may_retry: entry.may_retry() };
        let answer = settings.directory.look_up(question, &|_| ()).await;
        let took = started.elapsed();
        self.pace.took(took);
        let kept = answer.and_then(|answer| {
            let status = answer.status.clone();
            let answered = Answered { answer, settings: &settings, previous };
            let kept = entry.succeeded(&client, answered, &self)?;
            Ok((kept, status))
        });
        let outcome = match kept {
            Ok((kept, status)) => {
                self.tell_lost(&client, &entry, &kept, &status);
                LookupOutcome::of(kept.set)
            }
            Err(reason) => LookupOutcome::Unavailable(reason),
        };
        self.share(&client, &settings, &outcome);
        self.instruments.metrics.lookups.with_label_values(&[outcome.as_str()]).inc();
        self.instruments.metrics.lookup_seconds.observe(took.as_secs_f64());
        let millis = took.as_secs_f64() * 1000.0;
        match &outcome {
            LookupOutcome::Granted(set) | LookupOutcome::Denied(set) => {
                self.provider.answered(self.instruments.clock.monotonic());
                tracing::debug!(%client, tenants = set.codes.len(), millis, "looked up tenants");
            }
            LookupOutcome::Unavailable(Unavailable::Replaced) => {
                tracing::debug!(%client, "a lookup was overtaken by a reload");
            }
            LookupOutcome::Unavailable(reason) => {
                self.provider.failed(&client, reason);
                entry.failed(reason, self.instruments.clock.monotonic());
                let (word, error) = (reason.as_str(), reason);
                tracing::warn!(%client, millis, reason = word, %error, "cannot look up tenants");
            }
        }
        outcome
    }

    /// Logs what a client had before an answer and has no longer.
    fn tell_lost(&self, client: &ClientId, entry: &Arc<Entry>, kept: &Kept, status: &str) {
        let Some(before) = &kept.before else { return };
        let lost = before.codes.iter().zip(&before.current);
        let lost: Vec<_> = lost.filter(|(_, digest)| !kept.set.digests.contains(digest)).collect();
        if lost.is_empty() {
            return;
        }
        self.instruments.metrics.grants_lost.inc_by(lost.len() as u64);
        let settings = self.settings.load();
        let first = lost.iter().take(MAX_REFERENCES);
        let references: Vec<_> =
            first.map(|(code, _)| settings.digester.reference(code.expose())).collect();
        let tenants = lost.len();
        tracing::info!(%client, tenants, ?references, "tenants withdrawn by the lookup");
        if !kept.set.codes.is_empty() {
            return;
        }
        self.instruments.metrics.grants_emptied.inc();
        let quiet = !kept.repeated && self.holds_back(entry, before, &settings);
        if !quiet {
            tracing::warn!(
                %client,
                status,
                "a client that had grants has none: either its last tenant withdrew them, or the \
                 lookup's list is empty (status 200) or its status is in `no_grants_status` by \
                 mistake"
            );
        }
    }

    /// Whether this client is one of many that have just lost everything; that is logged once for
    /// all of them, and the loss is held back where the config says so.
    fn holds_back(&self, entry: &Arc<Entry>, before: &Arc<GrantSet>, settings: &Settings) -> bool {
        let Freshness::Lookup { refresh, .. } = settings.freshness else { return false };
        let lost = Lost { entry: Arc::clone(entry), before: Arc::clone(before) };
        let (rule, now) = (&settings.mass_withdrawal, self.instruments.clock.monotonic());
        let Some(mass) = self.emptied.note(lost, rule, now, refresh.mul_f64(WINDOW)) else {
            return false;
        };
        if mass.is_news {
            self.instruments.metrics.mass_withdrawals.inc();
            let (clients, of) = (mass.clients, mass.granted);
            let held = rule.action == MassAction::Hold;
            tracing::warn!(
                clients,
                of,
                held,
                "many clients lost all their tenants within one refresh: the lookup probably \
                 answers wrongly (its URL, a route before it, its format); compare with `lookup \
                 test`"
            );
        }
        if rule.action == MassAction::Hold {
            for Lost { entry, before } in mass.lost {
                entry.hold(before, now);
            }
        }
        true
    }
}
