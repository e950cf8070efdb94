//! What has been taken away from one client by a call instead of by a file: the one place that says
//! whether a token, a client or a grant still stands. Checks, mints, introspection and `explain`
//! ask the same function.

use std::collections::HashMap;

use super::{TenantRef, TenantRefs, Timestamp, TokenRef};

/// What is withdrawn from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One tenant, on evidence up to [`Floor::not_before`].
    Grant(TenantRef),
    /// All tokens issued up to [`Floor::not_before`].
    Tokens,
    /// Everything, until it is lifted.
    Client,
    /// One token.
    Token(TokenRef),
}

/// From when on evidence counts again. All times here are the state's, see
/// [`to_shared`](super::Withdrawals::to_shared).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Evidence from before this counts for nothing; on the clock of the state.
    pub not_before: Timestamp,
    /// Nothing that this concerns can live past here. `None`: it ends only when it is lifted.
    pub expires_at: Option<Timestamp>,
}

impl Floor {
    /// Ties deny.
    fn refuses(&self, evidence: Timestamp) -> bool {
        evidence <= self.not_before
    }
}

/// What somebody rests a claim on. Only what is given is looked at.
#[derive(Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// `None`: no token is involved, as with an API key.
    pub token: Option<TokenEvidence>,
    /// `None`: no tenant is asked about.
    pub grant: Option<GrantEvidence<'a>>,
}

/// What a token says of itself.
#[derive(Clone, Copy)]
pub struct TokenEvidence {
    /// The `iat` claim (RFC 7519, section 4.1.6).
    pub issued_at: Timestamp,
    /// `None`: the token has no `jti`.
    pub id: Option<TokenRef>,
}

/// What speaks for a client's access to one tenant.
#[derive(Clone, Copy)]
pub struct GrantEvidence<'a> {
    /// The code.
    pub tenant: &'a str,
    /// How old the evidence is.
    pub vouched: Vouched,
}

/// What says that a client may read a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// The registry lists it. It has no age, so a withdrawal holds until it is lifted.
    Listed,
    /// The newest of: the token's `grants_at` (another issuer's `iat`), or a lookup that has the
    /// tenant.
    At(Timestamp),
}

/// Why something does not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// The client is blocked.
    Client,
    /// All its tokens up to a time.
    Tokens,
    /// This token.
    Token,
    /// The client's access to this tenant.
    Grant,
}

/// All that is withdrawn from one client.
#[derive(Clone, Default)]
pub struct ClientWithdrawals {
    client: Option<Floor>,
    tokens: Option<Floor>,
    grants: HashMap<TenantRef, Floor>,
    token_ids: HashMap<TokenRef, Floor>,
}

impl ClientWithdrawals {
    /// Whether what is shown still stands.
    pub fn standing(&self, evidence: Evidence<'_>, refs: &TenantRefs) -> Result<(), Withdrawn> {
        if self.client.is_some() {
            return Err(Withdrawn::Client);
        }
        if let Some(token) = evidence.token {
            if self.tokens.is_some_and(|floor| floor.refuses(token.issued_at)) {
                return Err(Withdrawn::Tokens);
            }
            if token.id.is_some_and(|id| self.token_ids.contains_key(&id)) {
                return Err(Withdrawn::Token);
            }
        }
        if let Some(grant) = evidence.grant
            && !self.grants.is_empty()
            && let Some(floor) = self.grants.get(&refs.of(grant.tenant))
        {
            let stands = match grant.vouched {
                Vouched::Listed => false,
                Vouched::At(time) => !floor.refuses(time),
            };
            if !stands {
                return Err(Withdrawn::Grant);
            }
        }
        Ok(())
    }

    /// Tokens issued up to this time are refused.
    pub fn tokens_not_before(&self) -> Option<Timestamp> {
        self.tokens.map(|floor| floor.not_before)
    }

    /// `None`: the client is not blocked.
    pub fn blocked(&self) -> Option<Floor> {
        self.client
    }

    /// `None`: its tokens are not revoked as a whole.
    pub fn tokens(&self) -> Option<Floor> {
        self.tokens
    }

    /// The tokens that were revoked one by one.
    pub fn token_ids(&self) -> impl Iterator<Item = (TokenRef, Floor)> + '_ {
        self.token_ids.iter().map(|(token, floor)| (*token, *floor))
    }

    /// Whether the client as a whole is blocked.
    pub fn is_blocked(&self) -> bool {
        self.client.is_some()
    }

    /// The withdrawn tenants.
    pub fn grants(&self) -> impl Iterator<Item = (TenantRef, Floor)> + '_ {
        self.grants.iter().map(|(tenant, floor)| (*tenant, *floor))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.client.is_none()
            && self.tokens.is_none()
            && self.grants.is_empty()
            && self.token_ids.is_empty()
    }

    /// `None` lifts what was withdrawn.
    pub fn set(&mut self, target: Target, floor: Option<Floor>) {
        match (target, floor) {
            (Target::Client, floor) => self.client = floor,
            (Target::Tokens, floor) => self.tokens = floor,
            (Target::Grant(tenant), Some(floor)) => {
                self.grants.insert(tenant, floor);
            }
            (Target::Grant(tenant), None) => {
                self.grants.remove(&tenant);
            }
            (Target::Token(id), Some(floor)) => {
                self.token_ids.insert(id, floor);
            }
            (Target::Token(id), None) => {
                self.token_ids.remove(&id);
            }
        }
    }

    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        let lives = |floor: &Floor| floor.expires_at.is_none_or(|end| now < end);
        let before = self.len();
        self.client = self.client.filter(&lives);
        self.tokens = self.tokens.filter(&lives);
        self.grants.retain(|_, floor| lives(floor));
        self.token_ids.retain(|_, floor| lives(floor));
        self.len() != before
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.client.is_some())
            + usize::from(self.tokens.is_some())
            + self.grants.len()
            + self.token_ids.len()
    }
}
