//! The check listener: Envoy's external authorization over gRPC. The only folder that knows Envoy's types.

mod message;
mod reply;
#[cfg(test)]
mod tests;
mod unary;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;

pub use self::unary::Reply;
use self::wire::CheckMessage;
use crate::authz::{
    Authorizer, CheckInput, FactsCache, HeaderValue, Headers, Hint, Outcome, ProbeWatch, Snapshot,
};
use crate::domain::{Clock, DenyReason, GrantBook, Timestamp};
use crate::telemetry::Metrics;

/// The key of `context_extensions` that names the API.
const PROFILE: &[u8] = b"tenantgate_api";

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
    /// The bytes of a `CheckResponse` to those of a `CheckRequest`. Always an explicit answer: Envoy can
    /// be told to let a request pass whose check fails.
    pub fn check(&self, message: &[u8]) -> Vec<u8> {
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

    fn decide(&self, snapshot: &Snapshot, message: &CheckMessage<'_>, now: Timestamp) -> Vec<u8> {
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

impl CheckServer {
    pub const NAME: &'static str = "envoy.service.auth.v3.Authorization";
    /// The path of its one method.
    pub const CHECK: &'static str = "/envoy.service.auth.v3.Authorization/Check";

    pub async fn answer(&self, body: impl http_body::Body<Data = Bytes>) -> Response<Reply> {
        // What is no message is answered as one without a request: denied, in so many words.
        let message = unary::message(body).await.unwrap_or_default();
        unary::response(&self.0.check(&message))
    }
}
