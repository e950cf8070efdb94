use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{
    Attributes, Client, GRANTS_AT, GrantSet, Holder, NARROWED, ScopeSet, TenantCode, TenantDigest,
    TenantForm, Timestamp,
};
use crate::engine::MintContext;
use crate::keys::Signer;

/// The payload of RFC 9068, section 2.2, and claims of our own.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    client_id: &'a str,
    iat: u64,
    exp: u64,
    jti: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    #[serde(flatten)]
    further: BTreeMap<&'a str, Claim<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Claim<'a> {
    Json(Box<RawValue>),
    Tenants(Vec<TenantValue<'a>>),
    Seconds(u64),
    Flag(bool),
}

#[derive(Serialize)]
#[serde(untagged)]
enum TenantValue<'a> {
    Digest(String),
    Plain(&'a str),
}

/// A tenant that a token is to name.
pub struct GrantedTenant<'a> {
    pub code: &'a TenantCode,
    /// Under the current key.
    pub digest: TenantDigest,
}

/// A token about to be signed.
pub struct Grant<'a> {
    pub client: &'a Client,
    pub scopes: &'a ScopeSet,
    pub tenants: &'a [GrantedTenant<'a>],
    pub attributes: &'a Attributes,
    pub grants_at: Timestamp,
    /// The token's `iat`.
    pub issued_at: Timestamp,
    /// The request named the tenants.
    pub narrowed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum MintError {
    #[error("no signing key is active")]
    NoKey,
    #[error("signing failed")]
    Signing,
    #[error("a claim cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl MintContext {
    /// The client's own or the default, and at most `max_token_ttl`.
    pub fn lifetime(&self, client: &Client) -> Duration {
        client.token_ttl.unwrap_or(self.token_ttl).min(self.max_token_ttl)
    }

    /// Signs a token of RFC 9068 with the key that is active `now`; an error if none is.
    pub fn mint(&self, grant: &Grant<'_>, now: Timestamp) -> Result<String, MintError> {
        let signer = self.keys.signer(now).ok_or(MintError::NoKey)?;
        let mut further = BTreeMap::new();
        for (name, json) in grant.attributes {
            further.insert(name.as_str(), Claim::Json(RawValue::from_string(json.clone())?));
        }
        let tenants = grant.tenants.iter().map(|tenant| self.tenant_value(tenant)).collect();
        further.insert(&self.tenant_claim, Claim::Tenants(tenants));
        further.insert(GRANTS_AT, Claim::Seconds(grant.grants_at.secs()));
        if grant.narrowed {
            further.insert(NARROWED, Claim::Flag(true));
        }
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: grant.client.id.as_str(),
            client_id: grant.client.id.as_str(),
            iat: grant.issued_at.secs(),
            exp: grant.issued_at.plus(self.lifetime(grant.client)).secs(),
            jti: random_id()?,
            scope: grant.scopes.as_str(),
            further,
        };
        sign(signer, &serde_json::to_vec(&claims)?)
    }

    /// Whom the digests of this client's tenants are bound to.
    pub fn holder<'a>(&'a self, client: &'a Client) -> Holder<'a> {
        Holder { issuer: &self.issuer, client: client.id.as_str() }
    }

    /// Everything that a client is granted, digested under the current key.
    pub fn granted<'g>(&self, client: &Client, grants: &'g GrantSet) -> Vec<GrantedTenant<'g>> {
        let holder = self.holder(client);
        let tenant = |(code, digest): (&'g TenantCode, &TenantDigest)| {
            // A reload may bring another key between the lookup and this mint.
            let digest = if self.digester.is_current(digest) {
                *digest
            } else {
                self.digester.current(holder, code.expose())
            };
            GrantedTenant { code, digest }
        };
        grants.codes.iter().zip(&grants.current).map(tenant).collect()
    }

    fn tenant_value<'a>(&self, tenant: &GrantedTenant<'a>) -> TenantValue<'a> {
        match self.tenant_form {
            TenantForm::Digest => TenantValue::Digest(tenant.digest.to_text()),
            TenantForm::Plain => TenantValue::Plain(tenant.code.expose()),
        }
    }
}

fn sign(signer: &Signer, payload: &[u8]) -> Result<String, MintError> {
    let mut token = String::with_capacity(256 + payload.len() * 4 / 3);
    let (algorithm, kid) = (signer.algorithm().as_str(), signer.kid());
    let header = format!(r#"{{"alg":"{algorithm}","kid":"{kid}","typ":"at+jwt"}}"#);
    URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = signer.sign(token.as_bytes()).map_err(|_| MintError::Signing)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// 128 random bits.
fn random_id() -> Result<String, MintError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| MintError::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
