//! `tenantgate.yaml` parsed into types. What stands here is valid: there is no `validate()`
//! afterwards. `raw/` holds the shape of the file, `load.rs` the way from there to here.

pub mod docs;
mod load;
pub(crate) mod locate;
mod parse;
pub mod raw;
mod reader;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod yaml;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

pub use load::{LastGood, Outline, Reading};

use crate::authz::Probing;
use crate::authz::route::Template;
use crate::domain::{Algorithm, DIGEST_KEY_LEN, Secret};

#[derive(Debug)]
pub struct Config {
    pub listen: Listen,
    /// Our own issuer. `None`: only tokens of `issuers` are accepted.
    pub issuer: Option<Issuer>,
    pub clients_file: Option<PathBuf>,
    pub tenants: Tenants,
    pub issuers: Vec<TrustedIssuer>,
    pub apis: Vec<Api>,
    pub limits: Limits,
    /// The file and every secret that it names, for watching.
    pub files: Vec<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub check: ListenAddress,
    /// `None`: this process mints nothing.
    pub token: Option<ListenAddress>,
    pub admin: ListenAddress,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf, SocketAccess),
}

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    pub mode: u32,
    /// A number or a name. `None`: the group of this process.
    pub group: Option<String>,
}

impl Default for SocketAccess {
    /// The group may connect: Envoy's container can run as another user.
    fn default() -> Self {
        Self { mode: 0o660, group: None }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path, _) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Debug)]
pub struct Issuer {
    pub url: String,
    pub audience: String,
    pub token_ttl: Duration,
    /// No token lives longer, whatever a client's own `token_ttl` says.
    pub max_token_ttl: Duration,
    pub leeway: Duration,
    pub signing_keys: PathBuf,
    pub tenant_claim: TenantClaim,
}

#[derive(Debug)]
pub struct TenantClaim {
    pub name: String,
    pub form: ClaimForm,
    /// Repeat the list in the token response.
    pub display: bool,
}

/// Compared only to see whether a reload changed it.
#[derive(Clone, PartialEq)]
pub enum ClaimForm {
    Digest { key: DigestKey, previous: Option<DigestKey> },
    Plain,
}

pub type DigestKey = Zeroizing<[u8; DIGEST_KEY_LEN]>;

