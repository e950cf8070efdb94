use std::collections::BTreeMap;
use std::time::Duration;

use regex::Regex;
use url::Url;

use super::SecretText;
use crate::domain::Algorithm;

/// Who says which tenants a client may read.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// Only what the client registry lists.
    Static,
    /// A call of the provider's API.
    Http(Box<HttpLookup>),
    /// A call of the service in `proto/tenantgate/directory/v1`.
    Grpc(Box<GrpcLookup>),
}

/// What both kinds of remote lookup share.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupLimits {
    /// In total, over all tries.
    pub timeout: Duration,
    /// How long an answer serves mints.
    pub cache_ttl: Duration,
    /// For "no grants".
    pub negative_ttl: Duration,
    /// How long past `cache_ttl` a positive answer may serve a mint while it is looked up again.
    pub stale_while_revalidate: Duration,
    /// At least 1; more only for failures that may pass.
    pub max_tries: u32,
    /// Lookups under way at once.
    pub concurrency: usize,
    /// Clients whose answer is remembered.
    pub cache_clients: usize,
}

/// A lookup by HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpLookup {
    /// Time, tries and concurrency.
    pub limits: LookupLimits,
    /// Whether `authzen` says the rest, and not keys of its own.
    pub authzen: bool,
    /// With the client's id in it, percent-encoded.
    pub url: UrlTemplate,
    /// Sent with every call.
    pub headers: Vec<LookupHeader>,
    /// `None`: the request is a GET, else a POST.
    pub body: Option<BodyTemplate>,
    /// Where the codes are in an answer.
    pub reading: AnswerReading,
    /// `None`: one answer is all of it.
    pub pages: Option<Pages>,
    /// Statuses that mean "no grants".
    pub no_grants_status: Vec<u16>,
    /// Of all pages together, unpacked.
    pub max_body: usize,
    /// What the call shows to be let in.
    pub auth: LookupAuth,
    /// Its CA and client certificate.
    pub tls: ClientTls,
    /// `None`: directly; the environment's proxy variables are not read.
    pub proxy: Option<Url>,
}

/// A URL, mostly with `{client_id}` in its path or query, where the id is percent-encoded as one
/// segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(pub String);

/// A header of every call.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupHeader {
    /// In lower case.
    pub name: String,
    /// With `{client_id}` in it where it is the client's own.
    pub value: SecretText,
    /// Whether `{client_id}` in it stands for the client's id.
    pub per_client: bool,
}

/// JSON texts with `{client_id}` and `{cursor}` inside their strings only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTemplate {
    /// The JSON text of the first page.
    pub first: String,
    /// For the pages after the first.
    pub further: String,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerReading {
    /// How an answer is parsed.
    pub format: AnswerFormat,
    /// Where the codes are (RFC 9535).
    pub select: JsonPath,
    /// What is at that place.
    pub of: CodesOf,
    /// `None`: a code is a whole value.
    pub code_pattern: Option<CodePattern>,
    /// `None`: an answer is complete.
    pub complete_if: Option<CompleteIf>,
    /// What no page may have, such as the `errors` that GraphQL puts beside a part of the data.
    pub refuse: Vec<serde_json_path::JsonPath>,
    /// Claim name -> where its value is in the answer, and whether the token response repeats
    /// it.
    pub claims: BTreeMap<String, SelectedClaim>,
    /// `None`: the answer has no quota.
    pub quota: Option<QuotaPaths>,
}

/// How an answer is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFormat {
    /// One JSON document.
    Json,
    /// Any number of JSON values, read as one array.
    JsonLines,
}

/// What the codes are of what `select` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodesOf {
    /// Texts and whole numbers.
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
    /// The value at this place must equal this one.
    Equals(serde_json_path::JsonPath, serde_json::Value),
    /// A total, if it is there, of no more than was read.
    Total(serde_json_path::JsonPath),
}

/// Where the next page is.
#[derive(Clone, Debug, PartialEq)]
pub struct Pages {
    /// How a page names the next one.
    pub kind: PageKind,
    /// Pages at most; an answer with more is unavailable, never cut.
    pub max: u32,
}

