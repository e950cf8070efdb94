use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;

use super::audit;
use super::credentials::presented;
use super::error::TokenError;
use super::form::TokenForm;
use super::mint::{Grant, GrantedTenant};
use super::refusal::{Cause, Refusal};
use super::throttle::Throttle;
use super::withdrawn::Withdrawal;
use crate::clients::{Attempt, Authentication, Authenticator, Presented};
use crate::domain::{
    Caller, Client, Clock, GrantSet, ScopeSet, Secret, Standing, TenantCode, TenantDigest,
};
use crate::engine::MintContext;
use crate::grants::{LookupOutcome, Tenants};
use crate::telemetry::{AuditStream, Metrics};

const NO_TENANT: Refusal =
    TokenError::InvalidTarget("no tenant has authorised this client").because(Cause::NoGrants);
/// From this share of `max_tenants` on a warning is logged, before the first token is refused.
const NEARLY_FULL: f64 = 0.8;

/// The response to a successful token request (RFC 6749, section 5.1).
pub struct Issued {
    /// A JWT of RFC 9068, signed.
    pub access_token: String,
    /// Seconds (RFC 6749, section 5.1).
    pub expires_in: u64,
    /// The scopes of the token, separated by spaces; empty if the client has none.
    pub scope: String,
    /// Claims that the response repeats, as JSON.
    pub display: BTreeMap<String, Box<RawValue>>,
}

/// Serves the token endpoint. Made once; everything that a reload changes is in the context.
pub struct TokenService {
    /// Swapped as a whole by a reload; a request is served with one of them.
    pub context: Arc<ArcSwap<MintContext>>,
    /// Checks client secrets, a bounded number of slow ones at once.
    pub authenticator: Authenticator,
    /// Slows down guessing of secrets.
    pub throttle: Throttle,
    /// The grants of clients that the registry does not list them for.
    pub tenants: Arc<Tenants>,
    /// The only source of time, so that a test can set it.
    pub clock: Arc<dyn Clock>,
    /// Counts requests by their outcome.
    pub metrics: Arc<Metrics>,
    /// `None`: the config asks for no audit stream.
    pub audit: Option<Arc<AuditStream>>,
}

/// What is known of a request before it is read.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// The source address, for throttling and logs.
    pub caller: Caller,
    /// The gateway's id, to find the request in its log; empty if there is none.
    pub request_id: &'a str,
}

/// A request for a token, or about one (RFC 7009, RFC 7662).
pub struct TokenRequest<'a> {
    /// Where it came from.
    pub arrival: Arrival<'a>,
    /// Every value of the `Authorization` header; more than one is refused.
    pub authorization: &'a [&'a [u8]],
    /// The form, not parsed yet; the edge holds it to `MAX_FORM`.
    pub body: &'a [u8],
}

/// A client and the token that it asks about.
pub struct TokenQuestion {
    /// Authenticated and in good standing.
    pub client: Arc<Client>,
    /// As it was sent: nothing is verified.
    pub token: Secret,
}

/// A request that was refused.
struct Refused {
    /// As far as it is known: authenticated, or a registered id that is only claimed.
    client: Option<Arc<Client>>,
    refusal: Refusal,
}

impl Refused {
    /// Before anything was known of who asks.
    fn nobody(refusal: impl Into<Refusal>) -> Self {
        Self { client: None, refusal: refusal.into() }
    }

    fn known(client: &Arc<Client>, refusal: impl Into<Refusal>) -> Self {
        Self { client: Some(Arc::clone(client)), refusal: refusal.into() }
    }
}

impl TokenService {
    /// Serves a request of RFC 6749, section 4.4; counts and logs how it ended.
    pub async fn issue(&self, request: TokenRequest<'_>) -> Result<Issued, TokenError> {
        let issued = self.grant(&request).await;
        let issued = issued.map_err(|refused| self.refuse(request.arrival, refused))?;
        self.metrics.token_requests.with_label_values(&["issued"]).inc();
        Ok(issued)
    }

    /// Authenticates a request about a token, for revocation and introspection.
    pub async fn question(&self, request: TokenRequest<'_>) -> Result<TokenQuestion, TokenError> {
        let asked = self.asked(&request).await;
        asked.map_err(|refused| self.refuse(request.arrival, refused))
    }

    async fn asked(&self, request: &TokenRequest<'_>) -> Result<TokenQuestion, Refused> {
        let context = self.context.load_full();
        let form = TokenForm::about_token(request.body);
        let (mut form, token) = form.map_err(Refused::nobody)?;
        let client = self.client(&context, request, &mut form).await?;
        let standing = Withdrawal::of(&context, &client);
        standing.map_err(|refusal| Refused::known(&client, refusal))?;
        Ok(TokenQuestion { client, token })
    }

