//! Differential test: the decision and its plain reference, on the same random deployments and
//! requests, never differ in what the caller sees.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tenantgate::authz::trust::{KeySet, TrustedKey};
use tenantgate::authz::{CheckInput, FreshnessRule, IssuerPolicy, Trust};
use tenantgate::domain::{
    Attributes, Client, ClientId, Credential, CredentialDigest, DenyReason, GrantSet, Holder,
    Monotonic, ScopeSet, TenantCode, Timestamp,
};

use super::reference::{self, Answer};
use super::world::{
    self, AUDIENCE, FOREIGN, LEEWAY, MAX_LIFETIME, NOW, OWN, RouteLine, Sent, Signer, World,
};

const TENANTS: [&str; 4] = ["T1", "T2", "t1", "a.b"];
const CLIENTS: [&str; 2] = ["acme", "idle"];
const API_KEYS: [&str; 2] = ["key-of-acme", "key-of-idle"];

const TEMPLATES: [&str; 15] = [
    "/api/{tenant}/**",
    "/api/{tenant}/report",
    "/api/{tenant}/Admin",
    "/api/{tenant}/{kind}/o",
    "/api/{tenant}/raw/**",
    "/api/{tenant}",
    "/api/health/x",
    "/api/{name}/x/{tenant}",
    "/v1/{region}/{tenant}/o/{item}",
    "/Reports/by/{tenant}/list/",
    "/{any}/o",
    "/{tenant}/p",
    "/docs/**",
    "/docs/{tenant}/x",
    "/**",
];

#[derive(Clone, Debug)]
struct Deployment {
    apis: Vec<Vec<RouteLine>>,
    api_key: bool,
    shadow: bool,
    registry: bool,
    withdrawn: bool,
    /// What the registry lets the clients have.
    scopes: &'static str,
    tokens_revoked_until: Option<u64>,
    kept_to: Option<Vec<&'static str>>,
    statically: Option<Vec<&'static str>>,
    key_until: u64,
    max_age: Option<u64>,
    on_miss: bool,
    foreign_looked_up: bool,
    foreign_keys_until: Option<u64>,
    foreign_keys_loaded: bool,
    previous_digest_key: bool,
}

#[derive(Clone, Debug)]
struct TokenPlan {
    foreign: bool,
    client: &'static str,
    tenants: Vec<&'static str>,
    as_text: bool,
    scopes: &'static str,
    age: i64,
    lifetime: i64,
    flaw: usize,
    /// Under the digest key that is on its way out.
    old_digests: bool,
}

/// One request, and what happened since the one before.
#[derive(Clone, Debug)]
struct Step {
    seconds: u64,
    lookup: Option<(usize, Vec<&'static str>, u64)>,
    own_key_gone: bool,
    token: Index,
    credential: usize,
    path: String,
    method: &'static str,
    profile: Option<&'static str>,
}

fn routes() -> impl Strategy<Value = Vec<RouteLine>> {
    let scopes = prop_oneof![
        4 => Just(vec!["reports.read"]),
        1 => Just(vec![]),
        1 => Just(vec!["admin"]),
        1 => Just(vec!["reports.read", "admin"]),
    ];
    let methods = prop_oneof![
        3 => Just(vec!["GET"]),
        1 => Just(vec!["GET", "PUT"]),
        1 => Just(vec!["PUT"]),
    ];
    let flags = (
        any::<bool>(),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.15),
    );
    let line = (select(&TEMPLATES[..]), methods, scopes, flags).prop_map(
        |(path, methods, scopes, (ignore_case, head, allow_encoded_percent, public))| RouteLine {
            path,
            methods,
            ignore_case,
            head,
            allow_encoded_percent,
            public,
            scopes,
        },
    );
    // Half of the cases are about tokens and grants alone, and get that far.
    prop_oneof![prop::collection::vec(line, 1..8), Just(vec![RouteLine::new("/api/{tenant}/**")]),]
}

fn tenants() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![Just(vec!["T1"]), Just(TENANTS.to_vec()), subsequence(TENANTS.to_vec(), 0..=4)]
}

