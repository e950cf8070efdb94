//! The token endpoint: tenantgate proves who it is (OAuth 2.0 client credentials) and gets a token
//! for the lookup.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::Validation;
use percent_encoding::percent_decode_str;
use rand::distr::{Alphanumeric, SampleString};
use serde::Deserialize;
use serde_json::json;

use crate::{
    faults::{Endpoint, Fault},
    state::{self, Provider},
};

const CLIENT_ID: &str = "tenantgate";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

type Form = HashMap<String, String>;

pub async fn issue(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = provider.state().count_token_request();
    if let Some(fault) = &fault
        && let Some(reply) = fault.reply(Endpoint::Token).await
    {
        return reply;
    }

    let form: Form = form_urlencoded::parse(&body).into_owned().collect();
    if !authenticated(&provider, &headers, &form) {
        return invalid_client();
    }
    if form.get("grant_type").map(String::as_str) != Some("client_credentials") {
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": "unsupported_grant_type" })))
            .into_response();
    }
    grant(&provider, fault.as_ref())
}

fn grant(provider: &Provider, fault: Option<&Fault>) -> Response {
    let mut state = provider.state();
    let now = state::now();
    let lifetime = state.token_lifetime;
    let expiry = now + lifetime;
    let (token, expires_in) = match fault {
        Some(Fault::JwtExpiry) => (jwt_lookalike(expiry), None),
        Some(Fault::NoExpiry) => (random_text(), None),
        _ => (random_text(), Some(lifetime.as_secs())),
    };
    state.tokens.retain(|_, expiry| now < *expiry);
    state.tokens.insert(token.clone(), expiry);
    state.counters.tokens_issued += 1;

    let mut reply = json!({ "access_token": token, "token_type": "Bearer" });
    if let Some(seconds) = expires_in {
        reply["expires_in"] = seconds.into();
    }
    ([(header::CACHE_CONTROL, "no-store")], Json(reply)).into_response()
}

pub fn invalid_client() -> Response {
    let headers = [(header::WWW_AUTHENTICATE, r#"Basic realm="provider""#)];
    (StatusCode::UNAUTHORIZED, headers, Json(json!({ "error": "invalid_client" }))).into_response()
}

/// By one of `client_secret_basic`, `client_secret_post` and `private_key_jwt`.
fn authenticated(provider: &Provider, headers: &HeaderMap, form: &Form) -> bool {
    let basic = headers.get(header::AUTHORIZATION);
    let post = form.get("client_secret");
    let assertion = form.get("client_assertion");
    match (basic, post, assertion) {
        (Some(basic), None, None) => {
            let credentials = basic.to_str().ok().and_then(basic_credentials);
            credentials
                .is_some_and(|(id, secret)| id == CLIENT_ID && secret == provider.callout_secret)
        }
        (None, Some(secret), None) => {
            form.get("client_id").is_some_and(|id| id == CLIENT_ID)
                && *secret == provider.callout_secret
        }
        (None, None, Some(assertion)) => {
            form.get("client_assertion_type").is_some_and(|kind| kind == JWT_BEARER)
                && assertion_holds(provider, headers, assertion).is_some()
        }
        _ => false,
    }
}

/// Both halves are form-encoded within the Base64, so that a secret may hold any character (RFC
/// 6749, 2.3.1).
fn basic_credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?))
}

fn form_decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

#[derive(Deserialize)]
struct AssertionId {
    jti: String,
}

/// RFC 7523, 3: signed with the key that control has put, for this endpoint, by and about
/// tenantgate, unexpired, once.
fn assertion_holds(provider: &Provider, headers: &HeaderMap, assertion: &str) -> Option<()> {
    let mut state = provider.state();
    let key = state.assertion_key.as_ref()?;
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let mut validation = Validation::new(jsonwebtoken::decode_header(assertion).ok()?.alg);
    validation.set_audience(&[format!("http://{host}/oauth/token")]);
    validation.set_issuer(&[CLIENT_ID]);
    validation.sub = Some(CLIENT_ID.to_owned());
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let assertion = jsonwebtoken::decode::<AssertionId>(assertion, key, &validation).ok()?;
    state.used_assertions.insert(assertion.claims.jti).then_some(())
}

fn random_text() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 43)
}

/// Three parts and an `exp`, so that a caller can read the expiry; the lookup knows tokens by
/// heart, so none is signed.
fn jwt_lookalike(expiry: SystemTime) -> String {
    let since_epoch = expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let header = json!({ "alg": "ES256", "typ": "at+jwt" });
    let claims = json!({ "sub": CLIENT_ID, "jti": random_text(), "exp": since_epoch.as_secs() });
    let encode = |part: String| BASE64_URL_SAFE_NO_PAD.encode(part);
    let (header, claims) = (encode(header.to_string()), encode(claims.to_string()));
    format!("{header}.{claims}.{}", encode(random_text()))
}
