//! The admin listener: health, readiness, metrics.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::lifecycle::Readiness;
use crate::telemetry::Metrics;

#[derive(Clone)]
pub struct AdminState {
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub reload: ReloadStatus,
    /// Brings the gauges up to date that are read off at a scrape only.
    pub before_scrape: Arc<dyn Fn() + Send + Sync>,
}

/// How the last reload went.
#[derive(Clone, Default)]
pub struct ReloadStatus(Arc<Mutex<Vec<String>>>);

impl ReloadStatus {
    /// The problems that keep the last good state running; none: the files are what is running.
    pub fn set(&self, problems: Vec<String>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = problems;
    }

    pub fn get(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// `?verbose` adds what an operator wants to know; a broken file on disk does not make a process unready
/// that goes on with its last good state.
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
        let problems = state.reload.get();
        let outcome = if problems.is_empty() { "ok" } else { "failed, the last good state runs" };
        text.push_str(&format!("reload: {outcome}\n"));
        for problem in problems {
            text.push_str(&format!("  {problem}\n"));
        }
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
