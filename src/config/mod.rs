//! `tenantgate.yaml` parsed into types. What is here is valid: there is no `validate()`
//! afterwards. `raw/` holds the shape of the file, `load.rs` the way from there to here.

mod load;
mod lookup;
mod parse;
pub(crate) mod raw;
mod reader;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;
use zeroize::Zeroizing;

pub use load::{BrokenConfig, ConfigReading, FedConfig, LastGood, Outline};
pub use lookup::*;

use crate::authz::Probing;
use crate::authz::route::Template;
use crate::domain::{Algorithm, DIGEST_KEY_LEN, Problem, Secret, TenantForm};

/// `tenantgate.yaml`, with every value checked.
#[derive(Debug)]
pub struct Config {
    /// Where this process listens.
    pub listen: Listen,
    /// Our own issuer. `None`: only tokens of `issuers` are accepted.
    pub issuer: Option<Issuer>,
    /// `None`: no registry in a file.
    pub clients_file: Option<PathBuf>,
    /// Which tenants a client may read, and how fresh that must be.
    pub tenants: Tenants,
    /// Issuers whose tokens are accepted beside our own.
    pub issuers: Vec<TrustedIssuer>,
    /// `None`: nothing outlives this process but files.
    pub state: Option<State>,
    /// Who may call the management API.
    pub management: Management,
    /// Where issuances and denials are told. `None`: nowhere.
    pub audit: Option<Audit>,
    /// The collector of traces, OTLP over gRPC. `None`: there are none.
    pub traces: Option<Url>,
    /// At least one.
    pub apis: Vec<Api>,
    /// Bounds of what one peer can take.
    pub limits: Limits,
    /// The file and every secret that it names, for watching.
    pub files: Vec<PathBuf>,
    /// What is allowed, but rarely meant.
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

/// Where this process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Envoy's checks.
    pub check: ListenOn,
    /// `None`: this process mints nothing.
    pub token: Option<ListenOn>,
    /// Probes and scrapers.
    pub admin: ListenOn,
    /// A Unix socket. `None`: nobody is fed.
    pub feed: Option<ListenOn>,
    /// `None`: no management API.
    pub management: Option<ListenOn>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOn {
    /// Where it is bound.
    pub address: ListenAddress,
    /// `None`: plain.
    pub tls: Option<ServerTls>,
}

/// What a listener shows of itself, and which clients it lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The chain as PEM.
    pub cert_file: PathBuf,
    /// The private key as PEM.
    pub key_file: PathBuf,
    /// `None`: clients need no certificate.
    pub client_ca_file: Option<PathBuf>,
    /// URIs or DNS names, of which a client's certificate has to have one. Empty: any.
    pub client_identities: Vec<String>,
}

/// A TCP address or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// Port 0 takes any free port.
    Tcp(SocketAddr),
    /// The path, and who may connect.
    Unix(PathBuf, SocketAccess),
}

/// Who may connect to a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits.
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

/// Our own issuer.
#[derive(Debug)]
pub struct Issuer {
    /// The `iss` of our tokens.
    pub url: String,
    /// Their `aud`.
    pub audience: String,
    /// Unless a client has its own.
    pub token_ttl: Duration,
    /// No token lives longer, whatever a client's own `token_ttl` says.
    pub max_token_ttl: Duration,
    /// How far clocks may differ; at most 30 s.
    pub leeway: Duration,
    /// Where the keys are.
    pub keys: OwnKeys,
    /// How a token carries its tenants.
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
    Url {
        /// The key set.
        url: Url,
        /// How it is reached.
        tls: ClientTls,
        /// `None`: directly.
        proxy: Option<Url>,
    },
}

impl OwnKeys {
    /// `None`: the keys are fetched.
    pub fn folder(&self) -> Option<&PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Url { .. } => None,
        }
    }
}

/// How a token carries its tenants.
#[derive(Debug)]
pub struct TenantClaim {
    /// The claim's name.
    pub name: String,
    /// Digests, or the codes themselves.
    pub form: ClaimForm,
    /// Repeat the list in the token response.
    pub display: bool,
}

/// Compared only to see whether a reload changed it.
#[derive(Clone, PartialEq)]
pub enum ClaimForm {
    /// Keyed digests of the codes.
    Digest {
        /// For new tokens.
        key: DigestKey,
        /// Honoured until the tokens with its digests have expired.
        previous: Option<DigestKey>,
    },
    /// The codes, readable by everybody who holds a token.
    Plain,
}

/// The key of the digests, wiped when it is dropped.
pub type DigestKey = Zeroizing<[u8; DIGEST_KEY_LEN]>;

/// Which tenants a client may read.
#[derive(Debug)]
pub struct Tenants {
    /// How old that may be.
    pub freshness: Freshness,
    /// Who says it.
    pub lookup: Lookup,
    /// What happens where a token lacks the tenant.
    pub on_miss: OnMiss,
    /// Replicas share the lookup's answers.
    pub shared: bool,
    /// What happens when many clients lose everything at once.
    pub mass_withdrawal: MassWithdrawal,
}

