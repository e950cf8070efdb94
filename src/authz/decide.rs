//! One decision, from the request to allow or deny. Synchronous; nothing here waits, locks or asks
//! for the time.

use std::sync::Arc;

use compact_str::CompactString;

use super::bearer::Headers;
use super::facts::{Facts, FactsCache};
use super::path::{CheckedPath, PathError};
use super::probing::ProbeWatch;
use super::route::{Found, RouteMatch};
use super::snapshot::{Api, Route, Snapshot};
use super::told;
use super::withdrawn::Withdrawal;
use crate::domain::{
    Client, ClientId, DenyReason, GrantBook, Moment, Quota, ScopeSet, Standing, Timestamp, TokenRef,
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
    pub route: &'a Route,
    /// `None`: the route is public.
    pub caller: Option<Caller>,
    pub variables: Vec<(&'a str, &'a str)>,
    pub hint: Option<Hint>,
    _proof: Proof,
}

/// Proof that a request which was refused may pass all the same: its API is in shadow mode.
pub struct ShadowPass<'a> {
    pub api: &'a Api,
    pub denied: Denied,
    /// What the request shows under the header for API keys is one of ours, or may be. It is a
    /// secret that mints tokens, and not the API's business.
    pub shows_our_key: bool,
    _proof: Proof,
}

/// Keeps other rooms from writing down a [`Permit`] or a [`ShadowPass`].
struct Proof;

/// Who may pass, and with what.
pub struct Caller {
    pub identity: Identity,
    /// `None`: those of the identity.
    narrowed: Option<ScopeSet>,
    pub quota: Option<Quota>,
}

impl Caller {
    /// The scopes that count: those of a token of ours as far as the registry still has them.
    pub fn scopes(&self) -> &ScopeSet {
        self.narrowed.as_ref().unwrap_or_else(|| self.identity.scopes())
    }
}

/// A refusal, and what led to it.
#[derive(Debug, PartialEq)]
pub struct Denied {
    pub reason: DenyReason,
    /// The rule behind the reason, where it has several.
    pub rule: &'static str,
    pub hint: Option<Hint>,
    /// The client has just been seen to ask for many foreign tenants.
    pub probing: bool,
}

impl From<DenyReason> for Denied {
    fn from(reason: DenyReason) -> Self {
        Self { reason, rule: "", hint: None, probing: false }
    }
}

pub enum Verdict<'a> {
    Allowed(Permit<'a>),
    Shadowed(ShadowPass<'a>),
    Denied(Denied),
}

/// A decision and how far it got, for the reply, the log and the metrics.
pub struct Outcome<'a> {
    pub verdict: Verdict<'a>,
    pub api: Option<&'a Api>,
    pub route: Option<&'a Route>,
    pub identity: Option<Identity>,
    pub tenant: Option<&'a str>,
}

impl Outcome<'_> {
    /// What was wrong, also where shadow mode lets it pass.
    pub fn refusal(&self) -> Option<&Denied> {
        match &self.verdict {
            Verdict::Allowed(_) => None,
            Verdict::Shadowed(pass) => Some(&pass.denied),
            Verdict::Denied(denied) => Some(denied),
        }
    }

    /// Why the request does not pass.
    pub fn denied(&self) -> Option<DenyReason> {
        match &self.verdict {
            Verdict::Allowed(_) | Verdict::Shadowed(_) => None,
            Verdict::Denied(denied) => Some(denied.reason),
        }
    }

    pub fn hint(&self) -> Option<&Hint> {
        match &self.verdict {
            Verdict::Allowed(permit) => permit.hint.as_ref(),
            Verdict::Shadowed(pass) => pass.denied.hint.as_ref(),
            Verdict::Denied(denied) => denied.hint.as_ref(),
        }
    }

    /// The client whose grants a lookup tells, if the decision depends on one.
    pub fn looked_up_client(&self, snapshot: &Snapshot) -> Option<ClientId> {
        let identity = self.identity.as_ref()?;
        let by_lookup = match identity {
            Identity::Token(facts) => facts.issuer.fresh_grants,
            Identity::ApiKey(_) => true,
        };
        let registered = snapshot.registered(identity).ok().flatten();
        let statically = registered.is_some_and(|client| client.static_grants.is_some());
        (by_lookup && !statically).then(|| ClientId::parse(identity.client())).flatten()
    }
}

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

    /// Who vouches for the name of the client. Two issuers may call two clients the same.
    pub fn issuer<'i>(&'i self, snapshot: &'i Snapshot) -> &'i str {
        self.foreign_issuer().unwrap_or(&snapshot.own_issuer)
    }
}

