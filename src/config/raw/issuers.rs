use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientTls, CodesOf, DurationText, Field, FileText, PointerText, UrlText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "audience", "tenant_claim"]))]
pub struct TrustedIssuer {
    /// The exact `iss` of its tokens.
    pub issuer: Field<String>,
    /// Where its keys are published. One of `jwks_url`, `jwks_file` and `discovery`.
    pub jwks_url: Field<UrlText>,
    /// A file with its keys.
    pub jwks_file: Field<FileText>,
    /// Find `jwks_url` in the metadata below `issuer`.
    pub discovery: Field<bool>,
    /// Accept plain `http://` for `jwks_url` or discovery outside loopback.
    pub allow_http: Field<bool>,
    /// Certificates for `jwks_url` and discovery.
    pub tls: Field<ClientTls>,
    /// The proxy to reach them through. The environment's proxy variables are not read.
    pub proxy: Field<UrlText>,
    /// Accept a token without `kid` where exactly one of the keys fits its algorithm, and keys
    /// without `kid`.
    pub allow_missing_kid: Field<bool>,
    /// The `aud` that its tokens must have for us.
    pub audience: Field<String>,
    /// The signature algorithms that its tokens may have.
    #[schemars(length(min = 1))]
    pub algorithms: Field<Vec<Field<Algorithm>>>,
    /// Where a token carries its tenants: a JSON Pointer to an array of plain codes, or to one text
    /// of them separated by commas or spaces; or a mapping.
    pub tenant_claim: Field<IssuerTenantClaim>,
    /// Where a token names its client.
    pub client_claim: Field<PointerText>,
    /// The token types that are accepted. `JWT` accepts ID tokens too: leave it out if you can.
    #[schemars(length(min = 1))]
    pub typ: Field<Vec<Field<String>>>,
    /// Tokens that live longer are refused.
    pub max_lifetime: Field<DurationText>,
    /// How far clocks may differ; at most 30s.
    pub leeway: Field<DurationText>,
    /// `token`: a token's claim alone is the truth until it expires. `lookup`: the lookup knows
    /// this issuer's clients by the same ids, so that grants are kept fresh for them too.
    pub freshness: Field<IssuerFreshness>,
}

impl Default for TrustedIssuer {
    fn default() -> Self {
        Self {
            issuer: Field::Absent,
            jwks_url: Field::Absent,
            jwks_file: Field::Absent,
            discovery: Field::Value(false),
            allow_http: Field::Value(false),
            tls: Field::Absent,
            proxy: Field::Absent,
            allow_missing_kid: Field::Value(false),
            audience: Field::Absent,
            algorithms: Field::Value(vec![Field::Value(Algorithm::Es256)]),
            tenant_claim: Field::Absent,
            client_claim: Field::Value("/client_id".into()),
            typ: Field::Value(vec![Field::Value("at+jwt".into())]),
            max_lifetime: Field::Value("24h".into()),
            leeway: Field::Value("10s".into()),
            freshness: Field::Value(IssuerFreshness::Token),
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
    pub pointer: Field<PointerText>,
    /// `values`: an array of texts or whole numbers. `keys`: the keys of an object. `text`: one
    /// text, separated by commas or blanks.
    pub of: Field<CodesOf>,
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
