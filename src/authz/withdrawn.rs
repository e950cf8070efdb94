//! What was withdrawn by an API call: the client, its tokens, one token, or one grant.

use std::sync::Arc;

use super::decide::{Authorizer, Identity};
use crate::domain::{
    Client, ClientWithdrawals, DenyReason, Evidence, GrantEvidence, GrantSet, Holder, Subject,
    Timestamp, TokenEvidence, Vouched, Withdrawals, Withdrawn,
};

/// What is withdrawn from one client.
pub(super) struct Withdrawal<'a> {
    all: &'a Withdrawals,
    own: Arc<ClientWithdrawals>,
}

impl<'a> Authorizer<'a> {
    /// What is withdrawn from the caller; `None` is the common case. An error while that is
    /// unknown.
    pub(super) fn withdrawal(
        &self,
        identity: &Identity,
    ) -> Result<Option<Withdrawal<'a>>, DenyReason> {
        let Some(all) = &self.snapshot.withdrawals else { return Ok(None) };
        if !all.is_known() {
            return Err(DenyReason::StateUnavailable);
        }
        let (subject, holder) = match identity {
            Identity::Token(facts) => {
                (facts.subject, Holder { issuer: &facts.issuer.issuer, client: &facts.client })
            }
            Identity::ApiKey(client) => {
                let issuer = &self.snapshot.own_issuer;
                let holder = Holder { issuer, client: client.id.as_str() };
                (Subject::of(holder), holder)
            }
        };
        Ok(all.of(subject, holder).map(|own| Withdrawal { all, own }))
    }

    /// Whether the client and its token are not withdrawn.
    pub(super) fn check_standing(
        &self,
        identity: &Identity,
        withdrawal: &Withdrawal<'_>,
    ) -> Result<(), DenyReason> {
        let token = match identity {
            Identity::Token(facts) => {
                Some(TokenEvidence { issued_at: facts.issued_at, id: facts.id })
            }
            Identity::ApiKey(_) => None,
        };
        withdrawal.standing(Evidence { token, grant: None })
    }

    /// Whether the grant that was found is not withdrawn, going by the newest evidence for it.
    pub(super) fn check_grant_standing(
        &self,
        identity: &Identity,
        client: Option<&Client>,
        tenant: &str,
        withdrawal: &Withdrawal<'_>,
    ) -> Result<(), DenyReason> {
        // The registry's list has no age.
        let vouched = match client.is_some_and(|client| client.static_grants.is_some()) {
            true => Vouched::Listed,
            false => self.vouched(identity, tenant, withdrawal),
        };
        let grant = GrantEvidence { tenant, vouched };
        withdrawal.standing(Evidence { token: None, grant: Some(grant) })
    }

    fn vouched(&self, identity: &Identity, tenant: &str, withdrawal: &Withdrawal<'_>) -> Vouched {
        let looked_up = |set: &GrantSet| {
            let holds = self.holds_tenant(set, identity, tenant);
            holds.then(|| withdrawal.all.to_shared(self.now.wall_at(set.looked_up_at)))
        };
        let (by_token, cell) = match identity {
            Identity::Token(facts) => {
                let named = self.named_digest(facts, tenant).is_some();
                (named.then_some(facts.grants_at), facts.grants.clone())
            }
            Identity::ApiKey(client) => (None, Some(self.grants.cell(&client.id))),
        };
        let by_lookup = cell.and_then(|cell| cell.current().as_deref().and_then(looked_up));
        Vouched::At(by_token.max(by_lookup).unwrap_or_default())
    }
}

impl Withdrawal<'_> {
    pub(super) fn tokens_not_before(&self) -> Option<Timestamp> {
        self.own.tokens_not_before()
    }

    /// The time from which evidence for this tenant counts, by our clock.
    pub(super) fn grant_not_before(&self, tenant: &str) -> Option<Timestamp> {
        let wanted = self.all.refs().of(tenant);
        let (_, floor) = self.own.grants().find(|(tenant, _)| *tenant == wanted)?;
        Some(self.all.to_local(floor.not_before))
    }

    fn standing(&self, evidence: Evidence<'_>) -> Result<(), DenyReason> {
        self.own.standing(evidence, self.all.refs()).map_err(|withdrawn| match withdrawn {
            Withdrawn::Client => DenyReason::ClientWithdrawn,
            Withdrawn::Tokens | Withdrawn::Token => DenyReason::TokenRevoked,
            Withdrawn::Grant => DenyReason::GrantWithdrawn,
        })
    }
}
