use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, Field, FileText, UrlText};

/// One of the three.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// An access token by the client credentials grant: one for all lookups, renewed in the
    /// background.
    pub oauth2: Field<OAuth2>,
    /// A bearer token that never changes by itself.
    pub bearer: Field<Bearer>,
    /// User name and password.
    pub basic: Field<Basic>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["token_url", "client_id"]))]
pub struct OAuth2 {
    /// The token endpoint.
    pub token_url: Field<UrlText>,
    /// Accept plain `http://` for `token_url` outside loopback.
    pub allow_http: Field<bool>,
    /// The id under which the token endpoint knows tenantgate.
    pub client_id: Field<String>,
    /// How tenantgate authenticates itself to the token endpoint.
    pub method: Field<OAuth2Method>,
    /// The secret. Needed with `client_secret_basic` and `client_secret_post`.
    pub client_secret_file: Field<FileText>,
    /// The signing key as PEM (PKCS#8). Needed with `private_key_jwt`.
    pub private_key_file: Field<FileText>,
    /// What the key signs with, for `private_key_jwt`.
    pub algorithm: Field<OAuth2Algorithm>,
    /// The key id in the assertion's header, for `private_key_jwt`.
    pub kid: Field<String>,
    /// The scopes to ask for, separated by spaces.
    pub scope: Field<String>,
    /// The `audience` parameter of the token request.
    pub audience: Field<String>,
    /// How long before its expiry the token is renewed.
    pub refresh_before_expiry: Field<DurationText>,
    /// How long a token is taken to live where neither `expires_in` nor its own `exp` says so.
    pub default_lifetime: Field<DurationText>,
    /// For one request to the token endpoint.
    pub timeout: Field<DurationText>,
}

impl Default for OAuth2 {
    fn default() -> Self {
        Self {
            token_url: Field::Absent,
            allow_http: Field::Value(false),
            client_id: Field::Absent,
            method: Field::Value(OAuth2Method::ClientSecretBasic),
            client_secret_file: Field::Absent,
            private_key_file: Field::Absent,
            algorithm: Field::Value(OAuth2Algorithm::Es256),
            kid: Field::Absent,
            scope: Field::Absent,
            audience: Field::Absent,
            refresh_before_expiry: Field::Value("10s".into()),
            default_lifetime: Field::Value("5m".into()),
            timeout: Field::Value("2s".into()),
        }
    }
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OAuth2Method {
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
}

#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum OAuth2Algorithm {
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "RS256")]
    Rs256,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["token_file"]))]
pub struct Bearer {
    /// The file that holds the token.
    pub token_file: Field<FileText>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["username", "password_file"]))]
pub struct Basic {
    /// The user name; no colon in it.
    pub username: Field<String>,
    /// The file that holds the password.
    pub password_file: Field<FileText>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// PEM certificates of an own CA. They replace the built-in roots.
    pub ca_file: Field<FileText>,
    /// The PEM certificate chain for mutual TLS. Needs `key_file`.
    pub cert_file: Field<FileText>,
    /// The PEM private key that belongs to `cert_file`.
    pub key_file: Field<FileText>,
}
