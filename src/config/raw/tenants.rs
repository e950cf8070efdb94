use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AnswerFormat, Auth, AuthZen, ClientTls, CodesOf, CompleteIf, DurationText, FileText,
    JsonPathText, Pages, QuotaPaths, UrlText,
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tenants {
    /// `token`: a token's claim alone is the truth until it expires. A mapping: grants are looked
    /// up again for active clients, and only what the freshest answer still holds passes; that is
    /// the default, with its own defaults.
    pub freshness: Option<Freshness>,
    /// Who says which tenants a client may read. `static`: the client registry. A mapping: the
    /// provider's own API, over HTTP (`url`), AuthZEN (`authzen`) or gRPC (`grpc`).
    pub lookup: Option<Lookup>,
    /// What happens when a token lacks the tenant in the path. `deny`: the client has to mint a
    /// new token. `lookup`: the client is looked up in the background, and the next call passes if
    /// the tenant has been granted since; a token whose request named its tenants is never widened.
    pub on_miss: Option<OnMiss>,
    /// What happens when many clients lose all their tenants within one refresh, which is more
    /// often a lookup that answers wrongly than as many withdrawals.
    pub mass_withdrawal: Option<MassWithdrawal>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            freshness: Some(Freshness::Lookup(Fresh::default())),
            lookup: Some(Lookup::Word(StaticWord::Static)),
            on_miss: Some(OnMiss::Deny),
            mass_withdrawal: Some(MassWithdrawal::default()),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MassWithdrawal {
    /// The share of the active clients with grants that makes it many.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub share: Option<f64>,
    /// Fewer clients than this are never many.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub at_least: Option<u32>,
    /// `apply`: they have lost them, and a warning and a metric say what it looks like. `hold`:
    /// they keep them until the next refresh gives the same answer, and never past
    /// `tenants.freshness.max_age`; meanwhile they get no new tokens.
    pub action: Option<MassAction>,
}

impl Default for MassWithdrawal {
    fn default() -> Self {
        Self { share: Some(0.5), at_least: Some(10), action: Some(MassAction::Apply) }
    }
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum MassAction {
    Apply,
    Hold,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnMiss {
    Deny,
    Lookup,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Freshness {
    Word(TokenWord),
    Lookup(Fresh),
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum TokenWord {
    Token,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fresh {
    /// How often an active client, one that got a token or made a request within `max_age`, is
    /// looked up again; below `max_age`.
    pub refresh: Option<DurationText>,
    /// Requests are refused with 503 when neither the lookup behind the token nor the last good
    /// one since is younger.
    pub max_age: Option<DurationText>,
}

impl Default for Fresh {
    fn default() -> Self {
        Self { refresh: Some("60s".into()), max_age: Some("300s".into()) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Lookup {
    Word(StaticWord),
    Remote(RemoteLookup),
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum StaticWord {
    Static,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteLookup {
    /// The URL of a client's grants, with `{client_id}` in its path or query where neither `body`
    /// nor a header has it.
    #[schemars(extend("examples" = ["https://api.example.com/{client_id}/authorizedTenants"]))]
    pub url: Option<UrlText>,
    /// Accept plain `http://` for `url` outside loopback.
    pub allow_http: Option<bool>,
    /// The HTTP method.
    pub method: Option<LookupMethod>,
    /// The JSON body of a POST, with `{client_id}` inside its strings. Left out:
    /// `{"client_id": "{client_id}"}`.
    #[schemars(extend("examples" = ["{\"app\": \"{client_id}\"}"]))]
    pub body: Option<String>,
    /// Further headers of the request.
    pub headers: Option<Vec<Option<Header>>>,
    /// Where the tenant codes are in the answer (RFC 9535). Needed with `url`.
    pub select: Option<JsonPathText>,
    /// What of it the codes are. `values`: texts and whole numbers. `keys`: the keys of an object;
    /// those whose value is `false` or null are left out. `text`: one text, separated by commas or
    /// blanks.
    pub of: Option<CodesOf>,
    /// Cuts the code out of each text: a regular expression with exactly one group. What does not
    /// match is dropped and counted.
    #[schemars(extend("examples" = ["^urn:acme:tenant:([^:]+)$"]))]
    pub code_pattern: Option<String>,
    /// `json_lines`: the answer is any number of JSON values, which are read as one array.
    pub format: Option<AnswerFormat>,
    /// What an answer has to show to be complete; otherwise it means "unavailable".
    pub complete_if: Option<CompleteIf>,
    /// How an answer of several pages is read. Complete, or "unavailable".
    pub pages: Option<Pages>,
    /// The client's quota, where the answer holds one.
    pub quota: Option<QuotaPaths>,
    /// Further claims of the token: the claim's name, and where its value is in the answer.
    pub claims: Option<BTreeMap<String, Option<Claim>>>,
    /// Statuses that mean "no grants", such as 404 where a URL that leads nowhere cannot answer
    /// so. All others but 200 mean "unavailable".
    #[schemars(inner(range(min = 201, max = 499)))]
    pub no_grants_status: Option<Vec<Option<u16>>>,
    /// A larger answer, unpacked and over all its pages, means "unavailable".
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_body_bytes: Option<u32>,
    /// The proxy to reach `url` through. The environment's proxy variables are not read.
    pub proxy: Option<UrlText>,
    /// Ask over gRPC (`tenantgate.directory.v1`) instead of HTTP.
    pub grpc: Option<Grpc>,
    /// Ask a policy decision point by OpenID AuthZEN instead of an API of your own.
    pub authzen: Option<AuthZen>,
    /// For one lookup in total, over all tries.
    pub timeout: Option<DurationText>,
    /// How long an answer with grants serves mints. Never longer than `tenants.freshness.max_age`.
    pub cache_ttl: Option<DurationText>,
    /// How long the answer "no grants" is remembered.
    pub negative_ttl: Option<DurationText>,
    /// How long past `cache_ttl` an answer with grants may serve a mint while it is looked up
    /// again; `0s`: not at all. The two together never reach past `tenants.freshness.max_age`.
    pub stale_while_revalidate: Option<DurationText>,
    /// How often one lookup is tried within `timeout`; 1: no retries.
    #[schemars(range(min = 1, max = 10))]
    pub max_tries: Option<u32>,
    /// Lookups under way at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Option<u32>,
    /// Clients whose answer is remembered.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub cache_clients: Option<u32>,
    /// Replicas share the answers by `state.postgres`, so that the provider is asked once however
    /// many there are. Left out: `true` with `state.postgres`.
    pub shared: Option<bool>,
    /// How tenantgate authenticates itself to the lookup. Left out: not at all.
    pub auth: Option<Auth>,
    /// Certificates for the connection to the lookup.
    pub tls: Option<ClientTls>,
}

impl Default for RemoteLookup {
    fn default() -> Self {
        Self {
            url: None,
            allow_http: Some(false),
            method: Some(LookupMethod::Get),
            body: None,
            headers: Some(Vec::new()),
            select: None,
            of: Some(CodesOf::Values),
            code_pattern: None,
            format: Some(AnswerFormat::Json),
            complete_if: None,
            pages: None,
            quota: None,
            claims: Some(BTreeMap::new()),
            no_grants_status: Some(Vec::new()),
            max_body_bytes: Some(1_048_576),
            proxy: None,
            grpc: None,
            authzen: None,
            timeout: Some("1s".into()),
            cache_ttl: Some("60s".into()),
            negative_ttl: Some("10s".into()),
            stale_while_revalidate: Some("0s".into()),
            max_tries: Some(3),
            concurrency: Some(32),
            cache_clients: Some(100_000),
            shared: None,
            auth: None,
            tls: None,
        }
    }
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
pub enum LookupMethod {
    Get,
    Post,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct Header {
    /// The header's name.
    pub name: Option<String>,
    /// Its value, with `{client_id}` where the client's id belongs. Either this or `value_file`.
    pub value: Option<String>,
    /// The file that holds its value, for a secret one.
    pub value_file: Option<FileText>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Claim {
    Select(JsonPathText),
    Full(FullClaim),
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["select"]))]
pub struct FullClaim {
    /// Where the value is in the answer.
    pub select: Option<JsonPathText>,
    /// Repeat the claim in the token response.
    pub display: Option<bool>,
}

impl Default for FullClaim {
    fn default() -> Self {
        Self { select: None, display: Some(false) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct Grpc {
    /// The server: scheme, host and port.
    #[schemars(extend("examples" = ["https://directory.example.com:443"]))]
    pub url: Option<UrlText>,
    /// Accept plain `http://` for `url` outside loopback.
    pub allow_http: Option<bool>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self { url: None, allow_http: Some(false) }
    }
}
