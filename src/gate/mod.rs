//! One answer to a request, whoever asked and however it is sent: what passes and with which
//! headers and metadata, or what is denied and with which status, headers and body. Recorded once,
//! here.
//!
//! A [`Gate`] needs no server. The gRPC edge, the command line and whoever else serves decisions
//! render the same [`Answer`].

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

use self::record::Record;
use crate::authz::{
    Authorizer, Bearer, Caller, CheckInput, FactsCache, Hint, Observer, Outcome, ProbeWatch,
    Snapshot, Verdict,
};
use crate::domain::{Clock, DenyReason, GrantBook, Moment};
use crate::telemetry::Metrics;
use crate::telemetry::traces::Parent;

/// A request as an edge hands it over.
pub struct Request<'a> {
    pub input: CheckInput<'a>,
    /// What the gateway calls it; stands in the log where there is no `x-request-id`.
    pub id: &'a [u8],
    /// The span that the gateway asks from, where its trace is sampled.
    pub trace: Option<Parent>,
    /// Whether the edge sends the answer's metadata on; making it costs a keyed digest.
    pub metadata: bool,
}

/// Answers requests. Made once; everything that a reload changes is in the snapshot.
pub struct Gate {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub cache: Arc<FactsCache>,
    pub probes: ProbeWatch,
    pub grants: Arc<dyn GrantBook>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// Must not block: the decision does not wait for what it asks for.
    pub hints: Box<dyn Fn(Hint) + Send + Sync>,
    pub decision_ids: AtomicU64,
    pub ledger: Ledger,
}

impl Gate {
    /// Decides, records and renders. `None`: what arrived is no request. Always an explicit answer:
    /// a gateway can be told to let a request pass whose check fails.
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
            self.metrics.observe_decision(self.clock.monotonic().since(started.monotonic));
            rendered
        };
        // Nothing that is shared is left half-changed: a decision only reads.
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| self.failed(&render))
    }

    /// The answer where something of ours has panicked.
    pub fn failed<R>(&self, render: impl Fn(&Answer<'_>) -> R) -> R {
        self.refuse(DenyReason::InternalError, render)
    }

    /// The answer where there is nothing to decide with.
    pub fn refuse<R>(&self, reason: DenyReason, render: impl Fn(&Answer<'_>) -> R) -> R {
        let snapshot = self.snapshot.load();
        snapshot.no_api.denied(reason);
        render(&deny::answer(reason, &snapshot.realm, None))
    }

    /// Decides with what is known now, for somebody who asks why: nothing is recorded.
    pub fn explain<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        input: &CheckInput<'a>,
        observer: &mut impl Observer,
    ) -> Outcome<'a> {
        self.authorizer(snapshot, None, self.clock.moment()).decide(input, observer)
    }

    /// Whether a token stands now, and for whom. Nothing is recorded.
    pub fn token_standing(&self, token: &str) -> Result<Caller, DenyReason> {
        let snapshot = self.snapshot.load();
        let authorizer = self.authorizer(&snapshot, None, self.clock.moment());
        authorizer.token_standing(token).map_err(|denied| denied.reason)
    }

    /// Whose a token is, whether or not it stands now. Nothing is recorded.
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
        Record { gate: self, request, decided: &decided, now: now.wall }.write();
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

/// A decision, with what it is told by.
pub struct Decided<'a> {
    pub snapshot: &'a Snapshot,
    pub outcome: Outcome<'a>,
    tenant: OnceCell<Option<String>>,
}

impl<'a> Decided<'a> {
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
