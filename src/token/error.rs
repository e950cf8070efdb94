/// The errors of RFC 6749, section 5.2, and RFC 8707, with what the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    InvalidRequest(&'static str),
    /// One text for unknown, wrong, revoked and expired credentials.
    InvalidClient,
    UnauthorizedClient(&'static str),
    UnsupportedGrantType,
    InvalidScope(&'static str),
    InvalidTarget(&'static str),
    Throttled {
        retry_after: u64,
    },
    Unavailable {
        retry_after: u64,
        told: &'static str,
    },
}

impl TokenError {
    pub const TENANT_NOT_GRANTED: Self =
        Self::InvalidTarget("a requested tenant has not authorised this client");

    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient(_) => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope(_) => "invalid_scope",
            Self::InvalidTarget(_) => "invalid_target",
            Self::Throttled { .. } => "too_many_requests",
            Self::Unavailable { .. } => "temporarily_unavailable",
        }
    }

    pub const fn description(self) -> &'static str {
        match self {
            Self::InvalidClient => "client authentication failed",
            Self::UnsupportedGrantType => "only client_credentials is supported",
            Self::Throttled { .. } => "too many failed attempts",
            Self::InvalidRequest(text)
            | Self::UnauthorizedClient(text)
            | Self::InvalidScope(text)
            | Self::InvalidTarget(text)
            | Self::Unavailable { told: text, .. } => text,
        }
    }
}
