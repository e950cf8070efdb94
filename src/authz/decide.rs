//! One decision, from the request to allow or deny. Synchronous; nothing here waits, locks or asks
//! for the time.

use std::sync::Arc;
use std::time::Duration;

use super::bearer::{self, HeaderValue, Headers};
use super::facts::{Facts, FactsCache};
use super::issuer::KeyStanding;
use super::jwt::{MAX_TOKEN, Refusal, Verifier, within_lifetime};
use super::path::{CheckedPath, PathError};
use super::probing::{Probe, ProbeWatch};
use super::route::{Found, RouteMatch};
use super::snapshot::{Api, Freshness, Route, Snapshot};
use crate::domain::{
    Client, ClientId, CredentialDigest, DenyReason, GrantBook, GrantCell, GrantSet, Holder,
    ScopeSet, Standing, TenantDigest, Timestamp,
};

/// A request, as far as it matters to the decision.
pub struct CheckInput<'a> {
    /// The API that Envoy names.
    pub profile: Option<&'a str>,
    pub method: &'a str,
    /// `:path`, query included, nothing decoded.
    pub target: &'a [u8],
    pub headers: &'a dyn Headers,
}

/// Proof that a request may pass. Only this room can make one.
pub struct Permit<'a> {
    pub api: &'a Api,
    /// `None`: the route is public, or the API is in shadow mode and nobody is known.
    pub identity: Option<Identity>,
    /// `None` only in shadow mode.
    pub route: Option<&'a Route>,
    pub variables: Vec<(&'a str, &'a str)>,
    _proof: Proof,
}

/// Keeps other rooms from writing a [`Permit`] down.
struct Proof;

#[derive(Clone)]
pub enum Identity {
    Token(Arc<Facts>),
    ApiKey(Arc<Client>),
}

impl Identity {
    pub fn client(&self) -> &str {
        match self {
            Self::Token(facts) => &facts.client,
            Self::ApiKey(client) => client.id.as_str(),
        }
    }

    pub fn scopes(&self) -> &ScopeSet {
        match self {
            Self::Token(facts) => &facts.scopes,
            Self::ApiKey(client) => &client.scopes,
        }
    }

    /// The issuer, where it is not our own.
    pub fn foreign_issuer(&self) -> Option<&str> {
        match self {
            Self::Token(facts) if !facts.issuer.own => Some(&facts.issuer.issuer),
            Self::Token(_) | Self::ApiKey(_) => None,
        }
    }
}

/// A decision and what led to it, for the reply, the log and the metrics.
pub struct Outcome<'a> {
    pub verdict: Result<Permit<'a>, DenyReason>,
    /// Set where shadow mode let a request pass that would have been denied.
    pub shadowed: Option<DenyReason>,
    pub trail: Trail<'a>,
}

/// How far a decision got.
#[derive(Default)]
pub struct Trail<'a> {
    pub api: Option<&'a Api>,
    pub route: Option<&'a Route>,
    pub identity: Option<Identity>,
    pub tenant: Option<&'a str>,
    /// The rule behind a refusal, where the reason has several.
    pub rule: &'static str,
    pub hint: Option<Hint>,
    /// The client has just been seen to ask for many foreign tenants.
    pub probing: bool,
}

impl Trail<'_> {
    /// The client whose grants a lookup tells, if the decision depends on one.
    pub fn looked_up_client(&self, snapshot: &Snapshot) -> Option<ClientId> {
        let identity = self.identity.as_ref()?;
        let by_lookup = match identity {
            Identity::Token(facts) => facts.issuer.fresh_grants,
            Identity::ApiKey(_) => true,
        };
        let registered = snapshot.clients.as_ref().and_then(|book| book.get(identity.client()));
        let statically = registered.is_some_and(|client| client.static_grants.is_some());
        (by_lookup && !statically).then(|| ClientId::parse(identity.client())).flatten()
    }
}

