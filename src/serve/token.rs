//! The token listener: OAuth 2.0 over HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::peer::Peer;
use crate::token::{Issued, MAX_FORM, MintContext, Source, TokenError, TokenService};

/// A form is small; whoever needs longer to send it is not worth the connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

#[derive(Clone)]
struct Shared {
    service: Arc<TokenService>,
    /// Proxies in front of us that append to `X-Forwarded-For`.
    trusted_proxies: usize,
}

pub fn router(service: Arc<TokenService>, trusted_proxies: usize) -> Router {
    let shared = Shared { service, trusted_proxies };
    Router::new()
        .route("/oauth2/token", post(token))
        .route("/oauth2/jwks", get(jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "not_found", "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            let text = "this method is not supported here";
            error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", text)
        })
        .with_state(shared)
}

async fn token(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match issue(&shared, peer, &uri, &headers, body).await {
        Ok(issued) => success(issued),
        Err(error) => refusal(error, &realm(&shared.service.context)),
    }
}

async fn issue(
    shared: &Shared,
    peer: Peer,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Issued, TokenError> {
    if uri.query().is_some() {
        // URLs end up in logs; a secret in one is lost.
        return Err(TokenError::InvalidRequest("parameters belong in the body, not in the URL"));
    }
    if !is_form(headers) {
        return Err(TokenError::InvalidRequest(
            "the content type must be application/x-www-form-urlencoded",
        ));
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_FORM)).await;
    let body = body
        .map_err(|_| TokenError::InvalidRequest("the body took too long"))?
        .map_err(|_| TokenError::InvalidRequest("the body is too large or broken off"))?;
    let authorization: Vec<&[u8]> =
        headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
    let source = Source(source(peer, headers, shared.trusted_proxies));
    shared.service.issue(source, &authorization, &body).await
}

fn is_form(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The address that the outermost trusted proxy saw. What stands further left in the header was written by
/// the caller.
fn source(peer: Peer, headers: &HeaderMap, trusted_proxies: usize) -> IpAddr {
    if trusted_proxies == 0 {
        return peer.ip();
    }
    let forwarded: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let outermost = forwarded.len().checked_sub(trusted_proxies).and_then(|at| forwarded.get(at));
    outermost.and_then(|address| address.parse().ok()).unwrap_or(peer.ip())
}

#[derive(Serialize)]
struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(flatten)]
    display: BTreeMap<String, Box<RawValue>>,
}

fn success(issued: Issued) -> Response {
    let Issued { access_token, expires_in, scope, display } = issued;
    let body = TokenResponse { access_token, token_type: "Bearer", expires_in, scope, display };
    uncached((StatusCode::OK, Json(body)).into_response())
}

fn refusal(token_error: TokenError, realm: &str) -> Response {
    let (status, retry_after) = match token_error {
        TokenError::InvalidClient => (StatusCode::UNAUTHORIZED, None),
        TokenError::Throttled { retry_after } => (StatusCode::TOO_MANY_REQUESTS, Some(retry_after)),
        TokenError::Unavailable { retry_after, .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, Some(retry_after))
        }
        TokenError::InvalidRequest(_)
        | TokenError::UnauthorizedClient(_)
        | TokenError::UnsupportedGrantType
        | TokenError::InvalidScope(_)
        | TokenError::InvalidTarget(_) => (StatusCode::BAD_REQUEST, None),
    };
    let mut response = error(status, token_error.code(), token_error.description());
    if status == StatusCode::UNAUTHORIZED
        && let Ok(challenge) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\""))
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn error(status: StatusCode, code: &str, description: &str) -> Response {
    let body = json!({ "error": code, "error_description": description });
    uncached((status, Json(body)).into_response())
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn realm(context: &ArcSwap<MintContext>) -> String {
    context.load().audience.replace(['"', '\\'], "")
}

/// RFC 7517. Verifiers may keep it for a while: a new key is published before it signs.
async fn jwks(State(shared): State<Shared>) -> Response {
    let context = shared.service.context.load();
    let headers =
        [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=60")];
    (headers, context.keys.jwks_json().to_string()).into_response()
}

/// RFC 8414, section 2.
async fn metadata(State(shared): State<Shared>) -> Response {
    let context = shared.service.context.load();
    let base = context.issuer.trim_end_matches('/');
    Json(json!({
        "issuer": context.issuer,
        "token_endpoint": format!("{base}/oauth2/token"),
        "jwks_uri": format!("{base}/oauth2/jwks"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(forwarded: &[&str], trusted: usize) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        source(Peer(None), &headers, trusted).to_string()
    }

    #[test]
    fn a_caller_cannot_choose_its_source() {
        assert_eq!(seen(&["6.6.6.6"], 0), "127.0.0.1");
        assert_eq!(seen(&["6.6.6.6, 192.0.2.1"], 1), "192.0.2.1");
        assert_eq!(seen(&["6.6.6.6", "192.0.2.1, 10.0.0.1"], 2), "192.0.2.1");
        assert_eq!(seen(&["10.0.0.1"], 2), "127.0.0.1");
        assert_eq!(seen(&["nonsense"], 1), "127.0.0.1");
    }
}
