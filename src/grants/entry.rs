use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::{Freshness, LookupLimits};
use crate::domain::{Backoff, ClientId, GrantCell, GrantSet, Holder, Monotonic, TenantCode};
use crate::lookup::{Answer, Flight, Grants, Unavailable, lock};

use super::{Core, LookupOutcome, Settings};

/// The longest bounds how late the end of an outage is noticed.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(4) };
/// The least time between two lookups that a tenant missing from a token may cause.
const MISS_INTERVAL: Duration = Duration::from_secs(5);

/// An answer, and what it answers.
pub struct Answered<'a> {
    pub answer: Answer,
    /// Those that were in force when the question was put.
    pub settings: &'a Settings,
    /// What "unchanged" means.
    pub previous: Option<Arc<GrantSet>>,
}

/// What is known of one client.
#[derive(Default)]
pub struct Entry {
    pub cell: Arc<GrantCell>,
    pub flight: Flight<LookupOutcome>,
    state: Mutex<State>,
    /// No background lookup before this (nanoseconds): the next refresh, or the end of a backoff.
    not_before: AtomicU64,
    used_at: AtomicU64,
    missed_at: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The directory that gave the cell's set.
    directory: u64,
    failures: u32,
    /// The last one, while `failures` is not 0.
    failure: Option<Unavailable>,
    /// An answer without grants that the checks do not see yet.
    held: Option<Held>,
}

struct Held {
    set: Arc<GrantSet>,
    since: Monotonic,
}

/// What is known of a client.
pub struct LastKnown {
    /// The last good answer. `None`: there was none.
    pub set: Option<Arc<GrantSet>>,
    /// Lookups that have failed since.
    pub failures: u32,
    /// Why the last of them failed. `None`: none has.
    pub failure: Option<Unavailable>,
}

impl LastKnown {
    /// Of any age. `None`: the client has not been looked up yet.
    pub fn outcome(self) -> Option<LookupOutcome> {
        match (self.set, self.failure) {
            (Some(set), _) if set.codes.is_empty() => Some(LookupOutcome::Denied(set)),
            (Some(set), _) => Some(LookupOutcome::Granted(set)),
            (None, Some(reason)) => Some(LookupOutcome::Unavailable(reason)),
            (None, None) => None,
        }
    }
}

/// What became of an answer.
pub struct Kept {
    pub set: Arc<GrantSet>,
    /// What the checks used until now.
    pub before: Option<Arc<GrantSet>>,
    /// An answer that was held back has been given again.
    pub repeated: bool,
}

pub enum Cached {
    Fresh(LookupOutcome),
    /// Usable while it is looked up again.
    Stale(LookupOutcome),
    /// Nothing, and the last lookup failed. Its backoff has not ended.
    Failed {
        reason: Unavailable,
        again_in: Duration,
    },
    Nothing,
}

impl Entry {
    /// What serves a mint without waiting.
    pub fn cached(&self, settings: &Settings, limits: &LookupLimits, now: Monotonic) -> Cached {
        self.used_at.store(now.nanos(), Ordering::Relaxed);
        let state = lock(&self.state);
        let nothing = || match &state.failure {
            Some(reason) if !self.may_look_up(now) => {
                Cached::Failed { reason: reason.clone(), again_in: self.not_before().since(now) }
            }
            Some(_) | None => Cached::Nothing,
        };
        let Some(set) = self.set_of(&state, settings.generation) else { return nothing() };
        let age = now.since(set.looked_up_at);
        if set.codes.is_empty() {
            // A denial is never served stale.
            return if age < limits.negative_ttl {
                Cached::Fresh(LookupOutcome::Denied(set))
            } else {
                nothing()
            };
        }
        if age < limits.cache_ttl {
            Cached::Fresh(LookupOutcome::Granted(set))
        } else if age < limits.cache_ttl + limits.stale_while_revalidate && state.failures == 0 {
            Cached::Stale(LookupOutcome::Granted(set))
        } else {
            nothing()
        }
    }

    /// The last set, if it came from the directory in use: another one's validator and answer
    /// mean nothing to it.
    pub fn previous(&self, settings: &Settings) -> Option<Arc<GrantSet>> {
        self.set_of(&lock(&self.state), settings.generation)
    }

    fn set_of(&self, state: &State, directory: u64) -> Option<Arc<GrantSet>> {
        if state.directory != directory {
            return None;
        }
        match &state.held {
            Some(held) => Some(Arc::clone(&held.set)),
            None => self.cell.current().as_ref().cloned(),
        }
    }

    /// The last failure, until its backoff ends.
    pub fn backing_off(&self, now: Monotonic) -> Option<Unavailable> {
        lock(&self.state).failure.clone().filter(|_| !self.may_look_up(now))
    }

    /// What is known, without a lookup.
    pub fn known(&self) -> LastKnown {
        let state = lock(&self.state);
        let set = self.cell.current().as_ref().cloned();
        LastKnown { set, failures: state.failures, failure: state.failure.clone() }
    }

    /// A client whose last lookup failed gets one try per lookup: others need the retries.
    pub fn may_retry(&self) -> bool {
        lock(&self.state).failures == 0
    }

