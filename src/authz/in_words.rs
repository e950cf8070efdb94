//! The steps of a decision in words, for an operator who asks why. They are made only for an
//! [`Observer`], so a check pays nothing. They name a tenant only by its reference.
//!
//! [`Observer`]: super::decide::Observer

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::bearer::{HeaderValue, after_scheme};
use super::decide::{Authorizer, CheckInput, Denied, Identity};
use super::path::{CheckedPath, PathError};
use super::route::Near;
use super::snapshot::{Api, FreshnessRule, Route, Snapshot};
use crate::domain::{Client, DenyReason, GRANTS_AT, GrantSet, Timestamp};

/// Characters of a claim; enough for an issuer's URL.
const MAX_SHOWN: usize = 200;
/// Above this similarity (Jaro-Winkler) one id may be a misspelling of the other.
const ALIKE: f64 = 0.85;

pub(super) fn denied(denied: &Denied) -> String {
    let Denied { reason, rule, .. } = denied;
    let rule = if rule.is_empty() { String::new() } else { format!(" ({rule})") };
    format!("refused: {}{rule}", reason.as_str())
}

pub(super) fn path(api: &Api, input: &CheckInput<'_>, error: PathError) -> String {
    let near = nearest(api, input).map_or(String::new(), |near| format!("; {near}"));
    format!("refused: {} ({error}{near})", error.as_str())
}

pub(super) fn no_route(api: &Api, input: &CheckInput<'_>) -> String {
    match nearest(api, input) {
        Some(near) => format!("none matches path and method; {near}"),
        None => "none matches path and method, and none is near".to_owned(),
    }
}

/// The route that a request was probably meant for. For logs and `explain`. `None`: none is close.
pub fn nearest_route<'a>(api: &'a Api, input: &CheckInput<'_>) -> Option<Near<'a, Route>> {
    api.router.nearest(input.method, CheckedPath::parse(input.target).ok()?)
}

fn nearest(api: &Api, input: &CheckInput<'_>) -> Option<String> {
    let near = nearest_route(api, input)?;
    let differs = near.differs.join("; ");
    Some(format!("the nearest is {}, which differs in {differs}", near.route.name))
}

/// What a token says of itself, unverified.
pub(super) fn token(value: HeaderValue<'_>) -> String {
    let header = match value {
        HeaderValue::Missing => return "no authorization header".to_owned(),
        HeaderValue::Several => return "several authorization headers".to_owned(),
        HeaderValue::One(value) => value,
    };
    let Some((header, payload)) = parts(header) else {
        return "not a JWT under the scheme Bearer".to_owned();
    };
    let mut text = "says, unverified: ".to_owned();
    for (part, name) in [
        (&header, "alg"),
        (&header, "typ"),
        (&header, "kid"),
        (&payload, "iss"),
        (&payload, "aud"),
        (&payload, "client_id"),
    ] {
        if let Some(value) = part.get(name) {
            let _ = write!(text, "{name} {}, ", harmless(value));
        }
    }
    text.trim_end_matches(", ").to_owned()
}

/// The times of a token, and how far each is from now.
pub(super) fn times(value: HeaderValue<'_>, now: Timestamp) -> String {
    let payload = match value {
        HeaderValue::One(value) => parts(value),
        HeaderValue::Missing | HeaderValue::Several => None,
    };
    let Some((_, payload)) = payload else { return format!("it is {now}") };
    let said: Vec<String> = [
        ("issued", "iat"),
        ("valid from", "nbf"),
        ("expires", "exp"),
        ("tenants looked up", GRANTS_AT),
    ]
    .into_iter()
    .filter_map(|(word, claim)| {
        let seconds = payload.get(claim)?.as_f64()? as u64;
        Some(format!("{word} {}", moment(Timestamp::from_secs(seconds), now)))
    })
    .collect();
    format!("{}; it is {now}", said.join(", "))
}

fn parts(header: &[u8]) -> Option<(Value, Value)> {
    let token = str::from_utf8(after_scheme(header)?).ok()?;
    let mut parts = token.split('.').map(|part| {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice::<Value>(&json).ok().filter(Value::is_object)
    });
    Some((parts.next()??, parts.next()??))
}

/// A claim that anyone may have written, escaped and shortened.
fn harmless(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_default).collect();
    if text.chars().count() > MAX_SHOWN {
        shown.push('…');
    }
    shown
}

fn moment(then: Timestamp, now: Timestamp) -> String {
    match then > now {
        true => format!("{then} (in {})", rounded(then.since(now))),
        false => format!("{then} ({} ago)", rounded(now.since(then))),
    }
}

fn rounded(age: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(age.as_secs()))
}