fn deployment() -> impl Strategy<Value = Deployment> {
    let apis = prop_oneof![
        3 => prop::collection::vec(routes(), 1),
        1 => prop::collection::vec(routes(), 2),
    ];
    let client = (
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.1),
        prop::option::weighted(0.15, subsequence(vec!["one", "two"], 0..=2)),
        prop::option::weighted(0.2, tenants()),
        select(vec![NOW + 100, NOW + 10_000]),
        prop_oneof![
            4 => Just("admin reports.read"),
            1 => select(vec!["reports.read", "admin other", ""]),
        ],
        prop::option::weighted(0.15, select(vec![NOW - 400, NOW - 10, NOW, NOW + 10])),
    );
    let issuers = (
        any::<bool>(),
        prop::option::weighted(0.3, select(vec![NOW + 150, NOW + 400])),
        prop::bool::weighted(0.9),
    );
    let flags = (any::<bool>(), prop::bool::weighted(0.1), any::<bool>());
    let freshness = (prop::option::weighted(0.8, Just(300)), prop::bool::weighted(0.3));
    (apis, client, issuers, flags, freshness).prop_map(
        |(apis, client, issuers, (api_key, shadow, previous_digest_key), (max_age, on_miss))| {
            Deployment {
                apis,
                api_key,
                shadow,
                registry: client.0,
                withdrawn: client.1,
                tokens_revoked_until: client.6,
                kept_to: client.2,
                statically: client.3,
                key_until: client.4,
                scopes: client.5,
                max_age,
                on_miss,
                foreign_looked_up: issuers.0,
                foreign_keys_until: issuers.1,
                foreign_keys_loaded: issuers.2,
                previous_digest_key,
            }
        },
    )
}

fn token_plan() -> impl Strategy<Value = TokenPlan> {
    let client = prop_oneof![
        20 => Just("acme"),
        6 => Just("idle"),
        1 => Just("gone"),
        1 => Just("a|b"),
    ];
    let age = prop_oneof![
        8 => select(vec![0_i64, 0, 1, 10, 40]),
        1 => select(vec![-11, -10, 290, 300, 301, 900]),
    ];
    let lifetime =
        prop_oneof![6 => Just(300_i64), 6 => Just(3600), 1 => select(vec![0, 1, 3601, -5])];
    let flaw = prop_oneof![3 => Just(usize::MAX), 1 => 0..FLAWS.len()];
    let scopes = prop_oneof![
        4 => Just("reports.read admin"),
        1 => select(vec!["reports.read", "other", ""]),
    ];
    let flags = (prop::bool::weighted(0.3), any::<bool>(), prop::bool::weighted(0.2));
    (flags, client, tenants(), scopes, age, lifetime, flaw).prop_map(
        |((foreign, as_text, old_digests), client, tenants, scopes, age, lifetime, flaw)| {
            TokenPlan {
                foreign,
                client,
                tenants,
                as_text,
                scopes,
                age,
                lifetime,
                flaw,
                old_digests,
            }
        },
    )
}

