//! The management listener.

use axum::http::StatusCode;
use axum::{Json, Router};
use serde_json::json;

/// What the management API answers where it has nothing.
pub fn router() -> Router {
    Router::new().fallback(|| async {
        let body = json!({ "error": "not_found", "error_description": "there is nothing here" });
        (StatusCode::NOT_FOUND, Json(body))
    })
}
