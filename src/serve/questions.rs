//! Revocation (RFC 7009) and introspection (RFC 7662) of our own tokens, on the token listener.

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use std::time::Duration;
use uuid::Uuid;

use super::peer::Peer;
use super::token::{ErrorResponse, Posted, Shared, error, realm, refusal, uncached};
use crate::authz::Bearer;
use crate::domain::{Client, DenyReason, Holder, Target};
use crate::engine::Engine;
use crate::state::{Audit, Change, Expect, Key};
use crate::token::{TokenError, TokenQuestion};

/// Lets a client ask about everybody's tokens.
const SEES_ALL: &str = "tenantgate:introspect";
/// Claims of a token that its introspection repeats (RFC 7662, section 2.2). No tenants.
const SHOWN: [&str; 8] = ["iss", "sub", "aud", "client_id", "exp", "iat", "nbf", "jti"];
/// How much longer than the token its row is kept.
const MARGIN: Duration = Duration::from_secs(3600);

pub async fn revoke(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let TokenQuestion { client, token } = &asked(&shared, peer, request).await?;
    if shared.engine.state().is_none() {
        let text = "tokens cannot be revoked here: the config has no `state`";
        return Ok(error(StatusCode::BAD_REQUEST, "unsupported_token_type", text));
    }
    Ok(match shared.engine.gate.bearer_of(token.expose()) {
        Ok(bearer) if !bearer.is_ours => done(),
        Ok(bearer) if bearer.client != client.id.as_str() => {
            let text = "the token was issued to another client";
            error(StatusCode::BAD_REQUEST, "invalid_grant", text)
        }
        Ok(bearer) => match store(&shared.engine, client, &bearer).await {
            Ok(()) => {
                tracing::info!(client = client.id.as_str(), "a token was revoked by its client");
                done()
            }
            Err(description) => unavailable(&shared, description),
        },
        Err(reason) if is_undecided(reason) => unavailable(&shared, "its keys are not known now"),
        // Not a token, or not any more: nothing is left to be revoked (RFC 7009, section 2.2).
        Err(_) => done(),
    })
}

pub async fn introspect(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response, ErrorResponse> {
    let TokenQuestion { client, token } = &asked(&shared, peer, request).await?;
    let inactive = || Ok(uncached(Json(json!({ "active": false })).into_response()));
    let caller = match shared.engine.gate.token_standing(token.expose()) {
        Ok(caller) => caller,
        Err(reason) if is_undecided(reason) => {
            let description = "whether the token is still good is not known now";
            return Ok(unavailable(&shared, description));
        }
        Err(_) => return inactive(),
    };
    let own = caller.identity.foreign_issuer().is_none()
        && caller.identity.client() == client.id.as_str();
    if !own && !client.scopes.contains(SEES_ALL) {
        return inactive();
    }
    let mut answer = Map::new();
    answer.insert("active".to_owned(), json!(true));
    let mut claims = claims(token.expose());
    answer
        .extend(SHOWN.iter().filter_map(|name| Some(((*name).to_owned(), claims.remove(*name)?))));
    answer.insert("client_id".to_owned(), json!(caller.identity.client()));
    answer.insert("token_type".to_owned(), json!("Bearer"));
    // Those that count now.
    if !caller.scopes().is_empty() {
        answer.insert("scope".to_owned(), json!(caller.scopes().as_str()));
    }
    Ok(uncached(Json(answer).into_response()))
}

async fn asked(
    shared: &Shared,
    peer: Peer,
    request: Request,
) -> Result<TokenQuestion, ErrorResponse> {
    let posted = Posted::read(shared, peer, request).await?;
    let authorization = posted.authorization();
    let question = shared.service.question(posted.request(&authorization)).await;
    question.map_err(|error| ErrorResponse::from(refusal(error, &realm(&shared.service.context))))
}

async fn store(engine: &Engine, client: &Client, bearer: &Bearer) -> Result<(), &'static str> {
    // Only a token without `jti` has none, and ours have.
    let (Some(state), Some(id)) = (engine.state(), bearer.id) else { return Ok(()) };
    let issuer = engine.gate.snapshot.load().own_issuer.clone();
    let holder = Holder { issuer: &issuer, client: client.id.as_str() };
    let left = bearer.expires_at.since(engine.clock.now());
    let change = Change {
        key: Key::of(holder, Target::Token(id)),
        hold: Duration::ZERO,
        keep: Some(left + MARGIN),
        lift: false,
        body: String::new(),
        expect: Expect::Anything,
        audit: Audit {
            request_id: Uuid::now_v7().to_string(),
            actor: client.id.to_string(),
            action: "tokens:revoke".to_owned(),
            detail: String::new(),
        },
    };
    match state.write(change).await {
        Ok(_) => Ok(()),
        Err(_) => Err("the state's database is away; nothing was changed, try again"),
    }
}

/// Of a token that has been verified.
fn claims(token: &str) -> Map<String, Value> {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

fn is_undecided(reason: DenyReason) -> bool {
    matches!(
        reason,
        DenyReason::KeysUnavailable | DenyReason::StateUnavailable | DenyReason::InternalError
    )
}

fn done() -> Response {
    uncached(StatusCode::OK.into_response())
}

fn unavailable(shared: &Shared, description: &'static str) -> Response {
    let error = TokenError::Unavailable { retry_after: 1, description };
    refusal(error, &realm(&shared.service.context))
}
