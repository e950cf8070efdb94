//! What this process knows and decides; tenants appear as references.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::arrival::{Scope, answer};
use super::documents::{
    ExplainQuestion, ExplanationDocument, GrantsDocument, StepDocument, WithdrawalDocument,
};
use super::failure::{Failure, Refusals};
use super::{Management, Shared};
use crate::authz::{BearerHeader, CheckInput};
use crate::domain::{Client, ClientId, Holder, Secret, TenantCode};
use crate::engine::{Ask, Explanation, Word};

/// The decision of this process, step by step.
#[utoipa::path(
    post, path = "/v1/explain", tag = "audit",
    request_body = ExplainQuestion,
    responses(
        (status = 200, description = "Explained.", body = ExplanationDocument),
        Refusals,
    ),
)]
pub async fn explain(
    State(management): State<Shared>,
    request: Request,
) -> Result<Response, Failure> {
    let (_, question) = management.arrive::<ExplainQuestion>(request, Scope::Audit).await?;
    let engine = &management.engine;
    let explanation = match &question {
        ExplainQuestion { path: Some(path), client_id: None, tenant: None, .. } => {
            let token = question.token.as_deref().map(Secret::new);
            let headers = BearerHeader::new(token.as_ref());
            engine.explain_request(&CheckInput {
                profile: question.api.as_deref(),
                method: question.method.as_deref().unwrap_or("GET"),
                target: path.as_bytes(),
                headers: &headers,
            })
        }
        ExplainQuestion {
            path: None,
            method: None,
            token: None,
            api: None,
            client_id: Some(client),
            tenant: Some(tenant),
        } => {
            let id = ClientId::parse(client)
                .ok_or_else(|| Failure::invalid("client_id", "is not a client id"))?;
            let code = TenantCode::parse(tenant)
                .ok_or_else(|| Failure::invalid("tenant", "is not a tenant code"))?;
            engine.explain_grant(&id, &code, Ask::Nobody).await
        }
        _ => {
            let text = "ask either with `path` (and `method`, `token`, `api`), or with `client_id` \
                        and `tenant`";
            return Err(Failure::Invalid(text.to_owned()));
        }
    };
    Ok(answer(StatusCode::OK, document(explanation)))
}

fn document(explanation: Explanation) -> ExplanationDocument {
    let (decision, reason) = match explanation.verdict {
        Some(Word::Allow) => ("allow", None),
        Some(Word::Shadowed(reason)) => ("allow", Some(reason.as_str())),
        Some(Word::Deny(reason)) => ("deny", Some(reason.as_str())),
        None => ("unknown", None),
    };
    let steps = explanation.steps.into_iter();
    let steps = steps.map(|(step, outcome)| StepDocument { step, outcome }).collect();
    ExplanationDocument { decision, reason, steps }
}

/// What this process knows of a client's grants now.
#[utoipa::path(
    get, path = "/v1/clients/{client_id}/grants", tag = "clients",
    params(("client_id" = String, Path, description = "The client's id.")),
    responses(
        (status = 200, description = "What is known.", body = GrantsDocument),
        Refusals,
    ),
)]
pub async fn grants(
    State(management): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failure> {
    management.admit(&request, Scope::Clients)?;
    let client = management.client(&id)?;
    Ok(answer(StatusCode::OK, management.grants_of(&client)))
}

impl Management {
    fn grants_of(&self, client: &Client) -> GrantsDocument {
        let snapshot = self.engine.gate.snapshot.load();
        let holder = Holder { issuer: &snapshot.own_issuer, client: client.id.as_str() };
        let withdrawn = snapshot.withdrawals.as_ref().and_then(|all| all.lookup(holder));
        let withdrawals = withdrawn.iter().flat_map(|withdrawn| withdrawn.grants());
        let withdrawals = withdrawals.map(|(tenant, floor)| WithdrawalDocument {
            tenant: tenant.to_string(),
            not_before: floor.not_before.to_string(),
            expires_at: floor.expires_at.map(|end| end.to_string()),
        });
        let mut document = GrantsDocument {
            client_id: client.id.to_string(),
            source: "registry",
            tenants: Vec::new(),
            looked_up_at: None,
            age_seconds: None,
            last_outcome: None,
            failures: 0,
            withdrawals: withdrawals.collect(),
        };
        let reference = |code: &TenantCode| snapshot.digester.reference(code.expose()).to_string();
        if let Some(grants) = &client.static_grants {
            document.tenants = grants.codes.iter().map(reference).collect();
            return document;
        }
        document.source = "lookup";
        let Some(known) = self.engine.tenants.known(&client.id) else { return document };
        if let Some(set) = &known.set {
            let now = self.engine.clock.moment();
            document.tenants = set.codes.iter().map(reference).collect();
            document.looked_up_at = Some(now.wall_at(set.looked_up_at).to_string());
            document.age_seconds = Some(now.monotonic.since(set.looked_up_at).as_secs());
            let outcome = if set.codes.is_empty() { "denied" } else { "granted" };
            document.last_outcome = Some(outcome.to_owned());
        }
        document.failures = known.failures;
        if let Some(failure) = known.failure {
            document.last_outcome = Some(failure.to_string());
        }
        document
    }
}
