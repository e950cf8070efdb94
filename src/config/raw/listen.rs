use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FileText;

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
    /// For the modules inside Envoy, which are fed from here: `unix:/path/to/socket`, or a mapping
    /// without `tls`. A process that may connect gets the keys that tenants are recognised with.
    /// Left out: no feed.
    pub feed: Option<ListenOn>,
    /// For the management API: `IP:PORT` or `unix:/path/to/socket`, or a mapping. Left out: none.
    pub management: Option<ListenOn>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            check: Some(ListenOn::Address("127.0.0.1:9191".into())),
            token: None,
            feed: None,
            admin: Some("127.0.0.1:9193".into()),
            management: None,
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
    /// Left out: plain, for loopback and Unix sockets.
    pub tls: Option<ServerTls>,
    /// Who may connect to a Unix socket, as an octal text. Left out: `"0660"`, its owner and group.
    pub mode: Option<String>,
    /// The group of a Unix socket, by name or number. Left out: this process's own.
    pub group: Option<String>,
}

/// TLS 1.2 and 1.3. Changed files are taken without a restart; of broken ones the last good stay.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert_file", "key_file"]))]
pub struct ServerTls {
    /// The certificate and those that lead to its CA, as PEM.
    pub cert_file: Option<FileText>,
    /// The private key as PEM.
    pub key_file: Option<FileText>,
    /// CA certificates as PEM. Only clients with a certificate of one of these connect.
    pub client_ca_file: Option<FileText>,
    /// Of these clients only those whose certificate has one of these names: URIs such as
    /// `spiffe://example.org/ns/gateway/sa/envoy`, or DNS names. Left out: all of that CA.
    #[schemars(length(min = 1))]
    pub client_identities: Option<Vec<Option<String>>>,
}
