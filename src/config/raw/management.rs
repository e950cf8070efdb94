use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FileText;

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Management {
    /// A bearer token with all scopes, to begin with. Left out: only tokens of our own issuer with the scope
    /// `tenantgate:grants`.
    pub token_file: Option<FileText>,
}
