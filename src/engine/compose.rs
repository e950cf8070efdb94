//! From what the files say to what the rooms work with.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::inputs::Inputs;
use crate::authz::route::{RouteRule, Router};
use crate::authz::{
    Api, Apis, FreshnessRule, IssuerPolicy, Route, Snapshot, TenantsOf, Trust, Variable,
};
use crate::config::{
    self, CodesOf, Config, IssuerFreshness, KeySource, OnMiss, OwnKeys, TrustedIssuer,
};
use crate::domain::{Algorithm, Meter, TenantForm};
use crate::keys::SigningAlgorithm;
use crate::telemetry::Metrics;

/// The counters of requests that name no API of ours.
const NO_API: &str = "none";

impl Inputs {
    /// `current` lends the keys of other issuers, which no file holds.
    pub fn snapshot(&self, metrics: &Metrics, current: Option<&Trust>) -> Snapshot {
        let config = &*self.config();
        let audience = config.issuer.as_ref().map_or("tenantgate", |issuer| &issuer.audience);
        Snapshot {
            apis: Arc::new(apis(config, metrics)),
            trust: Arc::new(self.trust(current)),
            clients: self.clients().cloned(),
            digester: Arc::clone(self.digester()),
            withdrawals: self.withdrawals().cloned(),
            own_issuer: config.issuer.as_ref().map_or("", |issuer| &issuer.url).into(),
            freshness: freshness(config),
            lookup_on_miss: config.tenants.on_miss == OnMiss::Lookup,
            probing: config.limits.probing,
            realm: audience.replace(['"', '\\'], "").into(),
            no_api: Arc::new(metrics.api(NO_API)),
            issuer_meters: Arc::new(issuer_meters(config, metrics)),
        }
    }

    pub(super) fn trust(&self, current: Option<&Trust>) -> Trust {
        let config = &*self.config();
        let own = config.issuer.as_ref().map(|issuer| {
            let policy = own_policy(config, issuer);
            let keys = match &issuer.keys {
                OwnKeys::Folder(_) => self.signing_keys().map(|keys| Arc::new(keys.key_set())),
                OwnKeys::Url { .. } => current.and_then(|trust| trust.keys_of(&policy)),
            };
            (Arc::new(policy), keys)
        });
        let others = config.issuers.iter().map(|issuer| {
            let policy = Arc::new(foreign_policy(issuer));
            let keys = match &issuer.keys {
                KeySource::File(_) => self.issuer_keys(&issuer.issuer).cloned(),
                KeySource::Url(_) | KeySource::Discovery(_) => {
                    current.and_then(|trust| trust.keys_of(&policy))
                }
            };
            (policy, keys)
        });
        Trust::new(own.into_iter().chain(others))
    }
}

/// Where nothing is looked up, only the token and the registry speak: an empty answer of nobody
/// must not subtract from a token.
fn freshness(config: &Config) -> FreshnessRule {
    match (&config.tenants.lookup, config.tenants.freshness) {
        (config::Lookup::Static, _) | (_, config::Freshness::Token) => FreshnessRule::Token,
        (_, config::Freshness::Lookup { max_age, .. }) => FreshnessRule::MaxAge(max_age),
    }
}

pub fn own_policy(config: &Config, issuer: &config::Issuer) -> IssuerPolicy {
    IssuerPolicy {
        issuer: issuer.url.clone(),
        own: true,
        audience: issuer.audience.clone(),
        algorithms: SigningAlgorithm::ALL.map(Algorithm::from).to_vec(),
        types: vec!["at+jwt".to_owned()],
        // A second for rounding: `iat` and `exp` are whole ones.
        max_lifetime: issuer.max_token_ttl + Duration::from_secs(1),
        leeway: issuer.leeway,
        tenant_claim: pointer(&issuer.tenant_claim.name),
        client_claim: "/client_id".to_owned(),
        tenant_form: issuer.tenant_claim.form.tenant_form(),
        tenants_of: None,
        allow_missing_kid: false,
        fresh_grants: freshness(config) != FreshnessRule::Token,
        keys_from: match &issuer.keys {
            OwnKeys::Folder(_) => String::new(),
            OwnKeys::Url { url, .. } => format!("url:{url}"),
        },
    }
}

