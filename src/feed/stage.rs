//! What the sidecar has told since its last commit, and how it is taken: all at once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::cells::Cells;
use super::take::{self, wrong};
use super::{FeedError, v1};
use crate::authz::{Apis, FreshnessRule, Snapshot, Trust};
use crate::domain::{
    ClientChange, ClientId, ClientWithdrawals, GrantBook as _, GrantSet, Holder, Meter, Monotonic,
    Withdrawals,
};
use crate::telemetry::Metrics;

/// Of one commit. A registry of a million clients takes less.
const MAX_BYTES: usize = 512 << 20;

/// Told, and not in force yet.
#[derive(Default)]
pub struct Stage {
    bytes: usize,
    rules: Option<v1::Rules>,
    keys: Option<v1::Keys>,
    clients: Vec<ClientChange>,
    grants: Vec<v1::GrantsOf>,
    withdrawals: Vec<v1::Withdrawals>,
}

/// When and where a commit is taken.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// When it was sent, by our clock: ages count from there.
    pub sent_at: Monotonic,
    pub metrics: &'a Metrics,
}

/// What is in force after a commit.
pub struct Committed {
    pub snapshot: Arc<Snapshot>,
    /// How old the feed may be, where that was told.
    pub feed_max_age: Option<Duration>,
}

impl Stage {
    /// Nothing was told: a heartbeat.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// A commit is given back: it is the time to apply.
    pub fn take(
        &mut self,
        message: v1::FromSidecar,
        length: usize,
    ) -> Result<Option<v1::Commit>, FeedError> {
        use v1::from_sidecar::Message;
        if let Some(Message::Commit(commit)) = message.message {
            return Ok(Some(commit));
        }
        self.bytes += length;
        if self.bytes > MAX_BYTES {
            return wrong("more in one commit than any registry has");
        }
        match message.message {
            Some(Message::Rules(rules)) => self.rules = Some(rules),
            Some(Message::Keys(keys)) => self.keys = Some(keys),
            Some(Message::Clients(clients)) => {
                for client in &clients.put {
                    self.clients.push(ClientChange::Put(Arc::new(take::client(client)?)));
                }
                for id in &clients.removed {
                    self.clients.push(ClientChange::Remove(take::client_id(id)?));
                }
            }
            Some(Message::Grants(grants)) => self.grants.extend(grants.of),
            Some(Message::Withdrawals(withdrawals)) => self.withdrawals.push(withdrawals),
            Some(Message::Hello(_) | Message::Commit(_)) => return wrong("a second hello"),
            None => return wrong("a message of an unknown kind"),
        }
        Ok(None)
    }

    /// The first commit of a connection: everything, on top of nothing.
    pub fn begin(
        self,
        cells: &Cells,
        before: &Snapshot,
        place: Place<'_>,
    ) -> Result<Committed, FeedError> {
        if self.rules.is_none() || self.keys.is_none() {
            return wrong("a beginning without rules and keys");
        }
        let nothing = Snapshot { clients: None, withdrawals: None, ..before.clone() };
        self.apply(cells, &nothing, place)
    }

    /// Changes to what is in force. Nothing is changed where anything is wrong.
    pub fn apply(
        self,
        cells: &Cells,
        before: &Snapshot,
        place: Place<'_>,
    ) -> Result<Committed, FeedError> {
        let mut next = before.clone();
        let mut feed_max_age = None;
        let mut has_registry = before.clients.is_some();
        if let Some(rules) = &self.rules {
            take_rules(&mut next, rules, place.metrics)?;
            feed_max_age = Some(Duration::from_millis(rules.feed_max_age_millis));
            has_registry = rules.has_registry;
        }
        if let Some(keys) = &self.keys {
            next.trust = Arc::new(take::trust(keys, place.sent_at)?);
            next.issuer_meters = Arc::new(meters(&next.trust, place.metrics));
        }
        let grants = ToldGrants::all(&self.grants, cells, place.sent_at)?;
        let withdrawn = Withdrawn::all(&self.withdrawals)?;
        // From here on nothing fails.
        next.clients = has_registry.then(|| {
            if self.clients.is_empty()
                && let Some(book) = &before.clients
            {
                return Arc::clone(book);
            }
            let book = before.clients.as_deref().cloned().unwrap_or_default();
            Arc::new(book.with(self.clients))
        });
        if let Some(all) = &next.withdrawals {
            withdrawn.into_iter().for_each(|withdrawn| withdrawn.apply(all));
        }
        let clients: HashSet<ClientId> =
            grants.iter().map(|grants| grants.client.clone()).collect();
        for ToldGrants { client, set } in grants {
            let cell = cells.cell(&client);
            cell.replace(Arc::new(set));
            cell.served();
        }
        if !comparable(before, &next) {
            cells.forget_grants(&clients);
        }
        Ok(Committed { snapshot: Arc::new(next), feed_max_age })
    }
}

