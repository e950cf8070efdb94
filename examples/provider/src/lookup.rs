//! The lookup: tenantgate asks which tenants have authorised an app, and shows the token from
//! `token` for it.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::percent_decode_str;

use crate::{
    faults::Endpoint,
    state::{Client, Provider},
};

/// The client id if `path` is `/{client_id}/authorizedTenants`.
pub fn client_id(path: &str) -> Option<String> {
    let segment = path.strip_prefix('/')?.strip_suffix("/authorizedTenants")?;
    if segment.is_empty() || segment.contains('/') {
        return None;
    }
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

pub async fn answer(provider: &Provider, client_id: &str, request: Request) -> Response {
    let (head, _body) = request.into_parts();
    if ![Method::GET, Method::POST].contains(&head.method) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, POST")]).into_response();
    }
    let fault = provider.state().count_lookup(client_id);
    if let Some(fault) = fault
        && let Some(reply) = fault.reply(Endpoint::Lookup).await
    {
        return reply;
    }

    let mut state = provider.state();
    if !bearer_token(&head.headers).is_some_and(|token| state.token_is_valid(token)) {
        return unauthorized();
    }
    let Some(client) = state.clients.get(client_id) else {
        return (StatusCode::NOT_FOUND, axum::Json(serde_json::json!({ "error": "unknown app" })))
            .into_response();
    };
    let body = describe(client);
    let etag = etag(&body);
    if names_etag(&head.headers, &etag) {
        state.counters.not_modified += 1;
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
    }
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, etag)];
    (headers, body).into_response()
}

/// An app that no tenant has authorised gets an empty array: "none" is an answer, and not the same
/// as no answer.
fn describe(client: &Client) -> String {
    let tenants: Vec<_> = client
        .tenants
        .iter()
        .map(|code| serde_json::json!({ "code": code, "name": format!("Tenant {code}") }))
        .collect();
    serde_json::json!({ "tenants": tenants, "plan": client.plan }).to_string()
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then_some(token)
}

/// 401 tells tenantgate to get a new token and ask once more.
fn unauthorized() -> Response {
    let challenge = r#"Bearer realm="provider", error="invalid_token""#;
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
}

/// Changes whenever the answer does, so that an unchanged one need not be sent again.
fn etag(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn names_etag(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|named| named.trim())
        .any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == etag)
}
