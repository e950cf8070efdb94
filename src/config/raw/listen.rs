use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Field, FileText};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// For Envoy's checks (gRPC): `IP:PORT` or `unix:/path/to/socket`, or a mapping. HTTP/2 wants a
    /// host name as `:authority`: Envoy's `envoy_grpc` sends the cluster's name; C-core clients
    /// (Python, C++, Envoy's `google_grpc`) send a socket's path, which is refused, unless they set
    /// `grpc.default_authority`.
    pub check: Field<ListenOn>,
    /// For the token endpoint: `IP:PORT` or `unix:/path/to/socket`, or a mapping. Left out: this
    /// process mints nothing and needs no private key.
    pub token: Field<ListenOn>,
    /// For health, readiness and metrics, `IP:PORT`.
    pub admin: Field<String>,
    /// For the modules inside Envoy, which are fed from here: `unix:/path/to/socket`, or a mapping
    /// without `tls`. A process that may connect gets the keys that tenants are recognised with.
    /// Left out: no feed.
    pub feed: Field<ListenOn>,
    /// For the management API: `IP:PORT` or `unix:/path/to/socket`, or a mapping. Left out: none.
    pub management: Field<ListenOn>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            check: Field::Value(ListenOn::Address("127.0.0.1:9191".into())),
            token: Field::Absent,
            feed: Field::Absent,
            admin: Field::Value("127.0.0.1:9193".into()),
            management: Field::Absent,
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
    pub address: Field<String>,
    /// Left out: plain, for loopback and Unix sockets.
    pub tls: Field<ServerTls>,
    /// Who may connect to a Unix socket, as an octal text. Left out: `"0660"`, its owner and group.
    pub mode: Field<String>,
    /// The group of a Unix socket, by name or number. Left out: this process's own.
    pub group: Field<String>,
}

/// TLS 1.2 and 1.3. Changed files are taken without a restart; of broken ones the last good stay.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert_file", "key_file"]))]
pub struct ServerTls {
    /// The certificate and those that lead to its CA, as PEM.
    pub cert_file: Field<FileText>,
    /// The private key as PEM.
    pub key_file: Field<FileText>,
    /// CA certificates as PEM. Only clients with a certificate of one of these connect.
    pub client_ca_file: Field<FileText>,
    /// Of these clients only those whose certificate has one of these names: URIs such as
    /// `spiffe://example.org/ns/gateway/sa/envoy`, or DNS names. Left out: all of that CA.
    #[schemars(length(min = 1))]
    pub client_identities: Field<Vec<Field<String>>>,
}