impl Snapshot {
    /// What is wrong with a client in the registry, in words. `None`: nothing, or there is no
    /// registry.
    pub fn client_trouble(&self, id: &str) -> Option<String> {
        let book = self.clients.as_ref()?;
        let Some(client) = book.get(id) else {
            let known = book.iter().map(|client| client.id.as_str());
            let near = known
                .map(|known| (strsim::jaro_winkler(id, known), known))
                .filter(|(likeness, _)| *likeness > ALIKE)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            return Some(match near {
                Some((_, near)) => format!("not in the registry; did you mean `{near}`?"),
                None => "not in the registry".to_owned(),
            });
        };
        match (client.approved, client.developer_active) {
            (true, true) => None,
            (false, _) => Some("the app is revoked".to_owned()),
            (true, false) => Some("its developer is inactive".to_owned()),
        }
    }
}

impl Authorizer<'_> {
    pub(super) fn told_client(&self, api: &Api, identity: &Identity, denied: &Denied) -> String {
        let trouble = match denied.reason {
            DenyReason::ClientWithdrawn => self.snapshot.client_trouble(identity.client()),
            DenyReason::ApiNotAllowed => Some(format!("its `apis` do not name {}", api.name)),
            DenyReason::TokenRevoked => self.told_revocation(identity),
            _ => None,
        };
        let reason = denied.reason.as_str();
        match trouble {
            Some(trouble) => format!("refused: {reason} ({trouble})"),
            None if denied.rule.is_empty() => format!("refused: {reason} (by a call)"),
            None => self::denied(denied),
        }
    }

    fn told_revocation(&self, identity: &Identity) -> Option<String> {
        let by_call = self.withdrawal(identity).ok().flatten();
        let floor = by_call.and_then(|withdrawal| withdrawal.tokens_not_before());
        let in_registry = self.snapshot.clients.as_ref()?.get(identity.client());
        let until = floor.max(in_registry.and_then(|client| client.tokens_not_before))?;
        Some(format!("its tokens issued until {} are revoked", moment(until, self.now.wall)))
    }

    pub(super) fn told_tenant(
        &self,
        identity: &Identity,
        client: Option<&Client>,
        tenant: &str,
        denied: &Denied,
    ) -> String {
        let reference = self.snapshot.digester.reference(tenant);
        let why = match denied.reason {
            DenyReason::TenantNotGranted | DenyReason::ProbingThrottled => {
                self.told_missing(identity, client, tenant)
            }
            DenyReason::GrantsStale => self.told_stale(identity),
            DenyReason::GrantWithdrawn => self.told_withdrawn(identity, tenant),
            _ => String::new(),
        };
        format!("{reference} refused: {}{why}", denied.reason.as_str())
    }

    fn told_missing(&self, identity: &Identity, client: Option<&Client>, tenant: &str) -> String {
        let carried = match identity {
            Identity::Token(facts) if self.named_digest(facts, tenant).is_some() => {
                "; the token carries it"
            }
            Identity::Token(facts) => {
                let count = facts.tenants.len();
                return format!("; the token does not carry it; tenants in it: {count}");
            }
            Identity::ApiKey(_) => "",
        };
        if client.is_some_and(|client| client.static_grants.is_some()) {
            return format!("{carried}, but the registry does not list it for this client");
        }
        let lost = |set: &GrantSet| {
            let at = moment(self.now.wall_at(set.looked_up_at), self.now.wall);
            format!("{carried}, but it was withdrawn: the lookup of {at} does not list it")
        };
        self.with_grants(identity, lost).unwrap_or_else(|| carried.to_owned())
    }

    fn told_stale(&self, identity: &Identity) -> String {
        let FreshnessRule::MaxAge(max_age) = self.snapshot.freshness else {
            return "; a key needs a lookup, and there is none".to_owned();
        };
        let max_age = humantime::format_duration(max_age);
        let age = |set: &GrantSet| {
            let age = rounded(self.now.monotonic.since(set.looked_up_at));
            format!("; the last good lookup was {age} ago, and {max_age} is the bound")
        };
        let none = || format!("; there is no good lookup, and the token is older than {max_age}");
        self.with_grants(identity, age).unwrap_or_else(none)
    }

    fn told_withdrawn(&self, identity: &Identity, tenant: &str) -> String {
        let withdrawal = self.withdrawal(identity).ok().flatten();
        match withdrawal.and_then(|withdrawal| withdrawal.grant_not_before(tenant)) {
            Some(at) => {
                let at = moment(at, self.now.wall);
                format!("; withdrawn by a call: what vouches for it must be younger than {at}")
            }
            None => "; withdrawn by a call".to_owned(),
        }
    }

    fn with_grants<R>(&self, identity: &Identity, tell: impl FnOnce(&GrantSet) -> R) -> Option<R> {
        let cell = match identity {
            Identity::Token(facts) => facts.grants.clone()?,
            Identity::ApiKey(client) => self.grants.cell(&client.id),
        };
        let current = cell.current();
        current.as_deref().map(tell)
    }
}
