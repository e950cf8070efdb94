//! What an allowed request carries.

use super::Decided;
use super::answer::{Allow, Answer, Pairs, Value};
use crate::authz::{Api, Permit, ShadowPass};

const CLIENT_ID: &str = "x-tenantgate-client-id";
const SCOPE: &str = "x-tenantgate-scope";
/// Only for clients of other issuers: without it the client is one of ours.
const ISSUER: &str = "x-tenantgate-issuer";

/// Every header under a name of ours is overwritten or removed, also on public routes. Credentials
/// are not forwarded: `authorization` unless the API asks for it, and the API key never, because it
/// is a secret that mints tokens.
pub fn answer<'a>(
    permit: &'a Permit<'a>,
    decided: &'a Decided<'a>,
    with_metadata: bool,
) -> Answer<'a> {
    let mut allow = Allow::default();
    let caller = permit.caller.as_ref();
    allow.own(CLIENT_ID, caller.map(|caller| caller.identity.client()));
    allow.own(SCOPE, caller.map(|c| c.scopes().as_str()).filter(|scopes| !scopes.is_empty()));
    allow.own(ISSUER, caller.and_then(|caller| caller.identity.foreign_issuer()));
    for variable in &permit.api.variables {
        let value = permit.variables.iter().find(|(name, _)| *name == variable.name);
        allow.own(&variable.header, value.map(|(_, value)| *value));
    }
    if !permit.api.forward_authorization {
        allow.remove.push("authorization");
    }
    allow.remove.extend(permit.api.api_key_header.as_deref());
    if with_metadata {
        allow.metadata = metadata(permit, decided);
    }
    Answer::Allow(allow)
}

/// As it came, because the API may still check credentials itself: only headers that claim to be
/// from us and secrets of ours are removed.
pub fn shadow_answer<'a>(pass: &'a ShadowPass<'a>) -> Answer<'a> {
    let mut allow = Allow::default();
    for name in own_names(pass.api) {
        allow.own(name, None);
    }
    allow.remove.extend(pass.api.api_key_header.as_deref().filter(|_| pass.shows_our_key));
    allow.metadata.push(("api", Value::Text(&pass.api.name)));
    Answer::Allow(allow)
}

/// The headers that only we may set.
fn own_names(api: &Api) -> impl Iterator<Item = &str> {
    let variables = api.variables.iter().map(|variable| &*variable.header);
    [CLIENT_ID, SCOPE, ISSUER].into_iter().chain(variables)
}

fn metadata<'a>(permit: &'a Permit<'a>, decided: &'a Decided<'a>) -> Pairs<'a, Value<'a>> {
    let mut metadata = Pairs::new();
    metadata.push(("api", Value::Text(&permit.api.name)));
    metadata.push(("route", Value::Text(&permit.route.name)));
    if let Some(caller) = &permit.caller {
        metadata.push(("client_id", Value::Text(caller.identity.client())));
        let issuer = Some(caller.identity.issuer(decided.snapshot)).filter(|name| !name.is_empty());
        metadata.extend(issuer.map(|issuer| ("issuer", Value::Text(issuer))));
        metadata.push(("scope", Value::Text(caller.scopes().as_str())));
        metadata.extend(decided.tenant().map(|tenant| ("tenant_ref", Value::Text(tenant))));
        if let Some(quota) = caller.quota {
            // In the form of the override of Envoy's rate limit filter.
            let fields = vec![
                ("requests_per_unit", Value::Number(quota.requests_per_unit)),
                ("unit", Value::Text(quota.unit.as_str())),
            ];
            metadata.push(("quota", Value::Fields(fields)));
        }
    }
    if !permit.variables.is_empty() {
        let variables = permit.variables.iter().map(|(name, text)| (*name, Value::Text(text)));
        metadata.push(("variables", Value::Fields(variables.collect())));
    }
    metadata
}

impl<'a> Allow<'a> {
    /// Sets one of our headers to this value, or removes it.
    fn own(&mut self, name: &'a str, value: Option<&'a str>) {
        match value {
            Some(value) => self.set.push((name, value)),
            None => self.remove.push(name),
        }
    }
}
