//! Switches for demos and tests. They ask nobody for a password, which is why the provider listens
//! on loopback only.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use jsonwebtoken::{DecodingKey, jwk::Jwk};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    faults::{ATTACKER_PATH, Faults},
    state::{self, Client, Provider},
};

type Shared = State<Arc<Provider>>;
type Refusal = (StatusCode, String);

pub fn routes() -> Router<Arc<Provider>> {
    Router::new()
        .route("/control/grants/{client_id}/{tenant}", put(put_grant).delete(delete_grant))
        .route("/control/clients/{client_id}", put(put_client).delete(delete_client))
        .route("/control/faults", put(put_faults).delete(delete_faults))
        .route("/control/token-lifetime/{seconds}", put(put_token_lifetime))
        .route("/control/revoke-tokens", post(revoke_tokens))
        .route("/control/assertion-key", put(put_assertion_key).delete(delete_assertion_key))
        .route("/control/state", get(get_state))
        .route("/control/upstream", get(get_upstream).delete(delete_upstream))
        .route("/control/reset", post(reset))
        .route(ATTACKER_PATH, any(attacker))
}

/// What a tenant's admin does in the provider's own pages: authorise an app. An unknown app becomes
/// known. Answers with what holds from now on.
async fn put_grant(
    State(provider): Shared,
    Path((client_id, tenant)): Path<(String, String)>,
) -> Response {
    let mut state = provider.state();
    let client = state.clients.entry(client_id.clone()).or_insert_with(|| Client::new([]));
    client.tenants.insert(tenant);
    shown(&json!({ "client_id": client_id, "tenants": client.tenants }))
}

/// And withdraw it. No error where there was no grant.
async fn delete_grant(
    State(provider): Shared,
    Path((client_id, tenant)): Path<(String, String)>,
) -> Response {
    let mut state = provider.state();
    let Some(client) = state.clients.get_mut(&client_id) else {
        return shown(&json!({ "client_id": client_id, "tenants": [] }));
    };
    client.tenants.remove(&tenant);
    shown(&json!({ "client_id": client_id, "tenants": client.tenants }))
}

/// `{"tenants": ["T1", ...], "plan": "gold"}`, of which the plan may be left out; takes the place
/// of what was there.
async fn put_client(
    State(provider): Shared,
    Path(client_id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let client: Client = serde_json::from_slice(&body).map_err(bad_request)?;
    provider.state().clients.insert(client_id, client);
    Ok(StatusCode::NO_CONTENT)
}

/// The lookup then answers 404 for it.
async fn delete_client(State(provider): Shared, Path(client_id): Path<String>) -> StatusCode {
    provider.state().clients.remove(&client_id);
    StatusCode::NO_CONTENT
}

/// `{"lookup": FAULT, "token": FAULT}`, see `faults`; one left out is cleared.
async fn put_faults(State(provider): Shared, body: Bytes) -> Result<Response, Refusal> {
    let faults = Faults::parse(&body).map_err(bad_request)?;
    let mut state = provider.state();
    state.faults = faults;
    Ok(shown(&state.faults))
}

async fn delete_faults(State(provider): Shared) -> Response {
    let mut state = provider.state();
    state.faults = Faults::default();
    shown(&state.faults)
}

/// Holds for tokens issued from now on.
async fn put_token_lifetime(State(provider): Shared, Path(seconds): Path<u32>) -> StatusCode {
    provider.state().token_lifetime = Duration::from_secs(seconds.into());
    StatusCode::NO_CONTENT
}

/// The lookup then answers 401 to every token issued so far.
async fn revoke_tokens(State(provider): Shared) -> StatusCode {
    provider.state().tokens.clear();
    StatusCode::NO_CONTENT
}

/// A public JWK: from now on the token endpoint takes `private_key_jwt` assertions signed with its
/// private half.
async fn put_assertion_key(State(provider): Shared, body: Bytes) -> Result<StatusCode, Refusal> {
    let jwk: Jwk = serde_json::from_slice(&body).map_err(bad_request)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(bad_request)?;
    provider.state().assertion_key = Some(key);
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_assertion_key(State(provider): Shared) -> StatusCode {
    provider.state().assertion_key = None;
    StatusCode::NO_CONTENT
}

async fn get_state(State(provider): Shared) -> Json<Value> {
    let state = provider.state();
    let mut reply = json!(state.counters);
    reply["clients"] = json!(state.clients);
    reply["faults"] = json!(state.faults);
    reply["token_lifetime_seconds"] = json!(state.token_lifetime.as_secs());
    Json(reply)
}

/// The last 10,000 requests that reached the API, oldest first.
async fn get_upstream(State(provider): Shared) -> Json<Value> {
    Json(json!(provider.state().upstream))
}

/// Forgets the recorded requests; their count goes on.
async fn delete_upstream(State(provider): Shared) -> StatusCode {
    provider.state().upstream.clear();
    StatusCode::NO_CONTENT
}

/// As freshly started: default apps, counters at zero, no faults, no tokens.
async fn reset(State(provider): Shared) -> StatusCode {
    *provider.state() = state::State::default();
    StatusCode::NO_CONTENT
}

/// Where the fault "redirect" points: it would hand a tenant, and a token, to whoever follows.
async fn attacker(State(provider): Shared) -> Json<Value> {
    provider.state().counters.attacker_requests += 1;
    Json(json!({
        "tenants": [{ "code": "T9999", "name": "Attacker" }],
        "access_token": "attacker-token", "token_type": "Bearer", "expires_in": 300,
    }))
}

/// A line of JSON, for people with curl.
fn shown(value: &impl Serialize) -> Response {
    let line = format!("{}\n", json!(value));
    ([(header::CONTENT_TYPE, "application/json")], line).into_response()
}

fn bad_request(error: impl ToString) -> Refusal {
    (StatusCode::BAD_REQUEST, format!("{}\n", error.to_string()))
}
