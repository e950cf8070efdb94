//! One answer to a request, for any caller and transport: what passes and with which headers and
//! metadata, or what is denied and with which status, headers and body. Recorded once, here.
//!
//! A [`Gate`] needs no server. The gRPC edge, the command line and any other front end render the
//! same [`Answer`].

mod allow;
mod answer;
mod deny;
mod ledger;
mod record;
#[cfg(test)]
mod tests;
mod usage;

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;

pub use answer::{Allow, Answer, Deny, Value};
pub use ledger::Ledger;
pub use usage::{Counted, Usage};

use self::record::DecisionRecord;
use crate::authz::{
    Authorizer, Bearer, CheckInput, FactsCache, Hint, Identified, Observer, Outcome, ProbeWatch,
    Snapshot, Verdict,
};
use crate::domain::{Clock, DenyReason, GrantBook, Moment};
use crate::telemetry::Metrics;
use crate::telemetry::traces::Parent;

/// A request as an edge hands it over.
pub struct Request<'a> {
    /// What the decision depends on.
    pub input: CheckInput<'a>,
    /// The gateway's own id of the request; logged where there is no `x-request-id`.
    pub id: &'a [u8],
    /// The gateway's span, if its trace is sampled. `None`: no span is recorded.
    pub trace: Option<Parent>,
    /// Whether the edge sends the answer's metadata on; making it costs a keyed digest.
    pub metadata: bool,
}

/// Answers requests. Made once; everything that a reload changes is in the snapshot.
pub struct Gate {
    /// Swapped as a whole by a reload; a request is decided with one of them.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Verified tokens; a reload does not empty it.
    pub cache: Arc<FactsCache>,
    /// The foreign tenants that each client recently asked for.
    pub probes: ProbeWatch,
    /// The freshest looked-up grants, by client.
    pub grants: Arc<dyn GrantBook>,
    /// The only source of time, so that a test can set it.
    pub clock: Arc<dyn Clock>,
    /// For the duration of decisions and for probing; the snapshot counts the rest.
    pub metrics: Arc<Metrics>,
    /// Takes background work that a decision suggests. Must not block: no decision waits for it.
    pub hints: Box<dyn Fn(Hint) + Send + Sync>,
    /// The id of the next logged decision; logs show it as 16 hexadecimal digits.
    pub decision_ids: AtomicU64,
    /// Further records of decisions, if the config asks for any.
    pub ledger: Ledger,
    /// Whether the duration of each decision is measured. Inside Envoy no scraper reads it.
    pub timed: bool,
}

impl Gate {
    /// Decides, records and renders. `None`: what arrived is not a request. The answer is always
    /// explicit, because a gateway may be configured to let a request pass when its check fails.
    pub fn answer<R>(&self, request: Option<&Request<'_>>, render: impl Fn(&Answer<'_>) -> R) -> R {
        let work = || {
            let started = self.clock.moment();
            let snapshot = self.snapshot.load();
            let rendered = match request {
                Some(request) => self.decide_and_record(&snapshot, request, started, &render),
                None => {
                    snapshot.no_api.denied(DenyReason::NoHttpRequest);
                    render(&deny::answer(DenyReason::NoHttpRequest, &snapshot.realm, None))
                }
            };
            if self.timed {
                let took = self.clock.monotonic().since(started.monotonic);
                self.metrics.observe_decision(took);
            }
            rendered
        };
        // Nothing that is shared is left half-changed: a decision only reads.
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| self.failed(&render))
    }

    /// The answer after a panic in our own code.
    pub fn failed<R>(&self, render: impl Fn(&Answer<'_>) -> R) -> R {
        self.refuse(DenyReason::InternalError, render)
    }

    /// The answer where no decision can be made, counted under no API.
    pub fn refuse<R>(&self, reason: DenyReason, render: impl Fn(&Answer<'_>) -> R) -> R {
        let snapshot = self.snapshot.load();
        snapshot.no_api.denied(reason);
        render(&deny::answer(reason, &snapshot.realm, None))
    }

    /// Decides with what is known now, for `explain`. Nothing is recorded.
    pub fn explain<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        input: &CheckInput<'a>,
        observer: &mut impl Observer,
    ) -> Outcome<'a> {
        self.authorizer(snapshot, None, self.clock.moment()).decide(input, observer)
    }

    /// The client of a token that is valid now, or why it is not. Nothing is recorded.
    pub fn token_standing(&self, token: &str) -> Result<Identified, DenyReason> {
        let snapshot = self.snapshot.load();
        let authorizer = self.authorizer(&snapshot, None, self.clock.moment());
        authorizer.token_standing(token).map_err(|denied| denied.reason)
    }

    /// The client of a token whose signature and times are good, revoked or not. Nothing is
    /// recorded.
    pub fn bearer_of(&self, token: &str) -> Result<Bearer, DenyReason> {
        let snapshot = self.snapshot.load();
        let authorizer = self.authorizer(&snapshot, None, self.clock.moment());
        authorizer.bearer_of(token).map_err(|denied| denied.reason)
    }

    fn decide_and_record<R>(
        &self,
        snapshot: &Snapshot,
        request: &Request<'_>,
        now: Moment,
        render: &impl Fn(&Answer<'_>) -> R,
    ) -> R {
        let authorizer = self.authorizer(snapshot, Some(&self.probes), now);
        let outcome = authorizer.decide(&request.input, &mut ());
        if let Some(hint) = outcome.hint() {
            (self.hints)(hint.clone());
        }
        let decided = Decided::new(snapshot, outcome);
        DecisionRecord { gate: self, request, decided: &decided, now: now.wall }.write();
        render(&decided.answer(request.metadata))
    }

    fn authorizer<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        probes: Option<&'a ProbeWatch>,
        now: Moment,
    ) -> Authorizer<'a> {
        Authorizer { snapshot, cache: &self.cache, grants: &*self.grants, probes, now }
    }
}

/// A decision, with what is needed to render and record it.
pub struct Decided<'a> {
    /// What the decision was made with.
    pub snapshot: &'a Snapshot,
    /// The decision and how far it got.
    pub outcome: Outcome<'a>,
    tenant: OnceCell<Option<String>>,
}

impl<'a> Decided<'a> {
    /// Computes the reference of the tenant, if there is one.
    pub fn new(snapshot: &'a Snapshot, outcome: Outcome<'a>) -> Self {
        Self { snapshot, outcome, tenant: OnceCell::new() }
    }

    /// The reference of the tenant, for whatever is written of it: a keyed digest, made when it is
    /// first needed. `None`: the request names no tenant.
    pub fn tenant(&self) -> Option<&str> {
        let reference = |code| self.snapshot.digester.reference(code).to_string();
        self.tenant.get_or_init(|| self.outcome.tenant.map(reference)).as_deref()
    }

    /// What the caller and the upstream get to see; `metadata` only where it is wanted.
    pub fn answer(&'a self, metadata: bool) -> Answer<'a> {
        let Self { snapshot, outcome, .. } = self;
        match &outcome.verdict {
            Verdict::Allowed(permit) => allow::answer(permit, self, metadata),
            Verdict::Shadowed(pass) => allow::shadow_answer(pass),
            Verdict::Denied(denied) => deny::answer(denied.reason, &snapshot.realm, outcome.route),
        }
    }
}
