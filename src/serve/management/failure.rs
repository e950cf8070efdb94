use axum::Json;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::state::StoreError;

/// Why a call does nothing. The texts name no tenant and no secret.
#[derive(Debug)]
pub enum Failure {
    Invalid(String),
    /// No token, or a bad one.
    Unauthorized,
    /// The scope that is missing.
    Scope(&'static str),
    NotFound(&'static str),
    MethodNotAllowed,
    Conflict(String),
    TooMany,
    Unavailable(String),
}

/// What a call that does nothing is told.
#[derive(Serialize, ToSchema)]
pub struct Error {
    pub error: &'static str,
    pub error_description: String,
}

/// How a call can be refused, for the description.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described; `Failure` is what is answered")]
pub enum Refusals {
    /// A body that does not fit: the field and the cure.
    #[response(status = 400)]
    BadRequest(Error),
    /// No token, or a bad one.
    #[response(status = 401)]
    Unauthorized(Error),
    /// A good token without the scope.
    #[response(status = 403)]
    Forbidden(Error),
    /// No such client or secret.
    #[response(status = 404)]
    NotFound(Error),
    /// It exists, is in `clients.yaml`, or there is no `state`.
    #[response(status = 409)]
    Conflict(Error),
    /// Too many calls.
    #[response(status = 429)]
    TooManyRequests(Error),
    /// The database is away; nothing was changed.
    #[response(status = 503)]
    Unavailable(Error),
}

impl Failure {
    pub fn invalid(field: &str, wrong: &str) -> Self {
        Self::Invalid(format!("{field}: {wrong}"))
    }

    pub fn no_client() -> Self {
        Self::NotFound("there is no such client")
    }

    pub fn in_file() -> Self {
        Self::Conflict("this client is in `clients.yaml`, which is read-only here".to_owned())
    }

    pub fn no_state() -> Self {
        let text =
            "nothing can be stored: the config of this process has no `state`; add the section";
        Self::Conflict(text.to_owned())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(format!("{error}; nothing was changed, try again"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error, text) = match self {
            Self::Invalid(text) => (StatusCode::BAD_REQUEST, "invalid_request", text),
            Self::Unauthorized => {
                let text = "a bearer token is needed: that of `management.token_file`, or one of \
                            our own \
                            issuer with the scope for this call";
                (StatusCode::UNAUTHORIZED, "invalid_token", text.to_owned())
            }
            Self::Scope(scope) => {
                let text = format!("the token lacks the scope `{scope}`");
                (StatusCode::FORBIDDEN, "insufficient_scope", text)
            }
            Self::NotFound(text) => (StatusCode::NOT_FOUND, "not_found", text.to_owned()),
            Self::MethodNotAllowed => {
                let text = "this method is not supported here".to_owned();
                (StatusCode::METHOD_NOT_ALLOWED, "invalid_request", text)
            }
            Self::Conflict(text) => (StatusCode::CONFLICT, "conflict", text),
            Self::TooMany => {
                let text = "too many calls; wait a second".to_owned();
                (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text)
            }
            Self::Unavailable(text) => {
                (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text)
            }
        };
        let mut response = (status, Json(Error { error, error_description: text })).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let waits = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if waits.contains(&status) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = "Bearer realm=\"tenantgate management\"";
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
