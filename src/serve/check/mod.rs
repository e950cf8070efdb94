//! The check listener: Envoy's external authorization over gRPC. The only folder that knows Envoy's types.

mod reply;
mod wire;

use std::convert::Infallible;
use std::future::{Ready, ready};
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
/// Envoy sends no body unless told to; what it may send of headers is far below this.
const MAX_MESSAGE: usize = 1024 * 1024;

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
    fn check(&self, message: &[u8]) -> Result<Bytes, Status> {
        let started = self.clock.now();
        let message = CheckMessage::decode(message)
            .map_err(|_| Status::invalid_argument("not a CheckRequest"))?;
        let snapshot = self.snapshot.load();
        let reply = self.decide(&snapshot, &message, started);
        self.metrics.observe_decision(self.clock.now().since(started));
        Ok(reply)
    }

    fn decide(&self, snapshot: &Snapshot, message: &CheckMessage<'_>, now: Timestamp) -> Bytes {
        let realm = &snapshot.realm;
        let Some(http) = &message.http else {
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
        ready(self.0.check(request.get_ref()).map(tonic::Response::new))
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
