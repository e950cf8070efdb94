//! What is left behind of a decision: one counter, and one log line at most.

use std::sync::atomic::Ordering;

use super::{Gate, Request};
use crate::authz::{Denied, HeaderValue, Outcome, Snapshot, Verdict};

pub struct Record<'a> {
    pub gate: &'a Gate,
    pub snapshot: &'a Snapshot,
    pub request: &'a Request<'a>,
    pub outcome: &'a Outcome<'a>,
}

impl Record<'_> {
    pub fn write(&self) {
        self.count();
        if self.outcome.refusal().is_some_and(|denied| denied.probing) {
            self.gate.metrics.probing.inc();
            tracing::warn!(client = self.client(), "asks for many foreign tenants");
        }
        match &self.outcome.verdict {
            Verdict::Allowed(_) => self.log_allowed(),
            Verdict::Shadowed(pass) => self.log_shadowed(&pass.denied),
            Verdict::Denied(denied) => self.log_denied(denied),
        }
    }

    fn count(&self) {
        let outcome = self.outcome;
        let meter = match outcome.api {
            Some(api) => &*api.meter,
            None => &*self.snapshot.no_api,
        };
        match &outcome.verdict {
            Verdict::Allowed(_) => meter.allowed(),
            Verdict::Shadowed(pass) => meter.shadowed(pass.denied.reason),
            Verdict::Denied(denied) => meter.denied(denied.reason),
        }
    }

    // The log lines hold references only, never a token, a path or a tenant code.

    fn log_allowed(&self) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (id, request_id, tenant) = (self.id(), self.request_id(), self.tenant());
        tracing::debug!(decision_id = %id, request_id = %request_id, api = self.api(),
            route = self.route(), client = self.client(), tenant = %tenant, "allowed");
    }

    fn log_denied(&self, denied: &Denied) {
        let (id, request_id, tenant) = (self.id(), self.request_id(), self.tenant());
        tracing::info!(decision_id = %id, request_id = %request_id, api = self.api(),
            route = self.route(), client = self.client(), tenant = %tenant,
            reason = denied.reason.as_str(), rule = denied.rule, "denied");
    }

    fn log_shadowed(&self, denied: &Denied) {
        let (id, request_id, tenant) = (self.id(), self.request_id(), self.tenant());
        tracing::warn!(decision_id = %id, request_id = %request_id, api = self.api(),
            route = self.route(), client = self.client(), tenant = %tenant,
            reason = denied.reason.as_str(), rule = denied.rule,
            "let pass in shadow mode, would have been denied");
    }

    fn id(&self) -> String {
        format!("{:016x}", self.gate.decision_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The gateway's, if it looks like an id: it may be the client's own.
    fn request_id(&self) -> &str {
        let id = match self.request.input.headers.get("x-request-id") {
            HeaderValue::One(id) => id,
            HeaderValue::Missing | HeaderValue::Several => self.request.id,
        };
        let harmless = id.len() <= 64 && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if harmless { str::from_utf8(id).unwrap_or_default() } else { "" }
    }

    fn api(&self) -> &str {
        self.outcome.api.map_or("", |api| &api.name)
    }

    fn route(&self) -> &str {
        self.outcome.route.map_or("", |route| &route.name)
    }

    fn client(&self) -> &str {
        self.outcome.identity.as_ref().map_or("", |identity| identity.client())
    }

    fn tenant(&self) -> String {
        let tenant = self.outcome.tenant;
        tenant.map(|code| self.snapshot.digester.reference(code)).unwrap_or_default()
    }
}
