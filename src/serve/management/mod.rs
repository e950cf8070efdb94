//! The management API: grants withdrawn and restored, and clients registered, by a call.

mod arrival;
mod clients;
mod documents;
mod explain;
mod failure;
mod grants;
mod openapi;
mod registration;
mod usage;
mod write;

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use self::failure::Failure;
use crate::engine::Engine;

/// Calls a second, from everybody who may call.
const CALLS: NonZeroU32 = NonZeroU32::new(500).unwrap();
/// Calls a second that show no good token.
const STRANGERS: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// What every handler has.
pub struct Management {
    engine: Arc<Engine>,
    calls: DefaultDirectRateLimiter,
    strangers: DefaultDirectRateLimiter,
}

type Shared = Arc<Management>;

/// `/v1/…` of docs/management.md.
pub fn router(engine: Arc<Engine>) -> Router {
    let shared = Arc::new(Management {
        engine,
        calls: RateLimiter::direct(Quota::per_second(CALLS)),
        strangers: RateLimiter::direct(Quota::per_second(STRANGERS)),
    });
    Router::new()
        .route("/v1/grants:withdraw", post(grants::withdraw))
        .route("/v1/grants:restore", post(grants::restore))
        .route("/v1/clients", get(clients::list).post(clients::create))
        .route(
            "/v1/clients/{client}",
            get(clients::show).patch(clients::patch).delete(clients::delete).post(clients::act),
        )
        .route("/v1/clients/{client}/grants", get(explain::grants))
        .route("/v1/usage:query", post(usage::query))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/v1/explain", post(explain::explain))
        .fallback(|| async { Failure::NotFound("there is nothing here") })
        .method_not_allowed_fallback(|| async { Failure::MethodNotAllowed })
        .with_state(shared)
}
