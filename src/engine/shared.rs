//! Lookups' answers in the state, so that replicas share them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::domain::{
    Attributes, ClientId, Clock, GrantSet, Monotonic, Quota, QuotaUnit, TenantCode, Timestamp,
};
use crate::grants::{SharedAnswer, SharedAnswers, Turn, Wish};
use crate::state::{LookupTurn, LookupWish, Sealer, SharedLookup, State, StateKey};

/// A database that is slower has nothing to share: who waits asks the provider.
const PATIENCE: Duration = Duration::from_millis(400);
/// How far back the next look reaches, for what was being stored during the last one.
const OVERLAP: i64 = 2_000_000;
/// An answer from further ahead comes from a clock that is wrong.
const AHEAD: Duration = Duration::from_secs(5);

/// Names what an answer depends on: the lookup's config, the issuer, and the key that it is sealed
/// under.
pub(super) fn section(config: &Config) -> Option<String> {
    let state = config.state.as_ref().filter(|_| config.tenants.shared)?;
    let issuer = config.issuer.as_ref().map_or("", |issuer| &issuer.url);
    let key = StateKey::new(state.key.clone()).id();
    let text = format!("{key} {issuer} {:?}", config.tenants.lookup);
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    Some(hex::encode(&hash.as_ref()[..12]))
}

pub(super) struct StateAnswers {
    state: Arc<State>,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    owner: String,
    /// Up to where the others' answers have been taken, on the database's clock.
    taken: Mutex<i64>,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Plain<'a> {
    codes: Vec<std::borrow::Cow<'a, str>>,
    attributes: Attributes,
    quota: Option<(u32, String)>,
}

impl StateAnswers {
    pub fn new(state: Arc<State>, sealer: Sealer, clock: Arc<dyn Clock>) -> Self {
        let owner = Uuid::now_v7().to_string();
        Self { state, sealer, clock, owner, taken: Mutex::new(0) }
    }

    fn wish(&self, wish: Wish<'_>) -> LookupWish {
        LookupWish {
            section: wish.section.to_owned(),
            client: wish.client.as_str().to_owned(),
            newer_than: self.to_shared(wish.newer_than),
            lease: i64::try_from(wish.lease.as_micros()).unwrap_or(i64::MAX),
            owner: self.owner.clone(),
        }
    }

    /// Microseconds of the database's clock.
    fn to_shared(&self, then: Monotonic) -> i64 {
        let wall = self.clock.moment().wall_at(then);
        let shared = self.state.withdrawals().to_shared(wall);
        i64::try_from(shared.nanos() / 1_000).unwrap_or(i64::MAX)
    }

    /// `None`: the time is not one that can be.
    fn to_local(&self, micros: i64) -> Option<Monotonic> {
        let nanos = u64::try_from(micros).ok()?.checked_mul(1_000)?;
        let wall = self.state.withdrawals().to_local(Timestamp::from_nanos(nanos));
        let now = self.clock.moment();
        let age = now.age_of(wall, AHEAD)?;
        Some(now.monotonic.minus(age))
    }

    fn seal(&self, wish: Wish<'_>, set: &GrantSet) -> Option<String> {
        let plain = Plain {
            codes: set.codes.iter().map(|code| code.expose().into()).collect(),
            attributes: set.attributes.clone(),
            quota: set.quota.map(|q| (q.requests_per_unit, q.unit.as_str().to_owned())),
        };
        let bytes = Zeroizing::new(serde_json::to_vec(&plain).ok()?);
        self.sealer.seal_bytes(&bound_to(wish.section, wish.client.as_str()), &bytes)
    }

    /// `None`: it is not one of ours, or has been tampered with.
    fn open(&self, section: &str, client: &str, shared: &SharedLookup) -> Option<SharedAnswer> {
        let bytes = self.sealer.open_bytes(&bound_to(section, client), &shared.answer)?;
        let plain: Plain<'_> = serde_json::from_slice(&bytes).ok()?;
        let quota = match plain.quota {
            Some((requests_per_unit, unit)) => {
                Some(Quota { requests_per_unit, unit: QuotaUnit::parse(&unit)? })
            }
            None => None,
        };
        Some(SharedAnswer {
            codes: plain.codes.iter().map(|code| TenantCode::parse(code)).collect::<Option<_>>()?,
            attributes: plain.attributes,
            quota,
            looked_up_at: self.to_local(shared.looked_up_at)?,
        })
    }
}

impl SharedAnswers for StateAnswers {
    fn is_away(&self) -> bool {
        self.state.health().trouble.is_some()
    }

    fn turn<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Option<Turn>> {
        async move {
            if self.is_away() {
                return None;
            }
            let asked = self.state.store().lookup_turn(self.wish(wish));
            match timeout(PATIENCE, asked).await.ok()?.ok()? {
                LookupTurn::Ours => Some(Turn::Ours),
                LookupTurn::Theirs => Some(Turn::Theirs),
                LookupTurn::Answered(shared) => {
                    let answer = self.open(wish.section, wish.client.as_str(), &shared)?;
                    Some(Turn::Answered(answer))
                }
            }
        }
        .boxed()
    }

    fn share<'a>(&'a self, wish: Wish<'a>, set: &'a GrantSet) -> BoxFuture<'a, ()> {
        async move {
            let Some(answer) = self.seal(wish, set) else { return };
            let looked_up_at = self.to_shared(set.looked_up_at);
            let shared = SharedLookup { client: String::new(), answer, looked_up_at };
            let stored = self.state.store().share_lookup(self.wish(wish), shared).await;
            if let Err(error) = stored {
                tracing::debug!(%error, "an answer could not be shared");
            }
        }
        .boxed()
    }

    fn release<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, ()> {
        async move {
            // The turn ends by itself, too.
            let _ = self.state.store().release_lookup(self.wish(wish)).await;
        }
        .boxed()
    }

    fn news<'a>(&'a self, section: &'a str) -> BoxFuture<'a, Vec<(ClientId, SharedAnswer)>> {
        async move {
            if self.is_away() {
                return Vec::new();
            }
            let after = *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            // At the start, mints and hints ask for what they need.
            let after = if after == 0 { self.to_shared(self.clock.monotonic()) } else { after };
            let Ok(found) = self.state.store().shared_lookups(section, after - OVERLAP).await
            else {
                return Vec::new();
            };
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = found.now;
            let read = |shared: SharedLookup| {
                let answer = self.open(section, &shared.client, &shared)?;
                Some((ClientId::parse(&shared.client)?, answer))
            };
            found.answers.into_iter().filter_map(read).collect()
        }
        .boxed()
    }
}

fn bound_to(section: &str, client: &str) -> String {
    format!("lookup {section} {client}")
}
