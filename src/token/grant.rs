use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::value::RawValue;

use super::credentials::{Presented, Source};
use super::error::TokenError;
use super::form::TokenForm;
use super::mint::{Grant, Granted, MintContext};
use super::throttle::Throttle;
use super::withdrawn::Withdrawal;
use crate::clients::{Attempt, Authentication, Authenticator};
use crate::domain::{Client, Clock, GrantSet, ScopeSet, Standing, TenantCode, TenantDigest};
use crate::grants::{Outcome, Tenants};
use crate::telemetry::Metrics;

const NO_TENANT: TokenError = TokenError::InvalidTarget("no tenant has authorised this client");
/// Above this a client has to name the tenants it wants: a token is sent with every request.
const MAX_TENANTS: usize = 300;

/// The answer to a good token request.
pub struct Issued {
    pub access_token: String,
    pub expires_in: u64,
    pub scope: String,
    /// Claims that the response repeats, as JSON.
    pub display: BTreeMap<String, Box<RawValue>>,
}

/// Serves the token endpoint. Made once; everything that a reload changes is in the context.
pub struct TokenService {
    pub context: Arc<ArcSwap<MintContext>>,
    pub authenticator: Authenticator,
    pub throttle: Throttle,
    pub tenants: Arc<Tenants>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
}

impl TokenService {
    /// `authorization` holds every value of that header, `body` the form.
    pub async fn issue(
        &self,
        source: Source,
        authorization: &[&[u8]],
        body: &[u8],
    ) -> Result<Issued, TokenError> {
        let mut client_id = String::new();
        let issued = self.grant(source, authorization, body, &mut client_id).await;
        let outcome = issued.as_ref().map_or_else(|error| error.code(), |_| "issued");
        self.metrics.token_requests.with_label_values(&[outcome]).inc();
        match &issued {
            Ok(_) => tracing::debug!(client = client_id, "token issued"),
            Err(error) => tracing::info!(
                client = client_id,
                reason = error.code(),
                detail = error.description(),
                "token refused"
            ),
        }
        issued
    }

    async fn grant(
        &self,
        source: Source,
        authorization: &[&[u8]],
        body: &[u8],
        authenticated: &mut String,
    ) -> Result<Issued, TokenError> {
        let context = self.context.load_full();
        let mut form = TokenForm::parse(body, &context.audience)?;
        let presented = Presented::from_request(authorization, &mut form)?;
        let client = self.authenticate(&context, source, &presented).await?;
        client.id.as_str().clone_into(authenticated);
        check_standing(&client)?;
        let withdrawal = Withdrawal::of(&context, &client)?;
        let scopes = narrow_scopes(&client, form.scope.as_ref())?;
        let mut grants = self.grants(&client).await?;
        if withdrawal.wants_newer(&grants, self.clock.now()) {
            grants = usable(self.tenants.grants_anew(&client.id).await)?;
        }
        let narrowed = !form.tenants.is_empty();
        let tenants = narrow_tenants(&context, &client, (&grants, &withdrawal), &form.tenants)?;
        let now = self.clock.now();
        let issued_at = withdrawal.issued_at(now)?;
        let mut attributes = client.attributes.clone();
        attributes.extend(grants.attributes.clone());
        let grant = Grant {
            client: &client,
            scopes: &scopes,
            tenants: &tenants,
            attributes: &attributes,
            narrowed,
            grants_at: match client.static_grants {
                Some(_) => issued_at,
                None => withdrawal.grants_at(&grants),
            },
            issued_at,
        };
        let access_token = context.mint(&grant, now).map_err(|error| {
            tracing::error!(%error, client = client.id.as_str(), "no token could be signed");
            TokenError::Unavailable { retry_after: 5, told: "no token can be signed right now" }
        })?;
        Ok(Issued {
            access_token,
            expires_in: context.lifetime(&client).as_secs(),
            scope: scopes.as_str().to_owned(),
            display: display(&context, &grant),
        })
    }

    async fn authenticate(
        &self,
        context: &MintContext,
        source: Source,
        presented: &Presented,
    ) -> Result<Arc<Client>, TokenError> {
        let now = self.clock.now();
        let Presented { id, secret } = presented;
        let admit = || self.throttle.attempt(source, id);
        let attempt = Attempt { id, secret, now };
        match self.authenticator.authenticate(&context.clients, attempt, admit).await {
            Authentication::Verified(client) => Ok(client),
            Authentication::Refused => Err(TokenError::InvalidClient),
            Authentication::Throttled(wait) => {
                Err(TokenError::Throttled { retry_after: wait.as_secs() + 1 })
            }
            Authentication::Busy => Err(TokenError::Unavailable {
                retry_after: 1,
                told: "too many secrets are being checked right now",
            }),
        }
    }

    async fn grants(&self, client: &Client) -> Result<Arc<GrantSet>, TokenError> {
        if let Some(grants) = &client.static_grants {
            return if grants.codes.is_empty() { Err(NO_TENANT) } else { Ok(Arc::clone(grants)) };
        }
        usable(self.tenants.grants(&client.id).await)
    }
}

fn usable(outcome: Outcome) -> Result<Arc<GrantSet>, TokenError> {
    match outcome {
        Outcome::Granted(grants) => Ok(grants),
        Outcome::Denied(_) => Err(NO_TENANT),
        Outcome::Unavailable(reason) => Err(TokenError::Unavailable {
            retry_after: reason.retry_after().map_or(5, |wait| wait.as_secs().max(1)),
            told: "the tenants of this client cannot be looked up right now",
        }),
    }
}

/// Only after the secret has been verified: nobody else learns that a client exists.
fn check_standing(client: &Client) -> Result<(), TokenError> {
    match client.standing() {
        Standing::Good => Ok(()),
        Standing::Withdrawn => Err(TokenError::UnauthorizedClient(
            "this client is revoked or its developer is not active",
        )),
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
    (grants, withdrawal): (&'g GrantSet, &Withdrawal<'_>),
    wanted: &[TenantCode],
) -> Result<Vec<Granted<'g>>, TokenError> {
    let mut tenants = context.granted(client, grants);
    tenants.retain(|tenant| withdrawal.leaves(tenant.code, grants));
    if tenants.is_empty() {
        return Err(NO_TENANT);
    }
    if !wanted.is_empty() {
        let holder = context.holder(client);
        let digests = wanted.iter().map(|code| context.digester.current(holder, code.expose()));
        let mut named: HashSet<TenantDigest> = digests.collect();
        // Compared by digest: how alike two codes are shows in no time that is taken.
        tenants.retain(|tenant| named.remove(&tenant.digest));
        if !named.is_empty() {
            return Err(TokenError::TENANT_NOT_GRANTED);
        }
    }
    if tenants.len() > MAX_TENANTS {
        return Err(TokenError::InvalidTarget(
            "more than 300 tenants have authorised this client: name the ones the token is for",
        ));
    }
    Ok(tenants)
}

fn display(context: &MintContext, grant: &Grant<'_>) -> BTreeMap<String, Box<RawValue>> {
    let mut shown = BTreeMap::new();
    for name in &context.display_claims {
        let json = grant.attributes.get(name).cloned();
        if let Some(value) = json.and_then(|json| RawValue::from_string(json).ok()) {
            shown.insert(name.clone(), value);
        }
    }
    if context.display_tenants {
        let values: Vec<&str> = grant.tenants.iter().map(|tenant| tenant.code.expose()).collect();
        if let Ok(value) = serde_json::value::to_raw_value(&values) {
            shown.insert(context.tenant_claim.clone(), value);
        }
    }
    shown
}
