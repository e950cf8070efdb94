//! Whole checks, read and written with the generated types.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value, value::Kind};
use envoy_types::pb::google::rpc;
use prost::Message as _;

use crate::authz::tests::{NOW, OWN, World, api, book, client};
use crate::authz::{Api, Apis};
use crate::domain::{Client, DenyReason, ManualClock, Meter, Quota, QuotaUnit};
use crate::gate::Gate;
use crate::telemetry::Metrics;

fn answer_to(world: World, message: &[u8]) -> CheckResponse {
    let gate = Gate {
        timed: true,
        snapshot: Arc::new(ArcSwap::from_pointee(world.snapshot)),
        cache: world.cache,
        probes: world.probes,
        grants: world.cells,
        clock: Arc::new(ManualClock::at(NOW)),
        metrics: Arc::new(Metrics::new()),
        hints: Box::new(|_| {}),
        decision_ids: AtomicU64::new(0),
        ledger: Default::default(),
    };
    CheckResponse::decode(&super::check(&gate, message.to_vec())[..]).unwrap()
}

fn answer(world: World, path: &str, token: Option<&str>) -> CheckResponse {
    let authorization = token.map(|token| ("authorization".into(), format!("Bearer {token}")));
    let http = HttpRequest {
        method: "GET".into(),
        path: path.into(),
        headers: authorization.into_iter().collect(),
        ..Default::default()
    };
    let request = CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(Request { time: None, http: Some(http) }),
            ..Default::default()
        }),
    };
    answer_to(world, &request.encode_to_vec())
}

#[expect(deprecated, reason = "every Envoy from 1.36 on honours it, and alike")]
fn overwrite(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), ..Default::default() }),
        append: Some(BoolValue { value: false }),
        ..Default::default()
    }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

fn fields<const N: usize>(entries: [(&str, Value); N]) -> Struct {
    Struct { fields: entries.map(|(name, value)| (name.into(), value)).into() }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).into()).collect()
}

fn ok(response: OkHttpResponse, metadata: Struct) -> CheckResponse {
    CheckResponse {
        status: Some(rpc::Status::default()),
        dynamic_metadata: Some(metadata),
        http_response: Some(HttpResponse::OkResponse(response)),
    }
}

#[test]
fn an_allowed_request_carries_who_sent_it() {
    let mut world = World::typical();
    let quota = Some(Quota { requests_per_unit: 500, unit: QuotaUnit::Minute });
    world.snapshot.clients = book([Client { quota, ..client("acme") }]);
    let token = world.token();
    let scope = "reports.read other";
    let tenant = world.snapshot.digester.reference("T1").to_string();
    let number = Value { kind: Some(Kind::NumberValue(500.0)) };
    let quota = fields([("requests_per_unit", number), ("unit", text("MINUTE"))]);
    let expected = ok(
        OkHttpResponse {
            headers: vec![
                overwrite("x-tenantgate-client-id", "acme"),
                overwrite("x-tenantgate-scope", scope),
            ],
            headers_to_remove: names(&[
                "x-tenantgate-issuer",
                "x-tenantgate-var-page",
                "authorization",
            ]),
            ..Default::default()
        },
        fields([
            ("api", text("oda")),
            ("route", text("/api/{tenant}/report")),
            ("client_id", text("acme")),
            ("issuer", text(OWN)),
            ("scope", text(scope)),
            ("tenant_ref", text(&tenant)),
            ("quota", Value { kind: Some(Kind::StructValue(quota)) }),
        ]),
    );
    assert_eq!(answer(world, "/api/T1/report", Some(&token)), expected);
}

#[test]
fn a_public_request_carries_its_variables_and_nobody() {
    // Longer than one byte of a length can say.
    let page = "p".repeat(300);
    let variables = Kind::StructValue(fields([("page", text(&page))]));
    let expected = ok(
        OkHttpResponse {
            headers: vec![overwrite("x-tenantgate-var-page", &page)],
            headers_to_remove: names(&[
                "x-tenantgate-client-id",
                "x-tenantgate-scope",
                "x-tenantgate-issuer",
                "authorization",
            ]),
            ..Default::default()
        },
        fields([
            ("api", text("oda")),
            ("route", text("/docs/{page}")),
            ("variables", Value { kind: Some(variables) }),
        ]),
    );
    assert_eq!(answer(World::typical(), &format!("/docs/{page}"), None), expected);
}

#[test]
fn a_denied_request_is_told_why_and_how_to_do_better() {
    let denied = |status, headers, body: &str| CheckResponse {
        status: Some(rpc::Status { code: 7, ..Default::default() }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: status }),
            headers,
            body: body.into(),
        })),
    };
    let common = || {
        vec![overwrite("content-type", "application/json"), overwrite("cache-control", "no-store")]
    };
    let challenge = |challenge: &str| {
        let mut headers = common();
        headers.push(overwrite("www-authenticate", challenge));
        headers
    };
    let world = World::typical();
    let token = world.token();
    assert_eq!(
        answer(world, "/api/T1/admin", Some(&token)),
        denied(
            403,
            challenge(
                "Bearer realm=\"https://api.test\", error=\"insufficient_scope\", \
                 error_description=\"the token lacks a scope that this resource requires\", \
                 scope=\"admin\""
            ),
            concat!(
                r#"{"error":"insufficient_scope","#,
                r#""error_description":"the token lacks a scope that this resource requires"}"#,
            ),
        )
    );
    assert_eq!(
        answer(World::typical(), "/api/T1/report", None),
        denied(
            401,
            challenge("Bearer realm=\"https://api.test\""),
            r#"{"error":"unauthorized","error_description":"a bearer token is required"}"#,
        )
    );
    assert_eq!(
        answer(World::typical(), "/api/../T1", None),
        denied(
            400,
            common(),
            r#"{"error":"invalid_request","error_description":"the request path is ambiguous"}"#,
        )
    );
}

fn status(response: CheckResponse) -> i32 {
    match response.http_response.unwrap() {
        HttpResponse::DeniedResponse(denied) => denied.status.unwrap().code,
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn what_is_no_check_request_is_denied_and_not_an_error() {
    assert_eq!(status(answer_to(World::typical(), &[])), 400);
    assert_eq!(status(answer_to(World::typical(), &[0xff; 64])), 400);
}

/// Any bug on the way.
struct Panicking;

impl Meter for Panicking {
    fn allowed(&self) {}
    fn denied(&self, _: DenyReason) {
        panic!("a bug");
    }
    fn shadowed(&self, _: DenyReason) {}
}

#[test]
fn a_panic_is_an_explicit_503_so_that_nothing_fails_open() {
    let mut world = World::typical();
    let api = Api { meter: Box::new(Panicking), ..api("oda") };
    world.snapshot.apis = Arc::new(Apis::new(vec![api]));
    assert_eq!(status(answer(world, "/api/T1/report", None)), 503);
}
