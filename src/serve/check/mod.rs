//! The check listener: Envoy's external authorization over gRPC. The only folder that knows Envoy's types.

mod reply;
mod wire;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use bytes::{Buf as _, BufMut as _, Bytes};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};

use self::wire::CheckMessage;
use crate::authz::{
    Authorizer, CheckInput, FactsCache, HeaderValue, Headers, Hint, Outcome, ProbeWatch, Snapshot,
};
use crate::domain::{Clock, DenyReason, GrantBook, Timestamp};
use crate::telemetry::Metrics;

/// The key of `context_extensions` that names the API.
const PROFILE: &[u8] = b"tenantgate_api";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Room for a body, which Envoy sends along only if it is told to. A larger message fails the call.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Answers checks. Made once; everything that a reload changes is in the snapshot.
pub struct CheckService {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub cache: Arc<FactsCache>,
    pub probes: ProbeWatch,
    pub grants: Arc<dyn GrantBook>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// Must not block: the decision does not wait for what it asks for.
    pub hints: Box<dyn Fn(Hint) + Send + Sync>,
    pub decision_ids: AtomicU64,
}

impl CheckService {
    /// Always an explicit answer: Envoy can be told to let a request pass whose check fails.
    fn check(&self, message: &[u8]) -> Bytes {
        let started = self.clock.now();
        let snapshot = self.snapshot.load();
        let message = CheckMessage::decode(message).unwrap_or_default();
        let decide = || self.decide(&snapshot, &message, started);
        // Nothing that is shared is left half-changed: a decision only reads.
        let reply = catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| {
            snapshot.no_api.denied(DenyReason::InternalError);
            reply::denied(DenyReason::InternalError, &snapshot.realm, None)
        });
        self.metrics.observe_decision(self.clock.now().since(started));
        reply
    }

    fn decide(&self, snapshot: &Snapshot, message: &CheckMessage<'_>, now: Timestamp) -> Bytes {
        let realm = &snapshot.realm;
        let Some(http) = &message.http else {
            snapshot.no_api.denied(DenyReason::NoHttpRequest);
            return reply::denied(DenyReason::NoHttpRequest, realm, None);
        };
        let profile = message.extensions.iter().find(|(key, _)| *key == PROFILE);
        let input = CheckInput {
            profile: profile.and_then(|(_, name)| str::from_utf8(name).ok()),
            // A method that is no text matches no route.
            method: str::from_utf8(http.method).unwrap_or_default(),
            target: http.path,
            headers: http,
        };
        let grants = &*self.grants;
        let probes = &self.probes;
        let authorizer = Authorizer { snapshot, cache: &self.cache, grants, probes, now };
        let mut outcome = authorizer.decide(&input, &mut ());
        if let Some(hint) = outcome.trail.hint.take() {
            (self.hints)(hint);
        }
        self.record(snapshot, http, &outcome);
        match &outcome.verdict {
            Ok(permit) => reply::allowed(permit),
            Err(reason) => reply::denied(*reason, realm, outcome.trail.route),
        }
    }

    /// One counter, and one log line at most.
    fn record(&self, snapshot: &Snapshot, http: &wire::HttpRequest<'_>, outcome: &Outcome<'_>) {
        let reason = outcome.verdict.as_ref().err().copied().or(outcome.shadowed);
        match (outcome.trail.api, reason, outcome.shadowed) {
            (Some(api), None, _) => api.meter.allowed(),
            (Some(api), Some(reason), None) => api.meter.denied(reason),
            (Some(api), Some(reason), Some(_)) => api.meter.shadowed(reason),
            (None, Some(reason), _) => snapshot.no_api.denied(reason),
            (None, None, _) => {}
        }
        if outcome.trail.probing {
            self.metrics.probing.inc();
        }
        let line = Line { ids: &self.decision_ids, snapshot, http, outcome };
        match (reason, outcome.shadowed) {
            (None, _) => {
                if tracing::enabled!(tracing::Level::DEBUG) {
                    line.allowed();
                }
            }
            (Some(_), Some(reason)) => line.shadowed(reason),
            (Some(reason), None) => line.denied(reason),
        }
    }
}

/// The log line of a decision: references only, never a token, a path or a tenant code.
struct Line<'a> {
    ids: &'a AtomicU64,
    snapshot: &'a Snapshot,
    http: &'a wire::HttpRequest<'a>,
    outcome: &'a Outcome<'a>,
}

