//! The bodies of calls and answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain;

/// A change that is stored, and in force in this process.
#[derive(Serialize, ToSchema)]
pub struct Done {
    pub seq: i64,
    /// RFC 3339, UTC.
    pub not_before: String,
}

impl Done {
    pub fn new(seq: i64, not_before: i64) -> Self {
        Self { seq, not_before: time(not_before) }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Withdraw {
    #[schema(pattern = "^[A-Za-z0-9._~@:+-]{1,128}$")]
    pub client_id: String,
    /// The code.
    #[schema(pattern = "^[A-Za-z0-9._~-]{1,128}$")]
    pub tenant: String,
    /// A UUID. The same one again does nothing and is answered alike.
    #[schema(format = "uuid")]
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
    /// How long evidence must come after now to count, such as `10s`.
    pub hold: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    pub client_id: String,
    /// The code.
    #[schema(pattern = "^[A-Za-z0-9._~-]{1,128}$")]
    pub tenant: String,
    /// A UUID. The same one again does nothing and is answered alike.
    #[schema(format = "uuid")]
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
}

/// A client to be registered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClient {
    /// 1 to 128 letters, digits and `._~@:+-`, not only dots.
    #[schema(pattern = "^[A-Za-z0-9._~@:+-]{1,128}$")]
    pub client_id: String,
    /// The scopes that it may ask for, separated by blanks.
    pub scope: Option<Scopes>,
    /// Codes of the tenants that it may read, instead of the lookup. Left out or empty: the lookup
    /// tells.
    pub tenants: Option<Vec<String>>,
    /// How long its tokens live, such as `30m`. Left out: `issuer.token_ttl`.
    pub token_ttl: Option<String>,
    pub developer: Option<Developer>,
    /// The APIs that it may call. Left out: all.
    pub apis: Option<Vec<String>>,
    /// Claims that each of its tokens carries.
    pub attributes: Option<BTreeMap<String, Value>>,
    pub quota: Option<QuotaDocument>,
    /// A UUID. The same one again does nothing and is answered alike.
    #[schema(format = "uuid")]
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
}

/// What is to be changed of a client (RFC 7396): what is left out stays, `null` takes it away.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientPatch {
    /// The scopes that it may ask for, separated by blanks. Tokens that are out lose what is taken
    /// away.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Scopes>)]
    pub scope: Option<Option<Scopes>>,
    /// Codes of the tenants that it may read, instead of the lookup. `null` or empty: the lookup
    /// tells.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub tenants: Option<Option<Vec<String>>>,
    /// How long its tokens live, such as `30m`.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub token_ttl: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Developer>)]
    pub developer: Option<Option<Developer>>,
    /// The APIs that it may call. `null`: all.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub apis: Option<Option<Vec<String>>>,
    /// Claims that each of its tokens carries; the new ones take the place of all old ones.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, Value>>)]
    pub attributes: Option<Option<BTreeMap<String, Value>>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<QuotaDocument>)]
    pub quota: Option<Option<QuotaDocument>>,
    /// A UUID. The same one again does nothing and is answered alike.
    #[schema(format = "uuid")]
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
}

/// Tells `null` from what is left out.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Separated by blanks, as in OAuth (RFC 6749, section 3.3), or a list.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Scopes {
    Text(String),
    List(Vec<String>),
}

impl Scopes {
    pub fn into_list(self) -> Vec<String> {
        match self {
            Self::Text(text) => {
                text.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect()
            }
            Self::List(list) => list,
        }
    }
}

/// Who is behind a client.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Developer {
    /// A name of your own for the developer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The clients of an inactive developer can do nothing.
    #[serde(default)]
    pub status: DeveloperStatus,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeveloperStatus {
    #[default]
    Active,
    Inactive,
}

/// What Envoy's rate limiters let a client ask for.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Quota)]
pub struct QuotaDocument {
    /// At least 1.
    #[schema(minimum = 1)]
    pub requests_per_unit: u32,
    pub unit: QuotaUnitDocument,
}

#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = QuotaUnit)]
pub enum QuotaUnitDocument {
    Second,
    Minute,
    Hour,
    Day,
}

impl From<QuotaUnitDocument> for domain::QuotaUnit {
    fn from(unit: QuotaUnitDocument) -> Self {
        match unit {
            QuotaUnitDocument::Second => Self::Second,
            QuotaUnitDocument::Minute => Self::Minute,
            QuotaUnitDocument::Hour => Self::Hour,
            QuotaUnitDocument::Day => Self::Day,
        }
    }
}

impl From<domain::QuotaUnit> for QuotaUnitDocument {
    fn from(unit: domain::QuotaUnit) -> Self {
        match unit {
            domain::QuotaUnit::Second => Self::Second,
            domain::QuotaUnit::Minute => Self::Minute,
            domain::QuotaUnit::Hour => Self::Hour,
            domain::QuotaUnit::Day => Self::Day,
        }
    }
}

