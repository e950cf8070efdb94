//! `tenantgate.yaml` parsed into types. What stands here is valid: there is no `validate()`
//! afterwards. `raw/` holds the shape of the file, `load.rs` the way from there to here.

pub mod docs;
mod load;
pub(crate) mod locate;
mod lookup;
mod parse;
pub mod raw;
mod reader;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod yaml;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

pub use load::{FedConfig, LastGood, Outline, Reading};
pub use lookup::*;

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
    /// `None`: nothing outlives this process but files.
    pub state: Option<State>,
    pub management: Management,
    /// Where issuances and denials are told. `None`: nowhere.
    pub audit: Option<Audit>,
    /// The collector of traces, OTLP over gRPC. `None`: there are none.
    pub traces: Option<Url>,
    pub apis: Vec<Api>,
    pub limits: Limits,
    /// The file and every secret that it names, for watching.
    pub files: Vec<PathBuf>,
    /// What is allowed, but hardly meant.
    pub warnings: Vec<Problem>,
}

/// Who may call the management API, beside tokens of our own issuer.
#[derive(Debug, Default)]
pub struct Management {
    /// A bearer token for all of it.
    pub token: Option<SecretText>,
    /// A client certificate is enough for all of it.
    pub client_certificates: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub check: ListenOn,
    /// `None`: this process mints nothing.
    pub token: Option<ListenOn>,
    pub admin: ListenOn,
    /// A Unix socket. `None`: nobody is fed.
    pub feed: Option<ListenOn>,
    /// `None`: no management API.
    pub management: Option<ListenOn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOn {
    pub address: ListenAddress,
    /// `None`: plain.
    pub tls: Option<ServerTls>,
}

/// What a listener shows of itself, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// `None`: clients need no certificate.
    pub client_ca_file: Option<PathBuf>,
    /// URIs or DNS names, of which a client's certificate has to have one. Empty: any.
    pub client_identities: Vec<String>,
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
    pub keys: OwnKeys,
    pub tenant_claim: TenantClaim,
    /// In one token.
    pub max_tenants: usize,
}

/// Where the keys of our own tokens are.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnKeys {
    /// The directory of the private ones.
    Folder(PathBuf),
    /// Published by a process that mints.
    Url { url: Url, tls: ClientTls, proxy: Option<Url> },
}

impl OwnKeys {
    pub fn folder(&self) -> Option<&PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Url { .. } => None,
        }
    }
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
    /// Replicas share the lookup's answers.
    pub shared: bool,
    pub mass_withdrawal: MassWithdrawal,
}

/// When many clients lose all their grants within one refresh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassWithdrawal {
    /// Of the active clients that had grants.
    pub share: f64,
    pub at_least: usize,
    pub action: MassAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MassAction {
    Apply,
    Hold,
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

/// A secret that can be compared only to see whether a reload changed the config.
#[derive(Clone)]
pub struct SecretText(pub Secret);

/// Another issuer whose tokens are accepted too.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedIssuer {
    pub issuer: String,
    pub keys: KeySource,
    pub tls: ClientTls,
    pub proxy: Option<Url>,
    /// One key that fits will do.
    pub allow_missing_kid: bool,
    pub audience: String,
    pub algorithms: Vec<Algorithm>,
    /// JSON Pointer.
    pub tenant_claim: String,
    /// `None`: an array of texts, or one text.
    pub tenants_of: Option<CodesOf>,
    /// JSON Pointer.
    pub client_claim: String,
    pub typ: Vec<String>,
    pub max_lifetime: Duration,
    pub leeway: Duration,
    /// Whether this issuer's clients are known to the lookup, so that grants subtract from its
    /// tokens too.
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

/// Where the stream of issuances and denials goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    Stdout,
    File { path: PathBuf, max_bytes: u64, keep: u32 },
}

#[derive(Clone, PartialEq)]
pub struct State {
    pub engine: StateEngine,
    pub key: DigestKey,
    pub poll: Duration,
    /// Where the local copy is kept.
    pub snapshot: Option<PathBuf>,
    pub keep_audit: Duration,
    pub keep_usage: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StateEngine {
    Sqlite(PathBuf),
    Postgres { url: SecretText, ca_pem: Option<String> },
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

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.engine {
            StateEngine::Sqlite(_) => "State(SQLite)",
            StateEngine::Postgres { .. } => "State(PostgreSQL)",
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