#[derive(Debug)]
pub struct Tenants {
    pub freshness: Freshness,
    pub lookup: Lookup,
    pub on_miss: OnMiss,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The claim alone is the truth until it expires.
    Token,
    Lookup {
        refresh: Duration,
        max_age: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    Deny,
    Lookup,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// Only what the client registry lists.
    Static,
    Http(Box<HttpLookup>),
    Grpc(Box<GrpcLookup>),
}

/// What both kinds of remote lookup share.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupLimits {
    /// In total, over all tries.
    pub timeout: Duration,
    pub cache_ttl: Duration,
    /// For "no grants".
    pub negative_ttl: Duration,
    /// How long past `cache_ttl` a positive answer may serve a mint while it is looked up again.
    pub stale_while_revalidate: Duration,
    pub max_tries: u32,
    /// Lookups under way at once.
    pub concurrency: usize,
    /// Clients whose answer is remembered.
    pub cache_clients: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpLookup {
    pub limits: LookupLimits,
    pub method: LookupMethod,
    /// Holds `{client_id}`; the id is percent-encoded as one segment.
    pub url: UrlTemplate,
    pub headers: Vec<(String, SecretText)>,
    pub select: JsonPath,
    /// Claim name -> where its value stands in the answer, and whether the token response repeats it.
    pub claims: BTreeMap<String, SelectedClaim>,
    /// Statuses that mean "no grants".
    pub no_grants_status: Vec<u16>,
    pub max_body: usize,
    pub auth: LookupAuth,
    pub tls: ClientTls,
    pub proxy: Option<Url>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SelectedClaim {
    pub select: JsonPath,
    pub display: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupMethod {
    Get,
    Post,
}

/// A URL with `{client_id}` in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(pub String);

/// An RFC 9535 query, known to parse, and the array that it walks.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    pub query: serde_json_path::JsonPath,
    /// The query up to its first wildcard, slice or filter. `None`: it selects single values.
    pub array: Option<serde_json_path::JsonPath>,
}

/// A secret that can be compared only to see whether a reload changed the config.
#[derive(Clone)]
pub struct SecretText(pub Secret);

#[derive(Clone, Debug, PartialEq)]
pub struct GrpcLookup {
    pub limits: LookupLimits,
    pub url: Url,
    pub auth: LookupAuth,
    pub tls: ClientTls,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LookupAuth {
    None,
    Bearer(SecretText),
    Basic { username: String, password: SecretText },
    OAuth2(Box<OAuth2Auth>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2Auth {
    pub token_url: Url,
    pub client_id: String,
    pub method: OAuth2Method,
    pub scope: Option<String>,
    pub audience: Option<String>,
    pub refresh_before_expiry: Duration,
    /// Used where the answer has no `expires_in` and the token no `exp`.
    pub default_lifetime: Duration,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OAuth2Method {
    ClientSecretBasic(SecretText),
    ClientSecretPost(SecretText),
    /// The signing key as PEM (PKCS#8), its algorithm (ES256, EdDSA or RS256) and its `kid`.
    PrivateKeyJwt {
        key_pem: SecretText,
        algorithm: Algorithm,
        kid: Option<String>,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTls {
    /// PEM certificates of an own CA; they replace the built-in roots.
    pub ca_pem: Option<String>,
    /// PEM certificate chain and key for mutual TLS.
    pub identity_pem: Option<SecretText>,
}

/// Another issuer whose tokens are accepted too.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedIssuer {
    pub issuer: String,
    pub keys: KeySource,
    pub audience: String,
    pub algorithms: Vec<Algorithm>,
    /// JSON Pointer.
    pub tenant_claim: String,
    /// JSON Pointer.
    pub client_claim: String,
    pub typ: Vec<String>,
    pub max_lifetime: Duration,
    pub leeway: Duration,
    /// Whether this issuer's clients are known to the lookup, so that grants subtract from its tokens too.
    pub freshness: IssuerFreshness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerFreshness {
    Token,
    Lookup,
}

#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    Url(Url),
    File(PathBuf),
    /// OpenID Connect Discovery 1.0 / RFC 8414 below the issuer.
    Discovery(Url),
}

#[derive(Debug)]
pub struct Api {
    pub name: String,
    pub routes: Vec<Route>,
    pub forward_authorization: bool,
    /// Decide and record, but let everything pass.
    pub shadow: bool,
    /// The header that carries an API key, in lower case.
    pub api_key_header: Option<String>,
}

#[derive(Debug)]
pub struct Route {
    /// Shown in logs and metrics instead of the path: the template's own text.
    pub name: String,
    pub template: Template,
    pub methods: Vec<String>,
    /// Whether HEAD is allowed where GET is.
    pub head: bool,
    pub scopes: Vec<String>,
    pub public: bool,
    pub allow_encoded_percent: bool,
}

#[derive(Debug)]
pub struct Limits {
    /// The bound of the cache of verified tokens.
    pub token_cache_bytes: u64,
    /// Connections at once on the check listener.
    pub check_connections: usize,
    /// The bytes of one check's message.
    pub check_message_bytes: usize,
    /// The bytes of all messages that have not arrived whole.
    pub check_unfinished_bytes: usize,
    /// Connections at once on the token listener.
    pub token_connections: usize,
    /// Failed authentications a minute before one source, or one client from one source, gets 429.
    pub failures_per_minute: NonZeroU32,
    /// How many proxies in front of the token listener append to `forwarded_header`.
    pub trusted_proxies: usize,
    pub forwarded_header: ForwardedHeader,
    /// Imported (argon2id) secrets checked at once.
    pub slow_hashes: usize,
    pub probing: Probing,
}

/// Where the proxies before us write for whom they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// One thing wrong with a file: `FIELD.PATH: what is wrong; what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub field: String,
    pub message: String,
}

impl Problem {
    pub fn new(field: impl Into<String>, wrong: impl AsRef<str>, cure: impl AsRef<str>) -> Self {
        let message = format!("{}; {}", wrong.as_ref(), cure.as_ref());
        Self { field: field.into(), message }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::fmt::Debug for ClaimForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Digest { .. } => "Digest",
            Self::Plain => "Plain",
        })
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for SecretText {
    /// In constant time, although both sides are ours: nobody has to wonder.
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.0.expose().as_bytes().ct_eq(other.0.expose().as_bytes()).into()
    }
}