/// How a page names the next one.
#[derive(Clone, Debug, PartialEq)]
pub enum PageKind {
    /// A URL in the body.
    Next(serde_json_path::JsonPath),
    /// `Link` with `rel="next"` (RFC 8288).
    LinkHeader,
    /// `parameter: None`: the cursor goes into the body.
    Cursor {
        /// Where the cursor, or the next page's URL, is in the answer.
        path: serde_json_path::JsonPath,
        /// The query parameter that carries the cursor on. `None`: the place has a URL.
        parameter: Option<String>,
    },
    /// Pages are numbered.
    Count {
        /// Where the number of pages is in the answer.
        path: serde_json_path::JsonPath,
        /// The query parameter with the number.
        parameter: String,
        /// The number of the first page.
        from: u32,
    },
}

/// Where an answer has the client's quota.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaPaths {
    /// Where the number is.
    pub requests_per_unit: serde_json_path::JsonPath,
    /// Where the unit is.
    pub unit: serde_json_path::JsonPath,
}

/// A further claim of the token.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectedClaim {
    /// Where its value is in the answer.
    pub select: JsonPath,
    /// Whether the token response repeats it.
    pub display: bool,
}

/// An RFC 9535 query, known to parse, and the array that it walks.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    /// As written: a query does not print its texts as it read them.
    pub text: String,
    /// The same, compiled.
    pub query: serde_json_path::JsonPath,
    /// The query up to its first wildcard, slice or filter. `None`: it selects single values.
    pub array: Option<serde_json_path::JsonPath>,
}

/// A lookup by gRPC.
#[derive(Clone, Debug, PartialEq)]
pub struct GrpcLookup {
    /// Time, tries and concurrency.
    pub limits: LookupLimits,
    /// The service's address.
    pub url: Url,
    /// What the call shows to be let in.
    pub auth: LookupAuth,
    /// Its CA and client certificate.
    pub tls: ClientTls,
}

/// What a lookup shows to be let in.
#[derive(Clone, Debug, PartialEq)]
pub enum LookupAuth {
    /// Nothing, unless it is a client certificate.
    None,
    /// A fixed token (RFC 6750, section 2.1).
    Bearer(SecretText),
    /// RFC 7617.
    Basic {
        /// The user-id (RFC 7617).
        username: String,
        /// Its password.
        password: SecretText,
    },
    /// A token of the provider's own token endpoint, cached.
    OAuth2(Box<OAuth2Auth>),
}

/// The lookup's own OAuth 2.0 client (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2Auth {
    /// Where its token comes from.
    pub token_url: Url,
    /// Its id there.
    pub client_id: String,
    /// How it proves itself there.
    pub method: OAuth2Method,
    /// `None`: not sent.
    pub scope: Option<String>,
    /// `None`: not sent.
    pub audience: Option<String>,
    /// A token is replaced this long before it expires.
    pub refresh_before_expiry: Duration,
    /// Used where the answer has no `expires_in` and the token no `exp`.
    pub default_lifetime: Duration,
    /// For one token request.
    pub timeout: Duration,
}

/// How a client authenticates (RFC 6749, section 2.3.1; RFC 7523, section 2.2).
#[derive(Clone, Debug, PartialEq)]
pub enum OAuth2Method {
    /// The secret in the `Authorization` header.
    ClientSecretBasic(SecretText),
    /// The secret in the form.
    ClientSecretPost(SecretText),
    /// The signing key as PEM (PKCS#8), its algorithm (ES256, EdDSA or RS256) and its `kid`.
    PrivateKeyJwt {
        /// The private key, PKCS#8 as PEM.
        key_pem: SecretText,
        /// What the assertion is signed with.
        algorithm: Algorithm,
        /// The `kid` of the assertion. `None`: left out.
        kid: Option<String>,
    },
}

/// How a server is verified, and what is shown to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTls {
    /// PEM certificates of an own CA; they replace the built-in roots.
    pub ca_pem: Option<String>,
    /// PEM certificate chain and key for mutual TLS.
    pub identity_pem: Option<SecretText>,
}