fn path() -> impl Strategy<Value = String> {
    let word = select(vec![
        "T1", "T1", "T1", "T2", "t1", "a.b", "x", "o", "report", "Admin", "ADMIN", "raw", "health",
    ]);
    let odd = select(vec![
        "%54%31",
        ".%20",
        "report.",
        "%20report",
        "Admin%3fx",
        "raw.%20",
        "o%23",
        "a%2eb",
        "%41dmin",
        "r%61w",
        "%72eport",
        "a%20b",
        "100%25",
        "%252e",
        "%2e%2e",
        "..",
        ".",
        "",
        "T1;v=1",
        "..;",
        "T1%2fo",
        "T1\\o",
        "%c0%ae",
        "%c3%a9",
        "%zz",
        "T1%00",
        "a,b",
        "T1#",
        "...",
        "%25%32%65",
        "x%3f",
        "%e2%84%aa",
        "a%ef%bd%84min",
        "A%c4%8f%c4%b1",
        "Adm%c4%b1n",
        "Adm%c4%b0n",
        "ra%ef%bd%97",
        "r%c2%adaw",
        "%e2%93%87aw%e3%80%80",
        "report%ef%bc%8e",
        "report%ef%bc%9f",
        "%e2%80%8b",
        "%ef%bc%8e",
        "%e2%80%a5",
        "x%ef%bc%8fy",
        "%e2%84%80",
        "%ef%bc%9b",
        "%ef%bc%bc",
        "%ef%bc%8541",
        "%3f",
        "%23x",
        "\u{e9}",
        "T1 ",
        "%5C",
    ]);
    let fill = prop_oneof![12 => word, 1 => odd];
    let insert = prop_oneof![
        20 => Just(""),
        1 => select(vec!["/", "//", "%2F", "%25", ";", "\\", "%", "/../", "?", "?/../T2", "#"]),
    ];
    let fills = prop::collection::vec(fill, 6);
    let shape = (select(&TEMPLATES[..]), fills, 0..3_usize);
    let changes = (insert, any::<Index>(), prop::option::weighted(0.1, any::<Index>()), 0..12_u8);
    (shape, changes).prop_map(|((template, fills, rest), (insert, at, escaped, variant))| {
        let mut fills = fills.into_iter();
        let mut path = String::new();
        for place in template[1..].split('/') {
            let part = match place {
                "**" => {
                    let rest: Vec<&str> = fills.by_ref().take(rest).collect();
                    rest.join("/")
                }
                _ if place.starts_with('{') => fills.next().unwrap_or("x").to_owned(),
                literal => literal.to_owned(),
            };
            path.push('/');
            path.push_str(&part);
        }
        if path.len() > 1 && path.ends_with('/') && template.ends_with("/**") {
            path.pop();
        }
        match variant {
            0 => path.push('/'),
            1 => path = path.to_ascii_lowercase(),
            2 => path = path.to_ascii_uppercase(),
            3 => drop(path.pop()),
            _ => {}
        }
        let ends: Vec<usize> = path.char_indices().map(|(at, _)| at).collect();
        if !ends.is_empty() {
            path.insert_str(*at.get(&ends), insert);
        }
        let letters: Vec<usize> = path
            .char_indices()
            .filter(|(_, c)| c.is_ascii_alphabetic())
            .map(|(at, _)| at)
            .collect();
        if let Some(escaped) = escaped.filter(|_| !letters.is_empty()) {
            let at = *escaped.get(&letters);
            let escape = format!("%{:02x}", path.as_bytes()[at]);
            path.replace_range(at..=at, &escape);
        }
        path
    })
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = prop_oneof![4 => Just(0), 2 => 0..40_u64, 1 => select(vec![240, 299, 300, 301])];
    let lookup = (0..CLIENTS.len(), tenants(), select(vec![0, 0, 0, 10, 100, 301, 600]));
    let method = prop_oneof![
        12 => Just("GET"), 2 => Just("PUT"), 2 => Just("HEAD"), 1 => Just("get")
    ];
    let profile = prop_oneof![
        5 => Just(Some("one")),
        1 => Just(Some("two")),
        1 => Just(Some("x")),
        1 => Just(None),
    ];
    (
        (seconds, prop::option::weighted(0.4, lookup), prop::bool::weighted(0.02)),
        (any::<Index>(), prop_oneof![8 => Just(0), 2 => 0..CREDENTIALS, 1 => 15..17_usize]),
        (prop_oneof![path(), Just("/api/T1/report".to_owned())], method, profile),
    )
        .prop_map(
            |((seconds, lookup, own_key_gone), (token, credential), (path, method, profile))| {
                Step { seconds, lookup, own_key_gone, token, credential, path, method, profile }
            },
        )
}

// Tokens.

type Flaw = fn(&mut Value, &mut Value);