impl Line<'_> {
    fn allowed(&self) {
        let (id, request_id, tenant) = (self.id(), self.request_id(), self.tenant());
        tracing::debug!(decision_id = %id, request_id = %request_id, api = self.api(), route = self.route(),
            client = self.client(), tenant = %tenant, "allowed");
    }

    fn denied(&self, reason: DenyReason) {
        if self.outcome.trail.probing {
            tracing::warn!(client = self.client(), "asks for many foreign tenants");
        }
        let (id, request_id, tenant) = (self.id(), self.request_id(), self.tenant());
        tracing::info!(decision_id = %id, request_id = %request_id, api = self.api(), route = self.route(),
            client = self.client(), tenant = %tenant, reason = reason.as_str(),
            rule = self.outcome.trail.rule, "denied");
    }

    fn shadowed(&self, reason: DenyReason) {
        let (id, request_id, tenant) = (self.id(), self.request_id(), self.tenant());
        tracing::warn!(decision_id = %id, request_id = %request_id, api = self.api(), route = self.route(),
            client = self.client(), tenant = %tenant, reason = reason.as_str(),
            rule = self.outcome.trail.rule, "let pass in shadow mode, would have been denied");
    }

    fn id(&self) -> String {
        format!("{:016x}", self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Envoy's, if it looks like an id: it may be the client's own.
    fn request_id(&self) -> &str {
        let id = match self.http.get("x-request-id") {
            HeaderValue::One(id) => id,
            HeaderValue::Missing | HeaderValue::Several => self.http.id,
        };
        let harmless = id.len() <= 64 && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if harmless { str::from_utf8(id).unwrap_or_default() } else { "" }
    }

    fn api(&self) -> &str {
        self.outcome.trail.api.map_or("", |api| &api.name)
    }

    fn route(&self) -> &str {
        self.outcome.trail.route.map_or("", |route| &route.name)
    }

    fn client(&self) -> &str {
        self.outcome.trail.identity.as_ref().map_or("", |identity| identity.client())
    }

    fn tenant(&self) -> String {
        let tenant = self.outcome.trail.tenant;
        tenant.map(|code| self.snapshot.digester.reference(code)).unwrap_or_default()
    }
}

/// The gRPC face of [`CheckService`].
#[derive(Clone)]
pub struct CheckServer(pub Arc<CheckService>);

impl NamedService for CheckServer {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

impl<B> tonic::codegen::Service<Request<B>> for CheckServer
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = CheckServer(Arc::clone(&self.0));
        Box::pin(async move {
            if request.uri().path() != CHECK {
                return Ok(Status::unimplemented("only Check is served here").into_http());
            }
            let mut grpc = Grpc::new(RawCodec).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.unary(service, request).await)
        })
    }
}

impl UnaryService<Bytes> for CheckServer {
    type Response = Bytes;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.check(request.get_ref()))))
    }
}

/// Hands messages over as they came; `wire` and `reply` know what is in them.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
    use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
    use envoy_types::pb::envoy::service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse,
    };
    use prost::Message as _;

    use super::*;
    use crate::authz::route::Router;
    use crate::authz::{Api, Apis, Freshness, Probing};
    use crate::domain::{ClientId, GrantCell, ManualClock, Meter, TenantDigester};

    struct Silent;

    impl Meter for Silent {
        fn allowed(&self) {}
        fn denied(&self, _: DenyReason) {}
        fn shadowed(&self, _: DenyReason) {}
    }

    /// Stands for any bug on the way.
    struct Panicking;

    impl Meter for Panicking {
        fn allowed(&self) {}
        fn denied(&self, _: DenyReason) {
            panic!("a bug");
        }
        fn shadowed(&self, _: DenyReason) {}
    }

    struct NoGrants;

    impl GrantBook for NoGrants {
        fn cell(&self, _: &ClientId) -> Arc<GrantCell> {
            Arc::default()
        }
    }

    fn status(meter: Box<dyn Meter>, message: &[u8]) -> i32 {
        let api = Api {
            name: "oda".into(),
            router: Router::new(Vec::new()).unwrap(),
            forward_authorization: false,
            shadow: false,
            api_key_header: None,
            variables: Vec::new(),
            meter,
        };
        let snapshot = Snapshot {
            apis: Arc::new(Apis::new(vec![api])),
            trust: Arc::default(),
            clients: None,
            digester: Arc::new(TenantDigester::new(&[1; 32], None)),
            own_issuer: "https://i".into(),
            freshness: Freshness::Token,
            lookup_on_miss: false,
            probing: Probing { tenants: 1, window: Duration::from_secs(1), throttle: false },
            realm: "r".into(),
            no_api: Arc::new(Silent),
        };
        let service = CheckService {
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            cache: Arc::new(FactsCache::new(1 << 16)),
            probes: ProbeWatch::default(),
            grants: Arc::new(NoGrants),
            clock: Arc::new(ManualClock::default()),
            metrics: Arc::new(Metrics::new()),
            hints: Box::new(|_| {}),
            decision_ids: AtomicU64::new(0),
        };
        let reply = CheckResponse::decode(service.check(message)).unwrap();
        match reply.http_response.unwrap() {
            HttpResponse::DeniedResponse(denied) => denied.status.unwrap().code,
            other => panic!("not denied: {other:?}"),
        }
    }

    fn request() -> Vec<u8> {
        let http = HttpRequest { method: "GET".into(), path: "/a".into(), ..Default::default() };
        let request = Some(Request { http: Some(http), ..Default::default() });
        CheckRequest { attributes: Some(AttributeContext { request, ..Default::default() }) }
            .encode_to_vec()
    }

    #[test]
    fn what_is_no_check_request_is_denied_and_not_an_error() {
        assert_eq!(status(Box::new(Silent), &request()), 401);
        assert_eq!(status(Box::new(Silent), &[]), 400);
        assert_eq!(status(Box::new(Silent), &[0xff; 64]), 400);
    }

    #[test]
    fn a_panic_is_an_explicit_503_so_that_nothing_fails_open() {
        assert_eq!(status(Box::new(Panicking), &request()), 503);
    }
}