/// A member's name as a JSON Pointer (RFC 6901).
fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

pub fn foreign_policy(issuer: &TrustedIssuer) -> IssuerPolicy {
    let without_prefix =
        |typ: &String| typ.to_ascii_lowercase().trim_start_matches("application/").to_owned();
    IssuerPolicy {
        issuer: issuer.issuer.clone(),
        own: false,
        audience: issuer.audience.clone(),
        algorithms: issuer.algorithms.clone(),
        types: issuer.typ.iter().map(without_prefix).collect(),
        max_lifetime: issuer.max_lifetime,
        leeway: issuer.leeway,
        tenant_claim: issuer.tenant_claim.clone(),
        client_claim: issuer.client_claim.clone(),
        tenant_form: TenantForm::Plain,
        tenants_of: issuer.tenants_of.map(|of| match of {
            CodesOf::Values => TenantsOf::Values,
            CodesOf::Keys => TenantsOf::Keys,
            CodesOf::Text => TenantsOf::Text,
        }),
        allow_missing_kid: issuer.allow_missing_kid,
        fresh_grants: issuer.freshness == IssuerFreshness::Lookup,
        keys_from: keys_from(&issuer.keys),
    }
}

fn keys_from(source: &KeySource) -> String {
    match source {
        KeySource::Url(url) => format!("url:{url}"),
        KeySource::File(path) => format!("file:{}", path.display()),
        KeySource::Discovery(url) => format!("discovery:{url}"),
    }
}

fn apis(config: &Config, metrics: &Metrics) -> Apis {
    Apis::new(config.apis.iter().map(|api| self::api(api, metrics)).collect())
}

fn issuer_meters(config: &Config, metrics: &Metrics) -> HashMap<String, Box<dyn Meter>> {
    let own = config.issuer.iter().map(|issuer| &issuer.url);
    let issuers = own.chain(config.issuers.iter().map(|issuer| &issuer.issuer));
    let meter = |issuer: &String| -> Box<dyn Meter> { Box::new(metrics.issuer(issuer)) };
    issuers.map(|issuer| (issuer.clone(), meter(issuer))).collect()
}

/// Loudly: while it is on, nobody is kept out.
pub(super) fn tell_shadow_mode(config: &Config, metrics: &Metrics) {
    metrics.shadow_mode.reset();
    for api in config.apis.iter().filter(|api| api.shadow) {
        metrics.shadow_mode.with_label_values(&[api.name.as_str()]).set(1);
        tracing::warn!(api = api.name, "SHADOW MODE: nothing is denied on this API");
    }
}

fn api(api: &config::Api, metrics: &Metrics) -> Api {
    let mut variables: Vec<String> =
        api.routes.iter().flat_map(|route| route.template.variables().map(str::to_owned)).collect();
    variables.sort_unstable();
    variables.dedup();
    let rules = api.routes.iter().map(|route| RouteRule {
        template: route.template.clone(),
        methods: route.methods.clone(),
        head: route.head,
        allow_encoded_percent: route.allow_encoded_percent,
        data: Route::new(&route.name, &route.scopes, route.public),
    });
    let router = Router::new(rules.collect())
        .unwrap_or_else(|_| unreachable!("the config has no conflicting routes: it was parsed"));
    Api {
        name: api.name.clone(),
        router,
        forward_authorization: api.forward_authorization,
        shadow: api.shadow,
        api_key_header: api.api_key_header.clone(),
        variables: variables.into_iter().map(Variable::new).collect(),
        meter: Box::new(metrics.api(&api.name)),
    }
}
