//! What a denied caller gets: the one place that turns a reason into a status.

use std::borrow::Cow;

use super::answer::{Answer, Deny, Pairs};
use crate::authz::Route;
use crate::domain::DenyReason;

/// What the caller sees. The reason's own name is for logs and metrics.
struct Denial {
    status: u16,
    error: &'static str,
    description: &'static str,
    /// The `error` and further attributes of a Bearer challenge (RFC 6750, section 3).
    challenge: Challenge,
    retry_after: Option<u32>,
}

enum Challenge {
    None,
    /// Without an error code, since the request has no credential (RFC 6750, section 3.1).
    Bare,
    Error,
    Scope,
}

fn denial(reason: DenyReason) -> Denial {
    use DenyReason as R;
    let plain = |status, error, description| Denial {
        status,
        error,
        description,
        challenge: Challenge::None,
        retry_after: None,
    };
    let bad_token = |description| Denial {
        challenge: Challenge::Error,
        ..plain(401, "invalid_token", description)
    };
    let undecided = |seconds, description| Denial {
        retry_after: Some(seconds),
        ..plain(503, "temporarily_unavailable", description)
    };
    match reason {
        R::NoHttpRequest => plain(400, "invalid_request", "the request has no HTTP attributes"),
        R::PathRefused => plain(400, "invalid_request", "the request path is ambiguous"),
        R::SeveralCredentials => Denial {
            challenge: Challenge::Error,
            ..plain(400, "invalid_request", "the request carries more than one credential")
        },
        R::NoCredential => Denial {
            challenge: Challenge::Bare,
            ..plain(401, "unauthorized", "a bearer token is required")
        },
        R::TokenExpired => bad_token("the token has expired"),
        R::TokenNotYetValid => bad_token("the token is not valid yet"),
        R::ClientWithdrawn | R::TokenRevoked => bad_token("the token is no longer valid"),
        R::TokenTooLarge
        | R::TokenMalformed
        | R::TokenHeaderRefused
        | R::TokenTypeRefused
        | R::TokenAlgorithmRefused
        | R::TokenIssuerUnknown
        | R::TokenKeyUnknown
        | R::TokenSignatureInvalid
        | R::TokenClaimsInvalid
        | R::TokenAudienceWrong
        | R::TokenLifetimeTooLong => bad_token("the token is not valid"),
        R::ApiKeyInvalid => bad_token("the API key is not valid"),
        R::ScopeMissing => Denial {
            challenge: Challenge::Scope,
            ..plain(
                403,
                "insufficient_scope",
                "the token lacks a scope that this resource requires",
            )
        },
        // One text for all: it must not reveal whether a tenant or a route exists.
        R::UnknownApi | R::NoRoute | R::ApiNotAllowed | R::TenantNotGranted | R::GrantWithdrawn => {
            plain(403, "access_denied", "the token does not give access to this resource")
        }
        R::ProbingThrottled => Denial {
            retry_after: Some(60),
            ..plain(429, "too_many_requests", "too many refused requests")
        },
        R::KeysUnavailable => undecided(5, "the keys of the token's issuer are not available"),
        R::GrantsStale => undecided(1, "the grants of this client cannot be confirmed right now"),
        R::StateUnavailable => undecided(5, "what has been withdrawn is not known yet"),
        R::FeedUnavailable => undecided(1, "the request cannot be decided right now"),
        R::InternalError => undecided(1, "the request cannot be decided right now"),
    }
}

/// `realm` is what a challenge names, `route` gives the scopes that it asks for.
pub fn answer<'a>(reason: DenyReason, realm: &str, route: Option<&Route>) -> Answer<'a> {
    let denial = denial(reason);
    let Denial { error, description, .. } = denial;
    let challenge = match denial.challenge {
        Challenge::None => None,
        Challenge::Bare => Some(format!("Bearer realm=\"{realm}\"")),
        Challenge::Error => Some(format!(
            "Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\""
        )),
        Challenge::Scope => {
            let scope = route.map_or("", |route| &route.challenge);
            Some(format!(
                "Bearer realm=\"{realm}\", error=\"{error}\", \
                 error_description=\"{description}\", scope=\"{scope}\""
            ))
        }
    };
    let mut headers = Pairs::new();
    headers.push(("content-type", Cow::Borrowed("application/json")));
    headers.push(("cache-control", Cow::Borrowed("no-store")));
    headers.extend(challenge.map(|challenge| ("www-authenticate", Cow::Owned(challenge))));
    let retry_after = denial.retry_after.map(|seconds| Cow::Owned(seconds.to_string()));
    headers.extend(retry_after.map(|seconds| ("retry-after", seconds)));
    let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
    Answer::Deny(Deny { status: denial.status, headers, body })
}
