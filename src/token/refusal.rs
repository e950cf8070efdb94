use super::error::TokenError;
use crate::clients::Refused;

/// Why there is no token: what the caller is told, and what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: TokenError,
    pub cause: Cause,
}

/// What operators see of a refusal. Callers are told less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The request itself, before anybody was authenticated.
    Request,
    Unknown,
    SecretWrong,
    Expired,
    Revoked,
    AppRevoked,
    DeveloperInactive,
    /// Too many failures, or too many imported secrets are being checked.
    Throttled,
    Scope,
    /// A tenant that is named and not granted, or too many that are.
    Tenant,
    NoGrants,
    Lookup,
    /// What has been withdrawn by a call is not known.
    State,
    /// A fault of ours.
    Signing,
}

impl Cause {
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
    pub const fn because(self, cause: Cause) -> Refusal {
        Refusal { error: self, cause }
    }
}

/// What is wrong with the form, or with the client by a call.
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