    /// Keeps an answer. The settings are read under the lock, so that an answer that arrives
    /// during a reload is digested under the keys that hold afterwards.
    pub fn succeeded(
        &self,
        client: &ClientId,
        answered: Answered<'_>,
        core: &Core,
    ) -> Result<Kept, Unavailable> {
        let Answered { answer, settings: asked_settings, previous } = answered;
        let (codes, attributes, quota, etag) = match (answer.grants, previous) {
            (Grants::Listed { listed, etag }, _) => {
                (listed.codes, listed.claims, listed.quota, etag)
            }
            (Grants::Unchanged { etag }, Some(set)) => {
                let etag = etag.or_else(|| set.etag.clone());
                (set.codes.clone(), set.attributes.clone(), set.quota, etag)
            }
            (Grants::Unchanged { .. }, None) => {
                return Err(Unavailable::Status { status: 304, retry_after: None });
            }
        };
        let mut state = lock(&self.state);
        let settings = core.settings.load_full();
        if asked_settings.generation != settings.generation {
            // The directory that was asked has been replaced meanwhile: its answer no longer
            // counts.
            self.wait_until(Monotonic::default());
            return Err(Unavailable::Replaced);
        }
        let set = GrantSet {
            attributes,
            quota,
            looked_up_at: answer.sent_at,
            etag,
            ..settings.grant_set(client, codes)
        };
        let set = Arc::new(set);
        let before = self.cell.current().as_ref().cloned();
        let held_since = state.held.take().filter(|_| set.codes.is_empty()).map(|held| held.since);
        let repeats = |since| answer.sent_at.since(since) >= settings.least_until_repeated();
        let repeated = held_since.is_some_and(repeats);
        match held_since.filter(|_| !repeated) {
            // Repeated so soon, to a mint or a hint, it is the same mistake.
            Some(since) => state.held = Some(Held { set: Arc::clone(&set), since }),
            None => self.cell.replace(Arc::clone(&set)),
        }
        let before = before.filter(|_| state.held.is_none());
        state.directory = settings.generation;
        state.failures = 0;
        state.failure = None;
        if let Freshness::Lookup { refresh, .. } = settings.freshness {
            self.wait_until(answer.sent_at.plus(core.pace.until_next(refresh)));
        }
        Ok(Kept { set, before, repeated })
    }

    /// Restores what an answer without grants has removed, until that answer is repeated. What is
    /// restored keeps its age, so it vouches no longer than it would have.
    pub fn hold(&self, before: Arc<GrantSet>, now: Monotonic) {
        let mut state = lock(&self.state);
        let current = self.cell.current().as_ref().cloned();
        if let Some(set) = current.filter(|set| set.codes.is_empty()) {
            self.cell.replace(before);
            state.held = Some(Held { set, since: now });
        }
    }

    pub fn failed(&self, reason: &Unavailable, now: Monotonic) {
        let mut state = lock(&self.state);
        state.failures += 1;
        state.failure = Some(reason.clone());
        self.wait_until(now.plus(BACKOFF.spread_after(state.failures)));
    }

    /// Puts the set under the digest keys of a reloaded config.
    pub fn redigest(&self, client: &ClientId, settings: &Settings) {
        let mut state = lock(&self.state);
        if let Some(set) = self.cell.current().as_ref() {
            self.cell.replace(Arc::new(GrantSet {
                attributes: set.attributes.clone(),
                quota: set.quota,
                looked_up_at: set.looked_up_at,
                etag: set.etag.clone(),
                ..settings.grant_set(client, set.codes.clone())
            }));
        }
        if state.directory != settings.generation {
            // Another directory may say something else.
            state.failures = 0;
            state.failure = None;
            self.wait_until(Monotonic::default());
        }
    }

    pub fn wait_until(&self, when: Monotonic) {
        self.not_before.store(when.nanos(), Ordering::Relaxed);
    }

    pub fn may_look_up(&self, now: Monotonic) -> bool {
        self.not_before() <= now
    }

    pub fn not_before(&self) -> Monotonic {
        Monotonic::from_nanos(self.not_before.load(Ordering::Relaxed))
    }

    /// Whether a tenant that a token lacks may cause a lookup now; each time uses up that right.
    pub fn take_miss(&self, now: Monotonic) -> bool {
        let last = self.missed_at.load(Ordering::Relaxed);
        now.since(Monotonic::from_nanos(last)) >= MISS_INTERVAL
            && self
                .missed_at
                .compare_exchange(last, now.nanos(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// The last time that a mint or a check used this.
    pub fn last_used(&self) -> Monotonic {
        Monotonic::from_nanos(self.used_at.load(Ordering::Relaxed)).max(self.cell.last_used())
    }
}

impl Settings {
    /// An answer that is repeated within this time is not a second opinion.
    fn least_until_repeated(&self) -> Duration {
        match self.freshness {
            Freshness::Lookup { refresh, .. } => refresh / 2,
            Freshness::Token => Duration::ZERO,
        }
    }

    fn grant_set(&self, client: &ClientId, codes: Vec<TenantCode>) -> GrantSet {
        let holder = Holder { issuer: &self.issuer, client: client.as_str() };
        GrantSet::of(codes, &self.digester, holder)
    }
}
