//! One decision, from the request to allow or deny. Synchronous: nothing here waits, locks or reads
//! a clock.

use std::sync::Arc;

use compact_str::CompactString;

use super::bearer::Headers;
use super::facts::{Facts, FactsCache};
use super::in_words;
use super::path::{CheckedPath, PathError};
use super::probing::ProbeWatch;
use super::route::{Found, RouteMatch};
use super::snapshot::{Api, Route, Snapshot};
use super::withdrawn::Withdrawal;
use crate::domain::{
    Client, ClientId, DenyReason, GrantBook, Moment, Quota, ScopeSet, Standing, Timestamp, TokenRef,
};

/// What a decision needs of a request.
pub struct CheckInput<'a> {
    /// The API that Envoy names in `context_extensions`. `None`: it names none.
    pub profile: Option<&'a str>,
    /// The HTTP method, compared byte for byte.
    pub method: &'a str,
    /// `:path`, query included, nothing decoded.
    pub target: &'a [u8],
    /// The decision reads only `authorization` and the API's header for keys.
    pub headers: &'a dyn Headers,
}

/// Proof that a request may pass. Only this module can make one.
pub struct Permit<'a> {
    /// The API whose rules were applied.
    pub api: &'a Api,
    /// The route that matched path and method.
    pub route: &'a Route,
    /// `None`: the route is public.
    pub caller: Option<Identified>,
    /// Path variables by name, without the tenant; values as sent, escapes included.
    pub variables: Vec<(&'a str, &'a str)>,
    /// Background work that the decision suggests; `None`: nothing.
    pub hint: Option<Hint>,
    _proof: Proof,
}

/// Proof that a refused request may pass anyway: its API is in shadow mode.
pub struct ShadowPass<'a> {
    /// The API in shadow mode.
    pub api: &'a Api,
    /// The refusal that shadow mode overrides, for logs and metrics.
    pub denied: Denied,
    /// The header for API keys holds one of our keys, or may. A key is a secret that mints tokens,
    /// so it is kept from the API.
    pub shows_our_key: bool,
    _proof: Proof,
}

/// Keeps other modules from constructing a [`Permit`] or a [`ShadowPass`].
struct Proof;

/// An identified client, with its scopes and quota.
pub struct Identified {
    /// The verified credential, which names the client.
    pub identity: Identity,
    /// `None`: all scopes of the identity.
    narrowed: Option<ScopeSet>,
    /// For the gateway's rate limiter. `None`: no quota is set for this client.
    pub quota: Option<Quota>,
}

impl Identified {
    /// The scopes that count: of a credential of ours, those that the registry still lists.
    pub fn scopes(&self) -> &ScopeSet {
        self.narrowed.as_ref().unwrap_or_else(|| self.identity.scopes())
    }
}

/// A refusal, and what led to it.
#[derive(Debug, PartialEq)]
pub struct Denied {
    /// Decides the status and the body of the answer; also the metric's label.
    pub reason: DenyReason,
    /// The rule behind the reason, where it has several; else empty.
    pub rule: &'static str,
    /// Background work that may turn a later try into a pass.
    pub hint: Option<Hint>,
    /// The client has just passed the limit of foreign tenants. True once per window.
    pub probing: bool,
}

impl From<DenyReason> for Denied {
    fn from(reason: DenyReason) -> Self {
        Self { reason, rule: "", hint: None, probing: false }
    }
}

/// What is decided about a request.
pub enum Verdict<'a> {
    /// The request passes.
    Allowed(Permit<'a>),
    /// Refused, but the API is in shadow mode, so the request passes.
    Shadowed(ShadowPass<'a>),
    /// The request does not pass.
    Denied(Denied),
}

/// A decision and how far it got, for the reply, the log and the metrics.
pub struct Outcome<'a> {
    /// The result, with what is needed to act on it.
    pub verdict: Verdict<'a>,
    /// `None`: no API goes by the name that Envoy gave.
    pub api: Option<&'a Api>,
    /// `None`: no route matched, or the path was refused.
    pub route: Option<&'a Route>,
    /// `None`: a public route, no valid credential, or refused before one was read.
    pub identity: Option<Identity>,
    /// The tenant code in the path, which is a secret. `None`: the route names no tenant.
    pub tenant: Option<&'a str>,
}

impl Outcome<'_> {
    /// What was wrong, even where shadow mode lets the request pass.
    pub fn refusal(&self) -> Option<&Denied> {
        match &self.verdict {
            Verdict::Allowed(_) => None,
            Verdict::Shadowed(pass) => Some(&pass.denied),
            Verdict::Denied(denied) => Some(denied),
        }
    }

    /// Why the request does not pass. `None`: it passes, if only in shadow mode.
    pub fn denied(&self) -> Option<DenyReason> {
        match &self.verdict {
            Verdict::Allowed(_) | Verdict::Shadowed(_) => None,
            Verdict::Denied(denied) => Some(denied.reason),
        }
    }

    /// Background work; a verdict of any kind may suggest some.
    pub fn hint(&self) -> Option<&Hint> {
        match &self.verdict {
            Verdict::Allowed(permit) => permit.hint.as_ref(),
            Verdict::Shadowed(pass) => pass.denied.hint.as_ref(),
            Verdict::Denied(denied) => denied.hint.as_ref(),
        }
    }

    /// The client whose grants come from a lookup, if the decision depends on one.
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

