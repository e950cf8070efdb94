//! Whether the caller may access the tenant: by its token, the registry and the freshest lookup.

use std::time::Duration;

use super::decide::{Authorizer, Denied, Hint, Identity};
use super::facts::Facts;
use super::probing::Probe;
use super::snapshot::FreshnessRule;
use crate::domain::{
    Client, ClientId, DenyReason, GrantCell, GrantSet, Holder, TenantDigest, Timestamp,
};

/// Background work for a granted tenant, or the refusal.
type Checked = Result<Option<Hint>, Denied>;

/// Who asks for which tenant.
#[derive(Clone, Copy)]
struct Asked<'t> {
    identity: &'t Identity,
    /// The registry's entry, where it has one.
    client: Option<&'t Client>,
    tenant: &'t str,
    /// Its digest in a token of our own. Grants hold the digests under every honoured key, this one
    /// too, so it need not be computed again.
    named: Option<TenantDigest>,
}

impl Authorizer<'_> {
    pub(super) fn check_tenant(
        &self,
        identity: &Identity,
        client: Option<&Client>,
        tenant: &str,
    ) -> Checked {
        let checked = self.check_granted(Asked { identity, client, tenant, named: None });
        checked.map_err(|denied| self.watch_probing(denied, identity, tenant))
    }

    /// A tenant that exists and one that does not take the same path through this code.
    fn check_granted(&self, mut asked: Asked<'_>) -> Checked {
        if let Identity::Token(facts) = asked.identity {
            let Some(digest) = self.named_digest(facts, asked.tenant) else {
                return self.check_granted_since(facts, asked);
            };
            // Grants are kept under our own issuer's name.
            asked.named = facts.issuer.own.then_some(digest);
        }
        if let Some(grants) = asked.client.and_then(|client| client.static_grants.as_ref()) {
            return match self.holds(grants, asked) {
                true => Ok(None),
                false => Err(not_granted("not_in_registry")),
            };
        }
        match asked.identity {
            Identity::Token(facts) => match (&facts.grants, self.snapshot.freshness) {
                (Some(cell), FreshnessRule::MaxAge(max_age)) => {
                    self.check_fresh_token(facts, cell, max_age, asked)
                }
                (None, _) | (_, FreshnessRule::Token) => Ok(None),
            },
            Identity::ApiKey(client) => self.check_key_grants(&client.id, asked),
        }
    }

    fn watch_probing(&self, denied: Denied, identity: &Identity, tenant: &str) -> Denied {
        let (DenyReason::TenantNotGranted, Some(probes)) = (denied.reason, self.probes) else {
            return denied;
        };
        let rule = &self.snapshot.probing;
        let client = identity.client();
        let issuer = identity.foreign_issuer().unwrap_or(&self.snapshot.own_issuer);
        let holder = Holder { issuer, client };
        let digest = self.snapshot.digester.current(holder, tenant);
        let probe = probes.note(rule, holder, digest, self.now.monotonic);
        let reason = match probe {
            Probe::Noticed | Probe::Many if rule.throttle => DenyReason::ProbingThrottled,
            Probe::Few | Probe::Noticed | Probe::Many => denied.reason,
        };
        Denied { reason, probing: probe == Probe::Noticed, ..denied }
    }

    /// The digest under which the token names the tenant, if it does.
    pub(super) fn named_digest(&self, facts: &Facts, tenant: &str) -> Option<TenantDigest> {
        let holder = Holder { issuer: &facts.issuer.issuer, client: &facts.client };
        let mut digests = self.snapshot.digester.all(holder, tenant);
        digests.find(|digest| facts.tenants.contains(digest))
    }

    fn holds(&self, grants: &GrantSet, asked: Asked<'_>) -> bool {
        if let Some(digest) = asked.named {
            return grants.digests.contains(&digest);
        }
        self.holds_tenant(grants, asked.identity, asked.tenant)
    }

    pub(super) fn holds_tenant(
        &self,
        grants: &GrantSet,
        identity: &Identity,
        tenant: &str,
    ) -> bool {
        let holder = Holder { issuer: &self.snapshot.own_issuer, client: identity.client() };
        let mut digests = self.snapshot.digester.all(holder, tenant);
        digests.any(|digest| grants.digests.contains(&digest))
    }

    /// Fresh grants only ever subtract from what the token names.
    fn check_fresh_token(
        &self,
        facts: &Facts,
        cell: &GrantCell,
        max_age: Duration,
        asked: Asked<'_>,
    ) -> Checked {
        cell.touch(self.now.monotonic);
        let current = cell.current();
        let looked_up = current.as_deref();
        if let Some(set) = looked_up.filter(|set| !self.predates(set, facts))
            && !self.holds(set, asked)
        {
            return Err(self.not_granted(asked.identity, "not_in_lookup"));
        }
        if self.vouched_age(facts, looked_up).is_none_or(|age| age > max_age) {
            return Err(stale(asked.identity));
        }
        Ok(if looked_up.is_none() { grants_hint(asked.identity) } else { None })
    }

    /// A lookup older than the one behind a token says nothing against it: the tenant may have been
    /// granted in between, to a client of another replica. Only our own tokens carry the time of
    /// their lookup; the time at which another issuer signs is not evidence of what the provider
    /// says.
    fn predates(&self, set: &GrantSet, facts: &Facts) -> bool {
        let behind_token = self.evidence_at(facts);
        let known = self.now.age_of(behind_token, facts.issuer.leeway).is_some();
        facts.issuer.own && known && self.now.wall_at(set.looked_up_at) < behind_token
    }

    /// The age of what vouches for a token: the younger of the lookup behind it and the last good
    /// one here. Another issuer's token vouches only until its client has been looked up.
    fn vouched_age(&self, facts: &Facts, looked_up: Option<&GrantSet>) -> Option<Duration> {
        let here = looked_up.map(|set| self.now.monotonic.since(set.looked_up_at));
        if here.is_some() && !facts.issuer.own {
            return here;
        }
        let behind_token = self.now.age_of(self.evidence_at(facts), facts.issuer.leeway);
        here.into_iter().chain(behind_token).min()
    }

    /// The time of the lookup behind a token, by the clock of this process. Where there is a shared
    /// state, our own tokens carry it by the clock of the state.
    fn evidence_at(&self, facts: &Facts) -> Timestamp {
        match &self.snapshot.withdrawals {
            Some(state) if facts.issuer.own => state.to_local(facts.grants_at),
            Some(_) | None => facts.grants_at,
        }
    }

    /// A tenant that the token lacks. With `on_miss: lookup` it passes if a fresh lookup, younger
    /// than the one behind the token, has it; but never for a token that its client narrowed, nor
    /// where the registry lists the grants.
    fn check_granted_since(&self, facts: &Facts, asked: Asked<'_>) -> Checked {
        let (Some(cell), FreshnessRule::MaxAge(max_age)) = (&facts.grants, self.snapshot.freshness)
        else {
            return Err(self.not_granted(asked.identity, "not_in_token"));
        };
        let listed = asked.client.is_some_and(|client| client.static_grants.is_some());
        let may_widen =
            self.snapshot.lookup_on_miss && facts.issuer.own && !facts.narrowed && !listed;
        let current = cell.current();
        let fresh = current
            .as_ref()
            .filter(|set| may_widen && self.is_fresh(set, max_age) && !self.predates(set, facts));
        if !fresh.is_some_and(|set| self.holds(set, asked)) {
            return Err(self.not_granted(asked.identity, "not_in_token"));
        }
        cell.touch(self.now.monotonic);
        Ok(None)
    }

    /// A key names no tenants, so only a lookup can vouch for one.
    fn check_key_grants(&self, client: &ClientId, asked: Asked<'_>) -> Checked {
        let cell = self.grants.cell(client);
        cell.touch(self.now.monotonic);
        let FreshnessRule::MaxAge(max_age) = self.snapshot.freshness else {
            return Err(DenyReason::GrantsStale.into());
        };
        let current = cell.current();
        let fresh = current.as_ref().filter(|set| self.is_fresh(set, max_age));
        let grants = fresh.ok_or_else(|| stale(asked.identity))?;
        match self.holds(grants, asked) {
            true => Ok(None),
            false => Err(self.not_granted(asked.identity, "not_in_lookup")),
        }
    }

    fn is_fresh(&self, set: &GrantSet, max_age: Duration) -> bool {
        self.now.monotonic.since(set.looked_up_at) <= max_age
    }

    /// With `on_miss: lookup` the client may have been granted the tenant since.
    fn not_granted(&self, identity: &Identity, rule: &'static str) -> Denied {
        let known_to_lookup = match identity {
            Identity::Token(facts) => facts.grants.is_some(),
            Identity::ApiKey(_) => true,
        };
        let hint = (self.snapshot.lookup_on_miss && known_to_lookup)
            .then(|| ClientId::parse(identity.client()).map(Hint::Miss))
            .flatten();
        Denied { hint, ..not_granted(rule) }
    }
}

fn not_granted(rule: &'static str) -> Denied {
    Denied { rule, ..DenyReason::TenantNotGranted.into() }
}

fn stale(identity: &Identity) -> Denied {
    Denied { hint: grants_hint(identity), ..DenyReason::GrantsStale.into() }
}

fn grants_hint(identity: &Identity) -> Option<Hint> {
    ClientId::parse(identity.client()).map(Hint::Grants)
}
