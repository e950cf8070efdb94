//! Keeps what this process knows of the state up to date, and writes for it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use uuid::Builder;

use super::record::{Audit, Change, Expect, Key, Record, Written, micros, timestamp};
use super::snapshot::{Image, LocalCopy};
use super::store::{Cursor, Polled, Retention, Store, StoreError};
use super::view::{ClientSink, Lineage, View};
use crate::domain::{Clock, Timestamp, Withdrawals};

/// Everything is read again this often, in case an event went past.
const RELOAD: Duration = Duration::from_secs(600);
/// Lines appended to the local copy before it is written again.
const APPENDED: usize = 10_000;
/// A name for writes that repeat what the database lost.
const SELF: &str = "tenantgate";

/// How a process follows its state.
pub struct FeedSettings {
    /// The time between two looks at the feed.
    pub poll: Duration,
    /// What [`Store::tidy`] deletes.
    pub retention: Retention,
    /// Where the local copy is kept.
    pub snapshot: Option<PathBuf>,
    /// Names the key that references are made under.
    pub key_id: String,
    /// Whether the digests of stored clients' secrets are kept.
    pub credentials: bool,
}

/// The state as a running process has it.
pub struct State {
    store: Arc<dyn Store>,
    withdrawals: Arc<Withdrawals>,
    clock: Arc<dyn Clock>,
    settings: FeedSettings,
    started: Timestamp,
    inner: Mutex<Inner>,
    health: Mutex<StateHealth>,
}

struct Inner {
    view: View,
    cursor: Option<Cursor>,
    snapshot: Option<LocalCopy>,
}

/// What an operator wants to know.
#[derive(Clone, Debug, Default)]
pub struct StateHealth {
    /// When the feed was last followed to its end, on this process's clock.
    pub followed_at: Option<Timestamp>,
    /// Why the last call of the database failed. `None`: it did not.
    pub trouble: Option<String>,
    /// What is known comes from the local copy.
    pub from_snapshot: bool,
    /// Records that a full reading found to differ.
    pub differences: u64,
}

impl State {
    /// Nothing is read yet. A local copy of before is taken in, but not relied on.
    pub fn new(
        store: Arc<dyn Store>,
        withdrawals: Arc<Withdrawals>,
        clients: ClientSink,
        clock: Arc<dyn Clock>,
        settings: FeedSettings,
    ) -> Self {
        let mut view = View::new(Arc::clone(&withdrawals), clients, settings.credentials);
        let snapshot = settings.snapshot.clone();
        let snapshot = snapshot.map(|path| LocalCopy::new(path, settings.key_id.clone()));
        let image = snapshot.as_ref().and_then(LocalCopy::read);
        let cursor = image.map(|image| {
            let Image { cursor, ahead, records } = image;
            let now = micros(clock.now());
            withdrawals.set_clock(timestamp(now), timestamp(now.saturating_add(ahead)));
            view.apply(records);
            cursor
        });
        let inner = Mutex::new(Inner { view, cursor, snapshot });
        let started = clock.now();
        Self { store, withdrawals, clock, settings, started, inner, health: Mutex::default() }
    }

    /// Where it is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What is withdrawn now.
    pub fn withdrawals(&self) -> &Arc<Withdrawals> {
        &self.withdrawals
    }

    /// How the database is.
    pub fn health(&self) -> StateHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the feed was last followed to its end; where it never was, how long this has
    /// been tried.
    pub fn age(&self) -> Duration {
        self.clock.now().since(self.health().followed_at.unwrap_or(self.started))
    }

    /// Makes the schema if it has to, and reads what is there. On failure a local copy counts, if
    /// there is one; [`State::run`] goes on trying. The error is worth telling only where trying
    /// again cannot help.
    pub async fn start(&self) -> Result<(), StoreError> {
        let started = self.follow_anew().await;
        if let Err(error) = started {
            let has_copy = self.inner().cursor.is_some();
            self.failed(&error);
            if has_copy {
                tracing::warn!(%error, "starting from the local copy of the state");
                self.health_mut().from_snapshot = true;
                self.withdrawals.set_known();
            }
            return match error {
                StoreError::Refused(_) | StoreError::SchemaNew { .. } => Err(error),
                _ => Ok(()),
            };
        }
        Ok(())
    }