/// Work that a decision would like to be done in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// An issuer's token names a key that is not known here.
    UnknownKey { issuer: String },
    /// A client's grants are unknown here, or too old.
    Grants(ClientId),
    /// A client asked for a tenant that it may have been granted since.
    Miss(ClientId),
}

/// Sees each step of a decision. `()` sees nothing and costs nothing.
pub trait Observer {
    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String);
}

impl Observer for () {
    fn step(&mut self, _name: &'static str, _outcome: impl FnOnce() -> String) {}
}

/// Who asks for which tenant.
#[derive(Clone, Copy)]
struct Asked<'t> {
    identity: &'t Identity,
    tenant: &'t str,
    /// Its digest in a token of our own. Grants hold the digests under every honoured key, this one
    /// too, so it need not be computed again.
    named: Option<TenantDigest>,
}

/// Decides requests against one snapshot.
pub struct Authorizer<'a> {
    pub snapshot: &'a Snapshot,
    pub cache: &'a FactsCache,
    pub grants: &'a dyn GrantBook,
    pub probes: &'a ProbeWatch,
    pub now: Timestamp,
}

impl<'a> Authorizer<'a> {
    pub fn decide(&self, input: &CheckInput<'a>, observer: &mut impl Observer) -> Outcome<'a> {
        let mut trail = Trail::default();
        let verdict = self.walk(input, &mut trail, observer);
        let (verdict, shadowed) = match (verdict, trail.api) {
            (Err(reason), Some(api)) if api.shadow => {
                observer.step("shadow", || format!("let pass instead of {}", reason.as_str()));
                let permit = Permit {
                    api,
                    identity: None,
                    route: None,
                    variables: Vec::new(),
                    _proof: Proof,
                };
                (Ok(permit), Some(reason))
            }
            (verdict, _) => (verdict, None),
        };
        Outcome { verdict, shadowed, trail }
    }

    fn walk(
        &self,
        input: &CheckInput<'a>,
        trail: &mut Trail<'a>,
        observer: &mut impl Observer,
    ) -> Result<Permit<'a>, DenyReason> {
        let api = self.snapshot.apis.select(input.profile).ok_or(DenyReason::UnknownApi)?;
        trail.api = Some(api);
        observer.step("api", || api.name.clone());

        let matched = find_route(api, input).map_err(|error| {
            trail.rule = error.as_str();
            observer.step("path", || format!("refused: {}", error.as_str()));
            DenyReason::PathRefused
        })?;
        observer.step("path", || "accepted".to_owned());
        if let Some(matched) = &matched {
            trail.route = Some(matched.data);
            trail.tenant = matched.tenant;
            observer.step("route", || matched.data.name.clone());
            if matched.data.public {
                return Ok(permit(api, None, matched));
            }
        }

        // Whoever shows no good credential learns nothing about routes.
        let identity = self.identify(api, input, trail).inspect_err(|reason| {
            let rule = trail.rule;
            let rule = if rule.is_empty() { String::new() } else { format!(" ({rule})") };
            observer.step("credential", || format!("refused: {}{rule}", reason.as_str()));
        })?;
        observer.step("credential", || format!("client {}", identity.client()));
        trail.identity = Some(identity.clone());
        self.check_client(api, &identity)?;
        observer.step("client", || "in good standing".to_owned());

        let matched = matched.ok_or_else(|| {
            observer.step("route", || "none matches path and method".to_owned());
            DenyReason::NoRoute
        })?;
        let missing = matched.data.scopes.iter().find(|scope| !identity.scopes().contains(scope));
        if let Some(missing) = missing {
            observer.step("scope", || format!("{missing} is missing"));
            return Err(DenyReason::ScopeMissing);
        }
        observer.step("scope", || "sufficient".to_owned());

        let tenant = matched.tenant.ok_or(DenyReason::NoRoute)?;
        let checked = self.check_tenant(&identity, tenant, trail);
        let checked =
            checked.map_err(|reason| self.watch_probing(reason, &identity, tenant, trail));
        checked.inspect_err(|reason| {
            observer.step("tenant", || format!("refused: {}", reason.as_str()));
        })?;
        observer
            .step("tenant", || format!("{} is granted", self.snapshot.digester.reference(tenant)));
        Ok(permit(api, Some(identity), &matched))
    }

