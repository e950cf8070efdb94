//! What tokens are minted with.

use std::sync::Arc;
use std::time::Duration;

use super::inputs::Inputs;
use crate::config::{Config, Lookup};
use crate::domain::{ClientBook, TenantDigester, TenantForm, Withdrawals};
use crate::keys::SigningKeys;

/// What minting depends on besides the request. Built and swapped as a whole.
#[derive(Clone)]
pub struct MintContext {
    /// The `iss` of every token.
    pub issuer: String,
    /// The `aud` of every token, which a request may also name as its `resource` (RFC 8707).
    pub audience: String,
    /// For clients without a lifetime of their own.
    pub token_ttl: Duration,
    /// Holds for a client's own lifetime too.
    pub max_token_ttl: Duration,
    /// The name of the claim that lists the tenants.
    pub tenant_claim: String,
    /// What that claim lists them as.
    pub tenant_form: TenantForm,
    /// Above this a client has to name the tenants it wants: a token is sent with every request.
    pub max_tenants: usize,
    /// Repeat the tenants in the token response.
    pub display_tenants: bool,
    /// The claims that the token response repeats.
    pub display_claims: Vec<String>,
    /// The registry, which authenticates clients.
    pub clients: Arc<ClientBook>,
    /// Which of them signs depends on the time.
    pub keys: Arc<SigningKeys>,
    /// Makes the digests in tokens, and the references in logs.
    pub digester: Arc<TenantDigester>,
    /// `None`: only files and lookups withdraw anything.
    pub withdrawals: Option<Arc<Withdrawals>>,
}

impl Inputs {
    /// `None`: this process mints nothing. `before` lends the issuer's settings where the config
    /// has none any more; there are no keys to sign with then.
    pub(super) fn mint_context(&self, before: Option<&MintContext>) -> Option<MintContext> {
        if !self.mints() {
            return None;
        }
        let config = &*self.config();
        let clients = self.clients().cloned().unwrap_or_default();
        let Some(issuer) = &config.issuer else {
            return Some(MintContext { clients, keys: Arc::default(), ..before?.clone() });
        };
        Some(MintContext {
            issuer: issuer.url.clone(),
            audience: issuer.audience.clone(),
            token_ttl: issuer.token_ttl,
            max_token_ttl: issuer.max_token_ttl,
            tenant_claim: issuer.tenant_claim.name.clone(),
            tenant_form: issuer.tenant_claim.form.tenant_form(),
            max_tenants: issuer.max_tenants,
            display_tenants: issuer.tenant_claim.display,
            display_claims: displayed(config),
            clients,
            keys: self.signing_keys().cloned().unwrap_or_default(),
            digester: Arc::clone(self.digester()),
            withdrawals: self.withdrawals().cloned(),
        })
    }
}

fn displayed(config: &Config) -> Vec<String> {
    match &config.tenants.lookup {
        Lookup::Http(lookup) => {
            let claims = lookup.reading.claims.iter().filter(|(_, claim)| claim.display);
            claims.map(|(name, _)| name.clone()).collect()
        }
        Lookup::Static | Lookup::Grpc(_) => Vec::new(),
    }
}
