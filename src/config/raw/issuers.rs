use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientTls, CodesOf, DurationText, FileText, PointerText, UrlText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "audience", "tenant_claim"]))]
pub struct TrustedIssuer {
    /// The exact `iss` of its tokens.
    pub issuer: Option<String>,
    /// Where its keys are published. One of `jwks_url`, `jwks_file` and `discovery`.
    pub jwks_url: Option<UrlText>,
    /// A file with its keys.
    pub jwks_file: Option<FileText>,
    /// Find `jwks_url` in the metadata below `issuer`.
    pub discovery: Option<bool>,
    /// Accept plain `http://` for `jwks_url` or discovery outside loopback.
    pub allow_http: Option<bool>,
    /// Certificates for `jwks_url` and discovery.
    pub tls: Option<ClientTls>,
    /// The proxy to reach them through. The environment's proxy variables are not read.
    pub proxy: Option<UrlText>,
    /// Accept a token without `kid` where exactly one of the keys fits its algorithm, and keys
    /// without `kid`.
    pub allow_missing_kid: Option<bool>,
    /// The `aud` that its tokens must have for us.
    pub audience: Option<String>,
    /// The signature algorithms that its tokens may have.
    #[schemars(length(min = 1))]
    pub algorithms: Option<Vec<Option<Algorithm>>>,
    /// Where a token carries its tenants: a JSON Pointer to an array of plain codes, or to one text
    /// of them separated by commas or spaces; or a mapping.
    pub tenant_claim: Option<IssuerTenantClaim>,
    /// Where a token names its client.
    pub client_claim: Option<PointerText>,
    /// The token types that are accepted. `JWT` accepts ID tokens too: leave it out if you can.
    #[schemars(length(min = 1))]
    pub typ: Option<Vec<Option<String>>>,
    /// Tokens that live longer are refused.
    pub max_lifetime: Option<DurationText>,
    /// How far clocks may differ; at most 30s.
    pub leeway: Option<DurationText>,
    /// `token`: a token's claim alone is the truth until it expires. `lookup`: the lookup knows
    /// this issuer's clients by the same ids, so that grants are kept fresh for them too.
    pub freshness: Option<IssuerFreshness>,
}

impl Default for TrustedIssuer {
    fn default() -> Self {
        Self {
            issuer: None,
            jwks_url: None,
            jwks_file: None,
            discovery: Some(false),
            allow_http: Some(false),
            tls: None,
            proxy: None,
            allow_missing_kid: Some(false),
            audience: None,
            algorithms: Some(vec![Some(Algorithm::Es256)]),
            tenant_claim: None,
            client_claim: Some("/client_id".into()),
            typ: Some(vec![Some("at+jwt".into())]),
            max_lifetime: Some("24h".into()),
            leeway: Some("10s".into()),
            freshness: Some(IssuerFreshness::Token),
        }
    }
}

/// A JSON Pointer (RFC 6901), or a mapping.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum IssuerTenantClaim {
    Pointer(PointerText),
    Full(FullIssuerTenantClaim),
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pointer"]))]
pub struct FullIssuerTenantClaim {
    /// A JSON Pointer to the claim.
    pub pointer: Option<PointerText>,
    /// `values`: an array of texts or whole numbers. `keys`: the keys of an object. `text`: one
    /// text, separated by commas or blanks.
    pub of: Option<CodesOf>,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "PS256")]
    Ps256,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum IssuerFreshness {
    Token,
    Lookup,
}
