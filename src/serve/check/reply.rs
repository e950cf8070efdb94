//! A decision as Envoy's `CheckResponse`.

use std::collections::BTreeMap;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use prost::Message as _;
use tonic::Code;

use crate::authz::{Permit, Route};
use crate::domain::DenyReason;

const CLIENT_ID: &str = "x-tenantgate-client-id";
const SCOPE: &str = "x-tenantgate-scope";
const ISSUER: &str = "x-tenantgate-issuer";
const VARIABLE: &str = "x-tenantgate-var-";

/// The request passes, with what is known of it for the upstream. Every header under a name of
/// ours is overwritten or removed, also on public routes.
pub fn allowed(permit: &Permit<'_>) -> Bytes {
    let mut set: Vec<(String, String)> = Vec::new();
    let mut remove: Vec<String> = Vec::new();
    let mut own = |name: String, value: Option<&str>| match value {
        Some(value) => set.push((name, value.to_owned())),
        None => remove.push(name),
    };
    let identity = permit.identity.as_ref();
    own(CLIENT_ID.into(), identity.map(|identity| identity.client()));
    own(SCOPE.into(), identity.map(|i| i.scopes().as_str()).filter(|scopes| !scopes.is_empty()));
    own(ISSUER.into(), identity.and_then(|identity| identity.foreign_issuer()));
    for name in &permit.api.variables {
        let value = permit.variables.iter().find(|(variable, _)| variable == name);
        own(variable_header(name), value.map(|(_, value)| *value));
    }
    if identity.is_some() && !permit.api.forward_authorization {
        remove.push("authorization".into());
        remove.extend(permit.api.api_key_header.clone());
    }
    encode(CheckResponse {
        status: Some(status(Code::Ok)),
        dynamic_metadata: Some(metadata(permit)),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: set.into_iter().map(|(name, value)| header(&name, value)).collect(),
            headers_to_remove: remove,
            ..Default::default()
        })),
    })
}

fn variable_header(name: &str) -> String {
    format!("{VARIABLE}{}", name.replace('_', "-"))
}

/// Under `envoy.filters.http.ext_authz`, for access logs, rate limits and RBAC further on.
fn metadata(permit: &Permit<'_>) -> Struct {
    let mut fields = BTreeMap::new();
    fields.insert("api", permit.api.name.as_str());
    if let Some(route) = permit.route {
        fields.insert("route", &route.name);
    }
    if let Some(identity) = &permit.identity {
        fields.insert("client_id", identity.client());
        fields.insert("scope", identity.scopes().as_str());
    }
    let mut fields: Vec<(String, Value)> =
        fields.into_iter().map(|(name, value)| (name.to_owned(), string(value))).collect();
    let variables: Vec<(String, Value)> =
        permit.variables.iter().map(|(name, value)| ((*name).to_owned(), string(value))).collect();
    if !variables.is_empty() {
        let variables = Struct { fields: variables.into_iter().collect() };
        fields.push(("variables".into(), Value { kind: Some(Kind::StructValue(variables)) }));
    }
    Struct { fields: fields.into_iter().collect() }
}

fn string(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
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
pub fn denied(reason: DenyReason, realm: &str, route: Option<&Route>) -> Bytes {
    let denial = denial(reason);
    let mut headers = vec![
        header("content-type", "application/json".into()),
        header("cache-control", "no-store".into()),
    ];
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
    headers.extend(challenge.map(|challenge| header("www-authenticate", challenge)));
    let retry_after = denial.retry_after.map(|seconds| seconds.to_string());
    headers.extend(retry_after.map(|seconds| header("retry-after", seconds)));
    encode(CheckResponse {
        status: Some(status(Code::PermissionDenied)),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(denial.http_status) }),
            headers,
            body: format!(r#"{{"error":"{error}","error_description":"{description}"}}"#),
        })),
    })
}

/// `append: false` overwrites what the client sent.
#[expect(deprecated, reason = "every Envoy from 1.36 on honours it, and alike")]
fn header(name: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value, ..Default::default() }),
        append: Some(BoolValue { value: false }),
        ..Default::default()
    }
}

fn status(code: Code) -> rpc::Status {
    rpc::Status { code: code as i32, ..Default::default() }
}

fn encode(response: CheckResponse) -> Bytes {
    response.encode_to_vec().into()
}
