/// Why a request is refused. Every denial has exactly one of these; the name is what logs,
/// metrics and `explain` show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "docs/operations.md has each with its cause and cure")]
pub enum DenyReason {
    /// The check request is none, or carries no HTTP attributes.
    NoHttpRequest,
    UnknownApi,
    PathRefused,
    NoRoute,
    NoCredential,
    SeveralCredentials,
    TokenTooLarge,
    TokenMalformed,
    TokenHeaderRefused,
    TokenTypeRefused,
    TokenAlgorithmRefused,
    TokenIssuerUnknown,
    TokenKeyUnknown,
    TokenSignatureInvalid,
    TokenClaimsInvalid,
    TokenAudienceWrong,
    TokenExpired,
    TokenNotYetValid,
    TokenLifetimeTooLong,
    ApiKeyInvalid,
    ClientWithdrawn,
    /// This token, or all of its client up to a time.
    TokenRevoked,
    ApiNotAllowed,
    ScopeMissing,
    TenantNotGranted,
    /// Withdrawn since whatever vouches for it.
    GrantWithdrawn,
    ProbingThrottled,
    /// The issuer's key set has never loaded, or the last good one is too old.
    KeysUnavailable,
    /// Neither the token nor the last good lookup is young enough to vouch for the request.
    GrantsStale,
    /// What has been withdrawn is not known yet.
    StateUnavailable,
    /// Inside Envoy: the sidecar has told nothing yet, or nothing for too long.
    FeedUnavailable,
    /// A fault of ours.
    InternalError,
}

impl DenyReason {
    /// All reasons, for counters and for tests of the documentation.
    pub const ALL: [DenyReason; 32] = [
        Self::NoHttpRequest,
        Self::UnknownApi,
        Self::PathRefused,
        Self::NoRoute,
        Self::NoCredential,
        Self::SeveralCredentials,
        Self::TokenTooLarge,
        Self::TokenMalformed,
        Self::TokenHeaderRefused,
        Self::TokenTypeRefused,
        Self::TokenAlgorithmRefused,
        Self::TokenIssuerUnknown,
        Self::TokenKeyUnknown,
        Self::TokenSignatureInvalid,
        Self::TokenClaimsInvalid,
        Self::TokenAudienceWrong,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenLifetimeTooLong,
        Self::ApiKeyInvalid,
        Self::ClientWithdrawn,
        Self::TokenRevoked,
        Self::ApiNotAllowed,
        Self::ScopeMissing,
        Self::TenantNotGranted,
        Self::GrantWithdrawn,
        Self::ProbingThrottled,
        Self::KeysUnavailable,
        Self::GrantsStale,
        Self::StateUnavailable,
        Self::FeedUnavailable,
        Self::InternalError,
    ];

    /// The word in logs, metrics and the audit stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoHttpRequest => "no_http_request",
            Self::UnknownApi => "unknown_api",
            Self::PathRefused => "path_refused",
            Self::NoRoute => "no_route",
            Self::NoCredential => "no_credential",
            Self::SeveralCredentials => "several_credentials",
            Self::TokenTooLarge => "token_too_large",
            Self::TokenMalformed => "token_malformed",
            Self::TokenHeaderRefused => "token_header_refused",
            Self::TokenTypeRefused => "token_type_refused",
            Self::TokenAlgorithmRefused => "token_algorithm_refused",
            Self::TokenIssuerUnknown => "token_issuer_unknown",
            Self::TokenKeyUnknown => "token_key_unknown",
            Self::TokenSignatureInvalid => "token_signature_invalid",
            Self::TokenClaimsInvalid => "token_claims_invalid",
            Self::TokenAudienceWrong => "token_audience_wrong",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenLifetimeTooLong => "token_lifetime_too_long",
            Self::ApiKeyInvalid => "api_key_invalid",
            Self::ClientWithdrawn => "client_withdrawn",
            Self::TokenRevoked => "token_revoked",
            Self::ApiNotAllowed => "api_not_allowed",
            Self::ScopeMissing => "scope_missing",
            Self::TenantNotGranted => "tenant_not_granted",
            Self::GrantWithdrawn => "grant_withdrawn",
            Self::ProbingThrottled => "probing_throttled",
            Self::KeysUnavailable => "keys_unavailable",
            Self::GrantsStale => "grants_stale",
            Self::StateUnavailable => "state_unavailable",
            Self::FeedUnavailable => "feed_unavailable",
            Self::InternalError => "internal_error",
        }
    }
}
