//! The record of a decision: its counters, one log line at most, and what the ledger asks for.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::usage::Seen;
use super::{Decided, Gate, Request};
use crate::authz::route::Near;
use crate::authz::{Denied, HeaderValue, Route, Verdict, nearest_route};
use crate::domain::{DenyReason, Meter, Timestamp};
use crate::telemetry::traces::Past;

pub struct DecisionRecord<'a> {
    pub gate: &'a Gate,
    pub request: &'a Request<'a>,
    pub decided: &'a Decided<'a>,
    pub now: Timestamp,
}

/// A field that is left out is unknown.
#[derive(Serialize)]
struct Refused<'a> {
    time: String,
    event: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    issuer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    route: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    tenant_ref: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    /// Shadow mode let it pass.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    shadow: bool,
}

impl DecisionRecord<'_> {
    pub fn write(&self) {
        self.count();
        if let Some(usage) = self.gate.ledger.usage.get() {
            usage.count(self.seen());
        }
        if self.decided.outcome.refusal().is_some_and(|denied| denied.probing) {
            self.gate.metrics.probing.inc();
            tracing::warn!(
                client = self.client(),
                issuer = self.issuer(),
                "asks for many foreign tenants"
            );
        }
        match &self.decided.outcome.verdict {
            Verdict::Allowed(_) => self.log_allowed(),
            Verdict::Shadowed(pass) => self.log_shadowed(&pass.denied),
            Verdict::Denied(denied) => self.log_denied(denied),
        }
        if let (Some(traces), Some(parent)) = (self.gate.ledger.traces.get(), &self.request.trace) {
            let (start, end, attributes) = (self.now, self.gate.clock.now(), self.attributes());
            traces.record(parent, Past { name: "check", start, end, attributes });
        }
        if let (Some(audit), Some(denied)) =
            (self.gate.ledger.audit.get(), self.decided.outcome.refusal())
        {
            audit.write(&self.refused(denied));
        }
    }

    /// Of the span. The route is the text of its template.
    fn attributes(&self) -> Vec<(&'static str, String)> {
        let outcome = match &self.decided.outcome.verdict {
            Verdict::Allowed(_) => "allowed",
            Verdict::Shadowed(pass) => pass.denied.reason.as_str(),
            Verdict::Denied(denied) => denied.reason.as_str(),
        };
        let named = [
            ("tenantgate.outcome", outcome),
            ("tenantgate.api", self.api()),
            ("tenantgate.route", self.route()),
            ("tenantgate.client_id", self.client()),
            ("tenantgate.issuer", self.issuer()),
        ];
        let named = named.into_iter().filter(|(_, value)| !value.is_empty());
        named.map(|(name, value)| (name, value.to_owned())).collect()
    }

    fn seen(&self) -> Seen<'_> {
        let outcome = match &self.decided.outcome.verdict {
            Verdict::Allowed(_) => "allowed",
            Verdict::Shadowed(pass) => pass.denied.reason.as_str(),
            Verdict::Denied(denied) => denied.reason.as_str(),
        };
        // Without a verified credential the tenant of a request may be anything.
        let known = self.decided.outcome.identity.is_some();
        Seen {
            issuer: self.issuer(),
            client: self.client(),
            tenant: if known { self.tenant() } else { "" },
            outcome,
            refused: !matches!(self.decided.outcome.verdict, Verdict::Allowed(_)),
            at: i64::try_from(self.now.nanos() / 1_000).unwrap_or(i64::MAX),
        }
    }

    /// A line of the audit stream.
    fn refused<'a>(&'a self, denied: &'a Denied) -> Refused<'a> {
        Refused {
            time: self.now.to_string(),
            event: "denied",
            reason: denied.reason.as_str(),
            client_id: self.client(),
            issuer: self.issuer(),
            api: self.api(),
            route: self.route(),
            tenant_ref: self.tenant(),
            request_id: self.request_id(),
            shadow: matches!(self.decided.outcome.verdict, Verdict::Shadowed(_)),
        }
    }

    fn count(&self) {
        let Decided { snapshot, outcome, .. } = self.decided;
        let count = |meter: &dyn Meter| match &outcome.verdict {
            Verdict::Allowed(_) => meter.allowed(),
            Verdict::Shadowed(pass) => meter.shadowed(pass.denied.reason),
            Verdict::Denied(denied) => meter.denied(denied.reason),
        };
        count(match outcome.api {
            Some(api) => &*api.meter,
            None => &*snapshot.no_api,
        });
        let meter = snapshot.issuer_meters.get(self.issuer());
        if let Some(meter) = meter {
            count(&**meter);
        }
    }

    // The log lines hold references only, never a token, a path or a tenant code.

    fn log_allowed(&self) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (id, request_id) = (self.id(), self.request_id());
        tracing::debug!(decision_id = %id, request_id = %request_id, api = self.api(),
            route = self.route(), client = self.client(), issuer = self.issuer(),
            tenant = self.tenant(), "allowed");
    }

    fn log_denied(&self, denied: &Denied) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let (id, request_id) = (self.id(), self.request_id());
        let near = self.nearest_route(denied.reason);
        let (nearest, differs) =
            near.map(|near| (&*near.route.name, near.differs.join("; "))).unzip();
        tracing::info!(decision_id = %id, request_id = %request_id, api = self.api(),
            route = self.route(), client = self.client(), issuer = self.issuer(),
            tenant = self.tenant(), reason = denied.reason.as_str(), rule = denied.rule,
            nearest, differs, "denied");
    }

    fn log_shadowed(&self, denied: &Denied) {
        let (id, request_id) = (self.id(), self.request_id());
        tracing::warn!(decision_id = %id, request_id = %request_id, api = self.api(),
            route = self.route(), client = self.client(), issuer = self.issuer(),
            tenant = self.tenant(), reason = denied.reason.as_str(), rule = denied.rule,
            "let pass in shadow mode, would have been denied");
    }

    /// Only for an identified client: comparing all routes is work.
    fn nearest_route(&self, reason: DenyReason) -> Option<Near<'_, Route>> {
        let wanted = reason == DenyReason::NoRoute;
        let api = self.decided.outcome.api.filter(|_| wanted)?;
        nearest_route(api, &self.request.input)
    }

    fn id(&self) -> String {
        format!("{:016x}", self.gate.decision_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// The gateway's id, if it looks like one: the client may have set it.
    fn request_id(&self) -> &str {
        let id = match self.request.input.headers.get("x-request-id") {
            HeaderValue::One(id) => id,
            HeaderValue::Missing | HeaderValue::Several => self.request.id,
        };
        let harmless = id.len() <= 64 && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if harmless { str::from_utf8(id).unwrap_or_default() } else { "" }
    }

    fn api(&self) -> &str {
        self.decided.outcome.api.map_or("", |api| &api.name)
    }

    fn route(&self) -> &str {
        self.decided.outcome.route.map_or("", |route| &route.name)
    }

    fn client(&self) -> &str {
        self.decided.outcome.identity.as_ref().map_or("", |identity| identity.client())
    }

    fn issuer(&self) -> &str {
        let Decided { snapshot, outcome, .. } = self.decided;
        outcome.identity.as_ref().map_or("", |identity| identity.issuer(snapshot))
    }

    fn tenant(&self) -> &str {
        self.decided.tenant().unwrap_or_default()
    }
}
