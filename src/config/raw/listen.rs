use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// For Envoy's checks (gRPC): `IP:PORT` or `unix:/path/to/socket`, or a mapping. HTTP/2 wants a
    /// host name as `:authority`: Envoy's `envoy_grpc` sends the cluster's name; C-core clients
    /// (Python, C++, Envoy's `google_grpc`) send a socket's path, which is refused, unless they set
    /// `grpc.default_authority`.
    pub check: Option<ListenOn>,
    /// For the token endpoint: `IP:PORT` or `unix:/path/to/socket`, or a mapping. Left out: this
    /// process mints nothing and needs no private key.
    pub token: Option<ListenOn>,
    /// For health, readiness and metrics, `IP:PORT`.
    pub admin: Option<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            check: Some(ListenOn::Address("127.0.0.1:9191".into())),
            token: None,
            admin: Some("127.0.0.1:9193".into()),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum ListenOn {
    Address(String),
    Full(FullListen),
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub struct FullListen {
    /// `IP:PORT` or `unix:/path/to/socket`.
    pub address: Option<String>,
    /// Who may connect to a Unix socket, as an octal text. Left out: `"0660"`, its owner and group.
    pub mode: Option<String>,
    /// The group of a Unix socket, by name or number. Left out: this process's own.
    pub group: Option<String>,
}