/// The body of a call about one client that needs nothing else.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// A UUID. The same one again does nothing and is answered alike.
    #[schema(format = "uuid")]
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeSecret {
    pub credential_id: String,
    /// A UUID. The same one again does nothing and is answered alike.
    #[schema(format = "uuid")]
    pub request_id: Option<String>,
    /// Goes into the record of management actions.
    pub reason: Option<String>,
}

/// A registered client.
#[derive(Serialize, ToSchema)]
pub struct ClientDocument {
    pub client_id: String,
    /// `file`: it is in `clients.yaml`, and read-only here. `state`: it was registered by a call.
    pub source: RecordSource,
    /// `approved`, or `revoked`.
    pub status: &'static str,
    /// Stopped by `:block` until `:unblock`.
    pub blocked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub developer: Option<Developer>,
    /// Separated by blanks.
    pub scope: String,
    /// References of its static tenants. Left out: the lookup tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<String>,
    /// Left out: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apis: Option<Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaDocument>,
    pub credentials: Vec<CredentialDocument>,
    /// Tokens issued until then are refused. RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_not_before: Option<String>,
    /// RFC 3339, UTC. Left out: it is in `clients.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Source)]
pub enum RecordSource {
    File,
    State,
}

/// A secret, of which only a digest is kept.
#[derive(Serialize, ToSchema)]
pub struct CredentialDocument {
    /// Left out: it is in `clients.yaml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
    /// `active`, `expired` or `revoked`.
    pub status: &'static str,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A client with a secret that is shown this once.
#[derive(Serialize, ToSchema)]
pub struct WithSecret {
    pub client_secret: String,
    pub credential_id: String,
    #[serde(flatten)]
    pub client: ClientDocument,
}

#[derive(Serialize, ToSchema)]
pub struct ClientList {
    /// By their ids.
    pub clients: Vec<ClientDocument>,
    /// There are more: ask again with `after` set to this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What this process knows of a client's grants.
#[derive(Serialize, ToSchema)]
pub struct GrantsDocument {
    pub client_id: String,
    /// `registry`: its tenants are listed. `lookup`: the provider is asked.
    pub source: &'static str,
    /// References of the tenants that it may read.
    pub tenants: Vec<String>,
    /// When the lookup was made that says so. RFC 3339, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked_up_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Of the last lookup: `granted`, `denied`, or why there was no answer. Left out: there was
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_outcome: Option<String>,
    /// Lookups in a row that gave no answer.
    pub failures: u32,
    pub withdrawals: Vec<WithdrawalDocument>,
}

/// A tenant that was withdrawn by a call.
#[derive(Serialize, ToSchema)]
pub struct WithdrawalDocument {
    /// Its reference.
    pub tenant: String,
    /// Only newer evidence counts. RFC 3339, UTC.
    pub not_before: String,
    /// RFC 3339, UTC. Left out: it stands until it is restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// A request to the API, or a client and a tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Question)]
pub struct ExplainQuestion {
    /// Left out: GET.
    pub method: Option<String>,
    pub path: Option<String>,
    /// Of the request. Left out: none.
    pub token: Option<String>,
    /// The API, where the config has several.
    pub api: Option<String>,
    pub client_id: Option<String>,
    /// The code.
    pub tenant: Option<String>,
}

/// A decision as this process takes it now.
#[derive(Serialize, ToSchema)]
pub struct ExplanationDocument {
    /// `allow`, `deny`, or `unknown` where no lookup has given an answer.
    pub decision: &'static str,
    /// Why not. Where it is `allow`, shadow mode lets it pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub steps: Vec<StepDocument>,
}

#[derive(Serialize, ToSchema)]
pub struct StepDocument {
    pub step: &'static str,
    pub outcome: String,
}

/// Which counts are wanted. What is left out matches everything.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UsageQuestion {
    /// The code.
    pub tenant: Option<String>,
    pub client_id: Option<String>,
    /// Hours that begin at this time or later (RFC 3339).
    pub from: Option<String>,
    /// Hours that begin before this time (RFC 3339).
    pub to: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct UsageDocument {
    /// The latest hour first.
    pub rows: Vec<UsageRowDocument>,
    /// There are more: ask for fewer hours.
    pub truncated: bool,
}

/// The calls of one hour by one client on one tenant with one outcome.
#[derive(Serialize, ToSchema)]
#[schema(as = UsageRow)]
pub struct UsageRowDocument {
    /// When it began. RFC 3339, UTC, as the other times.
    pub hour: String,
    pub issuer: String,
    /// Empty: nobody had proven who they are. `other`: too many to be counted by themselves.
    pub client_id: String,
    /// The tenant's reference. Empty: there was none. `other`: too many to be counted by
    /// themselves.
    pub tenant: String,
    /// `allowed`, or the reason of the denial.
    pub outcome: String,
    pub count: i64,
    pub first: String,
    pub last: String,
}

/// Microseconds, as RFC 3339.
pub fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_string()
}
