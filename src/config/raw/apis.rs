use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TemplateText;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "routes"]))]
pub struct Api {
    /// The name that Envoy, metrics and logs use.
    pub name: Option<String>,
    /// The paths of this API. The most specific one wins; what none matches is denied.
    #[schemars(length(min = 1))]
    pub routes: Option<Vec<Option<Route>>>,
    /// Let the `authorization` header through to the upstream.
    pub forward_authorization: Option<bool>,
    /// Decide and record, but let EVERYTHING pass. Only for a roll-out.
    pub shadow: Option<bool>,
    /// Accept registered credentials as API keys too. Left out: tokens only.
    pub api_key: Option<ApiKey>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            name: None,
            routes: None,
            forward_authorization: Some(false),
            shadow: Some(false),
            api_key: None,
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKey {
    /// The header that carries the key.
    pub header: Option<String>,
}

impl Default for ApiKey {
    fn default() -> Self {
        Self { header: Some("x-api-key".into()) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path", "methods"]))]
pub struct Route {
    /// Exact segments, `{tenant}` once, `{name}` for other single segments, and a final `/**`
    /// for the rest, nothing included.
    pub path: Option<TemplateText>,
    /// The methods of this route, in upper case.
    #[schemars(length(min = 1))]
    pub methods: Option<Vec<Option<String>>>,
    /// Allow HEAD where GET is allowed. A route for the same paths that names HEAD has the say.
    pub head: Option<bool>,
    /// The name in logs and metrics. Left out: the text of `path`.
    pub name: Option<String>,
    /// Compare the exact segments without regard to ASCII case. The tenant always counts exactly.
    pub ignore_case: Option<bool>,
    /// The scopes that a token must have, all of them.
    pub scopes: Option<Vec<Option<String>>>,
    /// Let everybody pass, without a token.
    pub public: Option<bool>,
    /// Accept `%25`, an encoded percent sign, in the path. Only if the upstream decodes once.
    pub allow_encoded_percent: Option<bool>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: None,
            methods: None,
            head: Some(true),
            name: None,
            ignore_case: Some(false),
            scopes: Some(Vec::new()),
            public: Some(false),
            allow_encoded_percent: Some(false),
        }
    }
}
