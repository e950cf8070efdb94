//! A decision as Envoy's `CheckResponse`. The field numbers are those of
//! `envoy/service/auth/v3/external_auth.proto`; the tests read the replies with the generated types.

use tonic::Code;

use super::message::Message;
use crate::authz::{Permit, Route};
use crate::domain::DenyReason;

const CLIENT_ID: &str = "x-tenantgate-client-id";
const SCOPE: &str = "x-tenantgate-scope";
const ISSUER: &str = "x-tenantgate-issuer";
const VARIABLE: &str = "x-tenantgate-var-";

/// Enough for most replies, so that writing one allocates once.
const TYPICAL_REPLY: usize = 512;

/// The request passes, with what is known of it for the upstream. Every header under a name of
/// ours is overwritten or removed, also on public routes.
pub fn allowed(permit: &Permit<'_>) -> Vec<u8> {
    let mut response = Message::with_capacity(TYPICAL_REPLY);
    status(&mut response, Code::Ok);
    response.message(3, |ok| {
        own_headers(permit, |name, value| match value {
            Some(value) => header(ok, 2, name, value),
            None => ok.text(5, name),
        });
        if permit.identity.is_some() && !permit.api.forward_authorization {
            ok.text(5, "authorization");
            if let Some(name) = &permit.api.api_key_header {
                ok.text(5, name);
            }
        }
    });
    response.message(4, |metadata| write_metadata(metadata, permit));
    response.into_bytes()
}

/// Every header under a name of ours with its value, where it has one here.
fn own_headers(permit: &Permit<'_>, mut own: impl FnMut(&str, Option<&str>)) {
    let identity = permit.identity.as_ref();
    own(CLIENT_ID, identity.map(|identity| identity.client()));
    own(SCOPE, identity.map(|i| i.scopes().as_str()).filter(|scopes| !scopes.is_empty()));
    own(ISSUER, identity.and_then(|identity| identity.foreign_issuer()));
    for name in &permit.api.variables {
        let value = permit.variables.iter().find(|(variable, _)| variable == name);
        own(&variable_header(name), value.map(|(_, value)| *value));
    }
}

fn variable_header(name: &str) -> String {
    format!("{VARIABLE}{}", name.replace('_', "-"))
}

/// Under `envoy.filters.http.ext_authz`, for access logs, rate limits and RBAC further on.
fn write_metadata(metadata: &mut Message, permit: &Permit<'_>) {
    text_entry(metadata, "api", &permit.api.name);
    if let Some(route) = permit.route {
        text_entry(metadata, "route", &route.name);
    }
    if let Some(identity) = &permit.identity {
        text_entry(metadata, "client_id", identity.client());
        text_entry(metadata, "scope", identity.scopes().as_str());
    }
    if !permit.variables.is_empty() {
        entry(metadata, "variables", |value| {
            value.message(5, |variables| {
                for (name, text) in &permit.variables {
                    text_entry(variables, name, text);
                }
            });
        });
    }
}

/// An entry of a `google.protobuf.Struct`.
fn entry(of: &mut Message, key: &str, fill: impl FnOnce(&mut Message)) {
    of.message(1, |entry| {
        entry.text(1, key);
        entry.message(2, fill);
    });
}

fn text_entry(of: &mut Message, key: &str, text: &str) {
    entry(of, key, |value| value.text(3, text));
}

/// What the caller is told. The reason's own name is for logs and metrics.
struct Denial {
    http_status: u16,
    error: &'static str,
    description: &'static str,
    /// The `error` and further attributes of a Bearer challenge (RFC 6750, section 3).
    challenge: Challenge,
    retry_after: Option<u32>,
}

enum Challenge {
    None,
    /// Without an error code: the request showed no credential at all.
    Bare,
    Error,
    Scope,
}

fn denial(reason: DenyReason) -> Denial {
    use DenyReason as R;
    let plain = |http_status, error, description| Denial {
        http_status,
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
        R::ClientWithdrawn => bad_token("the token is no longer valid"),
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
        // One text for all: it must not tell whether a tenant or a route exists.
        R::UnknownApi | R::NoRoute | R::ApiNotAllowed | R::TenantNotGranted => {
            plain(403, "access_denied", "the token does not give access to this resource")
        }
        R::ProbingThrottled => Denial {
            retry_after: Some(60),
            ..plain(429, "too_many_requests", "too many refused requests")
        },
        R::KeysUnavailable => undecided(5, "the keys of the token's issuer are not available"),
        R::GrantsStale => undecided(1, "the grants of this client cannot be confirmed right now"),
        R::InternalError => undecided(1, "the request cannot be decided right now"),
    }
}

/// `realm` is what a challenge names, `route` gives the scopes that it asks for.
pub fn denied(reason: DenyReason, realm: &str, route: Option<&Route>) -> Vec<u8> {
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
                "Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\", scope=\"{scope}\""
            ))
        }
    };
    let retry_after = denial.retry_after.map(|seconds| seconds.to_string());
    let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);

    let mut response = Message::with_capacity(TYPICAL_REPLY);
    status(&mut response, Code::PermissionDenied);
    response.message(2, |denied| {
        denied.message(1, |status| status.number(1, denial.http_status.into()));
        for (name, value) in [
            ("content-type", Some("application/json")),
            ("cache-control", Some("no-store")),
            ("www-authenticate", challenge.as_deref()),
            ("retry-after", retry_after.as_deref()),
        ] {
            if let Some(value) = value {
                header(denied, 2, name, value);
            }
        }
        denied.text(3, &body);
    });
    response.into_bytes()
}

/// A `HeaderValueOption` with `append: false`, which overwrites what the client sent. Deprecated, but every
/// Envoy from 1.36 on honours it, and alike.
fn header(of: &mut Message, field: u32, name: &str, value: &str) {
    of.message(field, |option| {
        option.message(1, |header| {
            header.text(1, name);
            header.text(2, value);
        });
        option.message(2, |_false| {});
    });
}

fn status(response: &mut Message, code: Code) {
    response.message(1, |status| {
        if code != Code::Ok {
            status.number(1, code as u32);
        }
    });
}