/// What may be wrong with a token before it is signed, and some things that only look wrong.
const FLAWS: [Flaw; 55] = [
    |header, _| header["alg"] = json!("none"),
    |header, _| header["alg"] = json!("HS256"),
    |header, _| header["alg"] = json!("ES256"),
    |header, _| remove(header, "alg"),
    |header, _| header["typ"] = json!("JWT"),
    |header, _| header["typ"] = json!("application/AT+JWT"),
    |header, _| remove(header, "typ"),
    |header, _| header["kid"] = json!("k2"),
    |header, _| header["kid"] = json!(""),
    |header, _| header["kid"] = json!("k".repeat(129)),
    |header, _| remove(header, "kid"),
    |header, _| header["crit"] = json!(["exp"]),
    |header, _| header["b64"] = json!(false),
    |header, _| header["zip"] = json!("DEF"),
    |header, _| header["jku"] = json!("https://evil.test"),
    |header, _| header["jwk"] = json!({}),
    |header, _| header["x5c"] = json!([]),
    |header, _| header["x"] = json!("y"),
    |header, _| header["x"] = json!("y".repeat(4096)),
    |_, claims| claims["iss"] = json!(["https://issuer.test"]),
    |_, claims| claims["iss"] = json!("https://else.test"),
    |_, claims| claims["iss"] = json!(OWN),
    |_, claims| claims["iss"] = json!(FOREIGN),
    |_, claims| claims["aud"] = json!([AUDIENCE, "x"]),
    |_, claims| claims["aud"] = json!([AUDIENCE, 1]),
    |_, claims| claims["aud"] = json!([]),
    |_, claims| claims["aud"] = json!("x"),
    |_, claims| claims["sub"] = json!("idle"),
    |_, claims| claims["sub"] = json!(1),
    |_, claims| remove(claims, "sub"),
    |_, claims| claims["client_id"] = json!("a b"),
    |_, claims| claims["azp"] = json!("a b"),
    |_, claims| remove(claims, "exp"),
    |_, claims| remove(claims, "iat"),
    |_, claims| remove(claims, "jti"),
    |_, claims| claims["jti"] = json!(""),
    |_, claims| claims["exp"] = json!(1e300),
    |_, claims| claims["exp"] = json!("1800000300"),
    |_, claims| claims["iat"] = json!(-1),
    |_, claims| claims["nbf"] = json!(NOW + 30),
    |_, claims| claims["nbf"] = json!(null),
    |_, claims| {
        claims["iat"] = json!(NOW + 30);
        claims["nbf"] = json!(NOW);
        claims["exp"] = json!(NOW + 300);
    },
    |_, claims| claims["x"] = json!("x".repeat(16 * 1024)),
    |_, claims| claims["grants_at"] = json!(NOW + 1000),
    |_, claims| claims["scope"] = json!(["reports.read"]),
    |_, claims| claims["scope"] = json!({}),
    |_, claims| {
        claims["scp"] = claims["scope"].clone();
        remove(claims, "scope");
    },
    |_, claims| claims["scope"] = json!("a\"b"),
    |_, claims| claims["tenant_list"] = json!(["T1"]),
    |_, claims| claims["tenants"] = json!(["T1", 2]),
    |_, claims| claims["grants_at"] = json!(NOW - 200),
    |_, claims| claims["grants_at"] = json!("then"),
    |_, claims| claims["narrowed"] = json!(true),
    |_, claims| claims["narrowed"] = json!(false),
    |_, claims| claims["narrowed"] = json!("yes"),
];

fn remove(object: &mut Value, member: &str) {
    if let Some(members) = object.as_object_mut() {
        members.remove(member);
    }
}

fn token(world: &World, plan: &TokenPlan) -> String {
    let (issuer, signer) = if plan.foreign { (FOREIGN, &world.foreign) } else { (OWN, &world.own) };
    let issued_at = NOW as i64 - plan.age;
    let mut header = signer.header();
    let mut claims = json!({
        "iss": issuer, "aud": AUDIENCE, "sub": plan.client, "jti": "j",
        "iat": issued_at, "exp": issued_at + plan.lifetime, "scope": plan.scopes,
    });
    let keys = world.snapshot.digester.clone();
    let holder = Holder { issuer, client: plan.client };
    let entry = |code: &&str| match plan.foreign {
        true => (*code).to_owned(),
        false if plan.old_digests => {
            keys.all(holder, code).last().expect("a current key").to_text()
        }
        false => keys.current(holder, code).to_text(),
    };
    let tenants: Vec<String> = plan.tenants.iter().map(entry).collect();
    let (client, list) =
        if plan.foreign { ("azp", "tenants") } else { ("client_id", "tenant_list") };
    claims[client] = json!(plan.client);
    claims[list] = if plan.as_text { json!(tenants.join(", ")) } else { json!(tenants) };
    if let Some(flaw) = FLAWS.get(plan.flaw) {
        flaw(&mut header, &mut claims);
    }
    signer.sign(&header, &claims)
}

