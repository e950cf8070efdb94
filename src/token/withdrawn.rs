//! What a mint may rely on where an API call has withdrawn something.

use std::sync::Arc;
use std::time::Duration;

use super::error::TokenError;
use crate::domain::{
    Client, ClientWithdrawals, Evidence, GrantEvidence, TenantCode, Timestamp, Vouched,
    Withdrawals, Withdrawn,
};
use crate::engine::MintContext;

/// How far the state's clock may move the `iat` of a token: half of the default leeway of a check.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// What is withdrawn from one client.
#[derive(Default)]
pub struct Withdrawal<'a> {
    /// `None`: there is no shared state.
    all: Option<&'a Withdrawals>,
    own: Option<Arc<ClientWithdrawals>>,
    /// The registry lists the client's tenants.
    listed: bool,
}

impl<'a> Withdrawal<'a> {
    /// An error for a client that may not have a token at all, or while that is unknown.
    pub fn of(context: &'a MintContext, client: &Client) -> Result<Self, TokenError> {
        let Some(all) = context.withdrawals.as_deref() else { return Ok(Self::default()) };
        if !all.is_known() {
            return Err(TokenError::Unavailable {
                retry_after: 5,
                description: "what has been withdrawn is not known yet",
            });
        }
        let holder = context.holder(client);
        let listed = client.static_grants.is_some();
        let withdrawal = Self { all: Some(all), own: all.lookup(holder), listed };
        match withdrawal.standing(Evidence::default()) {
            Ok(()) => Ok(withdrawal),
            Err(_) => Err(TokenError::UnauthorizedClient("this client is blocked")),
        }
    }

    /// Whether a lookup that is made now would count where this one does not.
    pub fn wants_newer(&self, looked_up_at: Timestamp, now: Timestamp) -> bool {
        let (Some(all), Some(own)) = (self.all, &self.own) else { return false };
        let (looked_up_at, now) = (self.vouched_at(looked_up_at), all.to_shared(now));
        let late = |floor: Timestamp| looked_up_at <= floor && floor < now;
        !self.listed && own.grants().any(|(_, floor)| late(floor.not_before))
    }

    /// Whether a tenant of the set may be in a token.
    pub fn leaves(&self, code: &TenantCode, looked_up_at: Timestamp) -> bool {
        let vouched = match self.listed {
            true => Vouched::Listed,
            false => Vouched::At(self.vouched_at(looked_up_at)),
        };
        let grant = Some(GrantEvidence { tenant: code.expose(), vouched });
        self.standing(Evidence { grant, ..Evidence::default() }).is_ok()
    }

    fn standing(&self, evidence: Evidence<'_>) -> Result<(), Withdrawn> {
        match (self.all, &self.own) {
            (Some(all), Some(own)) => own.standing(evidence, all.refs()),
            _ => Ok(()),
        }
    }

    /// The time of a lookup as a token carries it: in whole seconds, so that what is minted is not
    /// refused later.
    fn vouched_at(&self, looked_up_at: Timestamp) -> Timestamp {
        Timestamp::from_secs(self.grants_at(looked_up_at).secs())
    }

    /// When the grants were looked up, by the clock that all replicas share.
    pub fn grants_at(&self, looked_up_at: Timestamp) -> Timestamp {
        self.all.map_or(looked_up_at, |all| all.to_shared(looked_up_at))
    }

    /// The `iat` of a token minted `now`: by the shared clock, as far as the leeway of a check
    /// allows, and after the time up to which the client's tokens are refused.
    pub fn issued_at(&self, now: Timestamp) -> Result<Timestamp, TokenError> {
        let Some(all) = self.all else { return Ok(now) };
        let latest = now.plus(CLOCK_DIFFERENCE);
        let shared = all.to_shared(now).clamp(now.minus(CLOCK_DIFFERENCE), latest);
        let refused_until = self.own.as_ref().and_then(|own| own.tokens_not_before());
        let first = refused_until.map_or(shared, |until| {
            let next_second = Timestamp::from_secs(until.secs() + 1);
            shared.max(next_second)
        });
        if first > latest {
            let description = "the clocks of this service disagree";
            return Err(TokenError::Unavailable { retry_after: 5, description });
        }
        Ok(first)
    }
}
