use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Field, TemplateText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "routes"]))]
pub struct Api {
    /// The name that Envoy, metrics and logs use.
    pub name: Field<String>,
    /// The paths of this API. The most specific one wins; what none matches is denied.
    #[schemars(length(min = 1))]
    pub routes: Field<Vec<Field<Route>>>,
    /// Let the `authorization` header through to the upstream.
    pub forward_authorization: Field<bool>,
    /// Decide and record, but let EVERYTHING pass. Only for a roll-out.
    pub shadow: Field<bool>,
    /// Accept registered credentials as API keys too. Left out: tokens only.
    pub api_key: Field<ApiKey>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            name: Field::Absent,
            routes: Field::Absent,
            forward_authorization: Field::Value(false),
            shadow: Field::Value(false),
            api_key: Field::Absent,
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiKey {
    /// The header that carries the key.
    pub header: Field<String>,
}

impl Default for ApiKey {
    fn default() -> Self {
        Self { header: Field::Value("x-api-key".into()) }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path", "methods"]))]
pub struct Route {
    /// Exact segments, `{tenant}` once, `{name}` for other single segments, and a final `/**`
    /// for the rest, nothing included.
    pub path: Field<TemplateText>,
    /// The methods of this route, in upper case.
    #[schemars(length(min = 1))]
    pub methods: Field<Vec<Field<String>>>,
    /// Allow HEAD where GET is allowed. A route for the same paths that names HEAD has the say.
    pub head: Field<bool>,
    /// The name in logs and metrics. Left out: the text of `path`.
    pub name: Field<String>,
    /// Compare the exact segments without regard to ASCII case. The tenant always counts exactly.
    pub ignore_case: Field<bool>,
    /// The scopes that a token must have, all of them.
    pub scopes: Field<Vec<Field<String>>>,
    /// Let everybody pass, without a token.
    pub public: Field<bool>,
    /// Accept `%25`, an encoded percent sign, in the path. Only if the upstream decodes once.
    pub allow_encoded_percent: Field<bool>,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: Field::Absent,
            methods: Field::Absent,
            head: Field::Value(true),
            name: Field::Absent,
            ignore_case: Field::Value(false),
            scopes: Field::Value(Vec::new()),
            public: Field::Value(false),
            allow_encoded_percent: Field::Value(false),
        }
    }
}
