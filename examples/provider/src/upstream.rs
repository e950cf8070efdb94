//! The provider's API, which Envoy forwards allowed requests to. It serves any tenant to anyone: to
//! let only the right requests through is the work of Envoy and tenantgate.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::json;

use crate::state::Provider;

const RECORDED_REQUESTS: usize = 10_000;

const REPORT_START: &str = "/oda/apis/get/reports/assets/tenant/";
const REPORT_END: &str = "/devicedistribution";

/// A request as it came, shared between the record and the reply.
#[derive(Clone, Serialize)]
pub struct RecordedRequest(Arc<Seen>);

#[derive(Serialize)]
struct Seen {
    method: String,
    /// The request target as received: query included, nothing decoded. A fragment is not kept.
    path: String,
    headers: BTreeMap<String, Vec<String>>,
}

pub async fn answer(provider: &Provider, request: Request) -> Response {
    let seen = RecordedRequest(Arc::new(Seen {
        method: request.method().to_string(),
        path: request_target(request.uri()),
        headers: by_name(request.headers()),
    }));
    provider.state().record(seen.clone());

    let tenant = match *request.method() {
        Method::GET | Method::HEAD => reported_tenant(request.uri().path()).map(str::to_owned),
        _ => None,
    };
    // Read to its end, so that the connection can be used again.
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}

    match tenant {
        Some(tenant) => Json(report(&tenant, &seen.0.headers)).into_response(),
        None => Json(seen).into_response(),
    }
}

impl crate::state::State {
    fn record(&mut self, request: RecordedRequest) {
        self.counters.upstream_requests += 1;
        if self.upstream.len() == RECORDED_REQUESTS {
            self.upstream.pop_front();
        }
        self.upstream.push_back(request);
    }
}

/// HTTP/2 hands over an absolute URI, of which only the path and query were the client's `:path`.
fn request_target(uri: &Uri) -> String {
    match uri.path_and_query() {
        Some(target) => target.to_string(),
        None => uri.to_string(),
    }
}

fn by_name(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        by_name.entry(name.to_string()).or_default().push(value);
    }
    by_name
}

/// The tenant code if `path` is the report's; fixed segments count in any case, as many real
/// servers have it.
fn reported_tenant(path: &str) -> Option<&str> {
    let end = path.len().checked_sub(REPORT_END.len())?;
    let tenant = path.get(REPORT_START.len()..end)?;
    let is_report = path.get(..REPORT_START.len())?.eq_ignore_ascii_case(REPORT_START)
        && path[end..].eq_ignore_ascii_case(REPORT_END);
    (is_report && !tenant.is_empty() && !tenant.contains('/')).then_some(tenant)
}

fn report(tenant: &str, headers: &BTreeMap<String, Vec<String>>) -> serde_json::Value {
    json!({
        "tenantCode": tenant,
        "report": "devicedistribution",
        "period": "2026-06",
        "total": 412,
        "devices": [
            { "type": "laptop", "os": "Windows", "count": 231 },
            { "type": "laptop", "os": "macOS", "count": 64 },
            { "type": "phone", "os": "iOS", "count": 78 },
            { "type": "phone", "os": "Android", "count": 39 },
        ],
        "headers": headers,
    })
}
