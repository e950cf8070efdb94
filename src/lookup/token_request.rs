use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use serde_json::{Value, json};
use url::Url;

use crate::config::{OAuth2Auth, OAuth2Method};
use crate::domain::{Algorithm, Problem, Secret, Timestamp};

use super::outbound::{read_body, transport_failure};
use super::unavailable::{CalloutTokenError, Unavailable};

const MAX_ANSWER: usize = 64 * 1024;
const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);

/// A client_credentials request of RFC 6749, ready to be sent again and again.
pub struct CalloutTokenRequest {
    client: reqwest::Client,
    url: Url,
    client_id: String,
    credential: Credential,
    scope: Option<String>,
    audience: Option<String>,
    default_lifetime: Duration,
}

enum Credential {
    Basic(HeaderValue),
    Post(Secret),
    Assertion { key: EncodingKey, header: Box<Header> },
}

pub struct NewToken {
    pub header: HeaderValue,
    pub expires_at: Timestamp,
}

impl CalloutTokenRequest {
    pub fn new(config: &OAuth2Auth, client: reqwest::Client) -> Result<Self, Problem> {
        Ok(Self {
            client,
            url: config.token_url.clone(),
            client_id: config.client_id.clone(),
            credential: Credential::new(&config.client_id, &config.method)?,
            scope: config.scope.clone(),
            audience: config.audience.clone(),
            default_lifetime: config.default_lifetime,
        })
    }

    pub async fn send(&self, now: Timestamp) -> Result<NewToken, CalloutTokenError> {
        let mut form = vec![("grant_type", "client_credentials".to_owned())];
        form.extend(self.scope.clone().map(|scope| ("scope", scope)));
        form.extend(self.audience.clone().map(|audience| ("audience", audience)));
        let mut request = self.client.post(self.url.clone()).header(ACCEPT, "application/json");
        match &self.credential {
            Credential::Basic(header) => request = request.header(AUTHORIZATION, header),
            Credential::Post(secret) => {
                form.push(("client_id", self.client_id.clone()));
                form.push(("client_secret", secret.expose().to_owned()));
            }
            Credential::Assertion { key, header } => {
                form.push(("client_id", self.client_id.clone()));
                form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
                form.push(("client_assertion", self.assertion(key, header, now)?));
            }
        }
        let response =
            request.form(&form).send().await.map_err(|error| failure(transport_failure(error)))?;
        let status = response.status().as_u16();
        let body = read_body(response, MAX_ANSWER).await.map_err(failure)?;
        if status != 200 {
            return Err(refusal(status, &body));
        }
        self.parse(&body, now)
    }

    fn assertion(
        &self,
        key: &EncodingKey,
        header: &Header,
        now: Timestamp,
    ) -> Result<String, CalloutTokenError> {
        let claims = json!({
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.url.as_str(),
            "iat": now.secs(),
            "exp": now.plus(ASSERTION_LIFETIME).secs(),
            "jti": format!("{:032x}", rand::random::<u128>()),
        });
        jsonwebtoken::encode(header, &claims, key).map_err(|_| CalloutTokenError::Signing)
    }

