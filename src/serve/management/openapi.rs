//! The description of this API, made from its handlers and their types.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::arrival::answer;
use super::failure::Error;
use super::{clients, explain, grants, usage};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "tenantgate management",
        description = "Withdraw and restore grants, register and stop clients, ask who used what. \
                       Times are RFC 3339, UTC. Tenants are answered by references, never by codes."
    ),
    paths(
        grants::withdraw,
        grants::restore,
        clients::list,
        clients::create,
        clients::show,
        clients::patch,
        clients::delete,
        clients::block,
        clients::unblock,
        clients::revoke_tokens,
        clients::rotate_secret,
        clients::revoke_secret,
        explain::grants,
        explain::explain,
        usage::query,
    ),
    components(schemas(Error)),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", scheme);
    }
}

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(Description::openapi()).unwrap_or_default());

/// For everybody: it tells nothing of who is registered here.
pub async fn document() -> Response {
    answer(StatusCode::OK, &*DOCUMENT)
}
