//! The lines of the audit stream about token requests. Tenants by reference, never by code.

use serde::Serialize;

use super::grant::Arrival;
use super::mint::Grant;
use super::refusal::Refusal;
use crate::domain::Timestamp;
use crate::engine::MintContext;

#[derive(Serialize)]
pub struct IssuedLine<'a> {
    time: String,
    event: &'static str,
    client_id: &'a str,
    issuer: &'a str,
    scope: &'a str,
    tenant_refs: Vec<String>,
    expires_in: u64,
    source: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

#[derive(Serialize)]
pub struct RefusedLine<'a> {
    time: String,
    event: &'static str,
    /// The error that the caller got.
    reason: &'static str,
    cause: &'static str,
    /// A registered client, authenticated or only claimed.
    #[serde(skip_serializing_if = "str::is_empty")]
    client_id: &'a str,
    source: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
}

pub fn issued<'a>(
    context: &'a MintContext,
    grant: &Grant<'a>,
    arrival: Arrival<'a>,
) -> IssuedLine<'a> {
    let reference = |code: &str| context.digester.reference(code).to_string();
    IssuedLine {
        time: grant.issued_at.to_string(),
        event: "issued",
        client_id: grant.client.id.as_str(),
        issuer: &context.issuer,
        scope: grant.scopes.as_str(),
        tenant_refs: grant.tenants.iter().map(|tenant| reference(tenant.code.expose())).collect(),
        expires_in: context.lifetime(grant.client).as_secs(),
        source: arrival.caller.0.to_string(),
        request_id: arrival.request_id,
    }
}

pub fn refused<'a>(
    client: &'a str,
    arrival: Arrival<'a>,
    refusal: Refusal,
    now: Timestamp,
) -> RefusedLine<'a> {
    RefusedLine {
        time: now.to_string(),
        event: "refused",
        reason: refusal.error.code(),
        cause: refusal.cause.as_str(),
        client_id: client,
        source: arrival.caller.0.to_string(),
        request_id: arrival.request_id,
    }
}
