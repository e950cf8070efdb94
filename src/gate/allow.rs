//! What an allowed request carries.

use super::answer::{Allow, Answer, Pairs, Value};
use crate::authz::{Api, Permit, ShadowPass};

const CLIENT_ID: &str = "x-tenantgate-client-id";
const SCOPE: &str = "x-tenantgate-scope";
const ISSUER: &str = "x-tenantgate-issuer";

/// Every header under a name of ours is overwritten or removed, also on public routes.
pub fn answer<'a>(permit: &'a Permit<'a>) -> Answer<'a> {
    let mut allow = Allow::default();
    let identity = permit.identity.as_ref();
    allow.own(CLIENT_ID, identity.map(|identity| identity.client()));
    allow.own(SCOPE, identity.map(|i| i.scopes().as_str()).filter(|scopes| !scopes.is_empty()));
    allow.own(ISSUER, identity.and_then(|identity| identity.foreign_issuer()));
    for variable in &permit.api.variables {
        let value = permit.variables.iter().find(|(name, _)| *name == variable.name);
        allow.own(&variable.header, value.map(|(_, value)| *value));
    }
    if permit.identity.is_some() && !permit.api.forward_authorization {
        allow.remove.push("authorization");
        allow.remove.extend(permit.api.api_key_header.as_deref());
    }
    allow.metadata = metadata(permit);
    Answer::Allow(allow)
}

pub fn shadow_answer<'a>(pass: &'a ShadowPass<'a>) -> Answer<'a> {
    let mut allow = Allow::default();
    for name in own_names(pass.api) {
        allow.own(name, None);
    }
    allow.metadata.push(("api", Value::Text(&pass.api.name)));
    Answer::Allow(allow)
}

/// The headers that only we may set.
fn own_names(api: &Api) -> impl Iterator<Item = &str> {
    let variables = api.variables.iter().map(|variable| &*variable.header);
    [CLIENT_ID, SCOPE, ISSUER].into_iter().chain(variables)
}

fn metadata<'a>(permit: &'a Permit<'a>) -> Pairs<'a, Value<'a>> {
    let mut metadata = Pairs::new();
    metadata.push(("api", Value::Text(&permit.api.name)));
    metadata.push(("route", Value::Text(&permit.route.name)));
    if let Some(identity) = &permit.identity {
        metadata.push(("client_id", Value::Text(identity.client())));
        metadata.push(("scope", Value::Text(identity.scopes().as_str())));
    }
    if !permit.variables.is_empty() {
        let variables = permit.variables.iter().map(|(name, text)| (*name, Value::Text(text)));
        metadata.push(("variables", Value::Fields(variables.collect())));
    }
    metadata
}

impl<'a> Allow<'a> {
    /// A header of ours: with this value, or not at all.
    fn own(&mut self, name: &'a str, value: Option<&'a str>) {
        match value {
            Some(value) => self.set.push((name, value)),
            None => self.remove.push(name),
        }
    }
}