/// Ways to show a token; the first one is right.
const CREDENTIALS: usize = 20;

/// The values of `authorization` and of `x-api-key`.
fn credential(way: usize, token: &str, world: &World) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let show = |value: String| (vec![value.into_bytes()], vec![]);
    let payload_again = || {
        let mut parts: Vec<&str> = token.split('.').collect();
        parts.push(parts[1]);
        parts.join(".")
    };
    match way {
        0 => show(format!("Bearer {token}")),
        1 => show(format!("bEARER   {token} ")),
        2 => show(format!("Bearer {token},Bearer {token}")),
        3 => show(format!("Bearer {token}x")),
        4 => show(format!("Bearer {}", &token[..token.len() - 2])),
        5 => show(format!("Basic {token}")),
        6 => show(format!("Bearer{token}")),
        7 => show("Bearer ".to_owned()),
        8 => show(format!("Bearer {token}=")),
        9 => show(format!("Bearer {}", payload_again())),
        10 => show(format!("Bearer {}{token}", "A".repeat(16 * 1024))),
        11 => show(format!("Bearer {}", twice_named(world))),
        12 => show(format!("Bearer {}", signed_by_nobody(token))),
        13 => (vec![], vec![]),
        14 => {
            let (one, _) = show(format!("Bearer {token}"));
            ([one.clone(), one].concat(), vec![])
        }
        15 => (vec![], vec![API_KEYS[0].into()]),
        16 => (vec![], vec![API_KEYS[1].into()]),
        17 => (vec![], vec![b"wrong\xff".to_vec()]),
        18 => (vec![], vec![API_KEYS[0].into(), API_KEYS[0].into()]),
        _ => (vec![format!("Bearer {token}").into_bytes()], vec![API_KEYS[0].into()]),
    }
}

fn twice_named(world: &World) -> String {
    let claims = world.claims().to_string();
    let twice = format!("{},\"sub\":\"acme\"}}", &claims[..claims.len() - 1]);
    world.own.sign_text(&world.own.header().to_string(), &twice)
}

fn signed_by_nobody(token: &str) -> String {
    let signed = &token[..token.rfind('.').map_or(0, |at| at + 1)];
    format!("{signed}{}", "A".repeat(86))
}

// The two deployments.

fn world_of(deployment: &Deployment) -> Option<World> {
    let names = ["one", "two"];
    let mut apis = Vec::new();
    for (name, routes) in names.into_iter().zip(&deployment.apis) {
        let mut api = world::api(name, routes)?;
        api.shadow = deployment.shadow;
        api.api_key_header = deployment.api_key.then(|| "x-api-key".to_owned());
        apis.push(api);
    }
    let mut world = World::new(apis);
    if deployment.previous_digest_key {
        world.snapshot.digester =
            Arc::new(tenantgate::domain::TenantDigester::new(&[7; 32], Some(&[6; 32])));
    }
    world.snapshot.freshness = match deployment.max_age {
        Some(seconds) => FreshnessRule::MaxAge(Duration::from_secs(seconds)),
        None => FreshnessRule::Token,
    };
    world.snapshot.lookup_on_miss = deployment.on_miss;
    let clients = CLIENTS.into_iter().map(|name| client(deployment, name, &world));
    let clients: Vec<Client> = clients.collect();
    world.snapshot.clients = deployment.registry.then(|| Arc::new(clients.into_iter().collect()));
    world.snapshot.trust = Arc::new(trust(deployment, &world, false));
    Some(world)
}

fn client(deployment: &Deployment, name: &'static str, world: &World) -> Client {
    let (is_acme, key) = match name {
        "acme" => (true, API_KEYS[0]),
        _ => (false, API_KEYS[1]),
    };
    let statically = deployment.statically.as_ref().filter(|_| is_acme);
    Client {
        id: ClientId::parse(name).unwrap(),
        approved: !(is_acme && deployment.withdrawn),
        developer_active: true,
        credentials: vec![Credential {
            digest: CredentialDigest::Sha256(CredentialDigest::sha256_of(key)),
            active: true,
            expires_at: Some(Timestamp::from_secs(deployment.key_until)),
        }],
        scopes: ScopeSet::parse(deployment.scopes).unwrap(),
        static_grants: statically.map(|codes| Arc::new(grant_set(world, name, codes, 0))),
        token_ttl: None,
        tokens_not_before: deployment
            .tokens_revoked_until
            .filter(|_| is_acme)
            .map(Timestamp::from_secs),
        apis: deployment
            .kept_to
            .as_ref()
            .filter(|_| is_acme)
            .map(|apis| apis.iter().map(ToString::to_string).collect()),
        attributes: Attributes::new(),
        quota: None,
    }
}

