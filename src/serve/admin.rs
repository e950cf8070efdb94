//! The admin listener: health, readiness, metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::lifecycle::Readiness;
use crate::telemetry::Metrics;

/// What the admin listener shows.
#[derive(Clone)]
pub struct AdminState {
    /// For `/readyz` and `/livez`.
    pub readiness: Readiness,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// What `/readyz?verbose` adds.
    pub describe: Arc<dyn Fn() -> String + Send + Sync>,
    /// Brings the gauges up to date that are read off at a scrape only.
    pub before_scrape: Arc<dyn Fn() + Send + Sync>,
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// `?verbose` adds what an operator wants to know; a broken file on disk does not make a process
/// unready that goes on with its last good state.
async fn readyz(State(state): State<AdminState>, RawQuery(query): RawQuery) -> Response {
    let (status, word) = match (state.readiness.is_ready(), state.readiness.is_draining()) {
        (true, _) => (StatusCode::OK, "ready"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
    };
    let mut text = format!("{word}\n");
    let verbose =
        query.is_some_and(|query| query.split('&').any(|item| item.starts_with("verbose")));
    if verbose {
        text.push_str(&(state.describe)());
    }
    (status, text).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    (state.before_scrape)();
    match state.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
