//! From messages to what decisions are made with. What does not fit is an error, never a smaller
//! truth.

use std::sync::Arc;
use std::time::Duration;

use super::{FeedError, v1};
use crate::authz::route::{RouteRule, Router, Template};
use crate::authz::trust::{Curve, KeySet, PublicKey, TrustedKey};
use crate::authz::{Api, IssuerPolicy, Probing, Route, TenantsOf, Trust, Variable};
use crate::domain::{
    Algorithm, Attributes, Client, ClientId, ClientWithdrawals, Credential, CredentialDigest,
    DIGEST_KEY_LEN, DIGEST_LEN, Floor, GrantSet, Monotonic, Quota, QuotaUnit, ScopeSet, Target,
    TenantDigest, TenantDigester, TenantForm, TenantRef, TenantRefs, TenantSet, Timestamp,
    TokenRef,
};
use crate::telemetry::Metrics;

type Taken<T> = Result<T, FeedError>;

pub const fn wrong<T>(what: &'static str) -> Taken<T> {
    Err(FeedError::Wrong(what))
}

pub fn digester(rules: &v1::Rules) -> Taken<TenantDigester> {
    let (current, previous) = match &rules.digest_keys[..] {
        [current] => (current, None),
        [current, previous] => (current, Some(key(previous)?)),
        _ => return wrong("neither one nor two digest keys"),
    };
    let digester = TenantDigester::new(&key(current)?, previous.as_ref());
    Ok(digester.with_references(references(rules)?))
}

pub fn references(rules: &v1::Rules) -> Taken<TenantRefs> {
    Ok(TenantRefs::new(&key(&rules.reference_key)?))
}

fn key(bytes: &[u8]) -> Taken<[u8; DIGEST_KEY_LEN]> {
    bytes.try_into().or(wrong("a key of another length"))
}

pub fn probing(rules: &v1::Rules) -> Taken<Probing> {
    let Some(probing) = rules.probing else { return wrong("rules without `probing`") };
    Ok(Probing {
        tenants: probing.tenants,
        window: Duration::from_millis(probing.window_millis),
        throttle: probing.throttle,
    })
}

pub fn apis(rules: &v1::Rules, metrics: &Metrics) -> Taken<Vec<Api>> {
    rules.apis.iter().map(|entry| api(entry, metrics)).collect()
}

fn api(api: &v1::Api, metrics: &Metrics) -> Taken<Api> {
    let rules: Vec<_> = api.routes.iter().map(route).collect::<Taken<_>>()?;
    let names = rules.iter().flat_map(|rule| rule.template.variables().map(str::to_owned));
    let mut variables: Vec<String> = names.collect();
    variables.sort_unstable();
    variables.dedup();
    Ok(Api {
        name: api.name.clone(),
        router: Router::new(rules).or(wrong("routes that cannot be used together"))?,
        forward_authorization: api.forward_authorization,
        shadow: api.shadow,
        api_key_header: api.api_key_header.clone(),
        variables: variables.into_iter().map(Variable::new).collect(),
        meter: Box::new(metrics.api(&api.name)),
    })
}

fn route(route: &v1::Route) -> Taken<RouteRule<Route>> {
    Ok(RouteRule {
        template: Template::parse(&route.template, route.ignore_case).or(wrong("no template"))?,
        methods: route.methods.clone(),
        head: route.head,
        allow_encoded_percent: route.allow_encoded_percent,
        data: Route::new(&route.name, &route.scopes, route.public),
    })
}

/// `from`: the time that ages count from.
pub fn trust(keys: &v1::Keys, from: Monotonic) -> Taken<Trust> {
    let issuers = keys.issuers.iter().map(|issuer| {
        let set = issuer.key_set.as_ref().map(|set| key_set(set, from)).transpose()?;
        Ok((Arc::new(policy(issuer)?), set.map(Arc::new)))
    });
    Ok(Trust::new(issuers.collect::<Taken<Vec<_>>>()?))
}

fn policy(issuer: &v1::Issuer) -> Taken<IssuerPolicy> {
    let algorithms = issuer.algorithms.iter().map(|name| algorithm(name));
    Ok(IssuerPolicy {
        issuer: issuer.issuer.clone(),
        own: issuer.own,
        audience: issuer.audience.clone(),
        algorithms: algorithms.collect::<Taken<_>>()?,
        types: issuer.types.clone(),
        max_lifetime: Duration::from_millis(issuer.max_lifetime_millis),
        leeway: Duration::from_millis(issuer.leeway_millis),
        tenant_claim: issuer.tenant_claim.clone(),
        client_claim: issuer.client_claim.clone(),
        tenant_form: if issuer.digest_form { TenantForm::Digest } else { TenantForm::Plain },
        tenants_of: match v1::TenantsOf::try_from(issuer.tenants_of) {
            Ok(v1::TenantsOf::Unspecified) => None,
            Ok(v1::TenantsOf::Values) => Some(TenantsOf::Values),
            Ok(v1::TenantsOf::Keys) => Some(TenantsOf::Keys),
            Ok(v1::TenantsOf::Text) => Some(TenantsOf::Text),
            Err(_) => return Err(FeedError::Wrong("an unknown kind of tenant claim")),
        },
        allow_missing_kid: issuer.allow_missing_kid,
        fresh_grants: issuer.fresh_grants,
        keys_from: issuer.keys_from.clone(),
    })
}

