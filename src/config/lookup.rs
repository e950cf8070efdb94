use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use url::Url;

use super::SecretText;
use crate::domain::Algorithm;

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
    /// Whether `authzen` says the rest, and not keys of its own.
    pub authzen: bool,
    pub url: UrlTemplate,
    pub headers: Vec<LookupHeader>,
    /// `None`: the request is a GET, else a POST.
    pub body: Option<BodyTemplate>,
    pub reading: AnswerReading,
    pub pages: Option<Pages>,
    /// Statuses that mean "no grants".
    pub no_grants_status: Vec<u16>,
    /// Of all pages together, unpacked.
    pub max_body: usize,
    pub auth: LookupAuth,
    pub tls: ClientTls,
    pub proxy: Option<Url>,
}

/// A URL, mostly with `{client_id}` in its path or query, where the id is percent-encoded as one
/// segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(pub String);

#[derive(Clone, Debug, PartialEq)]
pub struct LookupHeader {
    /// In lower case.
    pub name: String,
    pub value: SecretText,
    /// Whether `{client_id}` in it stands for the client's id.
    pub per_client: bool,
}

/// JSON texts with `{client_id}` and `{cursor}` inside their strings only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTemplate {
    pub first: String,
    /// For the pages after the first.
    pub further: String,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerReading {
    pub format: AnswerFormat,
    pub select: JsonPath,
    pub of: CodesOf,
    pub code_pattern: Option<CodePattern>,
    pub complete_if: Option<CompleteIf>,
    /// What no page may have, such as the `errors` that GraphQL puts beside a part of the data.
    pub refuse: Vec<serde_json_path::JsonPath>,
    /// Claim name -> where its value is in the answer, and whether the token response repeats
    /// it.
    pub claims: BTreeMap<String, SelectedClaim>,
    pub quota: Option<QuotaPaths>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    Json,
    /// Any number of JSON values, read as one array.
    JsonLines,
}

/// What the codes are of what `select` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodesOf {
    Values,
    /// The keys of objects.
    Keys,
    /// Texts, separated by commas or blanks.
    Text,
}

/// A regular expression with exactly one group, which is the code.
#[derive(Clone, Debug)]
pub struct CodePattern(pub Regex);

impl PartialEq for CodePattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// What the last page of an answer has to show.
#[derive(Clone, Debug, PartialEq)]
pub enum CompleteIf {
    /// Absent, null or empty.
    Absent(serde_json_path::JsonPath),
    Equals(serde_json_path::JsonPath, serde_json::Value),
    /// A total, if it is there, of no more than was read.
    Total(serde_json_path::JsonPath),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pages {
    pub kind: PageKind,
    pub max: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PageKind {
    /// A URL in the body.
    Next(serde_json_path::JsonPath),
    LinkHeader,
    /// `parameter: None`: the cursor goes into the body.
    Cursor {
        path: serde_json_path::JsonPath,
        parameter: Option<String>,
    },
    Count {
        path: serde_json_path::JsonPath,
        parameter: String,
        from: u32,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct QuotaPaths {
    pub requests_per_unit: serde_json_path::JsonPath,
    pub unit: serde_json_path::JsonPath,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SelectedClaim {
    pub select: JsonPath,
    pub display: bool,
}

/// An RFC 9535 query, known to parse, and the array that it walks.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    /// As written: a query does not print its texts as it read them.
    pub text: String,
    pub query: serde_json_path::JsonPath,
    /// The query up to its first wildcard, slice or filter. `None`: it selects single values.
    pub array: Option<serde_json_path::JsonPath>,
}

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