    /// The authenticated client, if it is in good standing.
    async fn client(
        &self,
        context: &MintContext,
        request: &TokenRequest<'_>,
        form: &mut TokenForm,
    ) -> Result<Arc<Client>, Refused> {
        let readings = presented(request.authorization, form).map_err(Refused::nobody)?;
        let named = readings.iter().find_map(|reading| context.clients.get(&reading.id));
        let client = self.authenticate(context, request.arrival.caller, &readings).await;
        let client = client.map_err(|refusal| Refused { client: named.cloned(), refusal })?;
        check_standing(&client).map_err(|refusal| Refused::known(&client, refusal))?;
        Ok(client)
    }

    /// Counts and logs a request that was refused before its form was read.
    pub fn refuse_early(&self, arrival: Arrival<'_>, error: TokenError) -> TokenError {
        self.refuse(arrival, Refused::nobody(error))
    }

    fn refuse(&self, arrival: Arrival<'_>, refused: Refused) -> TokenError {
        let Refused { client, refusal } = refused;
        let client = client.as_ref().map(|client| client.id.as_str());
        let Refusal { error, cause } = refusal;
        self.metrics.token_requests.with_label_values(&[error.code()]).inc();
        tracing::info!(
            client,
            source = %arrival.caller.0,
            request_id = arrival.request_id,
            reason = error.code(),
            cause = cause.as_str(),
            detail = error.description(),
            "token refused"
        );
        if let Some(audit) = &self.audit {
            let client = client.unwrap_or_default();
            audit.write(&audit::refused(client, arrival, refusal, self.clock.now()));
        }
        error
    }

    async fn grant(&self, request: &TokenRequest<'_>) -> Result<Issued, Refused> {
        let context = self.context.load_full();
        let form = TokenForm::parse(request.body, &context.audience);
        let mut form = form.map_err(Refused::nobody)?;
        let client = self.client(&context, request, &mut form).await?;
        let issued = self.grant_to(&client, &context, &form, request.arrival).await;
        let issued = issued.map_err(|refusal| Refused::known(&client, refusal))?;
        let (client, request_id) = (client.id.as_str(), request.arrival.request_id);
        tracing::debug!(client, request_id, "token issued");
        Ok(issued)
    }

    async fn grant_to(
        &self,
        client: &Client,
        context: &MintContext,
        form: &TokenForm,
        arrival: Arrival<'_>,
    ) -> Result<Issued, Refusal> {
        let withdrawal = Withdrawal::of(context, client)?;
        let scopes = narrow_scopes(client, form.scope.as_ref())?;
        let mut grants = self.grants(client).await?;
        let now = self.clock.moment();
        if withdrawal.wants_newer(now.wall_at(grants.looked_up_at), now.wall) {
            grants = usable(self.tenants.grants_anew(&client.id).await)?;
        }
        let moment = self.clock.moment();
        let (now, looked_up_at) = (moment.wall, moment.wall_at(grants.looked_up_at));
        let narrowed = !form.tenants.is_empty();
        let mut tenants = context.granted(client, &grants);
        tenants.retain(|tenant| withdrawal.leaves(tenant.code, looked_up_at));
        let tenants = narrow_tenants(context, client, tenants, &form.tenants)?;
        if !narrowed && is_nearly_full(context, tenants.len()) {
            self.metrics.tokens_nearly_full.inc();
            let (client, max) = (client.id.as_str(), context.max_tenants);
            tracing::warn!(
                client,
                tenants = tenants.len(),
                max,
                "a token holds nearly as many tenants as it may; above issuer.max_tenants this \
                 client has to name them (tenant=CODE, repeated)"
            );
        }
        let issued_at = withdrawal.issued_at(now)?;
        let mut attributes = client.attributes.clone();
        attributes.extend(grants.attributes.clone());
        let grant = Grant {
            client,
            scopes: &scopes,
            tenants: &tenants,
            attributes: &attributes,
            narrowed,
            grants_at: match client.static_grants {
                Some(_) => issued_at,
                None => withdrawal.grants_at(looked_up_at),
            },
            issued_at,
        };
        let access_token = context.mint(&grant, now).map_err(|error| {
            tracing::error!(%error, client = client.id.as_str(), "no token could be signed");
            let description = "no token can be signed right now";
            TokenError::Unavailable { retry_after: 5, description }.because(Cause::Signing)
        })?;
        if let Some(audit) = &self.audit {
            audit.write(&audit::issued(context, &grant, arrival));
        }
        Ok(Issued {
            access_token,
            expires_in: context.lifetime(client).as_secs(),
            scope: scopes.as_str().to_owned(),
            display: display(context, &grant),
        })
    }

