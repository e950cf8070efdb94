//! The shape of `tenantgate.yaml`, a file a section. The doc comments are what the schema, the
//! editors and `docs/configuration.md` say; `Default` holds the defaults.

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

use crate::yaml::Field;

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
    Claim, Fresh, Freshness, FullClaim, Lookup, LookupMethod, MassAction, MassWithdrawal, OnMiss,
    RemoteLookup, StaticWord, Tenants, TokenWord,
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
    pub listen: Field<Listen>,
    /// Our own tokens. Needed with `listen.token`; without it at least one of `issuers` is needed.
    pub issuer: Field<Issuer>,
    /// The registered apps. Needed with `listen.token` and for API keys, unless `state` keeps them.
    pub clients: Field<Clients>,
    /// Which tenants a client may read, and how fresh that must be.
    pub tenants: Field<Tenants>,
    /// Other issuers whose tokens are accepted too.
    pub issuers: Field<Vec<Field<TrustedIssuer>>>,
    /// Where withdrawals, clients and records are kept that outlive a process. Left out: files
    /// only.
    pub state: Field<State>,
    /// Who may use the management API of `listen.management`.
    pub management: Field<Management>,
    /// A stream of JSON lines with what was issued and what was refused. Left out: none.
    pub audit: Field<Audit>,
    /// What is sent to others for watching this process.
    pub telemetry: Field<Telemetry>,
    /// The APIs behind Envoy. One API is used for every check; of several, Envoy names one in
    /// `context_extensions` as `tenantgate_api`.
    #[schemars(length(min = 1))]
    pub apis: Field<Vec<Field<Api>>>,
    /// Bounds of what one peer can take. They rarely need a change.
    pub limits: Field<Limits>,
}

impl Default for Root {
    fn default() -> Self {
        Self {
            listen: Field::Value(Listen::default()),
            issuer: Field::Absent,
            clients: Field::Absent,
            tenants: Field::Value(Tenants::default()),
            issuers: Field::Value(Vec::new()),
            state: Field::Absent,
            management: Field::Absent,
            audit: Field::Absent,
            telemetry: Field::Absent,
            apis: Field::Absent,
            limits: Field::Value(Limits::default()),
        }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["file"]))]
pub struct Clients {
    /// The file registry, usually `clients.yaml`; `tenantgate clients add` writes it.
    pub file: Field<FileText>,
}