fn grant_set(world: &World, client: &str, codes: &[&str], looked_up_at: u64) -> GrantSet {
    let holder = Holder { issuer: OWN, client };
    let codes = codes.iter().map(|code| TenantCode::parse(code).unwrap()).collect();
    GrantSet {
        looked_up_at: Monotonic::from_secs(looked_up_at),
        ..GrantSet::of(codes, &world.snapshot.digester, holder)
    }
}

fn trust(deployment: &Deployment, world: &World, own_key_gone: bool) -> Trust {
    let own: Vec<TrustedKey> = if own_key_gone { vec![] } else { vec![world.own.trusted()] };
    let until = deployment.foreign_keys_until.map(Monotonic::from_secs);
    let foreign = Arc::new(KeySet::new(vec![world.foreign.trusted()], until));
    let policy =
        IssuerPolicy { fresh_grants: deployment.foreign_looked_up, ..world::foreign_policy() };
    Trust::new([
        (Arc::new(world::own_policy()), Some(Arc::new(KeySet::new(own, None)))),
        (Arc::new(policy), deployment.foreign_keys_loaded.then_some(foreign)),
    ])
}

fn state_of(deployment: &Deployment) -> reference::State {
    let names = ["one", "two"];
    let issuer = |own: bool, seed: u8| reference::Issuer {
        own,
        audience: AUDIENCE,
        algorithms: vec!["EdDSA", "ES256"],
        types: vec!["at+jwt"],
        tenant_claim: if own { "/tenant_list" } else { "/tenants" },
        client_claim: if own { "/client_id" } else { "/azp" },
        looked_up: own || deployment.foreign_looked_up,
        keys: (own || deployment.foreign_keys_loaded).then(|| {
            let by_kid = vec![("k1", Signer::new("k1", seed).public())];
            let good_until = deployment.foreign_keys_until.filter(|_| !own);
            reference::Keys { by_kid, good_until }
        }),
    };
    let client = |at: usize| reference::Client {
        withdrawn: at == 0 && deployment.withdrawn,
        tokens_revoked_until: deployment.tokens_revoked_until.filter(|_| at == 0),
        apis: deployment.kept_to.clone().filter(|_| at == 0),
        scopes: deployment.scopes,
        static_tenants: deployment.statically.clone().filter(|_| at == 0),
        key: (API_KEYS[at], deployment.key_until),
    };
    let api = |(name, routes): (&'static str, &Vec<RouteLine>)| reference::Api {
        name,
        routes: routes.clone(),
        api_key: deployment.api_key,
    };
    let previous = deployment.previous_digest_key.then_some([6; 32]);
    reference::State {
        now: NOW,
        leeway: LEEWAY.as_secs(),
        max_lifetime: MAX_LIFETIME.as_secs(),
        max_age: deployment.max_age,
        on_miss: deployment.on_miss,
        apis: names.into_iter().zip(&deployment.apis).map(api).collect(),
        issuers: [(OWN, issuer(true, 1)), (FOREIGN, issuer(false, 2))].into(),
        clients: deployment
            .registry
            .then(|| CLIENTS.into_iter().enumerate().map(|(at, id)| (id, client(at))).collect()),
        lookups: BTreeMap::new(),
        digest_keys: [[7; 32]].into_iter().chain(previous).collect(),
    }
}

