//! Who used a tenant, and who was refused.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::Shared;
use super::arrival::{Scope, answer};
use super::documents::{UsageDocument, UsageQuestion, UsageRowDocument, time};
use super::failure::{Failure, Refusals};
use crate::domain::TenantCode;
use crate::state::UsageQuery;

const MOST_ROWS: usize = 10_000;

/// Who used a tenant, and who was refused and why.
#[utoipa::path(
    post, path = "/v1/usage:query", tag = "audit",
    request_body = UsageQuestion,
    responses(
        (status = 200, description = "The counts.", body = UsageDocument),
        Refusals,
    ),
)]
pub async fn query(
    State(management): State<Shared>,
    request: Request,
) -> Result<Response, Failure> {
    let (_, question) = management.arrive::<UsageQuestion>(request, Scope::Audit).await?;
    let engine = &management.engine;
    let reference = match question.tenant.as_deref().map(TenantCode::parse) {
        None => String::new(),
        Some(None) => return Err(Failure::invalid("tenant", "is not a tenant code")),
        Some(Some(code)) => {
            let snapshot = engine.gate.snapshot.load();
            snapshot.digester.reference(code.expose()).to_string()
        }
    };
    let query = UsageQuery {
        client: question.client_id.unwrap_or_default(),
        reference,
        from: moment("from", question.from.as_deref())?.unwrap_or(0),
        to: moment("to", question.to.as_deref())?.unwrap_or(i64::MAX),
        limit: (MOST_ROWS + 1) as i64,
    };
    let state = management.state()?;
    // What this process has counted since it stored the last time is asked for as well.
    engine.store_usage().await?;
    let mut rows = state.store().usage(query).await?;
    let truncated = rows.len() > MOST_ROWS;
    rows.truncate(MOST_ROWS);
    let rows = rows.into_iter().map(|row| UsageRowDocument {
        hour: time(row.hour),
        issuer: row.issuer,
        client_id: row.client,
        tenant: row.reference,
        outcome: row.outcome,
        count: row.count,
        first: time(row.first),
        last: time(row.last),
    });
    Ok(answer(StatusCode::OK, UsageDocument { rows: rows.collect(), truncated }))
}

/// RFC 3339, as microseconds.
fn moment(field: &str, text: Option<&str>) -> Result<Option<i64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let time: Result<jiff::Timestamp, _> = text.parse();
    let wrong = "is not a time; write it like `2026-01-31T12:00:00Z` (RFC 3339)";
    time.map(|time| Some(time.as_microsecond())).map_err(|_| Failure::invalid(field, wrong))
}