    async fn follow_anew(&self) -> Result<(), StoreError> {
        if self.store.schema().await?.version != super::LATEST {
            self.store.migrate().await?;
        }
        self.follow().await
    }

    /// Follows the feed forever.
    pub async fn run(&self) {
        let mut reload_at = self.next_reload();
        loop {
            tokio::time::sleep(jittered(self.settings.poll, 0.1)).await;
            let outcome = if self.withdrawals.is_known() && !self.health().from_snapshot {
                self.follow().await
            } else {
                self.follow_anew().await
            };
            let outcome = match outcome {
                Ok(()) if self.clock.now() >= reload_at => {
                    reload_at = self.next_reload();
                    self.reload(Lineage::Same).await.and(self.tidy().await)
                }
                outcome => outcome,
            };
            if let Err(error) = outcome {
                self.failed(&error);
            }
        }
    }

    fn next_reload(&self) -> Timestamp {
        self.clock.now().plus(jittered(RELOAD, 0.2))
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        match self.store.tidy(self.settings.retention).await {
            // An account that may only read leaves it to the others.
            Err(StoreError::ReadOnly) => Ok(()),
            outcome => outcome,
        }
    }

    /// Takes in what has changed since the cursor, or everything.
    pub async fn follow(&self) -> Result<(), StoreError> {
        loop {
            let Some(cursor) = self.inner().cursor.clone() else {
                return self.reload(Lineage::Broken).await;
            };
            let asked = self.clock.now();
            let polled = self.store.poll(&cursor).await?;
            self.measured(asked, polled.now);
            if !continues(&cursor, &polled) {
                tracing::warn!(
                    at = cursor.seq,
                    head = polled.head,
                    "the state's database has another history than this process, or an older one: \
                     everything is read again"
                );
                return self.reload(Lineage::Broken).await;
            }
            let Some(last) = polled.events.last().map(|event| event.cursor.clone()) else {
                return self.reload(Lineage::Broken).await;
            };
            let complete = last.seq >= polled.head;
            let records = polled.events.into_iter().skip(1).filter_map(|event| event.record);
            self.took(records.collect(), last, polled.now);
            if complete {
                self.followed(asked);
                return Ok(());
            }
        }
    }

    async fn reload(&self, lineage: Lineage) -> Result<(), StoreError> {
        let asked = self.clock.now();
        let loaded = self.store.load().await?;
        self.measured(asked, loaded.now);
        let (cursor, now) = (loaded.cursor.clone(), loaded.now);
        let lost = {
            let mut inner = self.inner();
            let fresh = inner.cursor.is_none();
            let merged = inner.view.merge(loaded, lineage);
            if !fresh && merged.changed > 0 {
                tracing::warn!(records = merged.changed, "a full reading of the state differed");
                self.health_mut().differences += merged.changed as u64;
            }
            inner.view.expire(now);
            inner.cursor = Some(cursor);
            inner.write_snapshot(self.ahead());
            merged.lost
        };
        self.followed(asked);
        self.assert_again(lost, now).await
    }

    /// Writes what the database has lost and this process still knows. All replicas do; the request
    /// id makes it one change.
    async fn assert_again(&self, lost: Vec<Record>, now: i64) -> Result<(), StoreError> {
        if lost.is_empty() {
            return Ok(());
        }
        tracing::error!(
            records = lost.len(),
            "the state's database has lost withdrawals, as after a restore; they are written again"
        );
        for record in lost {
            let hold = Duration::from_micros(u64::try_from(record.not_before - now).unwrap_or(0));
            let keep = record.expires_at.map(|end| {
                Duration::from_micros(u64::try_from(end - now).unwrap_or(0)).saturating_sub(hold)
            });
            let change = Change {
                hold,
                keep,
                lift: record.is_lifted(),
                body: record.body.clone(),
                expect: Expect::Anything,
                audit: Audit {
                    request_id: repeat_id(&record),
                    actor: SELF.to_owned(),
                    action: "state:write-again".to_owned(),
                    detail: String::new(),
                },
                key: record.key,
            };
            match self.store.write(change).await {
                // The others, or the operator, will.
                Err(StoreError::ReadOnly) => return Ok(()),
                outcome => outcome?,
            };
        }
        Ok(())
    }