fn answer(reason: DenyReason) -> Answer {
    use DenyReason as R;
    match reason {
        R::NoHttpRequest | R::PathRefused => Answer::AmbiguousPath,
        R::SeveralCredentials => Answer::SeveralCredentials,
        R::NoCredential => Answer::NoCredential,
        R::ScopeMissing => Answer::ScopeMissing,
        R::UnknownApi | R::NoRoute | R::ApiNotAllowed | R::TenantNotGranted | R::GrantWithdrawn => {
            Answer::AccessDenied
        }
        R::KeysUnavailable | R::GrantsStale | R::StateUnavailable | R::FeedUnavailable => {
            Answer::CannotDecide
        }
        R::ProbingThrottled | R::InternalError => panic!("{}", reason.as_str()),
        R::TokenTooLarge
        | R::TokenMalformed
        | R::TokenHeaderRefused
        | R::TokenTypeRefused
        | R::TokenAlgorithmRefused
        | R::TokenIssuerUnknown
        | R::TokenKeyUnknown
        | R::TokenSignatureInvalid
        | R::TokenClaimsInvalid
        | R::TokenAudienceWrong
        | R::TokenExpired
        | R::TokenNotYetValid
        | R::TokenLifetimeTooLong
        | R::ApiKeyInvalid
        | R::ClientWithdrawn
        | R::TokenRevoked => Answer::BadCredential,
    }
}

/// Both answers to one step. Cached facts live from step to step, the reference has no memory.
fn both(
    deployment: &Deployment,
    world: &mut World,
    state: &mut reference::State,
    (step, token): (&Step, &str),
) -> (Answer, Answer) {
    state.now += step.seconds;
    world.now = Timestamp::from_secs(state.now);
    if let Some((client, tenants, age)) = &step.lookup {
        let (client, at) = (CLIENTS[*client], state.now - age);
        let id = ClientId::parse(client).unwrap();
        let set = grant_set(world, client, tenants, at);
        tenantgate::domain::GrantBook::cell(&*world.cells, &id).replace(Arc::new(set));
        state.lookups.insert(client, (tenants.clone(), at));
    }
    if step.own_key_gone {
        world.snapshot.trust = Arc::new(trust(deployment, world, true));
        let gone = reference::Keys { by_kid: vec![], good_until: None };
        state.issuers.get_mut(OWN).unwrap().keys = Some(gone);
    }
    let (authorization, api_key) = credential(step.credential, token, world);
    let expected = reference::decide(
        state,
        &reference::Request {
            profile: step.profile,
            method: step.method,
            target: step.path.as_bytes(),
            authorization: &authorization,
            api_key: &api_key,
        },
    );
    let named = |name: &'static str, values: Vec<Vec<u8>>| {
        values.into_iter().map(move |value| (name, value))
    };
    let headers =
        Sent(named("authorization", authorization).chain(named("x-api-key", api_key)).collect());
    let input = CheckInput {
        profile: step.profile,
        method: step.method,
        target: step.path.as_bytes(),
        headers: &headers,
    };
    let outcome = world.authorizer().decide(&input, &mut ());
    // An API in shadow mode lets everything pass, and says what it would have done.
    let reason = outcome.refusal().map(|denied| denied.reason);
    (reason.map_or(Answer::Allow, answer), expected)
}

#[test]
fn the_decision_agrees_with_the_plain_reference() {
    let config = Config {
        cases: 6000,
        failure_persistence: None,
        max_global_rejects: 100_000,
        ..Config::default()
    };
    let strategy = (
        deployment().prop_filter("routes that contradict each other", |deployment| {
            world_of(deployment).is_some()
        }),
        prop::collection::vec(token_plan(), 1..3),
        prop::collection::vec(step(), 1..8),
    );
    let seen = RefCell::new(BTreeMap::<Answer, usize>::new());
    let mut runner = TestRunner::new(config);
    let checked = runner.run(&strategy, |(deployment, plans, steps)| {
        let mut world = world_of(&deployment).expect("filtered above");
        let mut state = state_of(&deployment);
        let tokens: Vec<String> = plans.iter().map(|plan| token(&world, plan)).collect();
        for step in &steps {
            let token = step.token.get(&tokens);
            let (decided, expected) =
                both(&deployment, &mut world, &mut state, (step, token.as_str()));
            prop_assert_eq!(decided, expected, "{:?}", step);
            *seen.borrow_mut().entry(expected).or_default() += 1;
        }
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    assert_eq!(seen.len(), 8, "an answer never came: {seen:?}");
    assert!(seen.values().all(|count| *count >= 150), "an answer came too rarely: {seen:?}");
}
