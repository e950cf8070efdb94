use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Field, FileText};

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Management {
    /// A bearer token with all scopes, to begin with. Left out: only tokens of our own issuer with
    /// the scope of the part: `tenantgate:grants`, `tenantgate:clients`, `tenantgate:audit`.
    pub token_file: Field<FileText>,
    /// A call over a connection with a client certificate of `listen.management.tls.client_ca_file`
    /// needs no bearer token: it has all scopes. A call that shows a token is judged by the token.
    pub client_certificates: Field<bool>,
}