fn algorithm(name: &str) -> Taken<Algorithm> {
    Algorithm::parse(name).ok_or(FeedError::Wrong("an unknown algorithm"))
}

fn key_set(set: &v1::KeySet, from: Monotonic) -> Taken<KeySet> {
    let keys = set.keys.iter().map(public_key).collect::<Taken<Vec<_>>>()?;
    let good_until = set.good_for_millis.map(|left| from.plus(Duration::from_millis(left)));
    Ok(KeySet::new(keys, good_until))
}

fn public_key(key: &v1::PublicKey) -> Taken<TrustedKey> {
    use v1::public_key::Key;
    let algorithm = algorithm(&key.algorithm)?;
    let curve = if algorithm == Algorithm::Es384 { Curve::P384 } else { Curve::P256 };
    let numbers = match &key.key {
        Some(Key::Ec(v1::Ec { x, y })) => PublicKey::Ec { curve, x: x.clone(), y: y.clone() },
        Some(Key::Ed25519(bytes)) => PublicKey::Ed25519(bytes.clone()),
        Some(Key::Rsa(v1::Rsa { n, e })) => PublicKey::Rsa { n: n.clone(), e: e.clone() },
        None => return wrong("a key without numbers"),
    };
    TrustedKey::new(&key.kid, algorithm, &numbers).or(wrong("a key that is none"))
}

pub fn client_id(text: &str) -> Taken<ClientId> {
    ClientId::parse(text).ok_or(FeedError::Wrong("no client id"))
}

pub fn client(client: &v1::Client) -> Taken<Client> {
    let grants = client.static_grants.as_ref().map(tenants).transpose()?;
    Ok(Client {
        id: client_id(&client.id)?,
        approved: client.approved,
        developer_active: client.developer_active,
        credentials: client.credentials.iter().map(credential).collect::<Taken<_>>()?,
        scopes: ScopeSet::parse(&client.scopes).ok_or(FeedError::Wrong("no scope"))?,
        static_grants: grants.map(|set| Arc::new(grant_set(set, None, Monotonic::default()))),
        token_ttl: None,
        tokens_not_before: client.tokens_not_before_nanos.map(Timestamp::from_nanos),
        apis: client.apis.clone().map(|apis| apis.names),
        attributes: Attributes::new(),
        quota: client.quota.as_ref().map(quota).transpose()?,
    })
}

fn credential(credential: &v1::Credential) -> Taken<Credential> {
    let digest = credential.digest[..].try_into().or(wrong("a digest of another length"))?;
    Ok(Credential {
        digest: CredentialDigest::Sha256(digest),
        active: credential.active,
        expires_at: credential.expires_at_nanos.map(Timestamp::from_nanos),
    })
}

/// For decisions: there are no codes, so nothing can be minted from it.
pub fn grant_set(digests: TenantSet, quota: Option<Quota>, looked_up_at: Monotonic) -> GrantSet {
    GrantSet {
        codes: Vec::new(),
        current: Box::default(),
        digests,
        attributes: Attributes::new(),
        quota,
        looked_up_at,
        etag: None,
    }
}

pub fn tenants(set: &v1::TenantSet) -> Taken<TenantSet> {
    let (digests, rest) = set.digests.as_chunks::<DIGEST_LEN>();
    if !rest.is_empty() {
        return wrong("a digest that is cut off");
    }
    Ok(digests.iter().map(|digest| TenantDigest::from_bytes(*digest)).collect())
}

pub fn quota(quota: &v1::Quota) -> Taken<Quota> {
    let unit = QuotaUnit::parse(&quota.unit).ok_or(FeedError::Wrong("an unknown unit"))?;
    Ok(Quota { requests_per_unit: quota.requests_per_unit, unit })
}

pub fn withdrawn(from: &v1::WithdrawnFrom) -> Taken<ClientWithdrawals> {
    let mut all = ClientWithdrawals::default();
    all.set(Target::Client, from.blocked.map(floor));
    all.set(Target::Tokens, from.tokens.map(floor));
    for target in &from.grants {
        let (reference, floor) = self::target(target)?;
        all.set(Target::Grant(TenantRef::from_bytes(reference)), Some(floor));
    }
    for target in &from.token_ids {
        let (reference, floor) = self::target(target)?;
        all.set(Target::Token(TokenRef::from_bytes(reference)), Some(floor));
    }
    Ok(all)
}

fn target(target: &v1::Target) -> Taken<([u8; 16], Floor)> {
    let reference = target.reference[..].try_into().or(wrong("a reference of another length"))?;
    let floor = target.floor.map(floor).ok_or(FeedError::Wrong("a withdrawal without a time"))?;
    Ok((reference, floor))
}

fn floor(floor: v1::Floor) -> Floor {
    Floor {
        not_before: Timestamp::from_nanos(floor.not_before_nanos),
        expires_at: floor.expires_at_nanos.map(Timestamp::from_nanos),
    }
}
