//! A caller of the management API of a running process, for the command line.

use std::error::Error as _;
use std::time::Duration;

use http::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, Client, Identity, Url, redirect};
use serde_json::Value;

use crate::domain::Secret;
use crate::outbound::{USER_AGENT, root_cause};

/// Longer than any write takes at the other side.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the API is, and who calls.
pub struct ManagementApi {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
}

/// What it takes to reach the API. Texts are PEM.
pub struct ApiAccess<'a> {
    pub url: &'a str,
    /// `None`: the client certificate says who calls.
    pub token: Option<&'a Secret>,
    pub ca: Option<&'a str>,
    /// A client certificate with its key.
    pub identity: Option<&'a Secret>,
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The options are wrong. The text begins with the one that is.
    #[error("{0}")]
    Options(String),
    #[error("{url} cannot be reached: {cause}")]
    Unreachable { url: String, cause: String },
    /// What the API said.
    #[error("{status} {error}: {description}")]
    Refused { status: u16, error: String, description: String },
    #[error("the answer is not that of a management API: status {0}")]
    Strange(u16),
}

impl ManagementApi {
    pub fn new(reach: &ApiAccess<'_>) -> Result<Self, CallError> {
        let wrong = |option: &str, why: &dyn std::fmt::Display| {
            CallError::Options(format!("{option}: {why}"))
        };
        let url =
            Url::parse(reach.url).ok().filter(|url| url.has_host() && !url.cannot_be_a_base());
        let url = url.ok_or_else(|| {
            wrong("--url", &"not a URL; write it like https://tenantgate.example.com:9194")
        })?;
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT);
        if let Some(pem) = reach.ca {
            let certificates = Certificate::from_pem_bundle(pem.as_bytes());
            let certificates = certificates.map_err(|error| wrong("--ca-file", &error))?;
            builder = builder.tls_certs_only(certificates);
        } else if url.scheme() == "http" {
            // A small image may have no roots.
            builder = builder.tls_certs_only([]);
        }
        if let Some(pem) = reach.identity {
            let identity = Identity::from_pem(pem.expose().as_bytes());
            builder = builder.identity(identity.map_err(|error| wrong("--cert-file", &error))?);
        }
        let client = builder.build().map_err(|error| wrong("--ca-file", &error))?;
        let authorization = reach.token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| wrong("--token-file", &"what is in it cannot be sent in a header"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { client, url, authorization: authorization.transpose()? })
    }

    /// The answer's body; `Null` where there is none. `path` comes after the URL's own.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, CallError> {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        let mut request = self.client.request(method, url).query(query);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body: Option<Value> = match bytes.is_empty() {
            true => Some(Value::Null),
            false => serde_json::from_slice(&bytes).ok(),
        };
        let body = body.ok_or(CallError::Strange(status.as_u16()))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        match (text("error"), text("error_description")) {
            (Some(error), Some(description)) => {
                Err(CallError::Refused { status: status.as_u16(), error, description })
            }
            _ => Err(CallError::Strange(status.as_u16())),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CallError {
        let cause = match error.source() {
            Some(_) => root_cause(error),
            None => "no answer".to_owned(),
        };
        CallError::Unreachable { url: self.url.origin().ascii_serialization(), cause }
    }
}
