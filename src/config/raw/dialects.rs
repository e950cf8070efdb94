//! How a provider's lookup is asked and read where it differs from one plain answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{JsonPathText, UrlText};

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum CodesOf {
    Values,
    Keys,
    Text,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AnswerFormat {
    Json,
    JsonLines,
}

/// When an answer is complete; one of `absent` and `path`. Held against the last page where there
/// are several.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompleteIf {
    /// What must be absent, null or empty.
    pub absent: Option<JsonPathText>,
    /// What must be there once and equal `equals`.
    pub path: Option<JsonPathText>,
    /// A text, a number, `true` or `false`.
    #[schemars(extend("type" = ["string", "number", "boolean"]))]
    pub equals: Option<Value>,
}

/// How an answer of several pages goes on; one of `next`, `link_header`, `cursor` and `count`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pages {
    /// Where the answer holds the URL of the next page, of the same origin. Absent, null or empty:
    /// the last page.
    pub next: Option<JsonPathText>,
    /// The next page is the `Link` with `rel="next"` (RFC 8288), of the same origin.
    pub link_header: Option<bool>,
    /// The next page is asked for with a cursor from this one.
    pub cursor: Option<Cursor>,
    /// The answer says how many pages there are.
    pub count: Option<PageCount>,
    /// An answer of more pages means "unavailable".
    #[schemars(range(min = 1, max = 10_000))]
    pub max: Option<u32>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { next: None, link_header: None, cursor: None, count: None, max: Some(100) }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct Cursor {
    /// Where the answer holds the cursor of the next page. Absent, null or empty: the last page.
    pub path: Option<JsonPathText>,
    /// The parameter of the URL that takes it. Left out: `{cursor}` in `body`, empty at first.
    pub parameter: Option<String>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["parameter", "from", "path"]))]
pub struct PageCount {
    /// The parameter of the URL that takes the page's number.
    pub parameter: Option<String>,
    /// The number of the first page: a wrong one would leave out the last.
    #[schemars(range(min = 0, max = 1))]
    pub from: Option<u32>,
    /// Where the answer holds the number of pages.
    pub path: Option<JsonPathText>,
}

/// Where the answer holds the client's quota, which Envoy's rate limiter gets with every request.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["requests_per_unit", "unit"]))]
pub struct QuotaPaths {
    /// A whole number.
    pub requests_per_unit: Option<JsonPathText>,
    /// `SECOND`, `MINUTE`, `HOUR` or `DAY`.
    pub unit: Option<JsonPathText>,
}

/// The Resource Search of OpenID's AuthZEN Authorization API 1.0: which resources of a type may
/// this subject act on. Its pages are followed to the end.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url", "subject_type", "action", "resource_type"]))]
pub struct AuthZen {
    /// The policy decision point; `/access/v1/search/resource` is added.
    #[schemars(extend("examples" = ["https://pdp.example.com"]))]
    pub url: Option<UrlText>,
    /// Accept plain `http://` for `url` outside loopback.
    pub allow_http: Option<bool>,
    /// The type of the subject; its id is the client's.
    pub subject_type: Option<String>,
    /// The name of the action.
    pub action: Option<String>,
    /// The type of the resources; their ids are the tenant codes.
    pub resource_type: Option<String>,
}

impl Default for AuthZen {
    fn default() -> Self {
        Self {
            url: None,
            allow_http: Some(false),
            subject_type: None,
            action: None,
            resource_type: None,
        }
    }
}
