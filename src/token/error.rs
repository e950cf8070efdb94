/// The errors of RFC 6749, section 5.2, and RFC 8707, with the text for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// A parameter is missing, repeated or misspelt, or there are two ways of authentication.
    InvalidRequest(&'static str),
    /// One text for unknown, wrong, revoked and expired credentials.
    InvalidClient,
    /// The client has proven itself, but is revoked, inactive or blocked.
    UnauthorizedClient(&'static str),
    /// Anything but `client_credentials`.
    UnsupportedGrantType,
    /// Malformed, or not registered for the client.
    InvalidScope(&'static str),
    /// RFC 8707, section 2: a resource or tenant that the client cannot have in a token.
    InvalidTarget(&'static str),
    /// Status 429: too many failed attempts.
    Throttled {
        /// Seconds, for `Retry-After`.
        retry_after: u64,
    },
    /// Status 503: the request cannot be served right now.
    Unavailable {
        /// Seconds, for `Retry-After`.
        retry_after: u64,
        /// The reason, for `error_description`.
        description: &'static str,
    },
}

impl TokenError {
    /// The same for a tenant that does not exist: callers must not learn which do.
    pub const TENANT_NOT_GRANTED: Self =
        Self::InvalidTarget("a requested tenant has not authorised this client");

    /// The `error` of the response, also the metric's label.
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

    /// The `error_description` of the response.
    pub const fn description(self) -> &'static str {
        match self {
            Self::InvalidClient => "client authentication failed",
            Self::UnsupportedGrantType => "only client_credentials is supported",
            Self::Throttled { .. } => "too many failed attempts",
            Self::InvalidRequest(text)
            | Self::UnauthorizedClient(text)
            | Self::InvalidScope(text)
            | Self::InvalidTarget(text)
            | Self::Unavailable { description: text, .. } => text,
        }
    }
}