    fn parse(&self, body: &[u8], now: Timestamp) -> Result<NewToken, CalloutTokenError> {
        let answer: Value = serde_json::from_slice(body)
            .map_err(|_| CalloutTokenError::BadAnswer("it is not JSON"))?;
        // Some servers leave it out; Apigee's says `BearerToken`.
        let bearer = |kind: &str| {
            ["bearer", "bearertoken"].iter().any(|known| kind.eq_ignore_ascii_case(known))
        };
        match answer.get("token_type") {
            None | Some(Value::Null) => {}
            Some(Value::String(kind)) if bearer(kind) => {}
            Some(_) => return Err(CalloutTokenError::BadAnswer("`token_type` is not `Bearer`")),
        }
        let token = answer.get("access_token").and_then(Value::as_str).unwrap_or_default();
        // What RFC 6750 allows in a header, and no more.
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if token.is_empty() || !token.bytes().all(allowed) {
            return Err(CalloutTokenError::BadAnswer(
                "`access_token` is missing or not a bearer token",
            ));
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| CalloutTokenError::BadAnswer("`access_token` is not a bearer token"))?;
        header.set_sensitive(true);
        let expires_at = match answer.get("expires_in") {
            None | Some(Value::Null) => {
                jwt_expiry(token).unwrap_or_else(|| now.plus(self.default_lifetime))
            }
            Some(value) => now.plus(
                lifetime(value)
                    .ok_or(CalloutTokenError::BadAnswer("`expires_in` is not a number"))?,
            ),
        };
        if expires_at <= now {
            return Err(CalloutTokenError::BadAnswer("the token has expired already"));
        }
        Ok(NewToken { header, expires_at })
    }
}

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Credential {
    fn new(client_id: &str, method: &OAuth2Method) -> Result<Self, Problem> {
        match method {
            OAuth2Method::ClientSecretBasic(secret) => {
                Ok(Self::Basic(basic(client_id, secret.0.expose())))
            }
            OAuth2Method::ClientSecretPost(secret) => Ok(Self::Post(secret.0.clone())),
            OAuth2Method::PrivateKeyJwt { key_pem, algorithm, kid } => {
                let pem = key_pem.0.expose().as_bytes();
                let (key, algorithm) = match algorithm {
                    Algorithm::Es256 => {
                        (EncodingKey::from_ec_pem(pem), jsonwebtoken::Algorithm::ES256)
                    }
                    Algorithm::Es384 => {
                        (EncodingKey::from_ec_pem(pem), jsonwebtoken::Algorithm::ES384)
                    }
                    Algorithm::EdDsa => {
                        (EncodingKey::from_ed_pem(pem), jsonwebtoken::Algorithm::EdDSA)
                    }
                    Algorithm::Rs256 => {
                        (EncodingKey::from_rsa_pem(pem), jsonwebtoken::Algorithm::RS256)
                    }
                    Algorithm::Ps256 => {
                        (EncodingKey::from_rsa_pem(pem), jsonwebtoken::Algorithm::PS256)
                    }
                };
                let key = key.map_err(|_| Problem {
                    field: "tenants.lookup.auth.oauth2.private_key_file".to_owned(),
                    message: format!(
                        "is not a private key for {algorithm:?}; give a PKCS#8 key as PEM"
                    ),
                })?;
                let mut header = Header::new(algorithm);
                header.kid.clone_from(kid);
                Ok(Self::Assertion { key, header: Box::new(header) })
            }
        }
    }
}

/// RFC 6749, section 2.3.1: both parts are form-encoded before they are joined.
fn basic(client_id: &str, secret: &str) -> HeaderValue {
    let encode =
        |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    let pair = STANDARD.encode(format!("{}:{}", encode(client_id), encode(secret)));
    let mut header = HeaderValue::from_str(&format!("Basic {pair}"))
        .unwrap_or_else(|error| unreachable!("base64 is a valid header: {error}"));
    header.set_sensitive(true);
    header
}

fn failure(unavailable: Unavailable) -> CalloutTokenError {
    match unavailable {
        Unavailable::Connect(cause) => CalloutTokenError::Connect(cause),
        Unavailable::Tls { fault, cause } => CalloutTokenError::Tls { fault, cause },
        Unavailable::Broken(cause) => CalloutTokenError::Broken(cause),
        Unavailable::Packed(_) => CalloutTokenError::BadAnswer("it cannot be unpacked"),
        _ => CalloutTokenError::BadAnswer("it is too large"),
    }
}

fn refusal(status: u16, body: &[u8]) -> CalloutTokenError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("error").and_then(Value::as_str) {
        Some("invalid_client") => CalloutTokenError::InvalidClient,
        // The codes of RFC 6749 look like this. Anything else may be anything: not for logs.
        Some(error)
            if error.len() <= 40 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
        {
            CalloutTokenError::Refused { status, error: error.to_owned() }
        }
        _ => CalloutTokenError::Status(status),
    }
}

/// A number of seconds, or such a number in a string, as some servers send it.
fn lifetime(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds.max(0.0)).ok()
}

/// The `exp` of a JWT. Not verified: this is our own token, and all it decides is when we ask
/// for the next one.
fn jwt_expiry(token: &str) -> Option<Timestamp> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let seconds = claims.get("exp")?.as_f64().filter(|exp| *exp >= 0.0)?;
    Some(Timestamp::from_secs(seconds as u64))
}