fn take_rules(next: &mut Snapshot, rules: &v1::Rules, metrics: &Metrics) -> Result<(), FeedError> {
    let max_age = rules.grants_max_age_millis.map(Duration::from_millis);
    next.own_issuer = rules.own_issuer.as_str().into();
    next.realm = rules.realm.as_str().into();
    next.freshness = max_age.map_or(FreshnessRule::Token, FreshnessRule::MaxAge);
    next.lookup_on_miss = rules.lookup_on_miss;
    next.probing = take::probing(rules)?;
    next.apis = Arc::new(Apis::new(take::apis(rules, metrics)?));
    next.digester = Arc::new(take::digester(rules)?);
    next.withdrawals = match (rules.has_state, next.withdrawals.take()) {
        (false, _) => None,
        (true, Some(all)) => Some(all),
        (true, None) => Some(Arc::new(Withdrawals::new(take::references(rules)?))),
    };
    Ok(())
}

fn meters(trust: &Trust, metrics: &Metrics) -> HashMap<String, Box<dyn Meter>> {
    let issuers = trust.issuers().map(|issuer| &issuer.policy.issuer);
    let meter = |issuer: &String| -> Box<dyn Meter> { Box::new(metrics.issuer(issuer)) };
    issuers.map(|issuer| (issuer.clone(), meter(issuer))).collect()
}

/// Whether digests of tenants mean the same.
fn comparable(before: &Snapshot, next: &Snapshot) -> bool {
    let keys = |snapshot: &Snapshot| -> Vec<_> {
        snapshot.digester.expose_keys().map(|key| Zeroizing::new(*key)).collect()
    };
    before.own_issuer == next.own_issuer && keys(before) == keys(next)
}

/// The grants of one client.
struct ToldGrants {
    client: ClientId,
    set: GrantSet,
}

impl ToldGrants {
    fn all(
        grants: &[v1::GrantsOf],
        cells: &Cells,
        sent_at: Monotonic,
    ) -> Result<Vec<Self>, FeedError> {
        let told = grants.iter().map(|told| {
            let client = take::client_id(&told.client)?;
            let digests = match &told.tenants {
                Some(tenants) => take::tenants(tenants)?,
                None => match cells.cell(&client).current().as_deref() {
                    Some(set) => set.digests.clone(),
                    None => return wrong("a confirmation of what was never sent"),
                },
            };
            let quota = told.quota.as_ref().map(take::quota).transpose()?;
            let looked_up_at = sent_at.minus(Duration::from_nanos(told.age_nanos));
            Ok(Self { client, set: take::grant_set(digests, quota, looked_up_at) })
        });
        told.collect()
    }
}

/// What has changed among the withdrawals.
struct Withdrawn<'a> {
    known: bool,
    ahead: i64,
    from: Vec<(Holder<'a>, ClientWithdrawals)>,
}

impl<'a> Withdrawn<'a> {
    fn all(told: &'a [v1::Withdrawals]) -> Result<Vec<Self>, FeedError> {
        let one = |told: &'a v1::Withdrawals| {
            let from = told.from.iter().map(|from| {
                let holder = Holder { issuer: &from.issuer, client: &from.client };
                Ok((holder, take::withdrawn(from)?))
            });
            let from = from.collect::<Result<_, FeedError>>()?;
            Ok(Self { known: told.known, ahead: told.ahead_nanos, from })
        };
        told.iter().map(one).collect()
    }

    fn apply(self, all: &Withdrawals) {
        all.set_ahead(self.ahead);
        for (holder, withdrawn) in self.from {
            all.replace(holder, withdrawn);
        }
        if self.known {
            all.set_known();
        }
    }
}