/// Whose a verified token is.
pub struct Bearer {
    pub client: CompactString,
    /// Our own issuer has signed it.
    pub is_ours: bool,
    pub id: Option<TokenRef>,
    pub expires_at: Timestamp,
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

/// Decides requests against one snapshot.
pub struct Authorizer<'a> {
    pub snapshot: &'a Snapshot,
    pub cache: &'a FactsCache,
    pub grants: &'a dyn GrantBook,
    /// `None`: somebody only asks what would be.
    pub probes: Option<&'a ProbeWatch>,
    pub now: Moment,
}

impl<'a> Authorizer<'a> {
    pub fn decide(&self, input: &CheckInput<'a>, observer: &mut impl Observer) -> Outcome<'a> {
        let Some(api) = self.snapshot.apis.select(input.profile) else {
            let verdict = Verdict::Denied(DenyReason::UnknownApi.into());
            return Outcome { verdict, api: None, route: None, identity: None, tenant: None };
        };
        observer.step("api", || api.name.clone());
        let matched = match find_route(api, input) {
            Ok(matched) => matched,
            Err(error) => {
                observer.step("path", || told::path(api, input, error));
                let denied = Denied { rule: error.as_str(), ..DenyReason::PathRefused.into() };
                let verdict = self.refused(api, input, denied, observer);
                let api = Some(api);
                return Outcome { verdict, api, route: None, identity: None, tenant: None };
            }
        };
        observer.step("path", || "accepted".to_owned());
        let route = matched.as_ref().map(|matched| matched.data);
        let tenant = matched.as_ref().and_then(|matched| matched.tenant);
        observer.step("route", || match route {
            Some(route) => route.name.clone(),
            None => told::no_route(api, input),
        });
        let (verdict, identity) = match &matched {
            Some(matched) if matched.data.public => {
                (Verdict::Allowed(permit(api, None, matched, None)), None)
            }
            // Whoever shows no good credential learns nothing about routes.
            _ => match self.identify_told(api, input, observer) {
                Err(denied) => {
                    observer.step("credential", || told::denied(&denied));
                    (self.refused(api, input, denied, observer), None)
                }
                Ok(identity) => {
                    observer.step("credential", || format!("client {}", identity.client()));
                    let authorized = self.authorize(api, &identity, matched.as_ref(), observer);
                    let verdict = match authorized {
                        Ok(permit) => Verdict::Allowed(permit),
                        Err(denied) => self.refused(api, input, denied, observer),
                    };
                    (verdict, Some(identity))
                }
            },
        };
        Outcome { verdict, api: Some(api), route, identity, tenant }
    }

    /// Whether somebody who is known may do this.
    fn authorize(
        &self,
        api: &'a Api,
        identity: &Identity,
        matched: Option<&RouteMatch<'a, 'a, Route>>,
        observer: &mut impl Observer,
    ) -> Result<Permit<'a>, Denied> {
        let (withdrawal, client) = self.check_caller(api, identity).inspect_err(|denied| {
            observer.step("client", || self.told_client(api, identity, denied));
        })?;
        observer.step("client", || "in good standing".to_owned());

        let matched = matched.ok_or(DenyReason::NoRoute)?;
        let caller = Caller {
            identity: identity.clone(),
            narrowed: client.and_then(|client| identity.scopes().narrowed_to(&client.scopes)),
            quota: self.quota(identity, client),
        };
        let missing = matched.data.scopes.iter().find(|scope| !caller.scopes().contains(scope));
        if let Some(missing) = missing {
            observer.step("scope", || format!("{missing} is missing"));
            return Err(DenyReason::ScopeMissing.into());
        }
        observer.step("scope", || "sufficient".to_owned());

        let tenant = matched.tenant.ok_or(DenyReason::NoRoute)?;
        let checked = self.check_tenant(identity, client, tenant).and_then(|hint| {
            if let Some(withdrawal) = &withdrawal {
                self.check_grant_standing(identity, client, tenant, withdrawal)?;
            }
            Ok(hint)
        });
        let hint = checked.inspect_err(|denied| {
            observer.step("tenant", || self.told_tenant(identity, client, tenant, denied));
        })?;
        observer
            .step("tenant", || format!("{} is granted", self.snapshot.digester.reference(tenant)));
        Ok(permit(api, Some(caller), matched, hint))
    }

    /// The token says of itself what it likes: told before it is verified.
    fn identify_told(
        &self,
        api: &Api,
        input: &CheckInput<'a>,
        observer: &mut impl Observer,
    ) -> Result<Identity, Denied> {
        let shown = input.headers.get("authorization");
        observer.step("token", || told::token(shown));
        observer.step("times", || told::times(shown, self.now.wall));
        self.identify(api, input)
    }

