//! How a provider's lookup is asked and read where it differs from one plain answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Field, JsonPathText, UrlText};

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
    pub absent: Field<JsonPathText>,
    /// What must be there once and equal `equals`.
    pub path: Field<JsonPathText>,
    /// A text, a number, `true` or `false`.
    #[schemars(extend("type" = ["string", "number", "boolean"]))]
    pub equals: Field<Value>,
}

/// How an answer of several pages goes on; one of `next`, `link_header`, `cursor` and `count`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pages {
    /// Where the answer holds the URL of the next page, of the same origin. Absent, null or empty:
    /// the last page.
    pub next: Field<JsonPathText>,
    /// The next page is the `Link` with `rel="next"` (RFC 8288), of the same origin.
    pub link_header: Field<bool>,
    /// The next page is asked for with a cursor from this one.
    pub cursor: Field<Cursor>,
    /// The answer says how many pages there are.
    pub count: Field<PageCount>,
    /// An answer of more pages means "unavailable".
    #[schemars(range(min = 1, max = 10_000))]
    pub max: Field<u32>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            next: Field::Absent,
            link_header: Field::Absent,
            cursor: Field::Absent,
            count: Field::Absent,
            max: Field::Value(100),
        }
    }
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct Cursor {
    /// Where the answer holds the cursor of the next page. Absent, null or empty: the last page.
    pub path: Field<JsonPathText>,
    /// The parameter of the URL that takes it. Left out: `{cursor}` in `body`, empty at first.
    pub parameter: Field<String>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["parameter", "from", "path"]))]
pub struct PageCount {
    /// The parameter of the URL that takes the page's number.
    pub parameter: Field<String>,
    /// The number of the first page: a wrong one would leave out the last.
    #[schemars(range(min = 0, max = 1))]
    pub from: Field<u32>,
    /// Where the answer holds the number of pages.
    pub path: Field<JsonPathText>,
}

/// Where the answer holds the client's quota, which Envoy's rate limiter gets with every request.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["requests_per_unit", "unit"]))]
pub struct QuotaPaths {
    /// A whole number.
    pub requests_per_unit: Field<JsonPathText>,
    /// `SECOND`, `MINUTE`, `HOUR` or `DAY`.
    pub unit: Field<JsonPathText>,
}

/// The Resource Search of OpenID's AuthZEN Authorization API 1.0: which resources of a type may
/// this subject act on. Its pages are followed to the end.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["url", "subject_type", "action", "resource_type"]))]
pub struct AuthZen {
    /// The policy decision point; `/access/v1/search/resource` is added.
    #[schemars(extend("examples" = ["https://pdp.example.com"]))]
    pub url: Field<UrlText>,
    /// Accept plain `http://` for `url` outside loopback.
    pub allow_http: Field<bool>,
    /// The type of the subject; its id is the client's.
    pub subject_type: Field<String>,
    /// The name of the action.
    pub action: Field<String>,
    /// The type of the resources; their ids are the tenant codes.
    pub resource_type: Field<String>,
}

impl Default for AuthZen {
    fn default() -> Self {
        Self {
            url: Field::Absent,
            allow_http: Field::Value(false),
            subject_type: Field::Absent,
            action: Field::Absent,
            resource_type: Field::Absent,
        }
    }
}