/// When many clients lose all their grants within one refresh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassWithdrawal {
    /// Of the active clients that had grants.
    pub share: f64,
    /// Clients below which it is not suspected.
    pub at_least: usize,
    /// What happens then.
    pub action: MassAction,
}

/// What happens with a suspected mass withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MassAction {
    /// It is in force at once.
    Apply,
    /// It is in force once the next answer repeats it, within `max_age`.
    Hold,
}

/// What vouches for a token's tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The claim alone is the truth until it expires.
    Token,
    /// Active clients are looked up again and again.
    Lookup {
        /// The time between two lookups of a client.
        refresh: Duration,
        /// Older answers vouch for nothing.
        max_age: Duration,
    },
}

/// What happens where a token lacks the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// The client has to mint a new token.
    Deny,
    /// It is looked up in the background.
    Lookup,
}

/// A secret that can be compared only to see whether a reload changed the config.
#[derive(Clone)]
pub struct SecretText(pub Secret);

/// Another issuer whose tokens are accepted too.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedIssuer {
    /// The exact `iss`.
    pub issuer: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// How they are reached.
    pub tls: ClientTls,
    /// `None`: directly.
    pub proxy: Option<Url>,
    /// One key that fits will do.
    pub allow_missing_kid: bool,
    /// The `aud` that its tokens must have.
    pub audience: String,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// JSON Pointer.
    pub tenant_claim: String,
    /// `None`: an array of texts, or one text.
    pub tenants_of: Option<CodesOf>,
    /// JSON Pointer.
    pub client_claim: String,
    /// The `typ` headers that are accepted, in lower case, without `application/`.
    pub typ: Vec<String>,
    /// Tokens that live longer are refused.
    pub max_lifetime: Duration,
    /// How far clocks may differ; at most 30 s.
    pub leeway: Duration,
    /// Whether this issuer's clients are known to the lookup, so that grants subtract from its
    /// tokens too.
    pub freshness: IssuerFreshness,
}

/// What vouches for another issuer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerFreshness {
    /// The token itself, until it expires.
    Token,
    /// The lookup, which knows its clients by the same ids.
    Lookup,
}

/// Where another issuer's keys come from.
#[derive(Clone, Debug, PartialEq)]
pub enum KeySource {
    /// Its key set.
    Url(Url),
    /// A file with its key set.
    File(PathBuf),
    /// OpenID Connect Discovery 1.0 / RFC 8414 below the issuer.
    Discovery(Url),
}

/// Where the stream of issuances and denials goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audit {
    /// Standard output.
    Stdout,
    /// A file, with those that came before it.
    File {
        /// Appended to.
        path: PathBuf,
        /// A larger file is moved away.
        max_bytes: u64,
        /// Files that were moved away and are kept.
        keep: u32,
    },
}

/// What outlives this process.
#[derive(Clone, PartialEq)]
pub struct State {
    /// Where it is kept.
    pub engine: StateEngine,
    /// Names tenants, and seals static ones.
    pub key: DigestKey,
    /// The time between two looks at the feed; at most 1 s.
    pub poll: Duration,
    /// Where the local copy is kept.
    pub snapshot: Option<PathBuf>,
    /// How long records of management actions are kept.
    pub keep_audit: Duration,
    /// How long hourly counts are kept.
    pub keep_usage: Duration,
}

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum StateEngine {
    /// A file for exactly one process.
    Sqlite(PathBuf),
    /// A PostgreSQL that replicas share.
    Postgres {
        /// Its URL, with a password perhaps.
        url: SecretText,
        /// `None`: the system's roots.
        ca_pem: Option<String>,
    },
}

/// An API behind Envoy.
#[derive(Debug)]
pub struct Api {
    /// As Envoy, metrics and logs call it.
    pub name: String,
    /// The most specific one that matches counts.
    pub routes: Vec<Route>,
    /// Whether the token reaches the API.
    pub forward_authorization: bool,
    /// Decide and record, but let everything pass.
    pub shadow: bool,
    /// The header that carries an API key, in lower case.
    pub api_key_header: Option<String>,
}

/// A path of an API.
#[derive(Debug)]
pub struct Route {
    /// Shown in logs and metrics instead of the path: the template's own text.
    pub name: String,
    /// The path, with `{tenant}` where the code is.
    pub template: Template,
    /// In upper case.
    pub methods: Vec<String>,
    /// Whether HEAD is allowed where GET is.
    pub head: bool,
    /// All of them are needed.
    pub scopes: Vec<String>,
    /// Passes without a token.
    pub public: bool,
    /// Whether `%25` may be in a variable.
    pub allow_encoded_percent: bool,
}

/// Bounds of what one peer can take.
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
    /// Which header names the source of a token request.
    pub forwarded_header: ForwardedHeader,
    /// Imported (argon2id) secrets checked at once.
    pub slow_hashes: usize,
    /// When a client that asks for foreign tenants is slowed down.
    pub probing: Probing,
}

/// The header in which the proxies before us name the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl ClaimForm {
    /// How tokens name their tenants.
    pub fn tenant_form(&self) -> TenantForm {
        match self {
            Self::Digest { .. } => TenantForm::Digest,
            Self::Plain => TenantForm::Plain,
        }
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
