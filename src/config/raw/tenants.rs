use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AnswerFormat, Auth, AuthZen, ClientTls, CodesOf, CompleteIf, DurationText, Field, FileText,
    JsonPathText, Pages, QuotaPaths, UrlText,
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tenants {
    /// `token`: a token's claim alone is the truth until it expires. A mapping: grants are looked
    /// up again for active clients, and only what the freshest answer still holds passes; that is
    /// the default, with its own defaults.
    pub freshness: Field<Freshness>,
    /// Who says which tenants a client may read. `static`: the client registry. A mapping: the
    /// provider's own API, over HTTP (`url`), AuthZEN (`authzen`) or gRPC (`grpc`).
    pub lookup: Field<Lookup>,
    /// What happens when a token lacks the tenant in the path. `deny`: the client has to mint a
    /// new token. `lookup`: the client is looked up in the background, and the next call passes if
    /// the tenant has been granted since; a token whose request named its tenants is never widened.
    pub on_miss: Field<OnMiss>,
    /// What happens when many clients lose all their tenants within one refresh, which is more
    /// often a lookup that answers wrongly than as many withdrawals.
    pub mass_withdrawal: Field<MassWithdrawal>,
}

impl Default for Tenants {
    fn default() -> Self {
        Self {
            freshness: Field::Value(Freshness::Lookup(Fresh::default())),
            lookup: Field::Value(Lookup::Word(StaticWord::Static)),
            on_miss: Field::Value(OnMiss::Deny),
            mass_withdrawal: Field::Value(MassWithdrawal::default()),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MassWithdrawal {
    /// The share of the active clients with grants that makes it many.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub share: Field<f64>,
    /// Fewer clients than this are never many.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub at_least: Field<u32>,
    /// `apply`: they have lost them, and a warning and a metric say what it looks like. `hold`:
    /// they keep them until the next refresh gives the same answer, and never past
    /// `tenants.freshness.max_age`; meanwhile they get no new tokens.
    pub action: Field<MassAction>,
}

impl Default for MassWithdrawal {
    fn default() -> Self {
        Self {
            share: Field::Value(0.5),
            at_least: Field::Value(10),
            action: Field::Value(MassAction::Apply),
        }
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
    pub refresh: Field<DurationText>,
    /// Requests are refused with 503 when neither the lookup behind the token nor the last good
    /// one since is younger.
    pub max_age: Field<DurationText>,
}

impl Default for Fresh {
    fn default() -> Self {
        Self { refresh: Field::Value("60s".into()), max_age: Field::Value("300s".into()) }
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
    pub url: Field<UrlText>,
    /// Accept plain `http://` for `url` outside loopback.
    pub allow_http: Field<bool>,
    /// The HTTP method.
    pub method: Field<LookupMethod>,
    /// The JSON body of a POST, with `{client_id}` inside its strings. Left out:
    /// `{"client_id": "{client_id}"}`.
    #[schemars(extend("examples" = ["{\"app\": \"{client_id}\"}"]))]
    pub body: Field<String>,
    /// Further headers of the request.
    pub headers: Field<Vec<Field<Header>>>,
    /// Where the tenant codes are in the answer (RFC 9535). Needed with `url`.
    pub select: Field<JsonPathText>,
    /// What of it the codes are. `values`: texts and whole numbers. `keys`: the keys of an object;
    /// those whose value is `false` or null are left out. `text`: one text, separated by commas or
    /// blanks.
    pub of: Field<CodesOf>,
    /// Cuts the code out of each text: a regular expression with exactly one group. What does not
    /// match is dropped and counted.
    #[schemars(extend("examples" = ["^urn:acme:tenant:([^:]+)$"]))]
    pub code_pattern: Field<String>,
    /// `json_lines`: the answer is any number of JSON values, which are read as one array.
    pub format: Field<AnswerFormat>,
    /// What an answer has to show to be complete; otherwise it means "unavailable".
    pub complete_if: Field<CompleteIf>,
    /// How an answer of several pages is read. Complete, or "unavailable".
    pub pages: Field<Pages>,
    /// The client's quota, where the answer holds one.
    pub quota: Field<QuotaPaths>,
    /// Further claims of the token: the claim's name, and where its value is in the answer.
    pub claims: Field<BTreeMap<String, Field<Claim>>>,
    /// Statuses that mean "no grants", such as 404 where a URL that leads nowhere cannot answer
    /// so. All others but 200 mean "unavailable".
    #[schemars(inner(range(min = 201, max = 499)))]
    pub no_grants_status: Field<Vec<Field<u16>>>,
    /// A larger answer, unpacked and over all its pages, means "unavailable".
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_body_bytes: Field<u32>,
    /// The proxy to reach `url` through. The environment's proxy variables are not read.
    pub proxy: Field<UrlText>,
    /// Ask over gRPC (`tenantgate.directory.v1`) instead of HTTP.
    pub grpc: Field<Grpc>,
    /// Ask a policy decision point by OpenID AuthZEN instead of an API of your own.
    pub authzen: Field<AuthZen>,
    /// For one lookup in total, over all tries.
    pub timeout: Field<DurationText>,
    /// How long an answer with grants serves mints. Never longer than `tenants.freshness.max_age`.
    pub cache_ttl: Field<DurationText>,
    /// How long the answer "no grants" is remembered.
    pub negative_ttl: Field<DurationText>,
    /// How long past `cache_ttl` an answer with grants may serve a mint while it is looked up
    /// again; `0s`: not at all. The two together never reach past `tenants.freshness.max_age`.
    pub stale_while_revalidate: Field<DurationText>,
    /// How often one lookup is tried within `timeout`; 1: no retries.
    #[schemars(range(min = 1, max = 10))]
    pub max_tries: Field<u32>,
    /// Lookups under way at once.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: Field<u32>,
    /// Clients whose answer is remembered.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub cache_clients: Field<u32>,
    /// Replicas share the answers by `state.postgres`, so that the provider is asked once however
    /// many there are. Left out: `true` with `state.postgres`.
    pub shared: Field<bool>,
    /// How tenantgate authenticates itself to the lookup. Left out: not at all.
    pub auth: Field<Auth>,
    /// Certificates for the connection to the lookup.
    pub tls: Field<ClientTls>,
}

impl Default for RemoteLookup {
    fn default() -> Self {
        Self {
            url: Field::Absent,
            allow_http: Field::Value(false),
            method: Field::Value(LookupMethod::Get),
            body: Field::Absent,
            headers: Field::Value(Vec::new()),
            select: Field::Absent,
            of: Field::Value(CodesOf::Values),
            code_pattern: Field::Absent,
            format: Field::Value(AnswerFormat::Json),
            complete_if: Field::Absent,
            pages: Field::Absent,
            quota: Field::Absent,
            claims: Field::Value(BTreeMap::new()),
            no_grants_status: Field::Value(Vec::new()),
            max_body_bytes: Field::Value(1_048_576),
            proxy: Field::Absent,
            grpc: Field::Absent,
            authzen: Field::Absent,
            timeout: Field::Value("1s".into()),
            cache_ttl: Field::Value("60s".into()),
            negative_ttl: Field::Value("10s".into()),
            stale_while_revalidate: Field::Value("0s".into()),
            max_tries: Field::Value(3),
            concurrency: Field::Value(32),
            cache_clients: Field::Value(100_000),
            shared: Field::Absent,
            auth: Field::Absent,
            tls: Field::Absent,
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
    pub name: Field<String>,
    /// Its value, with `{client_id}` where the client's id belongs. Either this or `value_file`.
    pub value: Field<String>,
    /// The file that holds its value, for a secret one.
    pub value_file: Field<FileText>,
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
    pub select: Field<JsonPathText>,
    /// Repeat the claim in the token response.
    pub display: Field<bool>,
}

impl Default for FullClaim {
    fn default() -> Self {
        Self { select: Field::Absent, display: Field::Value(false) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct Grpc {
    /// The server: scheme, host and port.
    #[schemars(extend("examples" = ["https://directory.example.com:443"]))]
    pub url: Field<UrlText>,
    /// Accept plain `http://` for `url` outside loopback.
    pub allow_http: Field<bool>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self { url: Field::Absent, allow_http: Field::Value(false) }
    }
}