    /// What is withdrawn from the client, and the registry's entry, if both let it call this API.
    fn check_caller<'i>(
        &'i self,
        api: &Api,
        identity: &'i Identity,
    ) -> Result<(Option<Withdrawal<'a>>, Option<&'i Client>), Denied> {
        let withdrawal = self.withdrawal(identity)?;
        if let Some(withdrawal) = &withdrawal {
            self.check_standing(identity, withdrawal)?;
        }
        let client = self.check_client(identity)?;
        match client.and_then(|client| client.apis.as_ref()) {
            Some(apis) if !apis.contains(&api.name) => Err(DenyReason::ApiNotAllowed.into()),
            _ => Ok((withdrawal, client)),
        }
    }

    /// The registry's word on the client, now. Clients of other issuers are not in it.
    fn check_client<'i>(&'i self, identity: &'i Identity) -> Result<Option<&'i Client>, Denied> {
        let because = |rule| Denied { rule, ..DenyReason::ClientWithdrawn.into() };
        let registered = self.snapshot.registered(identity);
        let Some(client) = registered.map_err(|_| because("unknown"))? else { return Ok(None) };
        if client.standing() == Standing::Withdrawn {
            let app = !client.approved;
            return Err(because(if app { "app_revoked" } else { "developer_inactive" }));
        }
        if let Identity::Token(facts) = identity
            && client.tokens_not_before.is_some_and(|floor| facts.issued_at <= floor)
        {
            return Err(DenyReason::TokenRevoked.into());
        }
        Ok(Some(client))
    }

    /// Whether a token stands now, for whoever asks about it outside of a request.
    pub fn token_standing(&self, token: &str) -> Result<Caller, Denied> {
        let identity = self.token_identity(format!("Bearer {token}").as_bytes())?;
        if let Some(withdrawal) = self.withdrawal(&identity)? {
            self.check_standing(&identity, &withdrawal)?;
        }
        let client = self.check_client(&identity)?;
        let narrowed = client.and_then(|client| identity.scopes().narrowed_to(&client.scopes));
        let quota = self.quota(&identity, client);
        Ok(Caller { identity, narrowed, quota })
    }

    /// Whose a token is, whether or not it stands: its signature and its times are good.
    pub fn bearer_of(&self, token: &str) -> Result<Bearer, Denied> {
        match self.token_identity(format!("Bearer {token}").as_bytes())? {
            Identity::Token(facts) => Ok(Bearer {
                client: facts.client.clone(),
                is_ours: facts.issuer.own,
                id: facts.id,
                expires_at: facts.expires_at,
            }),
            Identity::ApiKey(_) => Err(DenyReason::TokenMalformed.into()),
        }
    }

    /// The registry's word, else what the provider said at the last lookup.
    fn quota(&self, identity: &Identity, client: Option<&Client>) -> Option<Quota> {
        if let Some(client) = client
            && (client.quota.is_some() || client.static_grants.is_some())
        {
            return client.quota;
        }
        match identity {
            Identity::Token(facts) => facts.grants.as_ref()?.current().as_ref()?.quota,
            Identity::ApiKey(client) => self.grants.cell(&client.id).current().as_ref()?.quota,
        }
    }

    /// Shadow mode lets pass what is refused.
    fn refused(
        &self,
        api: &'a Api,
        input: &CheckInput<'a>,
        denied: Denied,
        observer: &mut impl Observer,
    ) -> Verdict<'a> {
        if !api.shadow {
            return Verdict::Denied(denied);
        }
        observer.step("shadow", || format!("let pass instead of {}", denied.reason.as_str()));
        let shows_our_key = self.shows_our_key(api, input);
        Verdict::Shadowed(ShadowPass { api, denied, shows_our_key, _proof: Proof })
    }
}

impl Snapshot {
    /// The registry's entry of a client. It knows only those of our own issuer: whoever has the
    /// same name at another is somebody else.
    fn registered<'i>(&'i self, identity: &'i Identity) -> Result<Option<&'i Client>, DenyReason> {
        match (identity, &self.clients) {
            (Identity::ApiKey(client), _) => Ok(Some(client)),
            (Identity::Token(facts), Some(book)) if facts.issuer.own => book
                .get(&facts.client)
                .map(|client| Some(&**client))
                .ok_or(DenyReason::ClientWithdrawn),
            (Identity::Token(_), _) => Ok(None),
        }
    }
}

fn permit<'a>(
    api: &'a Api,
    caller: Option<Caller>,
    matched: &RouteMatch<'a, 'a, Route>,
    hint: Option<Hint>,
) -> Permit<'a> {
    let variables = matched.variables.clone();
    Permit { api, route: matched.data, caller, variables, hint, _proof: Proof }
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
