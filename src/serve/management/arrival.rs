//! A call as it arrives: who calls, with which scope, and the body read into its type.

use std::time::Duration;

use axum::Json;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use subtle::ConstantTimeEq as _;

use super::Management;
use super::failure::Failure;
use crate::domain::CredentialDigest;
use crate::serve::tls::CertificateName;

const MAX_BODY: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Who calls with the token of the config.
const BOOTSTRAP: &str = "management.token_file";

/// What a token of our own issuer needs for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Audit,
    Clients,
    Grants,
}

impl Scope {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "tenantgate:audit",
            Self::Clients => "tenantgate:clients",
            Self::Grants => "tenantgate:grants",
        }
    }
}

/// Who calls, for the record of management actions.
pub struct Actor(pub String);

impl Management {
    pub fn admit(&self, request: &Request, scope: Scope) -> Result<Actor, Failure> {
        match self.authenticate(request, scope) {
            Err(Failure::Unauthorized) if self.strangers.check().is_err() => Err(Failure::TooMany),
            Ok(_) if self.calls.check().is_err() => Err(Failure::TooMany),
            outcome => outcome,
        }
    }

    fn authenticate(&self, request: &Request, scope: Scope) -> Result<Actor, Failure> {
        let management = &self.engine.config_now().management;
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let certificate = request.extensions().get::<CertificateName>();
        if let Some(CertificateName(name)) = certificate.filter(|_| management.client_certificates)
            && !request.headers().contains_key(AUTHORIZATION)
        {
            return Ok(Actor(format!("certificate {name}")));
        }
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Failure::Unauthorized);
        };
        let (scheme, token) =
            value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(Failure::Unauthorized);
        }
        if let Some(own) = &management.token {
            // Digests have one length, which tells nothing of the token's.
            let (shown, wanted) = (token, own.0.expose());
            let digests = [shown, wanted].map(CredentialDigest::sha256_of);
            if digests[0].ct_eq(&digests[1]).into() {
                return Ok(Actor(BOOTSTRAP.to_owned()));
            }
        }
        let caller = self.engine.gate.token_standing(token).map_err(|_| Failure::Unauthorized)?;
        if caller.identity.foreign_issuer().is_some() {
            return Err(Failure::Unauthorized);
        }
        match caller.scopes().contains(scope.as_str()) {
            true => Ok(Actor(caller.identity.client().to_owned())),
            false => Err(Failure::Scope(scope.as_str())),
        }
    }

    /// Admits the call and reads its body. An empty body is an empty object.
    pub async fn arrive<T: DeserializeOwned>(
        &self,
        request: Request,
        scope: Scope,
    ) -> Result<(Actor, T), Failure> {
        let actor = self.admit(&request, scope)?;
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY);
        let body = tokio::time::timeout(BODY_TIMEOUT, body).await;
        let body = body
            .map_err(|_| Failure::Invalid("the body took too long".to_owned()))?
            .map_err(|_| Failure::Invalid("the body is too large or broken off".to_owned()))?;
        let body = if body.trim_ascii().is_empty() { b"{}" } else { &*body };
        let mut reader = serde_json::Deserializer::from_slice(body);
        let read = parse(&mut reader)?;
        reader
            .end()
            .map_err(|_| Failure::Invalid("the body is more than one object".to_owned()))?;
        Ok((actor, read))
    }
}

/// Reads a type from JSON. What does not fit is named by its field, without the value.
pub fn parse<'de, T, D>(from: D) -> Result<T, Failure>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    serde_path_to_error::deserialize(from).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !matches!(inner.classify(), Category::Data) {
            return Failure::Invalid("the body is not JSON".to_owned());
        }
        Failure::Invalid(without_value(&path, &inner.to_string()))
    })
}

/// What serde says quotes the value, which may be a tenant code.
fn without_value(path: &str, error: &str) -> String {
    let named = |prefix| {
        let rest = error.strip_prefix(prefix)?;
        Some(rest.split_once('`')?.0)
    };
    let at = |name: &str| match path {
        "." | "?" => name.to_owned(),
        path if path.ends_with(name) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if let Some(name) = named("unknown field `") {
        return format!("{}: is not known here; remove it", at(name));
    }
    if let Some(name) = named("missing field `") {
        return format!("{}: is missing", at(name));
    }
    if let Some(name) = named("duplicate field `") {
        return format!("{}: is given twice", at(name));
    }
    let path = if path == "." { "the body" } else { path };
    match error.rsplit_once(", expected ") {
        Some((_, wanted)) => {
            let wanted = wanted.split(" at line ").next().unwrap_or(wanted);
            format!("{path}: does not fit; write {wanted}")
        }
        None => format!("{path}: does not fit"),
    }
}

/// An answer, which no cache keeps.
pub fn answer(status: StatusCode, body: impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
