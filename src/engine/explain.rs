//! A decision step by step, for the command line and the management API.

use std::fmt::Display;
use std::sync::Arc;

use super::{Engine, in_words};
use crate::authz::{CheckInput, Denied, Observer, Verdict};
use crate::domain::{
    Client, ClientId, DenyReason, Evidence, GrantEvidence, GrantSet, Holder, TenantCode, Timestamp,
    Vouched,
};
use crate::gate::{Answer, Decided};
use crate::grants::LookupOutcome;

/// The steps that were taken, and what came of them. No tenant code is in it.
#[derive(Debug, Default)]
pub struct Explanation {
    /// What was looked at, and what was found.
    pub steps: Vec<(&'static str, String)>,
    /// `None`: it is not known, because the lookup gives no answer.
    pub verdict: Option<Word>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The request passes.
    Allow,
    /// Shadow mode lets pass what is refused for this reason.
    Shadowed(DenyReason),
    /// It is refused, for this reason.
    Deny(DenyReason),
}

/// Which grants count for the question whether a client may read a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// As a mint would: what is remembered, else a lookup.
    Lookup,
    /// What this process knows now.
    Nobody,
}

impl Observer for Explanation {
    fn step(&mut self, name: &'static str, outcome: impl FnOnce() -> String) {
        self.steps.push((name, outcome()));
    }
}

impl Explanation {
    fn say(&mut self, name: &'static str, outcome: impl Display) {
        self.steps.push((name, outcome.to_string()));
    }

    fn end(mut self, word: Word) -> Self {
        self.verdict = Some(word);
        self
    }
}

/// A client's grants, and who vouches for them.
struct KnownGrants {
    grants: Arc<GrantSet>,
    vouched: Vouched,
}

impl Engine {
    /// The decision on a request, as a check would take it now.
    pub fn explain_request(&self, input: &CheckInput<'_>) -> Explanation {
        let mut explanation = Explanation::default();
        let snapshot = self.gate.snapshot.load_full();
        let outcome = self.gate.explain(&snapshot, input, &mut explanation);
        let decided = Decided::new(&snapshot, outcome);
        say_answer(&mut explanation, &decided.answer(true));
        explanation.end(match &decided.outcome.verdict {
            Verdict::Allowed(_) => Word::Allow,
            Verdict::Shadowed(pass) => Word::Shadowed(pass.denied.reason),
            Verdict::Denied(Denied { reason, .. }) => Word::Deny(*reason),
        })
    }

    /// Whether a client of ours may read a tenant.
    pub async fn explain_grant(&self, id: &ClientId, code: &TenantCode, ask: Ask) -> Explanation {
        let mut explanation = Explanation::default();
        let client = match self.standing_client(id, &mut explanation) {
            Ok(client) => client,
            Err(reason) => return explanation.end(Word::Deny(reason)),
        };
        let listed = client.as_ref().and_then(|client| client.static_grants.clone());
        let known = match listed {
            Some(grants) => {
                let tenants = grants.codes.len();
                explanation
                    .say("grants", format_args!("static, {tenants} tenants in the registry"));
                KnownGrants { grants, vouched: Vouched::Listed }
            }
            None => {
                let outcome = match ask {
                    Ask::Lookup => Some(self.tenants.grants(id).await),
                    Ask::Nobody => self.tenants.known(id).and_then(|known| known.outcome()),
                };
                let nothing = || "nothing is known of this client yet".to_owned();
                explanation.say("lookup", outcome.as_ref().map_or_else(nothing, in_words));
                match outcome {
                    Some(LookupOutcome::Granted(grants) | LookupOutcome::Denied(grants)) => {
                        let at = self.clock.moment().wall_at(grants.looked_up_at);
                        KnownGrants { grants, vouched: Vouched::At(at) }
                    }
                    Some(LookupOutcome::Unavailable(_)) | None => {
                        return explanation;
                    }
                }
            }
        };
        let word = self.grant_word(id, code, &known, &mut explanation);
        explanation.end(word)
    }