/// A verified credential and what it says of its client.
#[derive(Clone)]
pub enum Identity {
    /// A token of a trusted issuer.
    Token(Arc<Facts>),
    /// An API key of a registered client.
    ApiKey(Arc<Client>),
}

impl Identity {
    /// The client id. Unique only together with [`Identity::issuer`].
    pub fn client(&self) -> &str {
        match self {
            Self::Token(facts) => &facts.client,
            Self::ApiKey(client) => client.id.as_str(),
        }
    }

    /// The scopes of the credential itself, before the registry narrows those of a token.
    pub fn scopes(&self) -> &ScopeSet {
        match self {
            Self::Token(facts) => &facts.scopes,
            Self::ApiKey(client) => &client.scopes,
        }
    }

    /// The token's issuer. `None`: it is our own, or the credential is an API key.
    pub fn foreign_issuer(&self) -> Option<&str> {
        match self {
            Self::Token(facts) if !facts.issuer.own => Some(&facts.issuer.issuer),
            Self::Token(_) | Self::ApiKey(_) => None,
        }
    }

    /// Who vouches for the client id. Two issuers may use the same id for two clients.
    pub fn issuer<'i>(&'i self, snapshot: &'i Snapshot) -> &'i str {
        self.foreign_issuer().unwrap_or(&snapshot.own_issuer)
    }
}

/// The client of a verified token.
pub struct Bearer {
    /// The client id, as the issuer of the token knows it.
    pub client: CompactString,
    /// Our own issuer has signed it.
    pub is_ours: bool,
    /// Stands for the `jti` (RFC 7519, section 4.1.7). `None`: the token has none.
    pub id: Option<TokenRef>,
    /// The `exp` (RFC 7519, section 4.1.4), without leeway.
    pub expires_at: Timestamp,
}

/// Background work that a decision suggests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A token names a key that is not among its issuer's keys.
    UnknownKey {
        /// Whose keys to fetch again, by its `iss`.
        issuer: String,
    },
    /// A client's grants are unknown here, or too old.
    Grants(ClientId),
    /// A client asked for a tenant that it may have been granted since.
    Miss(ClientId),
}

/// Receives each step of a decision. `()` ignores them at no cost.
pub trait Observer {
    /// `name` is the step, such as `route`; `outcome` makes its text, if that is wanted.
    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String);
}

impl Observer for () {
    fn step(&mut self, _name: &'static str, _outcome: impl FnOnce() -> String) {}
}

/// Decides requests against one snapshot.
pub struct Authorizer<'a> {
    /// Everything that a reload can change.
    pub snapshot: &'a Snapshot,
    /// Tokens that were verified before.
    pub cache: &'a FactsCache,
    /// The freshest looked-up grants, by client.
    pub grants: &'a dyn GrantBook,
    /// `None`: for questions such as `explain`, which do not count as probing.
    pub probes: Option<&'a ProbeWatch>,
    /// The time of the decision, on the wall clock and the monotonic one.
    pub now: Moment,
}

impl<'a> Authorizer<'a> {
    /// Never fails: whatever is wrong is a refusal in the [`Outcome`].
    pub fn decide(&self, input: &CheckInput<'a>, observer: &mut impl Observer) -> Outcome<'a> {
        let Some(api) = self.snapshot.apis.select(input.profile) else {
            let verdict = Verdict::Denied(DenyReason::UnknownApi.into());
            return Outcome { verdict, api: None, route: None, identity: None, tenant: None };
        };
        observer.step("api", || api.name.clone());
        let matched = match find_route(api, input) {
            Ok(matched) => matched,
            Err(error) => {
                observer.step("path", || in_words::path(api, input, error));
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
            None => in_words::no_route(api, input),
        });
        let (verdict, identity) = match &matched {
            Some(matched) if matched.data.public => {
                (Verdict::Allowed(permit(api, None, matched, None)), None)
            }
            // A caller without a valid credential learns nothing about routes.
            _ => match self.identify_told(api, input, observer) {
                Err(denied) => {
                    observer.step("credential", || in_words::denied(&denied));
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

    /// Whether an identified client may make this request.
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
        let caller = Identified {
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

    /// A token may claim anything about itself: these steps are reported before it is verified.
    fn identify_told(
        &self,
        api: &Api,
        input: &CheckInput<'a>,
        observer: &mut impl Observer,
    ) -> Result<Identity, Denied> {
        let header = input.headers.get("authorization");
        observer.step("token", || in_words::token(header));
        observer.step("times", || in_words::times(header, self.now.wall));
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

    /// What the registry says of the client now. Clients of other issuers are not in it.
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

    /// Whether a token is valid now and its client in good standing. For introspection and the
    /// management API.
    pub fn token_standing(&self, token: &str) -> Result<Identified, Denied> {
        let identity = self.token_identity(format!("Bearer {token}").as_bytes())?;
        if let Some(withdrawal) = self.withdrawal(&identity)? {
            self.check_standing(&identity, &withdrawal)?;
        }
        let client = self.check_client(&identity)?;
        let narrowed = client.and_then(|client| identity.scopes().narrowed_to(&client.scopes));
        let quota = self.quota(&identity, client);
        Ok(Identified { identity, narrowed, quota })
    }

    /// The client of a token whose signature and times are good, revoked or not. For revocation.
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

    /// From the registry, else from the provider's last answer.
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

    /// In shadow mode a refused request passes.
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
    /// The registry's entry of a client. It knows only those of our own issuer: the same id at
    /// another issuer is another client.
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
    caller: Option<Identified>,
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
