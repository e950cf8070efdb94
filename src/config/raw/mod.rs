//! The shape of `tenantgate.yaml`, a file a section. The doc comments are what the schema, the
//! editors and `docs/configuration.md` say; `Default` holds the defaults. Every field is an
//! `Option`: `None` is a key that was left out, or a value that has been reported as broken.

mod apis;
mod audit;
mod auth;
mod dialects;
mod issuer;
mod issuers;
mod limits;
mod listen;
mod management;
mod state;
mod telemetry;
mod tenants;
mod text;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use apis::{Api, ApiKey, Route};
pub use audit::Audit;
pub use auth::{Auth, Basic, ClientTls, OAuth2, OAuth2Algorithm, OAuth2Method};
pub use dialects::{
    AnswerFormat, AuthZen, CodesOf, CompleteIf, Cursor, PageCount, Pages, QuotaPaths,
};
pub use issuer::{ClaimForm, Issuer, TenantClaim};
pub use issuers::{Algorithm, IssuerFreshness, IssuerTenantClaim, TrustedIssuer};
pub use limits::{ForwardedHeader, Limits};
pub use listen::{FullListen, Listen, ListenOn, ServerTls};
pub use management::Management;
pub use state::{Postgres, State};
pub use telemetry::Telemetry;
pub use tenants::{
    Claim, Fresh, Freshness, FullClaim, Header, Lookup, LookupMethod, MassAction, MassWithdrawal,
    OnMiss, RemoteLookup, StaticWord, Tenants, TokenWord,
};
pub use text::{DurationText, FileText, JsonPathText, PointerText, TemplateText, UrlText};

/// The configuration of tenantgate. Durations are texts like `300ms`, `30s`, `5m`, `1h 30m`.
/// A key that ends in `_file` names a file; relative paths are relative to the config file's
/// folder, and of a secret one trailing newline is dropped.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "tenantgate.yaml", extend("required" = ["apis"]))]
pub struct Root {
    /// Where this process listens. Port 0 takes any free port.
    pub listen: Option<Listen>,
    /// Our own tokens. Needed with `listen.token`; without it at least one of `issuers` is needed.
    pub issuer: Option<Issuer>,
    /// The registered apps. Needed with `listen.token` and for API keys, unless `state` keeps them.
    pub clients: Option<Clients>,
    /// Which tenants a client may read, and how fresh that must be.
    pub tenants: Option<Tenants>,
    /// Other issuers whose tokens are accepted too.
    pub issuers: Option<Vec<Option<TrustedIssuer>>>,
    /// Where withdrawals, clients and records are kept that outlive a process. Left out: files
    /// only.
    pub state: Option<State>,
    /// Who may use the management API of `listen.management`.
    pub management: Option<Management>,
    /// A stream of JSON lines with what was issued and what was refused. Left out: none.
    pub audit: Option<Audit>,
    /// What is sent to others for watching this process.
    pub telemetry: Option<Telemetry>,
    /// The APIs behind Envoy. One API is used for every check; of several, Envoy names one in
    /// `context_extensions` as `tenantgate_api`.
    #[schemars(length(min = 1))]
    pub apis: Option<Vec<Option<Api>>>,
    /// Bounds of what one peer can take. They rarely need a change.
    pub limits: Option<Limits>,
}

impl Default for Root {
    fn default() -> Self {
        Self {
            listen: Some(Listen::default()),
            issuer: None,
            clients: None,
            tenants: Some(Tenants::default()),
            issuers: Some(Vec::new()),
            state: None,
            management: None,
            audit: None,
            telemetry: None,
            apis: None,
            limits: Some(Limits::default()),
        }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["file"]))]
pub struct Clients {
    /// The file registry, usually `clients.yaml`; `tenantgate clients add` writes it.
    pub file: Option<FileText>,
}