    /// The registry's entry, if there is one; an error where it may not do anything.
    fn standing_client(
        &self,
        id: &ClientId,
        explanation: &mut Explanation,
    ) -> Result<Option<Arc<Client>>, DenyReason> {
        let snapshot = self.gate.snapshot.load_full();
        if let Some(trouble) = snapshot.client_trouble(id.as_str()) {
            explanation.say("client", format_args!("refused: {trouble}"));
            return Err(DenyReason::ClientWithdrawn);
        }
        if let Some(withdrawals) = &snapshot.withdrawals {
            let holder = Holder { issuer: &snapshot.own_issuer, client: id.as_str() };
            if !withdrawals.is_known() {
                explanation.say("client", "what has been withdrawn is not known yet");
                return Err(DenyReason::StateUnavailable);
            }
            if withdrawals.standing(holder, Evidence::default()).is_err() {
                explanation.say("client", "refused: blocked by a call");
                return Err(DenyReason::ClientWithdrawn);
            }
        }
        explanation.say("client", "in good standing");
        let client = snapshot.clients.as_ref().and_then(|book| book.get(id.as_str()).cloned());
        if let Some(client) = &client {
            explanation.say("secrets", told_secrets(client, self.clock.now()));
        }
        Ok(client)
    }

    fn grant_word(
        &self,
        id: &ClientId,
        code: &TenantCode,
        known: &KnownGrants,
        explanation: &mut Explanation,
    ) -> Word {
        let snapshot = self.gate.snapshot.load_full();
        let holder = Holder { issuer: &snapshot.own_issuer, client: id.as_str() };
        let reference = snapshot.digester.reference(code.expose());
        let held = known.grants.digests.contains(&snapshot.digester.current(holder, code.expose()));
        if !held {
            explanation.say("tenant", format_args!("{reference} is not granted"));
            return Word::Deny(DenyReason::TenantNotGranted);
        }
        if let Some(withdrawals) = &snapshot.withdrawals {
            let vouched = match known.vouched {
                Vouched::Listed => Vouched::Listed,
                Vouched::At(time) => Vouched::At(withdrawals.to_shared(time)),
            };
            let grant = Some(GrantEvidence { tenant: code.expose(), vouched });
            if withdrawals.standing(holder, Evidence { grant, ..Evidence::default() }).is_err() {
                explanation.say("tenant", format_args!("{reference} is withdrawn by a call"));
                return Word::Deny(DenyReason::GrantWithdrawn);
            }
        }
        explanation.say("tenant", format_args!("{reference} is granted"));
        Word::Allow
    }
}

/// What the caller or the upstream would get.
fn say_answer(explanation: &mut Explanation, answer: &Answer<'_>) {
    match answer {
        Answer::Allow(allow) => {
            for (name, value) in &allow.set {
                explanation.say("upstream", format_args!("{name}: {value}"));
            }
            for name in &allow.remove {
                explanation.say("removed", name);
            }
            for (name, value) in &allow.metadata {
                explanation.say("metadata", format_args!("{name}: {value}"));
            }
        }
        Answer::Deny(deny) => {
            explanation.say("reply", format_args!("{} {}", deny.status, deny.body));
            let challenge = deny.headers.iter().find(|(name, _)| *name == "www-authenticate");
            if let Some((name, value)) = challenge {
                explanation.say("reply", format_args!("{name}: {value}"));
            }
        }
    }
}

/// Whether the client can mint at all.
fn told_secrets(client: &Client, now: Timestamp) -> String {
    let secrets = &client.credentials;
    let usable = secrets.iter().filter(|secret| secret.usable_at(now)).count();
    let revoked = secrets.iter().filter(|secret| !secret.active).count();
    let expired = secrets.len() - usable - revoked;
    let cure = match usable {
        0 => "; it gets no token: `clients rotate` gives it a new one",
        _ => "",
    };
    format!("usable {usable}, expired {expired}, revoked {revoked}{cure}")
}
