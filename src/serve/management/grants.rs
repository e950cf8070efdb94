use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::arrival::{Scope, answer};
use super::documents::{About, Done, Restore, Withdraw};
use super::failure::{Failure, Refusals};
use super::write::{Action, Row};
use super::{Management, Shared};
use crate::domain::{Client, Target, TenantCode, parse_duration};

const HOLD: Duration = Duration::from_secs(10);
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 3600);

/// From now on this client reads this tenant on newer evidence only.
#[utoipa::path(
    post, path = "/v1/grants:withdraw", tag = "grants",
    request_body = Withdraw,
    responses(
        (status = 200, description = "Withdrawn.", body = Done),
        Refusals,
    ),
)]
pub async fn withdraw(
    State(management): State<Shared>,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, body) = management.arrive::<Withdraw>(request, Scope::Grants).await?;
    let hold = body.hold.map_or(Ok(HOLD), |text| hold(&text))?;
    let (client, target) = management.grant(&body.client_id, &body.tenant)?;
    let about = About { request_id: body.request_id, reason: body.reason };
    let action = Action::of("grants:withdraw", actor, about)?;
    // What the registry lists has no age: it is blocked until it is restored.
    let listed = client.static_grants.is_some();
    let keep = (!listed).then(|| management.longest());
    let row = Row { hold, keep, ..Row::of(management.key(&client.id, target)) };
    Ok(answer(StatusCode::OK, management.withdraw(action, row).await?))
}

/// Lifts a withdrawal.
#[utoipa::path(
    post, path = "/v1/grants:restore", tag = "grants",
    request_body = Restore,
    responses(
        (status = 200, description = "Restored.", body = Done),
        Refusals,
    ),
)]
pub async fn restore(
    State(management): State<Shared>,
    request: Request,
) -> Result<Response, Failure> {
    let (actor, body) = management.arrive::<Restore>(request, Scope::Grants).await?;
    let (client, target) = management.grant(&body.client_id, &body.tenant)?;
    let about = About { request_id: body.request_id, reason: body.reason };
    let action = Action::of("grants:restore", actor, about)?;
    let row = Row { lift: true, ..Row::of(management.key(&client.id, target)) };
    Ok(answer(StatusCode::OK, management.withdraw(action, row).await?))
}

impl Management {
    fn grant(&self, client: &str, tenant: &str) -> Result<(Arc<Client>, Target), Failure> {
        let code = TenantCode::parse(tenant)
            .ok_or_else(|| Failure::invalid("tenant", "is not a tenant code"))?;
        let withdrawals = self.engine.withdrawals().ok_or_else(Failure::no_state)?;
        let client = self.client(client)?;
        Ok((client, Target::Grant(withdrawals.refs().of(code.expose()))))
    }
}

fn hold(text: &str) -> Result<Duration, Failure> {
    let hold = parse_duration(text).ok().filter(|hold| *hold <= LONGEST_HOLD);
    hold.ok_or_else(|| {
        Failure::invalid(
            "hold",
            "is not a duration of at most 24h; write it like \
                                                 `10s`",
        )
    })
}
