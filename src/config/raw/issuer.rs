use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientTls, DurationText, Field, FileText, UrlText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url", "audience"]))]
pub struct Issuer {
    /// The `iss` of our tokens: the public URL under which Envoy offers the token endpoint.
    pub url: Field<UrlText>,
    /// Accept plain `http://` for `url` and `jwks_url` outside loopback.
    pub allow_http: Field<bool>,
    /// The `aud` of our tokens, and what a check demands.
    pub audience: Field<String>,
    /// How long a token lives, unless its client has a `token_ttl` of its own.
    pub token_ttl: Field<DurationText>,
    /// No token lives longer, whatever a client's own `token_ttl` says.
    pub max_token_ttl: Field<DurationText>,
    /// How far clocks may differ when our tokens are checked; at most 30s.
    pub leeway: Field<DurationText>,
    /// The directory that `tenantgate keys generate` fills. One of `signing_keys` and `jwks_url`.
    pub signing_keys: Field<FileText>,
    /// Where a process that mints publishes the keys, such as `http://127.0.0.1:9192/oauth2/jwks`:
    /// for one that only checks, and then needs no private key.
    pub jwks_url: Field<UrlText>,
    /// Certificates for `jwks_url`.
    pub tls: Field<ClientTls>,
    /// The proxy to reach it through. The environment's proxy variables are not read.
    pub proxy: Field<UrlText>,
    /// How a token carries its tenants.
    pub tenant_claim: Field<TenantClaim>,
    /// Tenants in one token at most: it is sent with every request. A client that more have
    /// authorised names the ones it wants (`tenant=CODE`, repeated); nothing is left out silently.
    #[schemars(range(min = 1, max = 500))]
    pub max_tenants: Field<u32>,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            url: Field::Absent,
            allow_http: Field::Value(false),
            audience: Field::Absent,
            token_ttl: Field::Value("5m".into()),
            max_token_ttl: Field::Value("24h".into()),
            leeway: Field::Value("10s".into()),
            signing_keys: Field::Absent,
            jwks_url: Field::Absent,
            tls: Field::Absent,
            proxy: Field::Absent,
            tenant_claim: Field::Value(TenantClaim::default()),
            max_tenants: Field::Value(300),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantClaim {
    /// The claim's name.
    pub name: Field<String>,
    /// What the claim holds: keyed digests of the tenant codes, or the codes themselves, which
    /// everybody who holds a token can read.
    pub form: Field<ClaimForm>,
    /// The key of the digests, made by `tenantgate keys digest`. Needed with `form: digest`.
    pub key_file: Field<FileText>,
    /// The key before this one: its digests are honoured until the tokens with it have expired.
    pub previous_key_file: Field<FileText>,
    /// Repeat the tenant codes in the token response.
    pub display: Field<bool>,
}

impl Default for TenantClaim {
    fn default() -> Self {
        Self {
            name: Field::Value("tenant_list".into()),
            form: Field::Value(ClaimForm::Digest),
            key_file: Field::Absent,
            previous_key_file: Field::Absent,
            display: Field::Value(false),
        }
    }
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ClaimForm {
    Digest,
    Plain,
}