    /// Stores a change, and has it in force here before it answers.
    pub async fn write(&self, change: Change) -> Result<Written, StoreError> {
        let written = self.store.write(change).await;
        match &written {
            Ok(Written::Done(record)) => {
                let mut inner = self.inner();
                let news = inner.view.apply(vec![record.clone()]);
                inner.append(&news, None);
            }
            Ok(Written::Repeated(_) | Written::Conflict) => {}
            Err(error) => self.failed(error),
        }
        written
    }

    /// The current word on a key, lifted ones included.
    pub fn record(&self, key: &Key) -> Option<Arc<Record>> {
        self.inner().view.record(key)
    }

    /// Whether the digests of stored clients' secrets are kept from now on. What was thrown away is
    /// read with the next look.
    pub fn keep_credentials(&self, keep: bool) {
        let mut inner = self.inner();
        if inner.view.keep_credentials(keep) {
            inner.cursor = None;
        }
    }

    /// Hands every stored client over once more.
    pub fn tell_clients_again(&self) {
        self.inner().view.tell_clients_again();
    }

    fn took(&self, records: Vec<Record>, cursor: Cursor, now: i64) {
        let mut inner = self.inner();
        // Without one, everything is read again with the next look.
        let moved = inner.cursor.as_ref().is_some_and(|known| *known != cursor);
        let news = inner.view.apply(records);
        if moved {
            inner.append(&news, Some(&cursor));
            inner.cursor = Some(cursor);
        }
        inner.view.expire(now);
        let no_file = inner.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_open());
        if no_file || inner.snapshot.as_ref().is_some_and(|s| s.appended() > APPENDED) {
            inner.write_snapshot(self.ahead());
        }
    }

    fn measured(&self, asked: Timestamp, database: i64) {
        let took = self.clock.now().since(asked);
        self.withdrawals.set_clock(asked.plus(took / 2), timestamp(database));
    }

    fn ahead(&self) -> i64 {
        let now = self.clock.now();
        micros(self.withdrawals.to_shared(now)) - micros(now)
    }

    fn followed(&self, asked: Timestamp) {
        let mut health = self.health_mut();
        if health.trouble.take().is_some() {
            tracing::info!("the state's database answers again");
        }
        health.followed_at = Some(asked);
        health.from_snapshot = false;
        self.withdrawals.set_known();
    }

    fn failed(&self, error: &StoreError) {
        let mut health = self.health_mut();
        let trouble = error.to_string();
        if health.trouble.is_none() {
            tracing::error!(%error, "the state's database does not answer; what is known stays in \
                                     force");
        }
        health.trouble = Some(trouble);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health_mut(&self) -> MutexGuard<'_, StateHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, records: &[Record], cursor: Option<&Cursor>) {
        let outcome = self.snapshot.as_mut().map(|snapshot| snapshot.append(records, cursor));
        if let Some(Err(error)) = outcome {
            tracing::warn!(%error, "the local copy of the state cannot be written");
        }
    }

    fn write_snapshot(&mut self, ahead: i64) {
        let (Some(snapshot), Some(cursor)) = (&mut self.snapshot, &self.cursor) else { return };
        if let Err(error) = snapshot.write(cursor, ahead, self.view.records()) {
            tracing::warn!(%error, "the local copy of the state cannot be written");
        }
    }
}

/// Whether the events are those that follow the cursor, in the history that it belongs to.
fn continues(cursor: &Cursor, polled: &Polled) -> bool {
    let first = polled.events.first().map(|event| &event.cursor);
    let numbers = polled.events.iter().map(|event| event.cursor.seq);
    first == Some(cursor) && numbers.zip(cursor.seq..).all(|(found, wanted)| found == wanted)
}

fn jittered(duration: Duration, by: f64) -> Duration {
    duration.mul_f64(1.0 - by + 2.0 * by * rand::random::<f64>())
}

/// The same for every replica that repeats this record.
fn repeat_id(record: &Record) -> String {
    let text = serde_json::to_string(record).unwrap_or_default();
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}
