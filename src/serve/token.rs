//! The token listener: OAuth 2.0 over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::peer::Peer;
use super::questions;
use super::source::ForwardedBy;
use crate::domain::Caller;
use crate::engine::{Engine, MintContext};
use crate::telemetry::traces::{Parent, TRACEPARENT, Traces};
use crate::token::{Arrival, Issued, MAX_FORM, TokenError, TokenRequest, TokenService};

/// A form is small; a client that needs longer to send it loses the connection.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
pub(super) struct Shared {
    pub service: Arc<TokenService>,
    pub engine: Arc<Engine>,
    forwarded_by: ForwardedBy,
}

/// The token endpoint, its metadata and keys, revocation and introspection.
pub fn router(
    service: Arc<TokenService>,
    engine: Arc<Engine>,
    forwarded_by: ForwardedBy,
) -> Router {
    let shared = Shared { service, engine, forwarded_by };
    Router::new()
        .route("/oauth2/token", any(token))
        .route("/oauth2/token/", any(misspelt))
        .route("/oauth2/revoke", any(questions::revoke))
        .route("/oauth2/introspect", any(questions::introspect))
        .route("/oauth2/jwks", get(jwks))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "not_found", "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            let text = "this method is not supported here";
            error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", text)
        })
        .with_state(shared)
}

async fn misspelt() -> Response {
    let text = "the token endpoint is /oauth2/token, without a slash at its end";
    error(StatusCode::NOT_FOUND, "not_found", text)
}

async fn token(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let posted = Posted::read(&shared, peer, request).await?;
    let authorization = posted.authorization();
    let issue = shared.service.issue(posted.request(&authorization));
    let issued = match posted.trace(&shared) {
        Some((traces, parent)) => {
            let outcome = |issued: &Result<Issued, TokenError>| match issued {
                Ok(_) => "issued",
                Err(error) => error.code(),
            };
            traces.around(&parent, "token", issue, outcome).await
        }
        None => issue.await,
    };
    Ok(match issued {
        Ok(issued) => success(issued),
        Err(error) => refusal(error, &realm(&shared.service.context)),
    })
}

/// The answer where no question was understood.
pub(super) struct ErrorResponse(Box<Response>);

impl From<Response> for ErrorResponse {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// A form that was posted to one of the endpoints where clients authenticate.
pub(super) struct Posted {
    head: Parts,
    caller: Caller,
    body: Bytes,
}

impl Posted {
    pub async fn read(
        shared: &Shared,
        peer: Peer,
        request: Request,
    ) -> Result<Self, ErrorResponse> {
        let (head, body) = request.into_parts();
        let caller = Caller(shared.forwarded_by.source(peer, &head.headers));
        let arrival = Arrival { caller, request_id: request_id(&head.headers) };
        if head.method != Method::POST {
            let refused = TokenError::InvalidRequest("this endpoint is asked by POST");
            let refused = shared.service.refuse_early(arrival, refused);
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut response = error(status, refused.code(), refused.description());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(response.into());
        }
        match form(&head, body).await {
            Ok(body) => Ok(Self { head, caller, body }),
            Err(error) => {
                let error = shared.service.refuse_early(arrival, error);
                Err(refusal(error, &realm(&shared.service.context)).into())
            }
        }
    }

    pub fn authorization(&self) -> Vec<&[u8]> {
        self.head.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect()
    }

    /// Where the spans of this request go. `None`: its trace is not sampled, or there are none.
    fn trace(&self, shared: &Shared) -> Option<(Arc<Traces>, Parent)> {
        let traces = shared.engine.gate.ledger.traces.get()?;
        let parent = Parent::parse(self.head.headers.get(TRACEPARENT)?.as_bytes())?;
        Some((Arc::clone(traces), parent))
    }

    pub fn request<'a>(&'a self, authorization: &'a [&'a [u8]]) -> TokenRequest<'a> {
        let request_id = request_id(&self.head.headers);
        let arrival = Arrival { caller: self.caller, request_id };
        TokenRequest { arrival, authorization, body: &self.body }
    }
}

/// The body, read first whatever is wrong with the rest: what is left unread costs the connection.
async fn form(head: &Parts, body: Body) -> Result<Bytes, TokenError> {
    let body = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_FORM)).await;
    let body = body
        .map_err(|_| TokenError::InvalidRequest("the body took too long"))?
        .map_err(|_| TokenError::InvalidRequest("the body is too large or broken off"))?;
    if head.uri.query().is_some() {
        // URLs end up in logs; a secret in one is lost.
        return Err(TokenError::InvalidRequest("parameters belong in the body, not in the URL"));
    }
    match media_type(&head.headers).as_deref() {
        Some("application/x-www-form-urlencoded") => Ok(body),
        // What is missing first is reported by the reader of the form.
        None if body.is_empty() => Ok(body),
        Some("application/json") => Err(TokenError::InvalidRequest(
            "send a form (application/x-www-form-urlencoded), not JSON",
        )),
        _ => Err(TokenError::InvalidRequest(
            "the content type must be application/x-www-form-urlencoded",
        )),
    }
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or_default();
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// If it looks like an id: it may be the caller's own.
fn request_id(headers: &HeaderMap) -> &str {
    let id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let harmless = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if harmless { id } else { "" }
}

/// What the response says beside the token (RFC 6749, section 5.1).
#[derive(Serialize)]
struct TokenResponse {
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(flatten)]
    display: BTreeMap<String, Box<RawValue>>,
}

fn success(issued: Issued) -> Response {
    let Issued { access_token, expires_in, scope, display } = issued;
    let beside = TokenResponse { token_type: "Bearer", expires_in, scope, display };
    let Ok(beside) = serde_json::to_vec(&beside) else {
        unreachable!("texts, numbers and JSON are JSON");
    };
    // Most of the body is the token, of which no character has to be escaped (RFC 7515, section 3).
    let mut body = Vec::with_capacity(access_token.len() + beside.len() + 20);
    body.extend_from_slice(br#"{"access_token":""#);
    body.extend_from_slice(access_token.as_bytes());
    body.extend_from_slice(br#"","#);
    body.extend_from_slice(&beside[1..]);
    uncached(([(CONTENT_TYPE, "application/json")], body).into_response())
}

pub(super) fn refusal(token_error: TokenError, realm: &str) -> Response {
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

pub(super) fn error(status: StatusCode, code: &str, description: &str) -> Response {
    let body = json!({ "error": code, "error_description": description });
    uncached((status, Json(body)).into_response())
}

pub(super) fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn realm(context: &ArcSwap<MintContext>) -> String {
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
    let authentication = ["client_secret_basic", "client_secret_post"];
    let mut metadata = json!({
        "issuer": context.issuer,
        "token_endpoint": format!("{base}/oauth2/token"),
        "jwks_uri": format!("{base}/oauth2/jwks"),
        "grant_types_supported": ["client_credentials"],
        // Required, and not empty for those who validate it. This one gives nothing away.
        "response_types_supported": ["none"],
        "token_endpoint_auth_methods_supported": authentication,
        "introspection_endpoint": format!("{base}/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": authentication,
    });
    // Without a state nothing is kept of a revoked token.
    if shared.engine.state().is_some() {
        metadata["revocation_endpoint"] = json!(format!("{base}/oauth2/revoke"));
        metadata["revocation_endpoint_auth_methods_supported"] = json!(authentication);
    }
    Json(metadata).into_response()
}