    fn identify(
        &self,
        api: &Api,
        input: &CheckInput<'a>,
        trail: &mut Trail<'a>,
    ) -> Result<Identity, DenyReason> {
        let key = match &api.api_key_header {
            Some(name) => input.headers.get(name),
            None => HeaderValue::Missing,
        };
        match (input.headers.get("authorization"), key) {
            (HeaderValue::Missing, HeaderValue::Missing) => Err(DenyReason::NoCredential),
            (HeaderValue::One(value), HeaderValue::Missing) => self.token_identity(value, trail),
            (HeaderValue::Missing, HeaderValue::One(key)) => self.key_identity(key),
            _ => Err(DenyReason::SeveralCredentials),
        }
    }

    fn token_identity(&self, value: &[u8], trail: &mut Trail<'a>) -> Result<Identity, DenyReason> {
        let refused = |trail: &mut Trail<'a>, refusal: Refusal| {
            trail.rule = refusal.rule;
            let unknown = refusal.unknown_key_of.as_ref();
            trail.hint = unknown.map(|policy| Hint::UnknownKey { issuer: policy.issuer.clone() });
            refusal.reason
        };
        // What is remembered has passed every rule, also those on how a token is written.
        let shown = bearer::shown(value).filter(|shown| shown.len() <= MAX_TOKEN);
        let digest = shown.map(|shown| self.cache.digest(shown));
        let remembered = digest.as_ref().and_then(|digest| self.cache.get(digest));
        if let Some(facts) = remembered.filter(|facts| facts.comparable(&self.snapshot.digester)) {
            match self.snapshot.trust.standing(facts.key, self.now) {
                KeyStanding::Trusted => {
                    within_lifetime(facts.not_before, facts.expires_at, &facts.issuer, self.now)
                        .map_err(|refusal| refused(trail, refusal))?;
                    return Ok(Identity::Token(facts));
                }
                KeyStanding::TooOld => return Err(DenyReason::KeysUnavailable),
                // The key is gone, or its issuer's rules have changed: verify anew.
                KeyStanding::Withdrawn => {}
            }
        }
        let verifier = Verifier {
            trust: &self.snapshot.trust,
            digester: &self.snapshot.digester,
            grants: self.grants,
            now: self.now,
        };
        let token = bearer::token(value)?;
        let facts = verifier.verify(token).map_err(|refusal| refused(trail, refusal))?;
        let facts = Arc::new(facts);
        if let Some(digest) = digest {
            self.cache.insert(digest, Arc::clone(&facts));
        }
        Ok(Identity::Token(facts))
    }

    fn key_identity(&self, key: &[u8]) -> Result<Identity, DenyReason> {
        let key = str::from_utf8(key).map_err(|_| DenyReason::ApiKeyInvalid)?;
        let book = self.snapshot.clients.as_ref().ok_or(DenyReason::ApiKeyInvalid)?;
        let digest = CredentialDigest::sha256_of(key);
        let found = book.by_credential_digest(&digest);
        let (client, credential) = found.ok_or(DenyReason::ApiKeyInvalid)?;
        if !credential.usable_at(self.now) {
            return Err(DenyReason::ApiKeyInvalid);
        }
        Ok(Identity::ApiKey(Arc::clone(client)))
    }

    /// The registry's word on the client, now. Clients of other issuers are not in it.
    fn check_client(&self, api: &Api, identity: &Identity) -> Result<(), DenyReason> {
        let Some(client) = self.registered(identity)? else { return Ok(()) };
        if client.standing() == Standing::Withdrawn {
            return Err(DenyReason::ClientWithdrawn);
        }
        match &client.apis {
            Some(apis) if !apis.contains(&api.name) => Err(DenyReason::ApiNotAllowed),
            _ => Ok(()),
        }
    }

    fn registered<'i>(&'i self, identity: &'i Identity) -> Result<Option<&'i Client>, DenyReason> {
        match (identity, &self.snapshot.clients) {
            (Identity::ApiKey(client), _) => Ok(Some(client)),
            (Identity::Token(facts), Some(book)) if facts.issuer.own => book
                .get(&facts.client)
                .map(|client| Some(&**client))
                .ok_or(DenyReason::ClientWithdrawn),
            (Identity::Token(_), _) => Ok(None),
        }
    }

    /// A tenant that exists and one that does not take the same way through here.
    fn check_tenant(
        &self,
        identity: &Identity,
        tenant: &str,
        trail: &mut Trail<'a>,
    ) -> Result<(), DenyReason> {
        let mut asked = Asked { identity, tenant, named: None };
        if let Identity::Token(facts) = identity {
            let Some(digest) = self.named_digest(facts, tenant) else {
                return self.check_granted_since(facts, asked, trail);
            };
            // Grants are kept under our own issuer's name.
            asked.named = facts.issuer.own.then_some(digest);
        }
        if let Some(grants) = self.registered(identity)?.and_then(|c| c.static_grants.as_ref()) {
            return self.held(grants, asked).ok_or(DenyReason::TenantNotGranted);
        }
        match identity {
            Identity::Token(facts) => match (&facts.grants, self.snapshot.freshness) {
                (Some(cell), Freshness::MaxAge(max_age)) => {
                    self.check_fresh_token(facts, cell, max_age, asked, trail)
                }
                (None, _) | (_, Freshness::Token) => Ok(()),
            },
            Identity::ApiKey(client) => self.check_key_grants(&client.id, asked, trail),
        }
    }

    fn watch_probing(
        &self,
        reason: DenyReason,
        identity: &Identity,
        tenant: &str,
        trail: &mut Trail<'a>,
    ) -> DenyReason {
        if reason != DenyReason::TenantNotGranted {
            return reason;
        }
        let rule = &self.snapshot.probing;
        let client = identity.client();
        let issuer = identity.foreign_issuer().unwrap_or(&self.snapshot.own_issuer);
        let holder = Holder { issuer, client };
        let digest = self.snapshot.digester.current(holder, tenant);
        let probe = self.probes.note(rule, holder, digest, self.now);
        trail.probing = probe == Probe::Noticed;
        match probe {
            Probe::Noticed | Probe::Many if rule.throttle => DenyReason::ProbingThrottled,
            Probe::Few | Probe::Noticed | Probe::Many => reason,
        }
    }

    /// The digest under which the token names the tenant, if it does.
    fn named_digest(&self, facts: &Facts, tenant: &str) -> Option<TenantDigest> {
        let holder = Holder { issuer: &facts.issuer.issuer, client: &facts.client };
        let mut digests = self.snapshot.digester.all(holder, tenant);
        digests.find(|digest| facts.tenants.contains(digest))
    }

    fn held(&self, grants: &GrantSet, asked: Asked<'_>) -> Option<()> {
        if let Some(digest) = asked.named {
            return grants.digests.contains(&digest).then_some(());
        }
        let holder = Holder { issuer: &self.snapshot.own_issuer, client: asked.identity.client() };
        let mut digests = self.snapshot.digester.all(holder, asked.tenant);
        digests.any(|digest| grants.digests.contains(&digest)).then_some(())
    }

    /// Fresh grants only ever subtract from what the token names. What vouches for the request is the
    /// younger of the token and the last good lookup.
    fn check_fresh_token(
        &self,
        facts: &Facts,
        cell: &GrantCell,
        max_age: Duration,
        asked: Asked<'_>,
        trail: &mut Trail<'a>,
    ) -> Result<(), DenyReason> {
        cell.touch(self.now);
        let mut vouched_at = facts.issued_at;
        match &*cell.current() {
            None => trail.hint = grants_hint(asked.identity),
            Some(grants) => {
                // A lookup older than the token's own says nothing against it: the tenant may have
                // been granted in between, to a client of another replica.
                let newer = grants.looked_up_at >= facts.grants_at;
                if newer && self.held(grants, asked).is_none() {
                    trail.hint = self.miss_hint(asked.identity);
                    return Err(DenyReason::TenantNotGranted);
                }
                vouched_at = vouched_at.max(grants.looked_up_at);
            }
        }
        if self.now.since(vouched_at) > max_age {
            trail.hint = grants_hint(asked.identity);
            return Err(DenyReason::GrantsStale);
        }
        Ok(())
    }

    /// A tenant that the token lacks. With `on_miss: lookup` it passes if a fresh lookup, younger than the
    /// one behind the token, has it; but never in a token that its client narrowed, nor where the registry
    /// lists the grants.
    fn check_granted_since(
        &self,
        facts: &Facts,
        asked: Asked<'_>,
        trail: &mut Trail<'a>,
    ) -> Result<(), DenyReason> {
        trail.hint = self.miss_hint(asked.identity);
        let (Some(cell), Freshness::MaxAge(max_age)) = (&facts.grants, self.snapshot.freshness)
        else {
            return Err(DenyReason::TenantNotGranted);
        };
        let registered = self.registered(asked.identity)?;
        let listed = registered.is_some_and(|client| client.static_grants.is_some());
        let may_widen =
            self.snapshot.lookup_on_miss && facts.issuer.own && !facts.narrowed && !listed;
        let current = cell.current();
        let fresh = current.as_ref().filter(|set| {
            may_widen
                && set.looked_up_at >= facts.grants_at
                && self.now.since(set.looked_up_at) <= max_age
        });
        fresh.and_then(|set| self.held(set, asked)).ok_or(DenyReason::TenantNotGranted)?;
        cell.touch(self.now);
        trail.hint = None;
        Ok(())
    }

    /// A key names no tenants, so only a lookup can vouch.
    fn check_key_grants(
        &self,
        client: &ClientId,
        asked: Asked<'_>,
        trail: &mut Trail<'a>,
    ) -> Result<(), DenyReason> {
        let cell = self.grants.cell(client);
        cell.touch(self.now);
        let Freshness::MaxAge(max_age) = self.snapshot.freshness else {
            return Err(DenyReason::GrantsStale);
        };
        let current = cell.current();
        let fresh = current.as_ref().filter(|set| self.now.since(set.looked_up_at) <= max_age);
        let Some(grants) = fresh else {
            trail.hint = grants_hint(asked.identity);
            return Err(DenyReason::GrantsStale);
        };
        self.held(grants, asked).ok_or_else(|| {
            trail.hint = self.miss_hint(asked.identity);
            DenyReason::TenantNotGranted
        })
    }

    fn miss_hint(&self, identity: &Identity) -> Option<Hint> {
        let known_to_lookup = match identity {
            Identity::Token(facts) => facts.grants.is_some(),
            Identity::ApiKey(_) => true,
        };
        (self.snapshot.lookup_on_miss && known_to_lookup)
            .then(|| ClientId::parse(identity.client()).map(Hint::Miss))
            .flatten()
    }
}

fn grants_hint(identity: &Identity) -> Option<Hint> {
    ClientId::parse(identity.client()).map(Hint::Grants)
}

fn permit<'a>(
    api: &'a Api,
    identity: Option<Identity>,
    matched: &RouteMatch<'a, 'a, Route>,
) -> Permit<'a> {
    Permit {
        api,
        identity,
        route: Some(matched.data),
        variables: matched.variables.clone(),
        _proof: Proof,
    }
}

fn find_route<'a>(
    api: &'a Api,
    input: &CheckInput<'a>,
) -> Result<Option<RouteMatch<'a, 'a, Route>>, PathError> {
    let path = CheckedPath::parse(input.target)?;
    match api.router.find(input.method, path) {
        Found::Route(matched) => Ok(Some(matched)),
        Found::NoRoute => Ok(None),
        Found::Refused(error) => Err(error),
    }
}
