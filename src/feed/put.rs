//! From what is in force to messages.

use std::time::Duration;

use super::v1;
use crate::authz::route::RouteRule;
use crate::authz::trust::{KeySet, PublicKey, TrustedKey};
use crate::authz::{Api, Apis, FreshnessRule, IssuerPolicy, Route, Snapshot, TenantsOf, Trust};
use crate::domain::{
    Client, ClientWithdrawals, CredentialDigest, Floor, GrantSet, Monotonic, Quota, TenantForm,
    TenantSet, WithdrawnHolder,
};

pub fn rules(snapshot: &Snapshot, feed_max_age: Duration) -> v1::Rules {
    let apis: Vec<&Api> = match &*snapshot.apis {
        Apis::Single(api) => vec![api],
        Apis::Several(apis) => apis.values().collect(),
    };
    let mut apis: Vec<v1::Api> = apis.into_iter().map(api).collect();
    // The same rules are the same bytes.
    apis.sort_by(|a, b| a.name.cmp(&b.name));
    let probing = snapshot.probing;
    v1::Rules {
        own_issuer: snapshot.own_issuer.to_string(),
        realm: snapshot.realm.to_string(),
        grants_max_age_millis: match snapshot.freshness {
            FreshnessRule::Token => None,
            FreshnessRule::MaxAge(age) => Some(millis(age)),
        },
        feed_max_age_millis: millis(feed_max_age),
        lookup_on_miss: snapshot.lookup_on_miss,
        probing: Some(v1::Probing {
            tenants: probing.tenants,
            window_millis: millis(probing.window),
            throttle: probing.throttle,
        }),
        digest_keys: snapshot.digester.expose_keys().map(|key| key.to_vec()).collect(),
        reference_key: snapshot.digester.expose_reference_key().to_vec(),
        has_registry: snapshot.clients.is_some(),
        has_state: snapshot.withdrawals.is_some(),
        apis,
    }
}

fn api(api: &Api) -> v1::Api {
    v1::Api {
        name: api.name.clone(),
        forward_authorization: api.forward_authorization,
        shadow: api.shadow,
        api_key_header: api.api_key_header.clone(),
        routes: api.router.rules().iter().map(route).collect(),
    }
}

fn route(rule: &RouteRule<Route>) -> v1::Route {
    v1::Route {
        name: rule.data.name.clone(),
        template: rule.template.text(),
        ignore_case: rule.template.ignores_case(),
        methods: rule.methods.clone(),
        head: rule.head,
        scopes: rule.data.scopes.clone(),
        public: rule.data.public,
        allow_encoded_percent: rule.allow_encoded_percent,
    }
}

pub fn keys(trust: &Trust, now: Monotonic) -> v1::Keys {
    let issuers = trust.issuers();
    let mut issuers: Vec<_> = issuers
        .map(|entry| issuer(&entry.policy, entry.loaded().map(|keys| &**keys), now))
        .collect();
    issuers.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    v1::Keys { issuers }
}

fn issuer(policy: &IssuerPolicy, keys: Option<&KeySet>, now: Monotonic) -> v1::Issuer {
    v1::Issuer {
        issuer: policy.issuer.clone(),
        own: policy.own,
        audience: policy.audience.clone(),
        algorithms: policy.algorithms.iter().map(|name| name.as_str().to_owned()).collect(),
        types: policy.types.clone(),
        max_lifetime_millis: millis(policy.max_lifetime),
        leeway_millis: millis(policy.leeway),
        tenant_claim: policy.tenant_claim.clone(),
        client_claim: policy.client_claim.clone(),
        digest_form: policy.tenant_form == TenantForm::Digest,
        tenants_of: match policy.tenants_of {
            None => v1::TenantsOf::Unspecified,
            Some(TenantsOf::Values) => v1::TenantsOf::Values,
            Some(TenantsOf::Keys) => v1::TenantsOf::Keys,
            Some(TenantsOf::Text) => v1::TenantsOf::Text,
        } as i32,
        allow_missing_kid: policy.allow_missing_kid,
        fresh_grants: policy.fresh_grants,
        keys_from: policy.keys_from.clone(),
        key_set: keys.map(|keys| v1::KeySet {
            good_for_millis: keys.good_until().map(|until| millis(until.since(now))),
            keys: keys.iter().map(|key| public_key(key)).collect(),
        }),
    }
}

fn public_key(key: &TrustedKey) -> v1::PublicKey {
    use v1::public_key::Key;
    v1::PublicKey {
        kid: key.kid().to_owned(),
        algorithm: key.algorithm().as_str().to_owned(),
        key: Some(match key.numbers() {
            PublicKey::Ec { x, y, .. } => Key::Ec(v1::Ec { x: x.clone(), y: y.clone() }),
            PublicKey::Ed25519(bytes) => Key::Ed25519(bytes.clone()),
            PublicKey::Rsa { n, e } => Key::Rsa(v1::Rsa { n: n.clone(), e: e.clone() }),
        }),
    }
}

pub fn client(client: &Client) -> v1::Client {
    let credentials = client.credentials.iter().filter_map(|credential| {
        let CredentialDigest::Sha256(digest) = &credential.digest else { return None };
        Some(v1::Credential {
            digest: digest.to_vec(),
            active: credential.active,
            expires_at_nanos: credential.expires_at.map(|end| end.nanos()),
        })
    });
    v1::Client {
        id: client.id.as_str().to_owned(),
        approved: client.approved,
        developer_active: client.developer_active,
        credentials: credentials.collect(),
        scopes: client.scopes.as_str().to_owned(),
        static_grants: client.static_grants.as_ref().map(|set| tenants(&set.digests)),
        tokens_not_before_nanos: client.tokens_not_before.map(|floor| floor.nanos()),
        apis: client.apis.clone().map(|names| v1::Names { names }),
        quota: client.quota.map(quota),
    }
}

/// `changed`: the tenants are not those that were told before.
pub fn grants(client: &str, set: &GrantSet, changed: bool, now: Monotonic) -> v1::GrantsOf {
    v1::GrantsOf {
        client: client.to_owned(),
        age_nanos: nanos(now.since(set.looked_up_at)),
        tenants: changed.then(|| tenants(&set.digests)),
        quota: set.quota.map(quota),
    }
}

pub fn withdrawn(holder: &WithdrawnHolder, all: &ClientWithdrawals) -> v1::WithdrawnFrom {
    let target = |reference: &[u8; 16], of: Floor| v1::Target {
        reference: reference.to_vec(),
        floor: Some(floor(of)),
    };
    v1::WithdrawnFrom {
        issuer: holder.0.to_string(),
        client: holder.1.to_string(),
        blocked: all.blocked().map(floor),
        tokens: all.tokens().map(floor),
        grants: all.grants().map(|(tenant, floor)| target(tenant.bytes(), floor)).collect(),
        token_ids: all.token_ids().map(|(token, floor)| target(token.bytes(), floor)).collect(),
    }
}

fn floor(floor: Floor) -> v1::Floor {
    v1::Floor {
        not_before_nanos: floor.not_before.nanos(),
        expires_at_nanos: floor.expires_at.map(|end| end.nanos()),
    }
}

fn tenants(set: &TenantSet) -> v1::TenantSet {
    v1::TenantSet { digests: set.iter().flat_map(|digest| digest.bytes()).copied().collect() }
}

fn quota(quota: Quota) -> v1::Quota {
    let unit = quota.unit.as_str().to_owned();
    v1::Quota { requests_per_unit: quota.requests_per_unit, unit }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
