use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::config::{ClientTls, GrpcLookup};
use crate::domain::{ClientId, Clock, Problem, is_reserved_claim};
use crate::outbound::{USER_AGENT, root_cause};
use crate::telemetry::traces::{TRACEPARENT, outgoing};

use super::answer::{Answer, Grants, usable_etag};
use super::directory_v1::directory_client::DirectoryClient;
use super::directory_v1::{ListAuthorizedTenantsRequest, ListAuthorizedTenantsResponse};
use super::outbound::no_connection;
use super::select::Listed;
use super::unavailable::Unavailable;

const MAX_ANSWER: usize = 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const METHOD: &str = "tenantgate.directory.v1.Directory/ListAuthorizedTenants";

/// One question to the provider's gRPC service, and what its answer means.
pub struct GrpcTransport {
    client: DirectoryClient<Channel>,
    url: String,
    clock: Arc<dyn Clock>,
}

impl GrpcTransport {
    pub fn new(config: &GrpcLookup, clock: Arc<dyn Clock>) -> Result<Self, Problem> {
        let problem = |field: &str, cure: &str| {
            let (field, cure) = (format!("tenants.lookup.{field}"), cure.to_owned());
            move |error: tonic::transport::Error| Problem::new(field, root_cause(&error), cure)
        };
        let mut endpoint = Endpoint::from_shared(config.url.to_string())
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(problem("grpc.url", "give a URL with scheme, host and port"))?
            .http2_keep_alive_interval(KEEP_ALIVE)
            .tcp_keepalive(Some(KEEP_ALIVE));
        if config.url.scheme() == "https" {
            endpoint = endpoint
                .tls_config(tls(&config.tls))
                .map_err(problem("tls", "check certificates and key"))?;
        }
        let client =
            DirectoryClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAX_ANSWER);
        let url = format!("{}/{METHOD}", config.url.as_str().trim_end_matches('/'));
        Ok(Self { client, url, clock })
    }

    pub fn shown_url(&self) -> String {
        self.url.clone()
    }

    pub async fn ask(
        &self,
        client: &ClientId,
        etag: Option<&str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Unavailable> {
        let mut request = Request::new(ListAuthorizedTenantsRequest {
            client_id: client.as_str().to_owned(),
            if_none_match: etag.unwrap_or_default().to_owned(),
        });
        if let Some(header) = authorization {
            let mut value = MetadataValue::try_from(header.as_bytes())
                .unwrap_or_else(|_| unreachable!("a header's value is a valid one"));
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(trace) = outgoing().and_then(|trace| trace.parse().ok()) {
            request.metadata_mut().insert(TRACEPARENT, trace);
        }
        let sent_at = self.clock.monotonic();
        // Clones share the connection.
        let (grants, code) = match self.client.clone().list_authorized_tenants(request).await {
            Ok(response) => (understand(response.into_inner(), etag.is_some())?, Code::Ok),
            Err(status) => (refused(&status)?, status.code()),
        };
        Ok(Answer { grants, sent_at, status: format!("{code:?}") })
    }
}

/// The system's roots where there is no own CA.
fn tls(config: &ClientTls) -> ClientTlsConfig {
    let mut tls = match &config.ca_pem {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_enabled_roots(),
    };
    if let Some(pem) = &config.identity_pem {
        // One file with both: each side picks its own sections.
        let pem = pem.0.expose();
        tls = tls.identity(Identity::from_pem(pem, pem));
    }
    tls
}

fn understand(
    answer: ListAuthorizedTenantsResponse,
    conditional: bool,
) -> Result<Grants, Unavailable> {
    let etag = usable_etag(&answer.etag);
    if answer.not_modified {
        return if conditional {
            Ok(Grants::Unchanged { etag })
        } else {
            Err(Unavailable::WrongShape("`not_modified` without `if_none_match`".to_owned()))
        };
    }
    let mut listed = Listed::of(answer.tenant_codes.iter().map(String::as_str));
    for (name, value) in answer.attributes {
        if is_claim_name(&name) {
            listed.add_claim(&name, serde_json::Value::from(value).to_string());
        } else {
            listed.dropped_claims.push("(a reserved or malformed name)".to_owned());
        }
    }
    Ok(Grants::Listed { listed, etag })
}

/// For the HTTP lookup the config names the claims; here the provider does.
fn is_claim_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed) && !is_reserved_claim(name)
}

/// The message of a status may hold anything, so it is not shown.
fn refused(status: &Status) -> Result<Grants, Unavailable> {
    match status.code() {
        Code::NotFound => Ok(Grants::none()),
        Code::Unauthenticated => Err(Unavailable::Unauthorized("UNAUTHENTICATED")),
        Code::PermissionDenied => Err(Unavailable::Unauthorized("PERMISSION_DENIED")),
        // The client's own word for a message over its limit.
        Code::OutOfRange => Err(Unavailable::TooLarge),
        Code::Unavailable if status.source().is_some() => Err(no_connection(status)),
        code => Err(Unavailable::Rpc(code)),
    }
}
