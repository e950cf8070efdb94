use super::error::TokenError;
use crate::clients::Refused;

/// Why there is no token: what the caller sees, and what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The response to the caller.
    pub error: TokenError,
    /// For logs and the audit stream.
    pub cause: Cause,
}

/// What operators see of a refusal. Callers see less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The request itself, before the client was authenticated.
    Request,
    /// No client has the presented id.
    Unknown,
    /// The client exists, but none of its credentials has this secret.
    SecretWrong,
    /// The right secret, after its expiry.
    Expired,
    /// The right secret of a revoked credential.
    Revoked,
    /// The app is revoked in the registry, or blocked by an API call.
    AppRevoked,
    /// The app's developer is inactive in the registry.
    DeveloperInactive,
    /// Too many failures, or too many imported secrets are being checked.
    Throttled,
    /// Malformed, or not registered for the client.
    Scope,
    /// A tenant that is named and not granted, or too many that are.
    Tenant,
    /// No tenant has authorised the client.
    NoGrants,
    /// The client's tenants cannot be looked up right now.
    Lookup,
    /// What API calls have withdrawn is not known, or the replicas' clocks disagree.
    State,
    /// The token could not be signed, a fault of ours.
    Signing,
}

impl Cause {
    /// The name in logs and the audit stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Unknown => "unknown",
            Self::SecretWrong => "secret_wrong",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::AppRevoked => "app_revoked",
            Self::DeveloperInactive => "developer_inactive",
            Self::Throttled => "throttled",
            Self::Scope => "scope",
            Self::Tenant => "tenant",
            Self::NoGrants => "no_grants",
            Self::Lookup => "lookup",
            Self::State => "state",
            Self::Signing => "signing",
        }
    }
}

impl TokenError {
    /// Joins the response to the caller with the cause for the log.
    pub const fn because(self, cause: Cause) -> Refusal {
        Refusal { error: self, cause }
    }
}

/// For errors in the form, and for clients blocked by an API call.
impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        let cause = match error {
            TokenError::InvalidScope(_) => Cause::Scope,
            TokenError::InvalidTarget(_) => Cause::Tenant,
            TokenError::UnauthorizedClient(_) => Cause::AppRevoked,
            TokenError::Unavailable { .. } => Cause::State,
            _ => Cause::Request,
        };
        error.because(cause)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let cause = match refused {
            Refused::Unknown => Cause::Unknown,
            Refused::SecretWrong => Cause::SecretWrong,
            Refused::Expired => Cause::Expired,
            Refused::Revoked => Cause::Revoked,
        };
        TokenError::InvalidClient.because(cause)
    }
}