    async fn authenticate(
        &self,
        context: &MintContext,
        caller: Caller,
        readings: &[Presented],
    ) -> Result<Arc<Client>, Refusal> {
        let attempt = Attempt { readings, caller, now: self.clock.now() };
        // One attempt, however many ways it can be read.
        let id = readings.first().map_or("", |reading| &reading.id);
        let admit = || self.throttle.attempt(caller, id);
        match self.authenticator.authenticate(&context.clients, attempt, admit).await {
            Authentication::Verified(client) => Ok(client),
            Authentication::Refused(refused) => Err(refused.into()),
            Authentication::Throttled(wait) => {
                let error = TokenError::Throttled { retry_after: wait.as_secs() + 1 };
                Err(error.because(Cause::Throttled))
            }
            Authentication::Busy => {
                let description = "too many secrets are being checked right now";
                let error = TokenError::Unavailable { retry_after: 1, description };
                Err(error.because(Cause::Throttled))
            }
        }
    }

    async fn grants(&self, client: &Client) -> Result<Arc<GrantSet>, Refusal> {
        if let Some(grants) = &client.static_grants {
            return if grants.codes.is_empty() { Err(NO_TENANT) } else { Ok(Arc::clone(grants)) };
        }
        usable(self.tenants.grants(&client.id).await)
    }
}

fn usable(outcome: LookupOutcome) -> Result<Arc<GrantSet>, Refusal> {
    match outcome {
        LookupOutcome::Granted(grants) => Ok(grants),
        LookupOutcome::Denied(_) => Err(NO_TENANT),
        LookupOutcome::Unavailable(reason) => {
            let error = TokenError::Unavailable {
                retry_after: reason.retry_after().map_or(5, |wait| wait.as_secs().max(1)),
                description: "the tenants of this client cannot be looked up right now",
            };
            Err(error.because(Cause::Lookup))
        }
    }
}

/// Only after the secret has been verified: nobody else learns that a client exists.
fn check_standing(client: &Client) -> Result<(), Refusal> {
    match client.standing() {
        Standing::Good => Ok(()),
        Standing::Withdrawn => {
            let description = "this client is revoked or its developer is not active";
            let cause = if client.approved { Cause::DeveloperInactive } else { Cause::AppRevoked };
            Err(TokenError::UnauthorizedClient(description).because(cause))
        }
    }
}

fn narrow_scopes(client: &Client, wanted: Option<&ScopeSet>) -> Result<ScopeSet, TokenError> {
    let Some(wanted) = wanted else { return Ok(client.scopes.clone()) };
    if wanted.iter().all(|scope| client.scopes.contains(scope)) {
        Ok(wanted.clone())
    } else {
        Err(TokenError::InvalidScope("a requested scope is not registered for this client"))
    }
}

fn narrow_tenants<'g>(
    context: &MintContext,
    client: &Client,
    mut tenants: Vec<GrantedTenant<'g>>,
    wanted: &[TenantCode],
) -> Result<Vec<GrantedTenant<'g>>, Refusal> {
    if tenants.is_empty() {
        return Err(NO_TENANT);
    }
    if !wanted.is_empty() {
        let holder = context.holder(client);
        let digests = wanted.iter().map(|code| context.digester.current(holder, code.expose()));
        let mut named: HashSet<TenantDigest> = digests.collect();
        // Compared by digest, so that the time taken does not show how alike two codes are.
        tenants.retain(|tenant| named.remove(&tenant.digest));
        if !named.is_empty() {
            return Err(TokenError::TENANT_NOT_GRANTED.into());
        }
    }
    if tenants.len() > context.max_tenants {
        return Err(TokenError::InvalidTarget(
            "more tenants have authorised this client than a token may hold: name the ones it is \
             for, each as tenant=CODE",
        )
        .into());
    }
    Ok(tenants)
}

fn is_nearly_full(context: &MintContext, tenants: usize) -> bool {
    tenants as f64 >= NEARLY_FULL * context.max_tenants as f64
}

fn display(context: &MintContext, grant: &Grant<'_>) -> BTreeMap<String, Box<RawValue>> {
    let mut claims = BTreeMap::new();
    for name in &context.display_claims {
        let json = grant.attributes.get(name).cloned();
        if let Some(value) = json.and_then(|json| RawValue::from_string(json).ok()) {
            claims.insert(name.clone(), value);
        }
    }
    if context.display_tenants {
        let values: Vec<&str> = grant.tenants.iter().map(|tenant| tenant.code.expose()).collect();
        if let Ok(value) = serde_json::value::to_raw_value(&values) {
            claims.insert(context.tenant_claim.clone(), value);
        }
    }
    claims
}
