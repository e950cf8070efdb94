use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DurationText, FileText, UrlText};

/// One of the three.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// An access token by the client credentials grant: one for all lookups, renewed in the
    /// background.
    pub oauth2: Option<OAuth2>,
    /// A bearer token that never changes by itself.
    pub bearer: Option<Bearer>,
    /// User name and password.
    pub basic: Option<Basic>,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["token_url", "client_id"]))]
pub struct OAuth2 {
    /// The token endpoint.
    pub token_url: Option<UrlText>,
    /// Accept plain `http://` for `token_url` outside loopback.
    pub allow_http: Option<bool>,
    /// The id under which the token endpoint knows tenantgate.
    pub client_id: Option<String>,
    /// How tenantgate authenticates itself to the token endpoint.
    pub method: Option<OAuth2Method>,
    /// The secret. Needed with `client_secret_basic` and `client_secret_post`.
    pub client_secret_file: Option<FileText>,
    /// The signing key as PEM (PKCS#8). Needed with `private_key_jwt`.
    pub private_key_file: Option<FileText>,
    /// What the key signs with, for `private_key_jwt`.
    pub algorithm: Option<OAuth2Algorithm>,
    /// The key id in the assertion's header, for `private_key_jwt`.
    pub kid: Option<String>,
    /// The scopes to ask for, separated by spaces.
    pub scope: Option<String>,
    /// The `audience` parameter of the token request.
    pub audience: Option<String>,
    /// How long before its expiry the token is renewed.
    pub refresh_before_expiry: Option<DurationText>,
    /// How long a token is taken to live where neither `expires_in` nor its own `exp` says so.
    pub default_lifetime: Option<DurationText>,
    /// For one request to the token endpoint.
    pub timeout: Option<DurationText>,
}

impl Default for OAuth2 {
    fn default() -> Self {
        Self {
            token_url: None,
            allow_http: Some(false),
            client_id: None,
            method: Some(OAuth2Method::ClientSecretBasic),
            client_secret_file: None,
            private_key_file: None,
            algorithm: Some(OAuth2Algorithm::Es256),
            kid: None,
            scope: None,
            audience: None,
            refresh_before_expiry: Some("10s".into()),
            default_lifetime: Some("5m".into()),
            timeout: Some("2s".into()),
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
    pub token_file: Option<FileText>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["username", "password_file"]))]
pub struct Basic {
    /// The user name; no colon in it.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<FileText>,
}

#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// PEM certificates of an own CA. They replace the built-in roots.
    pub ca_file: Option<FileText>,
    /// The PEM certificate chain for mutual TLS. Needs `key_file`.
    pub cert_file: Option<FileText>,
    /// The PEM private key that belongs to `cert_file`.
    pub key_file: Option<FileText>,
}
